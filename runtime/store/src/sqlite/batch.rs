//! One commit as one statement: the rows of many writes, packed into a handful of arguments.
//!
//! A hand-off to the database's thread costs more than a row, so a whole transaction travels in one: `begin`, a
//! statement per table that has rows, `commit`. The texts are constant, whatever the number of rows, so that every
//! one is prepared once; the rows travel packed and are taken apart by the statement. Decides nothing about writes.
//! Used by the planner, which fills it, and by the writer, which runs it.

use std::fmt::{self, Write as _};

use motet_engine::id::{Epoch, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use serde::{Serialize, Serializer};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use crate::headers::encode_headers;
use crate::port::{
    Admission, DeadLetter, Entry, HeadChange, HeadState, MapVersion, OutboxRow, PartitionKey, PartitionRow, Snapshot,
};
use crate::{StoreError, check};

/// Bytes of one packed journal row: 16 of the run, then the decimals of seq, count, time, place and length.
const JOURNAL_ROW_BYTES: usize = 16 + 20 + 10 + 20 + 10 + 10;

// `$n` is the n-th argument in every text; with `?n` a statement that leaves numbers out would get the wrong ones.
// 1 journal rows, 2 their length, 3 payloads, 4 runs, 5 heads,
// 6 idempotency keys, 7 claims, 8 snapshots, 9 blobs, 10 changes of the counts, 11 outbox records, 12 their last
// positions, 13 rows of partitions, 14 dead letters. `or rollback` spares the copy of pages that undoing a single statement would need: a failed batch is
// undone whole.
const JOURNAL: &str = "insert or rollback into journal (run, seq, count, at, payload)
  with recursive place (o) as (select 1 where $2 > 0 union all select o + 86 from place where o + 86 < $2)
  select substr($1, o, 16), cast(substr($1, o + 16, 20) as integer), cast(substr($1, o + 36, 10) as integer),
    cast(substr($1, o + 46, 20) as integer),
    substr($3, cast(substr($1, o + 66, 10) as integer), cast(substr($1, o + 76, 10) as integer))
  from place;\n";
const RUNS: &str = "insert or rollback into run
  (id, shard, namespace, workflow, version, tags, state, created_at, finished_at, wake_at, line, place)
  select unhex(value->>0), value->>1, value->>2, value->>3, value->>4, value->5, value->>6, value->>7, value->>8,
    value->>9, unhex(value->>10), value->>11
  from json_each($4);\n";
pub(super) const HEADS: &str = "update or rollback run
  set state = changed.state, finished_at = changed.finished_at, wake_at = changed.wake_at,
    line = iif(changed.leaves, null, run.line), place = iif(changed.leaves, null, run.place)
  from (select unhex(value->>0) as id, value->>1 as state, value->>2 as finished_at, value->>3 as wake_at,
    value->>4 as leaves from json_each($5)) as changed
  where run.id = changed.id;\n";
const KEYS: &str = "insert into idempotency (namespace, key, fingerprint, run, expires_at)
  select value->>0, value->>1, unhex(value->>2), unhex(value->>3), value->>4 from json_each($6) where true
  on conflict (namespace, key) do update set fingerprint = excluded.fingerprint, run = excluded.run,
    expires_at = excluded.expires_at;\n";
const CLAIMS: &str = "insert into shard (shard, epoch, owner, changed)
  select value->>0, value->>1, value->>2, value->>3 from json_each($7) where true
  on conflict (shard) do update set epoch = excluded.epoch, owner = excluded.owner, incarnation = null, target = null,
    changed = excluded.changed;
update shard_map set version = (select max(value->>3) from json_each($7));\n";
const SNAPSHOTS: &str = "insert into snapshot (run, seq, schema, state)
  select unhex(value->>0), value->>1, value->>2, substr($3, value->>3, value->>4) from json_each($8) where true
  on conflict (run) do update set seq = excluded.seq, schema = excluded.schema, state = excluded.state
  where excluded.seq > snapshot.seq;\n";
const BLOBS: &str = "insert into blob (sha256, data)
  select unhex(value->>1), substr($3, value->>2, value->>3) from json_each($9) where true
  on conflict (sha256) do nothing;
insert into blob_use (run, sha256)
  select unhex(value->>0), unhex(value->>1) from json_each($9) where true on conflict do nothing;\n";
const COUNTS: &str = "update run_count set pending = pending + ($10->>0), running = running + ($10->>1),
  waiting = waiting + ($10->>2), paused = paused + ($10->>3), succeeded = succeeded + ($10->>4),
  failed = failed + ($10->>5), cancelled = cancelled + ($10->>6), timed_out = timed_out + ($10->>7);\n";
const OUTBOX: &str = "insert or rollback into outbox
  (shard, position, run, event, topic, key, headers, payload, transactional)
  select value->>0, value->>1, unhex(value->>2), unhex(value->>3), value->>4, unhex(value->>5), unhex(value->>6),
    substr($3, value->>7, value->>8), value->>9
  from json_each($11);
insert into shard (shard, epoch, owner, outbox) select value->>0, 0, '', value->>1 from json_each($12) where true
  on conflict (shard) do update set outbox = excluded.outbox;\n";

const PARTITIONS: &str = "insert or replace into ingest_partition
  (namespace, stream, topic, part, generation, since, epoch, owner, next, origin, barren, paused, trouble, changed_at)
  select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9,
    value->>10, value->>11, value->>12, value->>13
  from json_each($13);\n";
const LETTERS: &str = "insert into dead_letter (namespace, stream, topic, part, generation, at_offset, at, timestamp,
    stage, class, state, sent, message, record_key, headers, record_value)
  select value->0->>0, value->0->>1, value->0->>2, value->0->>3, value->0->>4, value->0->>5, value->0->>6, value->0->>7,
    value->1->>0, value->1->>1, value->1->>2, value->1->>3, substr($3, value->2->>0, value->2->>1),
    substr($3, value->3->>0, value->3->>1), substr($3, value->4->>0, value->4->>1),
    substr($3, value->5->>0, value->5->>1)
  from json_each($14) where true on conflict do nothing;\n";

