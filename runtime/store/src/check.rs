//! The rules of a write that need no storage: what every implementation refuses alike.
//!
//! Never reads or writes anything. Used by `memory` and by the planners of the others.

use motet_engine::id::{Epoch, RunId, Seq, ShardId};

use crate::StoreError;
use crate::port::{
    Admission, Append, Assignment, Entry, HeadChange, Incarnation, MAX_HINT_BYTES, OutboxRow, StoredDefinition,
    VolatileError,
};

/// Largest payload of one entry, snapshot or blob, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Longest idempotency key, in characters.
const MAX_KEY_CHARS: usize = 255;

/// Most rows that one page of a list holds.
pub(crate) const MAX_PAGE: u32 = 1_000;

/// Refuses an admission that no store could keep.
pub(crate) fn admission(admission: &Admission) -> Result<(), StoreError> {
    entry(&admission.entry)?;
    if admission.entry.seq != Seq(1) {
        return refused(format!("{} must begin with event 1, not {}", admission.run, admission.entry.seq));
    }
    text("version", &admission.version)?;
    admission.tags.iter().try_for_each(|tag| text("tag", tag))?;
    match &admission.idempotency {
        Some(key) if key.key.is_empty() || key.key.chars().count() > MAX_KEY_CHARS => {
            refused(format!("an idempotency key has 1 to {MAX_KEY_CHARS} characters"))
        }
        Some(key) => text("idempotency key", &key.key),
        None => Ok(()),
    }
}

/// Refuses an append that no store could keep.
pub(crate) fn append(append: &Append) -> Result<(), StoreError> {
    entry(&append.entry)?;
    if append.entry.seq <= Seq(1) {
        return Err(StoreError::SeqTaken { run: append.run, seq: append.entry.seq });
    }
    append.outbox.iter().try_for_each(outbox)
}

fn outbox(row: &OutboxRow) -> Result<(), StoreError> {
    text("topic", &row.topic)?;
    payload(&row.payload)
}

/// Refuses a definition that no store could keep.
pub(crate) fn definition(definition: &StoredDefinition) -> Result<(), StoreError> {
    text("version", &definition.version)
}

/// Refuses a plan that no store could keep.
pub(crate) fn plan(plan: &[Assignment]) -> Result<(), StoreError> {
    plan.iter().try_for_each(|wanted| text("node's name", &wanted.target))
}

/// Refuses bytes that are too many for one row.
pub(crate) fn payload(bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return refused(format!("{} bytes are more than the {MAX_PAYLOAD_BYTES} that one row may hold", bytes.len()));
    }
    Ok(())
}

/// Refuses a hint that is too large to be one.
pub(crate) fn hint(message: &[u8]) -> Result<(), VolatileError> {
    if message.len() <= MAX_HINT_BYTES {
        return Ok(());
    }
    Err(VolatileError::Refused(format!(
        "{} bytes are more than the {MAX_HINT_BYTES} of a hint: send where to look, not what is there",
        message.len()
    )))
}

/// Refuses a write whose epoch is not the shard's.
pub(crate) fn epoch(shard: ShardId, carried: Epoch, current: Epoch) -> Result<(), StoreError> {
    if carried == current { Ok(()) } else { Err(StoreError::Fenced { shard, carried, current }) }
}

/// Refuses a write of a node that was fenced.
pub(crate) fn incarnation(
    carried: Option<Incarnation>,
    lives: impl FnOnce(Incarnation) -> bool,
) -> Result<(), StoreError> {
    match carried {
        Some(incarnation) if !lives(incarnation) => Err(StoreError::IncarnationFenced(incarnation)),
        _ => Ok(()),
    }
}

/// A lease in whole milliseconds, as stores keep it: at most some centuries.
pub(crate) fn lease_millis(lease: std::time::Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX).min(1 << 44)
}

/// Refuses a node that no store could keep.
pub(crate) fn node(name: &str, address: &str) -> Result<(), StoreError> {
    text("node", name)?;
    text("address", address)
}

/// Refuses an entry that does not begin with the run's next event: history has neither forks nor holes.
pub(crate) fn sequence(run: RunId, next: u64, entry: &Entry) -> Result<(), StoreError> {
    match entry.seq.0.cmp(&next) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(StoreError::SeqTaken { run, seq: entry.seq }),
        std::cmp::Ordering::Greater => {
            refused(format!("event {} of {run} would leave a hole: the next event is {next}", entry.seq))
        }
    }
}

/// Refuses a snapshot of events that are not recorded.
pub(crate) fn snapshot(run: RunId, next: u64, seq: Seq) -> Result<(), StoreError> {
    if seq.0 >= next {
        return refused(format!("a snapshot of {run} at event {seq} is ahead of its journal"));
    }
    Ok(())
}

/// The head as it is kept: a run that ended wants no waking.
pub(crate) fn head(change: HeadChange) -> HeadChange {
    HeadChange { wake_at: change.wake_at.filter(|_| !change.state.is_end()), ..change }
}

fn entry(entry: &Entry) -> Result<(), StoreError> {
    if entry.count == 0 {
        return refused("an entry holds at least one event".to_owned());
    }
    let last = entry.seq.0.checked_add(u64::from(entry.count));
    if last.is_none_or(|last| i64::try_from(last).is_err()) {
        return refused(format!("event number {} is out of range", entry.seq));
    }
    payload(&entry.payload)
}

/// Texts with a NUL are cut by some databases, so none takes them.
fn text(what: &str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') { refused(format!("a {what} must not contain the character NUL")) } else { Ok(()) }
}

fn refused(why: String) -> Result<(), StoreError> {
    Err(StoreError::Refused(why))
}
