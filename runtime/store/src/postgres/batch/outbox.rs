//! Records that leave the system, as a part of a statement.
//!
//! Positions are given out under the shards' rows, which are held to the commit. Decides nothing. Used by the batch and
//! by ingests.

use motet_engine::id::RunId;

use super::columns::Outbox;
use super::parts::Parts;
use crate::StoreError;
use crate::headers::encode_headers;
use crate::port::OutboxRow;

/// The gate of what stands behind none; the statement has it as a number.
const UNGATED: i32 = -1;

impl<'a> Outbox<'a> {
    /// A record that is kept when the run's gate opens, or when the run is new.
    pub(in crate::postgres) fn push(
        &mut self,
        gate: Option<i32>,
        run: RunId,
        row: &'a OutboxRow,
    ) -> Result<(), StoreError> {
        self.headers.push(encode_headers(&row.headers)?);
        self.gates.push(gate.unwrap_or(UNGATED));
        self.shards.push(run.shard().0.cast_signed());
        self.runs.push(run.to_bytes());
        self.events.push(row.event);
        self.topics.push(&row.topic);
        self.keys.push(row.key.as_deref());
        self.payloads.push(&row.payload);
        self.transactional.push(row.transactional);
        Ok(())
    }

    pub(in crate::postgres) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The shards of records that stand behind no gate.
    pub(in crate::postgres) fn ungated(&self) -> Vec<i16> {
        let each = self.gates.iter().zip(&self.shards);
        let mut shards: Vec<i16> = each.filter(|(gate, _)| **gate == UNGATED).map(|(_, shard)| *shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Gives the records their positions and keeps them. Their shards' rows are `locked`, as strongly as that needs.
    pub(in crate::postgres) fn part(&self, parts: &mut Parts) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        let columns = [
            parts.add(&self.gates)?,
            parts.add(&self.shards)?,
            parts.add(&self.runs)?,
            parts.add(&self.events)?,
            parts.add(&self.topics)?,
            parts.add(&self.keys)?,
            parts.add(self.headers.iter().map(|headers| &headers[..]).collect::<Vec<_>>())?,
            parts.add(&self.payloads)?,
            parts.add(&self.transactional)?,
        ];
        let (mut kept, ungated) = (vec![], self.ungated());
        if self.gates.iter().any(|gate| *gate != UNGATED) {
            kept.push("gate in (select gate from opened)");
        }
        if !ungated.is_empty() {
            kept.push(
                "(gate = -1 and run in (select id from admitted) and o.shard in (select locked.shard from locked))",
            );
        }
        parts.part(&format!(
            "owed as materialized (select o.*, row_number() over (partition by o.shard order by number) as place
               from unnest({}) with ordinality as o(gate, shard, run, event, topic, key, headers, payload, transactional,
                 number)
               where {}),
             placed as (update shard set outbox = shard.outbox + owed.rows
               from (select shard, count(*) as rows from owed group by shard) as owed where shard.shard = owed.shard
               returning shard.shard, shard.outbox - owed.rows as before),
             sent as (insert into outbox (shard, position, run, event, topic, key, headers, payload, transactional)
               select owed.shard, placed.before + place, run, event, topic, key, headers, payload, transactional
               from owed join placed on placed.shard = owed.shard)",
            columns.join(", "),
            kept.join(" or ")
        ));
        Ok(())
    }
}
