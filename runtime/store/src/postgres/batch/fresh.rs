//! Runs that begin, and their first entries, as a part of a statement.
//!
//! Decides nothing: the statement around it says which of them are written. Used by the batch and by ingests.

use bytes::Bytes;
use motet_engine::time::Timestamp;

use super::columns::Fresh;
use super::parts::Parts;
use crate::port::{Admission, HeadChange};
use crate::postgres::partition::born;
use crate::{StoreError, check};

impl<'a> Fresh<'a> {
    pub(in crate::postgres) fn push(&mut self, admission: &'a Admission, head: HeadChange) -> Result<(), StoreError> {
        let Admission { run, namespace, workflow, version, tags, entry, idempotency, .. } = admission;
        let line = check::line(admission);
        self.ids.push(run.to_bytes());
        self.shards.push(run.shard().0.cast_signed());
        self.namespaces.push(namespace.0.as_str());
        self.workflows.push(workflow.as_str());
        self.versions.push(version);
        self.tags.push(serde_json::to_string(tags).map_err(|error| StoreError::Refused(error.to_string()))?);
        self.states.push(head.state as i16);
        self.finished.push(head.state.is_end().then(|| entry.at.as_millis()));
        self.wakes.push(head.wake_at.map(Timestamp::as_millis));
        self.lines.push(line.map(|line| Bytes::copy_from_slice(&line.line)));
        self.places.push(line.map(|line| line.place));
        self.born.push(born(*run));
        self.counts.push(entry.count.cast_signed());
        self.at.push(entry.at.as_millis());
        self.payloads.push(&entry.payload);
        self.keys.push(idempotency.as_ref().map(|key| key.key.as_str()));
        self.fingerprints.push(idempotency.as_ref().map(|key| &key.fingerprint[..]));
        self.expiries.push(idempotency.as_ref().map(|key| key.expires_at.as_millis()));
        Ok(())
    }

    pub(in crate::postgres) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The days on which the runs were born.
    pub(in crate::postgres) fn days(&self) -> impl Iterator<Item = i32> + use<'_, 'a> {
        self.born.iter().copied()
    }

    pub(super) fn is_keyed(&self) -> bool {
        self.keys.iter().any(Option::is_some)
    }

    /// The runs as `fresh`, and what is written of them as `admitted`: all whose key is free.
    pub(super) fn part(&self, parts: &mut Parts) -> Result<(), StoreError> {
        let keyed = self.is_keyed();
        self.rows(parts, keyed)?;
        if keyed {
            parts.part(
                "taken as (insert into idempotency as kept (namespace, key, fingerprint, run, used_at, expires_at)
                   select namespace, key, fingerprint, id, at, expires_at from fresh where key is not null
                   order by namespace, key
                   on conflict (namespace, key) do update set fingerprint = excluded.fingerprint, run = excluded.run,
                     used_at = excluded.used_at, expires_at = excluded.expires_at
                   where kept.expires_at <= excluded.used_at returning run)",
            );
        }
        let free = if keyed { "where key is null or id in (select run from taken)" } else { "" };
        written(parts, free, "", free);
        Ok(())
    }

    /// The runs as `fresh`, and what is written of them as `admitted`: if the guard holds, all that are not there.
    pub(in crate::postgres) fn part_unless_there(&self, parts: &mut Parts, guard: &str) -> Result<(), StoreError> {
        self.rows(parts, false)?;
        let new = "where id in (select id from admitted)";
        written(parts, &format!("where {guard}"), "on conflict (id) do nothing", new);
        Ok(())
    }

    fn rows(&self, parts: &mut Parts, keyed: bool) -> Result<(), StoreError> {
        let mut columns = vec![
            parts.add(&self.ids)?,
            parts.add(&self.shards)?,
            parts.add(&self.namespaces)?,
            parts.add(&self.workflows)?,
            parts.add(&self.versions)?,
            parts.add(&self.tags)?,
            parts.add(&self.states)?,
            parts.add(&self.finished)?,
            parts.add(&self.wakes)?,
            parts.add(self.lines.iter().map(Option::as_deref).collect::<Vec<_>>())?,
            parts.add(&self.places)?,
            parts.add(&self.born)?,
            parts.add(&self.counts)?,
            parts.add(&self.at)?,
            parts.add(&self.payloads)?,
        ];
        let mut names =
            "id, shard, namespace, workflow, version, tags, state, finished_at, wake_at, line, place, born, \
                         count, at, payload"
                .to_owned();
        if keyed {
            columns.extend([parts.add(&self.keys)?, parts.add(&self.fingerprints)?, parts.add(&self.expiries)?]);
            names.push_str(", key, fingerprint, expires_at");
        }
        parts.part(&format!("fresh as materialized (select * from unnest({}) as f({names}))", columns.join(", ")));
        Ok(())
    }
}

fn written(parts: &mut Parts, which: &str, conflict: &str, first: &str) {
    parts.part(&format!(
        "admitted as (insert into run
             (id, shard, namespace, workflow, version, tags, state, created_at, finished_at, wake_at, line, place)
           select id, shard, namespace, workflow, version, tags, state, at, finished_at, wake_at, line, place
           from fresh {which} {conflict} returning id, state),
         first as (insert into journal (born, run, seq, count, at, payload)
           select born, id, 1, count, at, payload from fresh {first})"
    ));
}
