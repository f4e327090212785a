//! A process of another engine: started with a log of its own, waited for, ended.
//!
//! Ends only what it has started. Used for every engine but Motet, which has its own harness.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
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

/// A running process. Dropping it asks it to stop and waits for its end; what takes too long is killed.
#[derive(Debug)]
pub struct Process {
    what: &'static str,
    child: Option<Child>,
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
        Ok(Self { what, child: Some(child), log, stop })
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
        let looked = until(READY, self.what, async || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            match ended {
                None => look().await.map(Ok),
                Some(status) => Some(Err(anyhow::anyhow!("{} ended with {status}", self.what))),
            }
        });
        looked.await.and_then(|found| found).with_context(|| self.log_tail())
    }

    /// Stops the process and waits for its end.
    ///
    /// # Errors
    /// When it has ended by itself; with its log.
    pub fn stop(mut self) -> Result<()> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) => bail!("{} ended by itself with {status}; {}", self.what, self.log_tail()),
            None => Ok(()),
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
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let process = Pid::from_child(&child);
        let _ = kill_process(process, self.stop);
        // PostgreSQL leaves shared memory behind when it is killed: it gets the time that it needs.
        let (ended, end) = sync_channel(1);
        let reaper = std::thread::spawn(move || {
            let _ = child.wait();
            let _ = ended.send(());
        });
        if end.recv_timeout(STOP).is_err() {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = reaper.join();
    }
}
