//! `motet serve`: the process that runs everything.
//!
//! Reads settings and hands them to the server's bootstrap; knows nothing else of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use motet_server::bootstrap;

use super::failure::{CliError, CliResult};
use super::{Context, config};

/// Arguments of `motet serve`. What is given here wins over the environment, which wins over the file.
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  motet serve                                       everything in ./motet-data, on 127.0.0.1:8080
  motet serve --data /var/lib/motet --resources flows/
  motet serve --http 0.0.0.0:8080                   reachable from other machines: put it behind a proxy that
                                                    authenticates
  MOTET__LOG__FILTER=debug motet serve              every setting has an environment name

Ends on SIGTERM and SIGINT once live runs have ended, at most after shutdown.grace; what is unfinished then goes on
after the next start.")]
pub(crate) struct ServeArgs {
    /// The file of settings; 'motet config default' prints one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder of everything that is durable.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A folder of definitions that are put at start.
    #[arg(long, value_name = "DIR")]
    pub(crate) resources: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Where models are called over gRPC.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) grpc: Option<SocketAddr>,
    /// Where health and metrics are served for operators.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,
}

/// Serves until asked to end.
pub(crate) async fn execute(context: &Context, args: ServeArgs) -> CliResult {
    let settings = config::settings(&args)?;
    let address = settings.http.address;
    context.output.note(format!("motet {} on http://{address}, stop with Ctrl-C", env!("CARGO_PKG_VERSION")));
    Box::pin(bootstrap::serve(settings))
        .await
        // Each reason says itself what to do.
        .map_err(|error| CliError::failed(format!("{error:#}")))
}
