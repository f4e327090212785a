//! A PostgreSQL server for one measurement: as `initdb` makes it, on the loopback interface, in a folder of its own.
//!
//! Changes no setting that touches durability. Used for DBOS and for Motet on PostgreSQL.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use motet_tests::ports::free_address;
use rustix::process::{Signal, geteuid};
use sqlx::{Connection, PgConnection};

use super::process::Process;

/// Where Debian and its kin keep what only servers need, one folder per version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    password: String,
}

impl Postgres {
    /// Makes a cluster below `folder` and starts a server on it.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or it does not start; with its log.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (binaries, owner) = (binaries()?, Owner::choose()?);
        let home = folder.join("postgres");
        fs::create_dir(&home)?;
        // Nobody but the server's owner gets in: the password lies there.
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        let (data, password_file, password) = (home.join("data"), home.join("password"), password()?);
        fs::write(&password_file, &password)?;
        for path in [&home, &password_file] {
            owner.give(path)?;
        }
        let made = owner
            .command(binaries.join("initdb"), &home)
            .args(["--username=postgres", "--auth=scram-sha-256", "--pgdata"])
            .arg(&data)
            .arg("--pwfile")
            .arg(&password_file)
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let address = free_address();
        let mut server = owner.command(binaries.join("postgres"), &home);
        server.arg("-D").arg(&data).args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        server.arg("-c").arg(format!("port={}", address.port()));
        // SIGINT is PostgreSQL's fast shutdown: it waits for no client.
        let mut process = Process::start("postgres", &mut server, folder, Signal::INT)?;
        process.listens(address).await?;
        let url = url(&password, address, "postgres");
        // It listens a while before it lets anybody in.
        let connection = process.until_some(async || PgConnection::connect(&url).await.ok()).await?;
        connection.close().await?;
        Ok(Self { process, address, password })
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.password, self.address, database)
    }
}

fn url(password: &str, address: SocketAddr, database: &str) -> String {
    format!("postgres://postgres:{password}@{address}/{database}")
}

/// Fails where there is no PostgreSQL to start.
///
/// # Errors
/// When there is none; with advice.
pub fn check() -> Result<()> {
    binaries()?;
    Owner::choose().map(drop)
}

/// The folder with `initdb` and `postgres`: that of the path, or the newest of the installed versions.
fn binaries() -> Result<PathBuf> {
    let of_path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<_> = fs::read_dir(VERSIONS).into_iter().flatten().flatten().collect();
    installed.sort_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let newest_first = installed.into_iter().rev().map(|entry| entry.path().join("bin"));
    std::env::split_paths(&of_path)
        .chain(newest_first)
        .find(|folder| folder.join("initdb").is_file())
        .context("PostgreSQL's initdb is missing: install the server (Debian: postgresql), or leave out what needs it")
}

fn password() -> Result<String> {
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}

/// Who the server runs as: PostgreSQL refuses root.
enum Owner {
    Myself,
    Other { user: u32, group: u32 },
}

impl Owner {
    fn choose() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::Myself);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let fields: Vec<_> =
            line.context("PostgreSQL refuses root, and there is no user 'postgres'")?.split(':').collect();
        let number = |place: usize| fields.get(place).and_then(|field| field.parse().ok());
        let (user, group) = number(2).zip(number(3)).context("/etc/passwd does not tell the user 'postgres'")?;
        Ok(Self::Other { user, group })
    }

    fn give(&self, path: &Path) -> Result<()> {
        if let Self::Other { user, group } = self {
            chown(path, Some(*user), Some(*group))?;
        }
        Ok(())
    }

    fn command(&self, program: impl AsRef<OsStr>, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder);
        if let Self::Other { user, group } = self {
            command.uid(*user).gid(*group);
        }
        command
    }
}
