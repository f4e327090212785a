//! An ingest as one statement in one round trip.
//!
//! The partition's row is compared and moved first; everything else is written only if it moved: runs that are not
//! there, their first entries and what they owe the outbox, and dead letters. Locks are taken in this order: the
//! partition, then shards in key order. So nobody waits in a circle: a writer locks shards and never a partition.
//! Decides nothing. Used by the lanes.

use std::collections::HashSet;

use bytes::Bytes;
use motet_engine::id::RunId;
use sqlx::postgres::PgArguments;

use crate::headers::encode_headers;
use crate::port::{DeadLetter, Ingest, PartitionKey};
use crate::postgres::batch::{Fresh, Outbox, Parts};
use crate::{StoreError, check};

/// What a row depends on that is written only if the partition moved.
const MOVED: &str = "exists (select from moved)";

/// The rows of an ingest.
#[derive(Default)]
pub(super) struct Statement<'a> {
    fresh: Fresh<'a>,
    outbox: Outbox<'a>,
}

impl<'a> Statement<'a> {
    /// The rows of the runs; one that comes twice is written once.
    pub(super) fn new(ingest: &'a Ingest) -> Result<Self, StoreError> {
        let mut statement = Self::default();
        let mut seen: HashSet<RunId> = HashSet::with_capacity(ingest.admissions.len());
        for admission in ingest.admissions.iter().filter(|its| seen.insert(its.run)) {
            statement.fresh.push(admission, check::head(admission.head))?;
            for row in &admission.outbox {
                statement.outbox.push(None, admission.run, row)?;
            }
        }
        Ok(statement)
    }

    /// The days on which the runs were born.
    pub(super) fn days(&self) -> impl Iterator<Item = i32> + use<'_, 'a> {
        self.fresh.days()
    }

    /// The text and its arguments. Its rows are (0, nothing) when the partition moved, and then (1, run) for each that was
    /// there: hardly ever one.
    pub(super) fn text(&self, ingest: &Ingest, slot: i32) -> Result<(String, PgArguments), StoreError> {
        let mut parts = Parts::default();
        moved_part(&mut parts, ingest)?;
        let mut answer = "select 0, null::bytea from moved".to_owned();
        if !self.fresh.is_empty() {
            if !self.outbox.is_empty() {
                parts.locks(self.outbox.ungated(), true, &format!("and {MOVED}"))?;
            }
            self.fresh.part_unless_there(&mut parts, MOVED)?;
            self.outbox.part(&mut parts)?;
            parts.counts(slot, true, false)?;
            answer.push_str(&format!(
                " union all select 1, id from fresh where {MOVED} and id not in (select id from admitted)"
            ));
        }
        if !ingest.dead.is_empty() {
            dead_part(&mut parts, &ingest.dead)?;
        }
        Ok((format!("with {}\n{answer}", parts.text), parts.arguments))
    }
}

fn moved_part(parts: &mut Parts, ingest: &Ingest) -> Result<(), StoreError> {
    let PartitionKey { namespace, stream, topic, partition } = &ingest.key;
    let text = format!(
        "moved as (update ingest_partition set next = {next}, barren = 0, changed_at = {at}
           where namespace = {namespace} and stream = {stream} and topic = {topic} and part = {partition}
             and epoch = {epoch} and next = {seen} returning epoch)",
        next = parts.add(ingest.next)?,
        at = parts.add(ingest.at.as_millis())?,
        namespace = parts.add(namespace.0.as_str())?,
        stream = parts.add(stream.as_str())?,
        topic = parts.add(topic.as_str())?,
        partition = parts.add(*partition)?,
        epoch = parts.add(ingest.epoch.0.cast_signed())?,
        seen = parts.add(ingest.seen)?,
    );
    parts.part(&text);
    Ok(())
}

fn dead_part(parts: &mut Parts, dead: &[DeadLetter]) -> Result<(), StoreError> {
    let headers: Vec<Bytes> = dead.iter().map(|letter| encode_headers(&letter.headers)).collect::<Result<_, _>>()?;
    let columns = [
        parts.add(dead.iter().map(|letter| letter.key.namespace.0.as_str()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.key.stream.as_str()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.key.topic.as_str()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.key.partition).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| i64::from(letter.generation)).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.offset).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.at.as_millis()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.timestamp).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.stage.as_str()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.class.as_str()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.state as i16).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.sent).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.message.as_bytes()).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.record_key.as_deref()).collect::<Vec<_>>())?,
        parts.add(headers.iter().map(|headers| &headers[..]).collect::<Vec<_>>())?,
        parts.add(dead.iter().map(|letter| letter.value.as_deref()).collect::<Vec<_>>())?,
    ];
    parts.part(&format!(
        "buried as (insert into dead_letter (namespace, stream, topic, part, generation, at_offset, at, timestamp, stage,
             class, state, sent, message, record_key, headers, record_value)
           select * from unnest({}) as d where {MOVED} on conflict do nothing)",
        columns.join(", ")
    ));
    Ok(())
}
