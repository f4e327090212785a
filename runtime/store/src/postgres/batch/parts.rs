//! A statement in the making: its text, part by part, and its arguments.
//!
//! Used by the batch and by ingests.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Encode, Postgres, Type};

use crate::StoreError;

/// The text of a statement in the making, and its arguments.
#[derive(Default)]
pub(in crate::postgres) struct Parts {
    pub(in crate::postgres) text: String,
    pub(in crate::postgres) arguments: PgArguments,
    count: usize,
}

impl Parts {
    pub(in crate::postgres) fn part(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push_str(",\n");
        }
        self.text.push_str(text);
    }

    /// Adds an argument and names it.
    pub(in crate::postgres) fn add<'q, T>(&mut self, value: T) -> Result<String, StoreError>
    where
        T: Encode<'q, Postgres> + Type<Postgres> + 'q,
    {
        self.arguments.add(value).map_err(|error| StoreError::Refused(error.to_string()))?;
        self.count += 1;
        Ok(format!("${}", self.count))
    }

    /// Locks the rows of shards in key order as `locked`: as strongly as giving out positions needs, or else only
    /// against another epoch. Whoever took the weak lock first and then the strong one could wait in a circle.
    pub(in crate::postgres) fn locks(
        &mut self,
        mut shards: Vec<i16>,
        positions: bool,
        guard: &str,
    ) -> Result<(), StoreError> {
        shards.sort_unstable();
        shards.dedup();
        let shards = self.add(shards)?;
        let strength = if positions { "no key update" } else { "share" };
        self.part(&format!(
            "locked as materialized (select shard, epoch from shard where shard = any({shards}) {guard}
               order by shard for {strength})"
        ));
        Ok(())
    }

    /// Counts heads by state in a slot of the writer's own.
    pub(in crate::postgres) fn counts(&mut self, slot: i32, fresh: bool, changed: bool) -> Result<(), StoreError> {
        let slot = self.add(slot)?;
        let mut rows = Vec::new();
        if fresh {
            rows.push("select state, 1 as change from admitted");
        }
        if changed {
            rows.push("select state, 1 as change from changed union all select old, -1 from changed");
        }
        self.part(&format!(
            "counted as (insert into run_count as kept (slot, state, runs)
               select {slot}, state, sum(change) from ({}) as changes group by state having sum(change) <> 0
               order by state
               on conflict (slot, state) do update set runs = kept.runs + excluded.runs)",
            rows.join(" union all ")
        ));
        Ok(())
    }
}
