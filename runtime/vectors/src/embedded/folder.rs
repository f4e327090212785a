//! The folder of one index: its lock, what it says about the index, and the names of its segments.
//!
//! Never reads a record. Used when an index is opened and when it is compacted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use motet_engine::definition::Metric;
use motet_engine::failure::{Failure, FailureClass};
use serde::{Deserialize, Serialize};

use crate::limits::Shape;

/// Version of what lies in a folder.
const FORMAT: u32 = 1;

/// What `index.json` says.
#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    dimension: u32,
    metric: Metric,
}

/// A folder that this process alone uses.
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing and locks it.
    pub(super) fn lock(root: &Path, key: &str) -> Result<Self, Failure> {
        check_key(key)?;
        let path = root.join(key);
        fs::create_dir_all(&path).and_then(|()| sync_folder(root)).map_err(|e| io_failure("make", &path, &e))?;
        let lock_path = path.join("lock");
        let failed = |error: io::Error| io_failure("lock", &lock_path, &error);
        let mut options = OpenOptions::new();
        let mut lock = options.create(true).truncate(false).read(true).write(true).open(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.take(20).read_to_string(&mut holder);
                let by = if holder.is_empty() { String::new() } else { format!(" by process {holder}") };
                let message = format!("{} is in use{by}; an index is opened once", path.display());
                return Err(Failure::new(FailureClass::Unavailable, message));
            }
        }
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// What the folder says about the index; none where nothing was ever stored in it.
    pub(super) fn shape(&self) -> Result<Option<Shape>, Failure> {
        let path = self.path.join("index.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_failure("read", &path, &error)),
        };
        let unreadable = |why: String| Failure::new(FailureClass::Invalid, format!("{}: {why}", path.display()));
        let format =
            serde_json::from_slice::<serde_json::Value>(&text).map_err(|error| unreadable(error.to_string()))?;
        let version = format.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if version != u64::from(FORMAT) {
            return Err(unreadable(format!(
                "format {version} was written by another version; this one reads {FORMAT}"
            )));
        }
        let Description { dimension, metric, .. } =
            serde_json::from_value(format).map_err(|error| unreadable(error.to_string()))?;
        Ok(Some(Shape { dimension, metric }))
    }

    /// Records what the index is; after that the folder counts as made.
    pub(super) fn describe(&self, shape: Shape) -> Result<(), Failure> {
        let Shape { dimension, metric } = shape;
        let (path, fresh) = (self.path.join("index.json"), self.path.join("index.json.tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            serde_json::to_writer(&mut file, &Description { format: FORMAT, dimension, metric })?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync_folder(&self.path)
        };
        write().map_err(|error| io_failure("write", &path, &error))
    }

    /// Where the segment of a number lies.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("segment-{number:06}.log"))
    }

    /// Where a segment is written before it is complete.
    pub(super) fn unfinished_segment(&self) -> PathBuf {
        self.path.join("segment.tmp")
    }

    /// Numbers of the segments, ascending.
    pub(super) fn segments(&self) -> Result<Vec<u64>, Failure> {
        let failed = |error: io::Error| io_failure("list", &self.path, &error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what an interrupted compaction left: an unfinished segment, and those that a newer one replaces.
    pub(super) fn sweep(&self, replaced: &[u64]) -> Result<(), Failure> {
        let unfinished = self.unfinished_segment();
        if unfinished.exists() {
            fs::remove_file(&unfinished).map_err(|error| io_failure("remove", &unfinished, &error))?;
        }
        for &number in replaced {
            let path = self.segment(number);
            fs::remove_file(&path).map_err(|error| io_failure("remove", &path, &error))?;
        }
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A failure of the disk, with what was tried on which file.
pub(super) fn io_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(FailureClass::Unavailable, format!("could not {what} {}: {error}", path.display()))
}

fn check_key(key: &str) -> Result<(), Failure> {
    let safe =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b'+' | b'~' | b'=');
    if key.is_empty() || key.len() > 255 || key.starts_with('.') || !key.bytes().all(safe) {
        return Err(Failure::new(FailureClass::Invalid, format!("'{key}' cannot name the folder of an index")));
    }
    Ok(())
}
