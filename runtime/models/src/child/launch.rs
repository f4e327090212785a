//! Starts processes, all from one thread that lives as long as the node.
//!
//! A child asks the kernel to be killed when the thread that started it ends: a thread of the executor may end at any
//! time. Never waits for a child. Used by `process`.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use motet_engine::failure::Failure;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::failure::{internal, unavailable};

/// What makes the program the process of a model instead of a node.
pub const SUBCOMMAND: &str = "model-worker";

/// What is wanted of the thread.
type Start = Box<dyn FnOnce() + Send>;

static LAUNCHER: OnceLock<Result<Sender<Start>, String>> = OnceLock::new();

/// A started process and the node's end of its socket.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
}

/// Starts the program as the process of a model. It has no environment but what it needs, its socket is its standard
/// input, and its standard error is piped.
pub(super) async fn launch(worker: &Path, model: &str) -> Result<Launched, Failure> {
    let (worker, model, runtime) = (worker.to_owned(), model.to_owned(), Handle::current());
    let (done, launched) = oneshot::channel();
    let start = move || {
        let _inside = runtime.enter();
        // Whoever asked may have gone; the process ends with the answer then.
        let _ = done.send(spawn(&worker, &model));
    };
    let gone = || internal("the thread that starts the processes of models has ended");
    let launcher = LAUNCHER.get_or_init(run).as_ref().map_err(|error| unavailable(error.clone()))?;
    launcher.send(Box::new(start)).map_err(|_| gone())?;
    launched.await.map_err(|_| gone())?
}

fn run() -> Result<Sender<Start>, String> {
    let (sender, starts) = channel::<Start>();
    let spawned = std::thread::Builder::new().name("model-launcher".to_owned()).spawn(move || {
        for start in starts {
            start();
        }
    });
    let failed = |error| format!("the thread that starts the processes of models cannot be started: {error}");
    spawned.map(|_| sender).map_err(failed)
}

fn spawn(worker: &Path, model: &str) -> Result<Launched, Failure> {
    let failed = |error: std::io::Error| {
        unavailable(format!("the process of the model {model} cannot be started with {}: {error}", worker.display()))
    };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let socket = UnixStream::from_std(ours).map_err(failed)?;
    let child = Command::new(worker)
        .args([SUBCOMMAND, model])
        .env_clear()
        .envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/nonexistent")])
        .envs([("TF_CPP_MIN_LOG_LEVEL", "2"), ("PYTHONDONTWRITEBYTECODE", "1")])
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    Ok(Launched { child, socket })
}
