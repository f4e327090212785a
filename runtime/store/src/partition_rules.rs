//! The rules by which the row of a partition changes.
//!
//! Decides and never writes: a store may make a row durable before it believes it. PostgreSQL has the same rules in its
//! statements. Used by the memory store, and by the writer of SQLite, which remembers the rows.

use motet_engine::id::Epoch;
use motet_engine::time::Timestamp;

use crate::StoreError;
use crate::port::{Ingest, PartitionKey, PartitionRow, Steer};

/// What is to happen to a partition's row.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Claim { owner: String },
    Begin { epoch: Epoch, origin: String, next: i64 },
    Release { epoch: Epoch },
    Forgive { epoch: Epoch },
    Trouble { epoch: Epoch, trouble: Option<String> },
    Steer(Steer),
}

fn untouched(key: &PartitionKey, now: Timestamp) -> PartitionRow {
    PartitionRow {
        key: key.clone(),
        generation: 0,
        since: now,
        epoch: Epoch::default(),
        owner: String::new(),
        next: None,
        origin: String::new(),
        barren: 0,
        paused: false,
        trouble: None,
        changed_at: now,
    }
}

/// Why a write is refused whose epoch is not that of the row.
pub(crate) fn fenced(key: &PartitionKey, carried: Epoch, there: Option<Epoch>) -> StoreError {
    StoreError::PartitionFenced { key: Box::new(key.clone()), carried, current: there.unwrap_or_default() }
}

/// Why a write is refused that goes on from another position.
pub(crate) fn gap(key: &PartitionKey, seen: i64, next: Option<i64>) -> StoreError {
    StoreError::OffsetGap { key: Box::new(key.clone()), seen, next }
}

/// The row, when it has the epoch that a write carries.
pub(crate) fn owned<'a>(
    there: Option<&'a PartitionRow>,
    key: &PartitionKey,
    carried: Epoch,
) -> Result<&'a PartitionRow, StoreError> {
    match there {
        Some(row) if row.epoch == carried => Ok(row),
        other => Err(fenced(key, carried, other.map(|row| row.epoch))),
    }
}

/// The row after a change. None when an operator steers a partition that is not known.
pub(crate) fn changed(
    there: Option<&PartitionRow>,
    key: &PartitionKey,
    change: &Change,
    now: Timestamp,
) -> Result<Option<PartitionRow>, StoreError> {
    let mut row = match change {
        Change::Claim { .. } => there.cloned().unwrap_or_else(|| untouched(key, now)),
        Change::Begin { epoch, .. }
        | Change::Release { epoch }
        | Change::Forgive { epoch }
        | Change::Trouble { epoch, .. } => owned(there, key, *epoch)?.clone(),
        Change::Steer(_) => match there {
            Some(row) => row.clone(),
            None => return Ok(None),
        },
    };
    row.changed_at = now;
    match change {
        Change::Claim { owner } => {
            row.epoch.0 += 1;
            row.owner.clone_from(owner);
            row.barren += 1;
        }
        Change::Begin { origin, next, .. } => {
            row.origin.clone_from(origin);
            row.next = Some(*next);
        }
        Change::Release { .. } => {
            // Its claim is taken back once only.
            row.barren = row.barren.saturating_sub(u32::from(!row.owner.is_empty()));
            row.owner.clear();
        }
        Change::Forgive { .. } => row.barren = 0,
        Change::Trouble { trouble, .. } => row.trouble.clone_from(trouble),
        Change::Steer(steer) => steered(&mut row, steer, now),
    }
    Ok(Some(row))
}

fn steered(row: &mut PartitionRow, steer: &Steer, now: Timestamp) {
    match steer {
        Steer::Pause(paused) => row.paused = *paused,
        Steer::Seek { offset, again } => {
            row.epoch.0 += 1;
            row.owner.clear();
            row.next = Some(*offset);
            (row.barren, row.trouble) = (0, None);
            // The offset is one of the topic that is there now.
            row.origin.clear();
            if *again {
                row.generation += 1;
                row.since = now;
            }
        }
        Steer::Clear => (row.barren, row.trouble) = (0, None),
    }
}

/// The row after an ingest.
pub(crate) fn advanced(there: Option<&PartitionRow>, ingest: &Ingest) -> Result<PartitionRow, StoreError> {
    let row = owned(there, &ingest.key, ingest.epoch)?;
    if row.next != Some(ingest.seen) {
        return Err(gap(&ingest.key, ingest.seen, row.next));
    }
    Ok(PartitionRow { next: Some(ingest.next), barren: 0, changed_at: ingest.at, ..row.clone() })
}
