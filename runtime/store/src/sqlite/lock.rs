//! The lock that keeps a second process away from a data folder.
//!
//! The kernel holds it with the open file and lets go when the process dies in whatever way, so a stale lock cannot
//! exist. The file's text only tells a human who holds it. Used by `sqlite` when it opens.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::StoreError;

/// Name of the lock file in the data folder.
const LOCK_FILE: &str = "motet.lock";

/// Longest text that is read from a lock file, in bytes.
const MAX_TEXT_BYTES: u64 = 256;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of a folder, or says who holds it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK_FILE);
        let failed = |error: std::io::Error| StoreError::Storage(format!("{}: {error}", path.display()));
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let mut file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse { path: folder.display().to_string(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = format!("pid {}\nstarted {started}\n", std::process::id());
        // A full disk must not keep the store from opening: what is there can still be read.
        if let Err(error) = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()))
        {
            tracing::warn!(%error, path = %path.display(), "the lock is held, but its file could not be written");
        }
        Ok(Self { _file: file })
    }
}

/// Who wrote the lock file, as text that continues a sentence; empty when it cannot be told.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    if file.rewind().and_then(|()| file.take(MAX_TEXT_BYTES).read_to_string(&mut text)).is_err() {
        return String::new();
    }
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    match (field("pid"), field("started")) {
        (Some(pid), Some(started)) => {
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(started)).unwrap_or_default();
            format!(" (pid {pid}, running for {} s)", age.as_secs())
        }
        (Some(pid), None) => format!(" (pid {pid})"),
        _ => String::new(),
    }
}
