//! The one who writes an index's files: appends batches and rewrites the segment when most of it is dead.
//!
//! Never answers queries. Used by the embedded index, one call at a time.

use std::io;
use std::path::Path;

use motet_engine::failure::{Failure, FailureClass};

use super::folder::{Folder, io_failure};
use super::log::{Frame, Segment};
use super::operation::{decode, encode_upsert};
use super::table::{Rows, Table};
use crate::limits::{MAX_BATCH, Shape};

/// Appends to the newest segment of a folder.
pub(super) struct Writer {
    folder: Folder,
    segment: Segment,
    number: u64,
    /// Why nothing may be written any more: after a failed write or flush nobody knows what the disk holds.
    failure: Option<String>,
    compaction: Compaction,
}

/// When a segment is rewritten.
#[derive(Clone, Copy)]
pub(super) struct Compaction {
    /// Dead bytes below which it is not worth it.
    pub(super) min_dead_bytes: u64,
    /// Segment length before which it is not tried again, since the last try failed.
    pub(super) not_before: u64,
}

impl Writer {
    /// Opens the files of an index, makes them where there are none, and reads what they hold.
    pub(super) fn open(root: &Path, key: &str, shape: Shape, compaction: Compaction) -> Result<(Self, Table), Failure> {
        let folder = Folder::lock(root, key)?;
        let segments = folder.segments()?;
        let mut table = Table::new(shape);
        let Some(found) = folder.shape()? else {
            return Self::make(folder, &segments, shape, compaction).map(|writer| (writer, table));
        };
        if found != shape {
            let message = format!(
                "the index in {} has dimension {} and metric {:?}; the definition says {} and {:?}. Give the index \
                 another name, or remove the folder and fill it again",
                root.join(key).display(),
                found.dimension,
                found.metric,
                shape.dimension,
                shape.metric
            );
            return Err(Failure::new(FailureClass::Invalid, message));
        }
        let Some((&number, replaced)) = segments.split_last() else {
            let message = format!("{} has no segment: its files were removed", root.join(key).display());
            return Err(Failure::new(FailureClass::Internal, message));
        };
        let segment = Segment::open(&folder.segment(number), |payload| {
            decode(payload, shape.dimension).map(|operation| table.apply(operation))
        })?;
        // Only now, when the newest segment is known to be whole.
        folder.sweep(replaced)?;
        Ok((Self { folder, segment, number, failure: None, compaction }, table))
    }

    /// Makes the files of a new index. The description comes last: with it, the segment is known to have existed.
    fn make(folder: Folder, segments: &[u64], shape: Shape, compaction: Compaction) -> Result<Self, Failure> {
        let path = folder.segment(1);
        for &number in segments {
            let segment =
                Segment::open(&folder.segment(number), |_| Err("index.json beside it is missing".to_owned()))?;
            drop(segment);
        }
        folder.sweep(segments)?;
        let make = || -> io::Result<Segment> {
            let mut segment = Segment::create(&folder.unfinished_segment())?;
            segment.publish(&path)?;
            Ok(segment)
        };
        let segment = make().map_err(|error| io_failure("make", &path, &error))?;
        folder.describe(shape)?;
        Ok(Self { folder, segment, number: 1, failure: None, compaction })
    }

    /// Refuses where an earlier write failed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.failure {
            Some(why) => Err(Failure::new(
                FailureClass::Unavailable,
                format!("the index takes no writes until it is opened again, since {why}"),
            )),
            None => Ok(()),
        }
    }

    /// Appends a batch and makes it durable.
    pub(super) fn append(&mut self, frame: Frame) -> Result<(), Failure> {
        self.check()?;
        self.segment.append(frame).and_then(|()| self.segment.sync()).map_err(|error| {
            let failure = io_failure("write", self.segment.path(), &error);
            self.fail(&failure.message);
            failure
        })
    }

    /// Bytes of the segment.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.segment.length()
    }

    /// Rewrites the segment when more of it is dead than alive. A rewrite that fails leaves the old segment in use.
    pub(super) fn compact_if_due(&mut self, table: &Table) {
        let length = self.segment.length();
        let dead = length.saturating_sub(table.live_bytes());
        let due = dead > table.live_bytes() && dead >= self.compaction.min_dead_bytes;
        if !due || length < self.compaction.not_before || self.failure.is_some() {
            return;
        }
        let target = self.folder.segment(self.number + 1);
        let fresh = self.folder.unfinished_segment();
        match rewrite(table, &fresh, &target) {
            Ok(segment) => {
                tracing::info!(file = %target.display(), from = length, to = segment.length(), "compacted");
                let old = std::mem::replace(&mut self.segment, segment);
                self.number += 1;
                if let Err(error) = std::fs::remove_file(old.path()) {
                    tracing::warn!(file = %old.path().display(), %error, "could not remove a replaced segment");
                }
            }
            Err(error) if target.exists() => {
                // The new name may or may not survive a crash, so neither segment can take further batches.
                self.fail(&format!("{} could not be made durable: {error}", target.display()));
            }
            Err(error) => {
                tracing::warn!(file = %fresh.display(), %error, "could not compact; the old segment stays in use");
                let _ = std::fs::remove_file(&fresh);
                self.compaction.not_before = length.saturating_mul(2);
            }
        }
    }

    fn fail(&mut self, why: &str) {
        tracing::error!(why, "the index takes no writes until it is opened again");
        self.failure = Some(why.to_owned());
    }

    /// Makes the next write fail, as a full disk would.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: std::fs::File) {
        self.segment.replace_file(file);
    }
}

/// Writes all that is alive into a new segment under its final name.
fn rewrite(table: &Table, fresh: &Path, target: &Path) -> io::Result<Segment> {
    let mut segment = Segment::create(fresh)?;
    for (namespace, rows) in table.namespaces() {
        for start in (0..rows.len()).step_by(MAX_BATCH) {
            segment.append(frame(namespace, rows, start..rows.len().min(start + MAX_BATCH))?)?;
        }
    }
    segment.publish(target)?;
    Ok(segment)
}

fn frame(namespace: &str, rows: &Rows, range: std::ops::Range<usize>) -> io::Result<Frame> {
    let mut frame = Frame::new();
    let vectors = range.map(|row| (rows.id(row), rows.row(row), rows.metadata(row)));
    encode_upsert(frame.payload(), namespace, vectors).map_err(io::Error::other)?;
    Ok(frame)
}
