//! A Kafka broker of a test's own: started, ended as a power cut ends a process, started again on the same data.
//!
//! Listens on loopback and ends with its value. Not the broker of the services script, which other tests use at the same
//! time, though made of the same. Used by the rows of the fault matrix.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::waiting::until;
use crate::{place, ports};

/// Longest time from a start to readiness.
const READY: Duration = Duration::from_secs(120);

/// A broker; its address stays the same over restarts.
#[derive(Debug)]
pub struct KafkaServer {
    folder: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

/// The program that makes and starts brokers.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(place::workspace().join("tests/services/kafka"));
    command.args(arguments).stdin(Stdio::null());
    command
}

impl KafkaServer {
    /// Whether this machine has a broker to start.
    #[must_use]
    pub fn is_installed() -> bool {
        program(&["installed"]).status().is_ok_and(|status| status.success())
    }

    /// Makes a broker without topics in `folder` and starts it.
    ///
    /// # Errors
    /// When it is not installed or does not start; with its log.
    pub async fn start(folder: &Path) -> Result<Self> {
        let address = ports::free_broker_address();
        let mut server = Self { folder: folder.to_owned(), address, process: None };
        let port = address.port().to_string();
        let made = program(&["prepare", &server.folder.display().to_string(), &port]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.restart().await?;
        Ok(server)
    }

    /// Where it listens for whoever brings no security.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the broker on the data that are there and waits until it answers.
    ///
    /// # Errors
    /// When it does not; with its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut serve = program(&["serve", &self.folder.display().to_string()]);
        serve.stdout(log.try_clone()?).stderr(log);
        self.process = Some(serve.spawn().context("the broker cannot be started")?);
        let port = self.address.port().to_string();
        until(READY, "Kafka", async || {
            let ready = program(&["ready", &port]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            ready.ok()?.success().then_some(())
        })
        .await
        .with_context(|| std::fs::read_to_string(self.folder.join("log")).unwrap_or_default())
    }

    /// Ends the broker without a last word to anybody.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops it where it stands; its connections stay.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        self.kill();
    }
}
