//! The engines that `peers` compares: how each is started on a fresh folder with the same work.
//!
//! Everything listens on the loopback interface only, and ends with the value that stands for it. Measures nothing.
//! Used by the bench `peers` alone.

pub mod comparison;
pub mod dbos;
pub mod install;
pub mod motet;
pub mod postgres;
pub mod process;
pub mod restate;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use motet_tests::node::Node;
use motet_tests::place::build_folder;
use rustix::process::geteuid;

use crate::load::Work;
use process::Process;

/// An engine with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Motet on its own SQLite file.
    MotetSqlite,
    /// Motet on PostgreSQL.
    MotetPostgres,
    /// Restate and its Rust SDK as they come.
    Restate,
    /// Restate with the number of partitions that suits few cores, and TCP_NODELAY on the SDK's sockets.
    RestateTuned,
    /// DBOS for TypeScript on PostgreSQL.
    Dbos,
}

impl Engine {
    /// Every engine, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::MotetSqlite, Self::MotetPostgres, Self::Restate, Self::RestateTuned, Self::Dbos];

    /// Whether it is Motet.
    #[must_use]
    pub fn is_motet(self) -> bool {
        matches!(self, Self::MotetSqlite | Self::MotetPostgres)
    }

    /// Whether it needs a PostgreSQL server.
    #[must_use]
    pub fn needs_postgres(self) -> bool {
        matches!(self, Self::MotetPostgres | Self::Dbos)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MotetSqlite => "motet-sqlite",
            Self::MotetPostgres => "motet-postgres",
            Self::Restate => "restate",
            Self::RestateTuned => "restate-tuned",
            Self::Dbos => "dbos",
        })
    }
}

/// Where a step does what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// In the process of the engine, or of its SDK.
    InProcess,
    /// At an HTTP server on the loopback interface.
    Http,
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InProcess => "in process",
            Self::Http => "http",
        })
    }
}

/// An engine that is ready for the work. Dropping it ends its processes.
#[derive(Debug)]
pub struct Running {
    /// What the load generator sends.
    pub work: Work,
    node: Option<Node>,
    processes: Vec<Process>,
}

impl Running {
    fn of_node(work: Work, node: Node) -> Self {
        Self { work, node: Some(node), processes: vec![] }
    }

    fn of_processes(work: Work, processes: Vec<Process>) -> Self {
        Self { work, node: None, processes }
    }

    /// Stops every process, in the order in which they depend on each other, and waits for their ends.
    ///
    /// # Errors
    /// When one has ended by itself, or the node does not end in time.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(node) = &mut self.node {
            node.stop().await?;
        }
        for process in self.processes.drain(..) {
            process.stop()?;
        }
        Ok(())
    }

    /// The ends of the logs, for a failure.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let node = self.node.iter().map(Node::log_tail);
        node.chain(self.processes.iter().map(Process::log_tail)).collect::<Vec<_>>().join("\n")
    }
}

impl Engine {
    /// Starts the engine on an empty folder, with steps that call `echo` where they are to call anything.
    ///
    /// # Errors
    /// When it does not become ready; with its log.
    pub async fn start(self, folder: &Path, echo: Option<&str>) -> Result<Running> {
        match self {
            Self::MotetSqlite => motet::start_on_sqlite(folder, echo).await,
            Self::MotetPostgres => motet::start_on_postgres(folder, echo).await,
            Self::Restate => restate::start(folder, restate::Settings::AS_IT_COMES, echo).await,
            Self::RestateTuned => restate::start(folder, restate::Settings::TUNED, echo).await,
            Self::Dbos => dbos::start(folder, echo).await,
        }
    }
}

/// The folder below which every engine keeps its data: all on the same file system.
#[must_use]
pub fn ground() -> PathBuf {
    // PostgreSQL refuses to run as root, and who it runs as may have no way into the build folder.
    if geteuid().is_root() { PathBuf::from("/var/tmp") } else { build_folder() }
}
