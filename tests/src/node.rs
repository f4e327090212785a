//! One process of the real binary: started in a folder of its own, killed, stopped, started again.
//!
//! Keeps its log and shows it when a test fails. Whatever happens, the process ends with the value that stands for it.
//! Used by every suite that needs a server, and by the benches.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::waiting::until;
use crate::{place, ports};

/// Longest time from a start to readiness.
const READY: Duration = Duration::from_secs(30);

/// Longest time from a request to stop to the end.
const STOP: Duration = Duration::from_secs(30);

/// Lines of the log that a failure shows.
const LOG_LINES: usize = 60;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The data folder.
    pub data: PathBuf,
    /// Further arguments of `serve`.
    pub arguments: Vec<OsString>,
    /// Further environment.
    pub environment: Vec<(String, String)>,
    /// A program and its arguments that the binary is started by, as its last arguments.
    pub starter: Vec<String>,
}

impl NodeSettings {
    /// A node on this data folder with the default settings.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), arguments: vec![], environment: vec![], starter: vec![] }
    }

    /// The same on a machine where no process may make namespaces, as in many containers.
    #[must_use]
    pub fn without_namespaces(mut self) -> Self {
        let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
        self.starter = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"].map(str::to_owned).into();
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Gives an empty database the schema of the binary under test.
///
/// # Errors
/// When the binary refuses; with its words.
pub fn migrate(url: &str) -> Result<()> {
    let migrated = Command::new(place::motet()).arg("migrate").env("MOTET__STORE__URL", url).output()?;
    ensure!(migrated.status.success(), "motet migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    Ok(())
}

/// A running (or killed) node. Its addresses stay the same over restarts.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; with its log.
    pub async fn start(settings: NodeSettings) -> Result<Self> {
        let mut node = Self::prepare(settings);
        node.restart().await?;
        Ok(node)
    }

    /// A node with addresses, not started yet.
    #[must_use]
    pub fn prepare(settings: NodeSettings) -> Self {
        let log = settings.data.with_extension("log");
        let [http, grpc, admin] = [(); 3].map(|()| ports::free_address());
        Self { settings, http, grpc, admin, log, child: None }
    }

    /// Starts the process again and waits until it is ready. Returns how long that took.
    ///
    /// # Errors
    /// When it does not become ready; with its log.
    pub async fn restart(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.spawn()?;
        let client = self.client();
        let looked = until(READY, "readiness", async || {
            if client.is_ready().await {
                return Some(Ok(()));
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.map(|status| Err(anyhow::anyhow!("the node ended with {status}")))
        })
        .await;
        looked.and_then(|ready| ready).with_context(|| self.log_tail())?;
        Ok(begun.elapsed())
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the node runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = match &*self.settings.starter {
            [] => Command::new(place::motet()),
            [starter, arguments @ ..] => {
                let mut command = Command::new(starter);
                command.args(arguments).arg(place::motet());
                command
            }
        };
        let child = command
            .arg("serve")
            .arg("--data")
            .arg(&self.settings.data)
            .args(["--http", &self.http.to_string(), "--grpc", &self.grpc.to_string()])
            .args(["--admin", &self.admin.to_string()])
            .args(&self.settings.arguments)
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the binary cannot be started")?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends the process as a power cut would: it has no say in it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops the process in its tracks (SIGSTOP); its connections stay open.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a process go on that was stopped.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks the process to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; then it was killed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait(STOP).await
    }

    /// Asks the process to stop (SIGTERM).
    ///
    /// # Errors
    /// When it is not running.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the node is not running")?;
        kill_process(Pid::from_child(child), signal)?;
        Ok(())
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it does not end in time; then it was killed.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the node is not running")?;
        match until(limit, "the end of the node", async || child.try_wait().ok().flatten()).await {
            Ok(status) => Ok(status),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.context(self.log_tail()))
            }
        }
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// A client of the node.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.http, self.admin)
    }

    /// Where the API listens.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where models are called over gRPC.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.settings.data
    }

    /// The number of the process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Resident memory of the process in bytes.
    ///
    /// # Errors
    /// When the system does not tell it.
    pub fn resident_bytes(&self) -> Result<u64> {
        let child = self.child.as_ref().context("the node is not running")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Everything that the process has said so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of the log, for a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!("the node's log ends:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }

    /// Fails with the log when the process has ended.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if !self.is_running() {
            bail!("the node ended by itself; {}", self.log_tail());
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
