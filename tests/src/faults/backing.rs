//! Which store stands behind the node under test, as a parameter of every row.
//!
//! Used by the rows of the fault matrix.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::journal::{self, Kept};
use crate::node::NodeSettings;

/// A store that a node can be given.
#[derive(Debug, Clone)]
pub enum Backing {
    /// The database in the node's own folder.
    Sqlite,
}

impl Backing {
    /// Settings of a node on this store whose own files are in `folder`.
    #[must_use]
    pub fn settings(&self, folder: &Path) -> NodeSettings {
        match self {
            Self::Sqlite => NodeSettings::new(folder),
        }
    }

    /// Everything that the store holds, read while no node runs on it; a damaged one is an error.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or holds what no node could have written.
    pub async fn read(&self, folder: &Path) -> Result<BTreeMap<String, Kept>> {
        match self {
            Self::Sqlite => journal::read(folder).await,
        }
    }
}
