//! The rules of a write that need no storage: what every implementation refuses alike.
//!
//! Never reads or writes anything. Used by `memory` and by the planners of the others.

use motet_engine::id::{Epoch, RunId, Seq, ShardId};

use crate::StoreError;
use crate::codec::MAX_BYTES;
use crate::port::{
    Admission, Append, Assignment, DeadLetter, Entry, HeadChange, HeadState, Incarnation, Ingest, Line, MAX_HINT_BYTES,
    OutboxRow, PartitionKey, Steer, StoredDefinition, VolatileError,
};

/// Largest payload of one entry, snapshot or blob, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Largest dead letter, in bytes: what brokers are hardly ever told to take.
const MAX_RECORD_BYTES: usize = 128 << 20;

/// Bytes of all records in one ingest: what a database takes as one statement, with room to spare.
const MAX_INGEST_BYTES: usize = 256 << 20;

/// Records in one ingest.
const MAX_INGEST_RECORDS: usize = 10_000;

/// What one header takes at most beside its name and value when it is encoded, in bytes.
const HEADER_BYTES: usize = 16;

/// Longest name of a topic, in bytes: the limit of Kafka.
const MAX_TOPIC_BYTES: usize = 249;

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
    admission.outbox.iter().try_for_each(outbox)?;
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
    headers(row.headers.iter().map(|(name, value)| name.len() + value.len()))?;
    payload(&row.payload)
}

/// Refuses headers that could not be encoded as one value.
fn headers(sizes: impl Iterator<Item = usize>) -> Result<(), StoreError> {
    let bytes = sizes.fold(HEADER_BYTES, |all, size| all.saturating_add(size + HEADER_BYTES));
    if bytes > MAX_BYTES {
        return refused(format!("headers of {bytes} bytes are more than the {MAX_BYTES} that one row may hold"));
    }
    Ok(())
}

/// Refuses a partition that no store could keep.
pub(crate) fn partition(key: &PartitionKey) -> Result<(), StoreError> {
    text("topic", &key.topic)?;
    if !(1..=MAX_TOPIC_BYTES).contains(&key.topic.len()) {
        return refused(format!("a topic's name has 1 to {MAX_TOPIC_BYTES} bytes"));
    }
    if key.partition < 0 {
        return refused(format!("partitions are numbered from 0, {} is none", key.partition));
    }
    Ok(())
}

/// Refuses an owner of a partition that no store could keep.
pub(crate) fn owner(owner: &str) -> Result<(), StoreError> {
    if owner.is_empty() {
        return refused("whoever claims a partition has a name".to_owned());
    }
    text("owner", owner)
}

/// Refuses what is no place in a topic.
pub(crate) fn offset(offset: i64) -> Result<(), StoreError> {
    if offset < 0 { refused(format!("offsets are counted from 0, {offset} is none")) } else { Ok(()) }
}

/// Refuses what an operator cannot want.
pub(crate) fn steer(steer: &Steer) -> Result<(), StoreError> {
    match steer {
        Steer::Seek { offset: to, .. } => offset(*to),
        Steer::Pause(_) | Steer::Clear => Ok(()),
    }
}

/// Refuses a dead letter that no store could keep.
pub(crate) fn dead(letter: &DeadLetter) -> Result<(), StoreError> {
    partition(&letter.key)?;
    offset(letter.offset)?;
    text("stage", &letter.stage)?;
    text("class", &letter.class)?;
    let size = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    headers(letter.headers.iter().map(|(name, value)| name.len() + size(value)))?;
    let bytes = letter_bytes(letter);
    if bytes > MAX_RECORD_BYTES {
        return refused(format!("a record of {bytes} bytes is more than the {MAX_RECORD_BYTES} of a dead letter"));
    }
    Ok(())
}

/// What a dead letter weighs, in bytes.
pub(crate) fn letter_bytes(letter: &DeadLetter) -> usize {
    let size = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = letter.headers.iter().map(|(name, value)| name.len() + size(value)).sum();
    size(&letter.record_key) + size(&letter.value) + letter.message.len() + headers
}

/// What records that leave the system weigh, in bytes.
pub(crate) fn outbox_bytes(outbox: &[OutboxRow]) -> usize {
    outbox.iter().map(|row| row.payload.len()).sum()
}

/// What an ingest weighs, in bytes.
pub(crate) fn ingest_bytes(ingest: &Ingest) -> usize {
    let admitted = ingest.admissions.iter().map(|its| its.entry.payload.len() + outbox_bytes(&its.outbox));
    admitted.sum::<usize>() + ingest.dead.iter().map(letter_bytes).sum::<usize>()
}

/// Refuses what no store could keep of some records.
pub(crate) fn ingest(ingest: &Ingest) -> Result<(), StoreError> {
    partition(&ingest.key)?;
    offset(ingest.seen)?;
    if ingest.next <= ingest.seen {
        return refused(format!("a position goes forward: not from offset {} to {}", ingest.seen, ingest.next));
    }
    let records = ingest.admissions.len() + ingest.dead.len();
    if records > MAX_INGEST_RECORDS {
        return refused(format!("{records} records are more than the {MAX_INGEST_RECORDS} of one ingest"));
    }
    let bytes = ingest_bytes(ingest);
    if bytes > MAX_INGEST_BYTES {
        return refused(format!("{bytes} bytes are more than the {MAX_INGEST_BYTES} of one ingest"));
    }
    for its in &ingest.admissions {
        admission(its)?;
        if its.idempotency.is_some() {
            return refused(format!("{} came from a record: its id is its key", its.run));
        }
    }
    for letter in &ingest.dead {
        if letter.key != ingest.key {
            return refused(format!("a dead letter of {} does not belong to {}", letter.key, ingest.key));
        }
        dead(letter)?;
    }
    Ok(())
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

/// The head as it is kept: a run that ended wants no waking, and has left its line unless it failed.
pub(crate) fn head(change: HeadChange) -> HeadChange {
    let done = matches!(change.state, HeadState::Succeeded | HeadState::Cancelled);
    HeadChange {
        wake_at: change.wake_at.filter(|_| !change.state.is_end()),
        leaves_line: change.leaves_line || done,
        ..change
    }
}

/// The line of a new run as it is kept.
pub(crate) fn line(admission: &Admission) -> Option<Line> {
    admission.line.filter(|_| !head(admission.head).leaves_line)
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
pub(crate) fn text(what: &str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') { refused(format!("a {what} must not contain the character NUL")) } else { Ok(()) }
}

fn refused(why: String) -> Result<(), StoreError> {
    Err(StoreError::Refused(why))
}
