//! Which store stands behind the node under test, as a parameter of every row.
//!
//! Used by the rows of the fault matrix.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use motet_store::postgres::{PostgresOptions, PostgresStore};

use super::postgres::PostgresServer;
use crate::journal::{self, Kept};
use crate::node::{self, NodeSettings};
use crate::skip::skip;

/// A store that a node can be given.
#[derive(Debug, Clone)]
pub enum Backing {
    /// The database in the node's own folder.
    Sqlite,
    /// A server of the test's own.
    Postgres {
        /// The server.
        server: Arc<PostgresServer>,
        /// Where the node finds it: the server itself, or a proxy in front of it.
        at: SocketAddr,
    },
}

impl Backing {
    /// Where a server that is made in `folder` will have its data, for a disk of its own.
    #[must_use]
    pub fn postgres_data(folder: &Path) -> PathBuf {
        folder.join("postgres/data")
    }

    /// A server with the schema of the binary under test; none, loudly, where none is installed.
    ///
    /// # Errors
    /// When it does not start or the schema cannot be made.
    pub async fn postgres(test: &str, folder: &Path) -> Result<Option<Self>> {
        Self::postgres_with(test, folder, vec![]).await
    }

    /// The same with an environment for the server.
    ///
    /// # Errors
    /// When it does not start or the schema cannot be made.
    pub async fn postgres_with(test: &str, folder: &Path, environment: Vec<(String, String)>) -> Result<Option<Self>> {
        if !PostgresServer::is_installed() {
            skip(test, "PostgreSQL is not installed: tests/services/services install");
            return Ok(None);
        }
        // The server's user must be able to reach its own folder below this one.
        std::fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        let server = Arc::new(PostgresServer::start(&folder.join("postgres"), environment).await?);
        let at = server.address();
        node::migrate(&server.url(at))?;
        Ok(Some(Self::Postgres { server, at }))
    }

    /// The same store behind something that listens at `at`.
    #[must_use]
    pub fn through(&self, at: SocketAddr) -> Self {
        match self {
            Self::Sqlite => Self::Sqlite,
            Self::Postgres { server, .. } => Self::Postgres { server: Arc::clone(server), at },
        }
    }

    /// The server behind the node.
    ///
    /// # Errors
    /// When there is none.
    pub fn server(&self) -> Result<&PostgresServer> {
        match self {
            Self::Sqlite => anyhow::bail!("SQLite has no server"),
            Self::Postgres { server, .. } => Ok(server),
        }
    }

    /// Settings of a node on this store whose own files are in `folder`.
    #[must_use]
    pub fn settings(&self, folder: &Path) -> NodeSettings {
        match self {
            Self::Sqlite => NodeSettings::new(folder),
            Self::Postgres { server, at } => NodeSettings::new(folder).with("MOTET__STORE__URL", &server.url(*at)),
        }
    }

    /// Everything that the store holds, read while no node runs on it; a damaged one is an error.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or holds what no node could have written.
    pub async fn read(&self, folder: &Path) -> Result<BTreeMap<String, Kept>> {
        match self {
            Self::Sqlite => journal::read(folder).await,
            Self::Postgres { server, .. } => {
                let options = PostgresOptions::from_url(&server.url(server.address()))?;
                let store = PostgresStore::open(options).await.context("the store cannot be read in the end")?;
                journal::read_store(&*store).await
            }
        }
    }
}
