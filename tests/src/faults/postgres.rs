//! A PostgreSQL server of a test's own: started, ended as a power cut ends it, started again, on a disk of any size.
//!
//! Listens on loopback with a secret of its own and ends with its value. Not the server of the services script, which
//! other tests use at the same time. Used by the rows of the fault matrix.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ports;
use crate::waiting::until;

/// Longest time from a start to readiness.
const READY: Duration = Duration::from_secs(60);

/// The user that the server runs as where this process is root, which the server refuses to be.
const SERVICE_USER: &str = "postgres";

/// A server; its address stays the same over restarts.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    data: PathBuf,
    folder: PathBuf,
    secret: String,
    address: SocketAddr,
    environment: Vec<(String, String)>,
}

impl PostgresServer {
    /// Whether this machine has a server to start.
    #[must_use]
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// Makes a database in `folder`, whose `data` may be a disk of its own, and starts the server with `environment`.
    ///
    /// # Errors
    /// When it is not installed or does not start; with its log.
    pub async fn start(folder: &Path, environment: Vec<(String, String)>) -> Result<Self> {
        let programs = programs().context("PostgreSQL is not installed: tests/services/services install")?;
        let data = folder.join("data");
        std::fs::create_dir_all(&data)?;
        let secret = format!("{:016x}", crate::seed::Seed::from_environment().draw());
        let server =
            Self { programs, data, folder: folder.to_owned(), secret, address: ports::free_address(), environment };
        std::fs::write(folder.join("secret"), &server.secret)?;
        if rustix::process::geteuid().is_root() {
            let status = Command::new("chown").args(["-R", SERVICE_USER]).arg(folder).status()?;
            ensure!(status.success(), "{} cannot be given to {SERVICE_USER}", folder.display());
        }
        let mut make = server.program("initdb");
        make.args(["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        make.arg("-D").arg(&server.data).arg(format!("--pwfile={}", folder.join("secret").display()));
        let made = make.output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.restart().await?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a store reaches it, directly or through a proxy that listens at `through`.
    #[must_use]
    pub fn url(&self, through: SocketAddr) -> String {
        format!("postgres://postgres:{}@{through}/postgres", self.secret)
    }

    /// Carries out statements behind the back of everybody else, as somebody of this name; what they give, a line for
    /// each row and `|` between columns.
    ///
    /// # Errors
    /// When the server refuses one; with its words.
    pub fn query(&self, name: &str, statements: &str) -> Result<String> {
        let mut ask = Command::new(self.programs.join("psql"));
        ask.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        ask.arg("127.0.0.1").arg("-p").arg(self.address.port().to_string()).arg("-c").arg(statements);
        ask.env("PGPASSWORD", &self.secret).env("PGAPPNAME", name).stdin(Stdio::null());
        let answer = ask.output().context("psql cannot be started")?;
        ensure!(answer.status.success(), "psql: {}", String::from_utf8_lossy(&answer.stderr));
        Ok(String::from_utf8(answer.stdout)?.trim_end().to_owned())
    }

    /// Starts the server on the data that are there and waits until it answers.
    ///
    /// # Errors
    /// When it does not; with its log.
    pub async fn restart(&self) -> Result<()> {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -c unix_socket_directories='' -c fsync=on -c max_connections=100 \
             -c shared_buffers=64MB -c max_wal_size=48MB -c min_wal_size=32MB",
            self.address.port()
        );
        until(READY, "PostgreSQL", async || {
            let mut start = self.program("pg_ctl");
            start.arg("-D").arg(&self.data).arg("-l").arg(self.folder.join("log")).args(["-w", "-t", "30", "-o"]);
            // The server would keep pipes open after pg_ctl has ended.
            start.arg(&options).arg("start").stdout(Stdio::null()).stderr(Stdio::null());
            start.status().ok()?.success().then_some(())
        })
        .await
        .with_context(|| std::fs::read_to_string(self.folder.join("log")).unwrap_or_default())
    }

    /// Waits until the server has recovered by itself, or has ended and is started again as a service manager does it.
    ///
    /// # Errors
    /// When it does neither; with its log.
    pub async fn recover(&self) -> Result<()> {
        until(READY, "PostgreSQL to recover", async || {
            if !self.is_running() {
                self.restart().await.ok()?;
            }
            let mut ask = self.program("pg_isready");
            ask.args(["-q", "-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
            ask.status().ok()?.success().then_some(())
        })
        .await
        .with_context(|| std::fs::read_to_string(self.folder.join("log")).unwrap_or_default())
    }

    /// Has the server speak TLS, with a certificate and its key as PEM, and only that from now on.
    ///
    /// # Errors
    /// When the server does not take them.
    pub async fn encrypt(&self, certificate: &str, key: &str) -> Result<()> {
        let (certificate_file, key_file) = (self.data.join("server.crt"), self.data.join("server.key"));
        std::fs::write(&certificate_file, certificate)?;
        std::fs::write(&key_file, key)?;
        std::fs::set_permissions(&key_file, Permissions::from_mode(0o600))?;
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown").arg(SERVICE_USER).args([&certificate_file, &key_file]).status()?;
            ensure!(given.success(), "the key cannot be given to {SERVICE_USER}");
        }
        let mut configuration = OpenOptions::new().append(true).open(self.data.join("postgresql.conf"))?;
        configuration.write_all(b"ssl = on\n")?;
        std::fs::write(self.data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n")?;
        self.end_immediately()?;
        self.restart().await
    }

    /// Ends the server without a last word to anybody; what it had not flushed is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn end_immediately(&self) -> Result<()> {
        let mut stop = self.program("pg_ctl");
        let stopped = stop.arg("-D").arg(&self.data).args(["-m", "immediate", "-w", "-s", "stop"]).status()?;
        ensure!(stopped.success(), "PostgreSQL did not run");
        Ok(())
    }

    /// Whether the server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut ask = self.program("pg_ctl");
        ask.arg("-D").arg(&self.data).arg("status").stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    }

    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", SERVICE_USER, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.end_immediately();
        }
    }
}

/// Where the newest server's programs are.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.flatten().map(|version| version.path().join("bin"));
    let newest = found.filter(|programs| programs.join("initdb").is_file()).max();
    newest.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file())
    })
}