/// Bytes that travel in a JSON list.
pub(super) struct Hex<T>(pub(super) T);

impl<T: AsRef<[u8]>> fmt::Display for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.as_ref().iter().try_for_each(|byte| {
            f.write_char(DIGITS[usize::from(byte >> 4)].into())?;
            f.write_char(DIGITS[usize::from(byte & 15)].into())
        })
    }
}

impl<T: AsRef<[u8]>> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A list of rows in JSON, written as it grows.
#[derive(Default)]
struct Rows(Vec<u8>);

impl Rows {
    fn push(&mut self, row: &impl Serialize) -> Result<(), StoreError> {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut self.0, row).map_err(|error| StoreError::Refused(error.to_string()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn finish(mut self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push(b']');
        String::from_utf8(self.0).ok()
    }
}

/// Rows for one commit.
pub(super) struct Batch {
    journal: Vec<u8>,
    payloads: Vec<u8>,
    runs: Rows,
    heads: Rows,
    keys: Rows,
    claims: Rows,
    snapshots: Rows,
    blobs: Rows,
    outbox: Rows,
    positions: Rows,
    partitions: Rows,
    letters: Rows,
    counts: [i64; HeadState::ALL.len()],
    pub(super) entries: u64,
    pub(super) events: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            journal: Vec::new(),
            // Taking a part out of an empty blob gives null instead of an empty blob, so it is never empty.
            payloads: vec![0],
            runs: Rows::default(),
            heads: Rows::default(),
            keys: Rows::default(),
            claims: Rows::default(),
            snapshots: Rows::default(),
            blobs: Rows::default(),
            outbox: Rows::default(),
            positions: Rows::default(),
            partitions: Rows::default(),
            letters: Rows::default(),
            counts: [0; HeadState::ALL.len()],
            entries: 0,
            events: 0,
        }
    }

    pub(super) fn entry(&mut self, run: RunId, entry: &Entry) {
        let (place, length) = self.payload(&entry.payload);
        self.journal.extend_from_slice(&run.to_bytes());
        let at = entry.at.as_millis();
        // Writing to a vector cannot fail.
        let _ = std::io::Write::write_fmt(
            &mut self.journal,
            format_args!("{:020}{:010}{at:020}{place:010}{length:010}", entry.seq.0, entry.count),
        );
        debug_assert_eq!(self.journal.len() % JOURNAL_ROW_BYTES, 0, "the row's width is part of the statement");
        self.entries += 1;
        self.events += u64::from(entry.count);
    }

    pub(super) fn run(&mut self, admission: &Admission, head: HeadChange) -> Result<(), StoreError> {
        let Admission { run, namespace, workflow, version, tags, entry, .. } = admission;
        let finished_at = head.state.is_end().then(|| entry.at.as_millis());
        let line = check::line(admission);
        self.counts[head.state as usize] += 1;
        self.runs.push(&(
            Hex(run.to_bytes()),
            run.shard().0,
            namespace,
            workflow,
            version,
            tags,
            head.state as u8,
            entry.at.as_millis(),
            finished_at,
            head.wake_at.map(Timestamp::as_millis),
            line.map(|line| Hex(line.line)),
            line.map(|line| line.place),
        ))
    }

    pub(super) fn count_change(&mut self, from: HeadState, to: HeadState) {
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
    }

    pub(super) fn head(&mut self, run: RunId, head: HeadChange, at: Timestamp) -> Result<(), StoreError> {
        let finished_at = head.state.is_end().then(|| at.as_millis());
        let wake_at = head.wake_at.map(Timestamp::as_millis);
        self.heads.push(&(Hex(run.to_bytes()), head.state as u8, finished_at, wake_at, head.leaves_line))
    }

    pub(super) fn key(&mut self, admission: &Admission) -> Result<(), StoreError> {
        let Some(key) = &admission.idempotency else { return Ok(()) };
        self.keys.push(&(
            &admission.namespace,
            &key.key,
            Hex(key.fingerprint),
            Hex(admission.run.to_bytes()),
            key.expires_at.as_millis(),
        ))
    }

