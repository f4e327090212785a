//! The command line: which commands there are, what their help teaches, and how the process ends.
//!
//! Every command that asks a server does so over HTTP, like any other client; none looks into a data folder. Used by
//! `main`.

mod apply;
mod check;
pub(crate) mod client;
mod cluster;
mod config;
pub(crate) mod definitions;
mod drain;
mod events;
pub(crate) mod failure;
mod fetch;
mod indexes;
mod migrate;
mod models;
pub(crate) mod output;
mod run;
mod runs;
mod schedules;
mod serve;
mod steering;
mod streams;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use self::client::Client;
use self::failure::{CliError, CliResult};
use self::output::{Format, Output};

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the run, the check or the command failed
  2  the arguments are wrong
  3  the server cannot be reached
  4  there is no such thing on the server
  5  the server refused: invalid, conflicting, too much at once
  6  the run goes on, but the time to wait for it is over";

const START: &str = "\
Start here:
  motet demo                         answer support questions on real models, in a minute
  motet serve                        a server on http://127.0.0.1:8080, no configuration needed
  motet check flows/                 find every mistake in definitions, offline
  motet apply flows/                 put them on the server
  motet run answer -i question='How do I reset my password?'
";

/// Runs many machine-learning models as one durable workflow system.
#[derive(Parser, Debug)]
#[command(name = "motet", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = format!("{START}\n{EXIT_CODES}"))]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Global {
    /// The server to ask.
    #[arg(long, global = true, env = "MOTET_SERVER", value_name = "URL", default_value = DEFAULT_SERVER)]
    server: String,
    /// How results are written.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Say nothing but the result.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a server.
    Serve(serve::ServeArgs),
    /// Answer support questions on real models, and show what happened.
    Demo(crate::demo::DemoArgs),
    /// Find the mistakes in definition files, offline.
    Check(check::CheckArgs),
    /// Put definition files on the server.
    Apply(apply::ApplyArgs),
    /// Start a run of a workflow, and wait for its output.
    Run(run::RunArgs),
    /// See and steer runs.
    Runs(runs::RunsArgs),
    /// See and steer schedules.
    Schedules(schedules::SchedulesArgs),
    /// See and steer streams, and deal with their dead letters.
    Streams(streams::StreamsArgs),
    /// See models, and fetch what they need.
    Models(models::ModelsArgs),
    /// See vector indexes.
    Indexes(indexes::IndexesArgs),
    /// Bring a shared database up to the schema of this version.
    Migrate(migrate::MigrateArgs),
    /// See the nodes together: who lives, who leads, who serves what.
    Cluster(cluster::ClusterArgs),
    /// Let a node give its work away, and wait until it has.
    Drain(drain::DrainArgs),
    /// See and check settings.
    Config(config::ConfigArgs),
    /// Say which version this is.
    Version,
}

pub(crate) use self::run::is_end;
pub(crate) use self::runs::span_ms;

/// Waits until a run has ended.
pub(crate) async fn follow(client: &Client, run: &str) -> CliResult {
    events::follow(client, run, |_| Ok(())).await
}

/// What every command gets.
pub(crate) struct Context {
    /// Where it writes.
    pub(crate) output: Output,
    server: String,
}

impl Context {
    /// A client of the server that the user named.
    pub(crate) fn client(&self) -> CliResult<Client> {
        // A variable that is set to nothing counts as not set.
        Client::new(if self.server.is_empty() { DEFAULT_SERVER } else { &self.server })
    }
}

/// Reads the arguments, does what they say and tells how it went.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context { output: Output::new(cli.global.output, cli.global.quiet), server: cli.global.server };
    match execute(&context, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let CliError::Told(told) = &error {
                context.output.failure(told);
            }
            error.exit()
        }
    }
}

/// The variable by which tokio itself is told how many threads to use.
const WORKERS: &str = "TOKIO_WORKER_THREADS";

/// Threads for everything that waits: one processor is left to those that commit and compute. On two processors a run
/// alone took a fifth less time so, since its messages no longer hop between threads.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    processors.saturating_sub(1).max(1)
}

fn execute(context: &Context, command: Command) -> CliResult {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(WORKERS).is_none() {
        builder.worker_threads(workers());
    }
    let runtime =
        builder.enable_all().build().map_err(|error| CliError::failed(format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(async {
        // The commands' futures are large; one of them is alive at a time.
        match command {
            Command::Serve(args) => Box::pin(serve::execute(context, args)).await,
            Command::Demo(args) => Box::pin(crate::demo::execute(context, args)).await,
            Command::Check(args) => check::execute(context, &args),
            Command::Apply(args) => Box::pin(apply::execute(context, args)).await,
            Command::Run(args) => Box::pin(run::execute(context, args)).await,
            Command::Runs(args) => Box::pin(runs::execute(context, args)).await,
            Command::Schedules(args) => Box::pin(schedules::execute(context, args)).await,
            Command::Streams(args) => Box::pin(streams::execute(context, args)).await,
            Command::Models(args) => Box::pin(models::execute(context, args)).await,
            Command::Indexes(args) => Box::pin(indexes::execute(context, args)).await,
            Command::Cluster(args) => Box::pin(cluster::execute(context, args)).await,
            Command::Drain(args) => Box::pin(drain::execute(context, args)).await,
            Command::Migrate(args) => Box::pin(migrate::execute(context, args)).await,
            Command::Config(args) => config::execute(context, args),
            Command::Version => version(context),
        }
    });
    // A name look-up or a pip that hangs in a blocking thread does not keep the process alive.
    runtime.shutdown_background();
    done
}

fn version(context: &Context) -> CliResult {
    let version = env!("CARGO_PKG_VERSION");
    if context.output.is_json() {
        return context.output.json(&json!({"name": "motet", "version": version}));
    }
    context.output.line(format!("motet {version}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn arguments_that_exclude_each_other_are_refused() {
        for (line, fits) in [
            ("motet run answer -i a=1 --no-wait", true),
            ("motet run answer -i a=1 --input {}", false),
            ("motet run answer --wait 5s --no-wait", false),
            ("motet run answer --follow --no-wait", false),
            ("motet run", false),
            ("motet check", false),
            ("motet check --schema workflow", true),
            ("motet check --schema schedule", true),
            ("motet check --schema stream", true),
            ("motet check --schema records", false),
            ("motet runs signal run_1 approval", true),
            ("motet runs signal run_1", false),
            ("motet runs fork run_1", false),
            ("motet runs fork run_1 --from a --set b=1 --set c=2", true),
            ("motet runs retry run_1 --from a", true),
            ("motet runs pause run_1 --reason later", true),
            ("motet schedules list", true),
            ("motet schedules delete", false),
            ("motet runs list --state nonsense", false),
            ("motet runs list --output json --server http://x", true),
            ("motet demo --offline --question a --question b", true),
            ("motet drain motet-1 --wait 5m", true),
            ("motet drain motet-1 --undo --wait 5m", false),
            ("motet drain", false),
            ("motet sing", false),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), fits, "{line}");
        }
    }
}
