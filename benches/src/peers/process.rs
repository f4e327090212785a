//! A process of another engine: started with a log of its own, waited for, ended.
//!
//! Ends only what it has started. Used for every engine but Motet, which has its own harness.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use motet_tests::waiting::until;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

/// Longest time from a start to readiness.
pub(super) const READY: Duration = Duration::from_secs(60);

/// Longest time from a request to stop to the end.
const STOP: Duration = Duration::from_secs(30);

/// Lines of a log that a failure shows.
const LOG_LINES: usize = 30;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    what: &'static str,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

impl Process {
    /// Starts `command` with its output in `folder`. `stop` is the signal that asks it to stop.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(what: &'static str, command: &mut Command, folder: &Path, stop: Signal) -> Result<Self> {
        let log = folder.join(format!("{what}.log"));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{what} cannot be started"))?;
        Ok(Self { what, child, log, stop })
    }

    /// Waits until the process listens at an address.
    ///
    /// # Errors
    /// When it ends before, or takes longer than a minute; with its log.
    pub async fn listens(&mut self, at: SocketAddr) -> Result<()> {
        self.until_some(async || TcpStream::connect(at).await.ok().map(drop)).await
    }

    /// Waits until `look` gives a value.
    ///
    /// # Errors
    /// When the process ends before, or it takes longer than a minute; with its log.
    pub async fn until_some<T>(&mut self, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
        let looked = until(READY, self.what, async || match self.child.try_wait() {
            Ok(None) => look().await.map(Ok),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("{} ended with {status}", self.what))),
            Err(error) => Some(Err(error.into())),
        });
        looked.await.and_then(|found| found).with_context(|| self.log_tail())
    }

    /// Asks the process to stop and waits for its end.
    ///
    /// # Errors
    /// When it has ended by itself, or does not end in time; then it was killed.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself with {status}; {}", self.what, self.log_tail());
        }
        kill_process(Pid::from_child(&self.child), self.stop)?;
        let ended = until(STOP, self.what, async || self.child.try_wait().ok().flatten()).await;
        match ended {
            Ok(_) => Ok(()),
            Err(error) => bail!("{error}, which was asked to stop; {}", self.log_tail()),
        }
    }

    /// The end of the log, for a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("the log of {} ends:\n{}", self.what, lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
