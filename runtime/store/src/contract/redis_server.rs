//! A Redis server of a test's own: to be killed, frozen, emptied and started again.
//!
//! Listens on loopback with a password of its own, keeps nothing, and ends with its value. Not the server of the
//! services script, which other tests use at the same time. Used by tests here and, behind the feature `contract`,
//! elsewhere.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

/// The program, as Debian and others name it.
const PROGRAM: &str = "redis-server";

/// Longest time from a start to readiness.
const READY: Duration = Duration::from_secs(30);

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Ports below those that the kernel gives to outgoing connections.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 10_000;

/// A server; its address stays the same over restarts.
#[derive(Debug)]
pub struct RedisServer {
    folder: PathBuf,
    address: SocketAddr,
    /// What the server is told besides, one argument each.
    arguments: Vec<String>,
    /// Whether it watches another server instead of keeping anything.
    watches: bool,
    child: Option<Child>,
}

impl RedisServer {
    /// The password of every such server: nobody else is on this loopback.
    pub const PASSWORD: &'static str = "of-the-tests";

    /// Starts a server with further `arguments` to it. None when this machine has no Redis; that is told loudly, and
    /// is a failure in CI.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        if !is_installed() {
            skip(test, "redis-server is not installed; `tests/services/services install redis` does it");
            return None;
        }
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self { folder: new_folder(), address: free_address(), arguments, watches: false, child: None };
        server.begin().await;
        Some(server)
    }

    /// Starts a sentinel that knows `primary` by the name `service`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_sentinel(primary: &Self, service: &str) -> Self {
        let (folder, watched, password) = (new_folder(), primary.address, Self::PASSWORD);
        let text = format!(
            "sentinel monitor {service} {} {} 1\nsentinel auth-pass {service} {password}\n\
             sentinel down-after-milliseconds {service} 1000\nsentinel failover-timeout {service} 5000\n",
            watched.ip(),
            watched.port()
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, text).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut sentinel = Self { folder, address: free_address(), arguments, watches: true, child: None };
        sentinel.begin().await;
        sentinel
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A folder of the server's own, removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://:{}@{}/0", Self::PASSWORD, self.address)
    }

    /// Starts it again after it was killed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn begin(&mut self) {
        let mut command = Command::new(PROGRAM);
        // The file of a sentinel comes first.
        command.args(if self.watches { &self.arguments[..] } else { &[] });
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--requirepass", Self::PASSWORD]);
        command.arg("--port").arg(self.address.port().to_string()).arg("--dir").arg(&self.folder);
        if !self.watches {
            command.args(["--save", "", "--appendonly", "no", "--masterauth", Self::PASSWORD]).args(&self.arguments);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let (begun, mut looks) = (Instant::now(), interval(Duration::from_millis(20)));
        while self.command("PING").await.as_deref() != Some("+PONG\r\n") {
            assert!(begun.elapsed() < READY, "Redis does not start on {}", self.address);
            looks.tick().await;
        }
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
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
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        kill_process(pid.expect("the server runs"), signal).unwrap();
    }

    /// Sends one command whose words are parted by spaces; what came back first, none when nothing did.
    pub async fn command(&self, words: &str) -> Option<String> {
        let talk = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            let text = format!("AUTH {}\r\n{words}\r\n", Self::PASSWORD);
            stream.write_all(text.as_bytes()).await.ok()?;
            let (mut answer, mut bytes) = (String::new(), [0; 4096]);
            // The first line answers AUTH.
            while answer.lines().count() < 2 || !answer.ends_with("\r\n") {
                match stream.read(&mut bytes).await.ok()? {
                    0 => return None,
                    read => answer.push_str(std::str::from_utf8(&bytes[..read]).ok()?),
                }
            }
            answer.split_once("\r\n").map(|(_, rest)| rest.to_owned())
        };
        timeout(ANSWER, talk).await.ok().flatten()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("motet-redis-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn is_installed() -> bool {
    let mut command = Command::new(PROGRAM);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn skip(test: &str, why: &str) {
    // Written past the harness's capture, so that a plain `cargo test` shows it too.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{test} was skipped in CI: {why}");
}

/// An address of the loopback interface on which nobody listens now.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(89);
    let offsets = (0..PORTS).map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS);
    let addresses = offsets.map(|offset| SocketAddr::from((Ipv4Addr::LOCALHOST, (FIRST_PORT + offset) as u16)));
    let mut free = addresses.filter(|address| TcpListener::bind(address).is_ok());
    free.next().expect("a port is free")
}

/// The URL in an environment variable that names a service; without one the test is skipped, loudly, and in CI it
/// fails.
#[must_use]
pub fn service(test: &str, variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        skip(test, &format!("{variable} is not set; `tests/services/services start` prints it"));
    }
    url
}
