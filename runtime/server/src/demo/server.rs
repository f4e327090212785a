//! The server of the demo: the real one, on free ports of this machine, with a folder of its own.
//!
//! Its log goes to a file in the folder. A temporary folder is removed when the demo ends. Used by the demo.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use motet_config::Settings;
use motet_server::bootstrap::{self, RunningServer};
use tracing_subscriber::EnvFilter;

use crate::cli::client::Client;
use crate::cli::failure::{CliError, CliResult};

/// How long runs may take to end when the demo ends.
const GRACE: Duration = Duration::from_secs(10);
const LOG: &str = "server.log";

/// The folder that holds everything durable.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    is_temporary: bool,
}

impl DataFolder {
    /// The user's folder, or a temporary one.
    pub(crate) fn open(given: Option<PathBuf>) -> CliResult<Self> {
        let is_temporary = given.is_none();
        let path = match given {
            Some(path) => path,
            None => {
                let mut bytes = [0u8; 6];
                getrandom::fill(&mut bytes).map_err(|error| CliError::failed(format!("no random numbers: {error}")))?;
                let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                std::env::temp_dir().join(format!("motet-demo-{name}"))
            }
        };
        fs::create_dir_all(&path)
            .map_err(|error| CliError::failed(format!("cannot make the folder {}: {error}", path.display())))?;
        Ok(Self { path, is_temporary })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes when the demo ends.
    pub(crate) fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Leaves a temporary folder where it is.
    pub(crate) fn keep(&mut self) {
        self.is_temporary = false;
    }

    /// Where the server writes what it does.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed is left to the system's cleaning of temporary folders.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A running server and a client of it.
pub(crate) struct DemoServer {
    running: RunningServer,
    client: Client,
}

impl DemoServer {
    /// Starts the server on free ports.
    pub(crate) async fn start(data: &DataFolder) -> CliResult<Self> {
        let mut settings = Settings::default();
        settings.data.folder = data.path().to_path_buf();
        settings.models.cache_folder = Some(cache_folder(data.path()));
        settings.http.address.set_port(0);
        settings.grpc.address.set_port(0);
        settings.admin.address.set_port(0);
        settings.http.max_wait = Duration::from_secs(120);
        let running = Box::pin(bootstrap::start(settings)).await.map_err(|error| {
            CliError::failed(format!("the server cannot start: {error:#}"))
                .advise(format!("look into {}", data.log().display()))
        })?;
        let client = Client::new(&format!("http://{}", running.http_address()))?;
        Ok(Self { running, client })
    }

    /// A client of the server.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Stops once live runs have ended.
    pub(crate) async fn stop(self) -> CliResult {
        self.end(GRACE).await.map(drop)
    }

    /// Stops at once; gives how many live runs were left unfinished.
    pub(crate) async fn interrupt(self) -> CliResult<usize> {
        self.end(Duration::ZERO).await
    }

    async fn end(self, grace: Duration) -> CliResult<usize> {
        let stopped = self.running.stop(grace).await;
        stopped.map_err(|error| CliError::failed(format!("the server did not end well: {error:#}")))
    }
}

/// Where fetched models are kept from one demo to the next: the user's cache, else the data folder.
fn cache_folder(data: &Path) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    match cache {
        Some(cache) => cache.join("motet"),
        None => data.join("models"),
    }
}

/// Sends what the server logs to a file, so that the demo's own words stay readable.
pub(crate) fn log_to(path: &Path) -> CliResult {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))?;
    let lines = tracing_subscriber::fmt().with_writer(Mutex::new(file)).with_ansi(false);
    // A second demo in one process goes on with the log of the first.
    let _ = lines.with_env_filter(EnvFilter::new("info")).try_init();
    Ok(())
}