    pub(super) fn claim(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        owner: &str,
        changed: MapVersion,
    ) -> Result<(), StoreError> {
        self.claims.push(&(shard.0, epoch.0, owner, changed.0))
    }

    pub(super) fn snapshot(&mut self, run: RunId, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (place, length) = self.payload(&snapshot.state);
        let Seq(seq) = snapshot.seq;
        self.snapshots.push(&(Hex(run.to_bytes()), seq, snapshot.schema, place, length))
    }

    pub(super) fn blob(&mut self, run: RunId, sha256: [u8; 32], data: &[u8]) -> Result<(), StoreError> {
        let (place, length) = self.payload(data);
        self.blobs.push(&(Hex(run.to_bytes()), Hex(sha256), place, length))
    }

    pub(super) fn outbox(&mut self, run: RunId, position: u64, row: &OutboxRow) -> Result<(), StoreError> {
        let (place, length) = self.payload(&row.payload);
        self.outbox.push(&(
            run.shard().0,
            position,
            Hex(run.to_bytes()),
            Hex(row.event),
            &row.topic,
            row.key.as_ref().map(Hex),
            Hex(encode_headers(&row.headers)?),
            place,
            length,
            row.transactional,
        ))
    }

    pub(super) fn position(&mut self, shard: ShardId, last: u64) -> Result<(), StoreError> {
        self.positions.push(&(shard.0, last))
    }

    pub(super) fn partition(&mut self, row: &PartitionRow) -> Result<(), StoreError> {
        let key = &row.key;
        self.partitions.push(&(
            &key.namespace,
            &key.stream,
            &key.topic,
            key.partition,
            row.generation,
            row.since,
            row.epoch,
            &row.owner,
            row.next,
            &row.origin,
            row.barren,
            row.paused,
            &row.trouble,
            row.changed_at,
        ))
    }

    pub(super) fn letter(&mut self, letter: &DeadLetter) -> Result<(), StoreError> {
        let headers = encode_headers(&letter.headers)?;
        let PartitionKey { namespace, stream, topic, partition } = &letter.key;
        let (generation, offset) = (letter.generation, letter.offset);
        let place = (namespace, stream, topic, partition, generation, offset, letter.at, letter.timestamp);
        let why = (&letter.stage, &letter.class, letter.state as u8, letter.sent);
        let message = self.payload(letter.message.as_bytes());
        let record_key = letter.record_key.as_ref().map(|key| self.payload(key));
        let headers = self.payload(&headers);
        let value = letter.value.as_ref().map(|value| self.payload(value));
        self.letters.push(&(place, why, message, record_key, headers, value))
    }

    /// Where the bytes lie among the payloads, counted from 1, and how many they are.
    fn payload(&mut self, bytes: &[u8]) -> (usize, usize) {
        let place = self.payloads.len() + 1;
        self.payloads.extend_from_slice(bytes);
        (place, bytes.len())
    }

    /// The whole commit as one text with its arguments; none when there is nothing to write.
    pub(super) fn statement(self) -> Result<Option<(String, SqliteArguments<'static>)>, StoreError> {
        let counted = self.counts.iter().any(|change| *change != 0);
        let sections = [
            (!self.runs.is_empty(), RUNS),
            (!self.journal.is_empty(), JOURNAL),
            (!self.heads.is_empty(), HEADS),
            (!self.keys.is_empty(), KEYS),
            (!self.claims.is_empty(), CLAIMS),
            (!self.snapshots.is_empty(), SNAPSHOTS),
            (!self.blobs.is_empty(), BLOBS),
            (counted, COUNTS),
            (!self.outbox.is_empty(), OUTBOX),
            (!self.partitions.is_empty(), PARTITIONS),
            (!self.letters.is_empty(), LETTERS),
        ];
        if sections.iter().all(|(wanted, _)| !wanted) {
            return Ok(None);
        }
        let mut text = String::from("begin immediate;\n");
        text.extend(sections.iter().filter(|(wanted, _)| *wanted).map(|(_, section)| *section));
        text.push_str("commit");
        let counts = serde_json::to_string(&self.counts).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mut arguments = SqliteArguments::default();
        let length = i64::try_from(self.journal.len()).unwrap_or(i64::MAX);
        arguments
            .add(self.journal)
            .and_then(|()| arguments.add(length))
            .and_then(|()| arguments.add(self.payloads))
            .and_then(|()| arguments.add(self.runs.finish()))
            .and_then(|()| arguments.add(self.heads.finish()))
            .and_then(|()| arguments.add(self.keys.finish()))
            .and_then(|()| arguments.add(self.claims.finish()))
            .and_then(|()| arguments.add(self.snapshots.finish()))
            .and_then(|()| arguments.add(self.blobs.finish()))
            .and_then(|()| arguments.add(counts))
            .and_then(|()| arguments.add(self.outbox.finish()))
            .and_then(|()| arguments.add(self.positions.finish()))
            .and_then(|()| arguments.add(self.partitions.finish()))
            .and_then(|()| arguments.add(self.letters.finish()))
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(Some((text, arguments)))
    }
}
