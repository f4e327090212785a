//! Partitions and dead letters of the memory store.
//!
//! Never locks and never waits: the store around it holds the lock. Used by `memory` only.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use motet_engine::id::{Epoch, Name, Namespace};
use motet_engine::time::Timestamp;

use super::MemoryStore;
use super::state::State;
use crate::partition_rules::{self, Change};
use crate::port::{
    Admitted, DeadLetter, DeadPlace, DeadQuery, DeadState, Ingest, IngestStore, PartitionKey, PartitionRow, Steer,
};
use crate::{StoreError, check};

/// What is remembered of streams.
#[derive(Default)]
pub(super) struct Streams {
    partitions: BTreeMap<PartitionKey, PartitionRow>,
    letters: BTreeMap<(PartitionKey, u32, i64), DeadLetter>,
}

impl Streams {
    fn change(
        &mut self,
        key: &PartitionKey,
        change: &Change,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        let row = partition_rules::changed(self.partitions.get(key), key, change, now)?;
        if let Some(row) = &row {
            self.partitions.insert(key.clone(), row.clone());
        }
        Ok(row)
    }

    fn list(&self, query: &DeadQuery) -> Vec<DeadLetter> {
        let fits = |letter: &&DeadLetter| {
            letter.key.namespace == query.namespace
                && query.stream.as_ref().is_none_or(|stream| letter.key.stream == *stream)
                && query.partition.is_none_or(|partition| letter.key.partition == partition)
                && query.state.is_none_or(|state| letter.state == state)
        };
        let by_place: BTreeMap<DeadPlace, &DeadLetter> =
            self.letters.values().filter(fits).map(|letter| (letter.place(), letter)).collect();
        let end = query.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let newest_first = by_place.range((Bound::Unbounded, end)).rev().map(|(_, letter)| (*letter).clone());
        let bare = |letter: DeadLetter| DeadLetter { record_key: None, value: None, headers: vec![], ..letter };
        let shown = newest_first.map(|letter| if query.with_bytes { letter } else { bare(letter) });
        shown.take(query.limit.clamp(1, check::MAX_PAGE) as usize).collect()
    }

    fn settle(&mut self, place: &(PartitionKey, u32, i64), state: DeadState) -> bool {
        let open_or_opened = |letter: &&mut DeadLetter| {
            letter.state != state && (letter.state == DeadState::Open || state == DeadState::Open)
        };
        self.letters.get_mut(place).filter(open_or_opened).map(|letter| letter.state = state).is_some()
    }

    fn mark_sent(&mut self, key: &PartitionKey, epoch: Epoch, offsets: &[(u32, i64)]) -> Result<(), StoreError> {
        partition_rules::owned(self.partitions.get(key), key, epoch)?;
        for (generation, offset) in offsets {
            if let Some(letter) = self.letters.get_mut(&(key.clone(), *generation, *offset)) {
                letter.sent = true;
            }
        }
        Ok(())
    }

    /// Forgets dead letters that are settled and old.
    pub(super) fn forget(&mut self, read_before: Timestamp) {
        self.letters.retain(|_, letter| letter.state == DeadState::Open || letter.at >= read_before);
    }
}

impl State {
    fn ingest(&mut self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError> {
        let row = partition_rules::advanced(self.streams.partitions.get(&ingest.key), &ingest)?;
        self.streams.partitions.insert(row.key.clone(), row);
        let mut answers = Vec::with_capacity(ingest.admissions.len());
        for admission in ingest.admissions {
            let run = admission.run;
            let new = self.begin(admission);
            answers.push(if new { Admitted::New } else { Admitted::Replayed(run) });
        }
        for letter in ingest.dead {
            let place = (letter.key.clone(), letter.generation, letter.offset);
            self.streams.letters.entry(place).or_insert(letter);
        }
        self.health.commits += 1;
        Ok(answers)
    }
}

#[async_trait]
impl IngestStore for MemoryStore {
    async fn claim_partition(
        &self,
        key: &PartitionKey,
        owner: &str,
        now: Timestamp,
    ) -> Result<PartitionRow, StoreError> {
        check::partition(key)?;
        check::owner(owner)?;
        let row = self.write()?.streams.change(key, &Change::Claim { owner: owner.to_owned() }, now)?;
        row.ok_or_else(|| StoreError::Corrupt(format!("{key} has no row after a claim")))
    }

    async fn begin_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        origin: &str,
        next: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        check::text("origin", origin)?;
        check::offset(next)?;
        let begin = Change::Begin { epoch, origin: origin.to_owned(), next };
        self.write()?.streams.change(key, &begin, now).map(drop)
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError> {
        check::ingest(&ingest)?;
        self.write()?.ingest(ingest)
    }

    async fn release_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.write()?.streams.change(key, &Change::Release { epoch }, now).map(drop)
    }

    async fn forgive_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.write()?.streams.change(key, &Change::Forgive { epoch }, now).map(drop)
    }

    async fn trouble_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        check::text("trouble", trouble.as_deref().unwrap_or_default())?;
        self.write()?.streams.change(key, &Change::Trouble { epoch, trouble }, now).map(drop)
    }

    async fn steer_partition(
        &self,
        key: &PartitionKey,
        steer: Steer,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        check::steer(&steer)?;
        self.write()?.streams.change(key, &Change::Steer(steer), now)
    }

    async fn partitions(
        &self,
        namespace: Option<&Namespace>,
        stream: Option<&Name>,
    ) -> Result<Vec<PartitionRow>, StoreError> {
        let fits = |row: &&PartitionRow| {
            namespace.is_none_or(|namespace| row.key.namespace == *namespace)
                && stream.is_none_or(|stream| row.key.stream == *stream)
        };
        Ok(self.read().streams.partitions.values().filter(fits).cloned().collect())
    }

    async fn partition(&self, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError> {
        Ok(self.read().streams.partitions.get(key).cloned())
    }

    async fn dead_letters(&self, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(self.read().streams.list(query))
    }

    async fn dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.read().streams.letters.get(&(key.clone(), generation, offset)).cloned())
    }

    async fn settle_dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<bool, StoreError> {
        Ok(self.write()?.streams.settle(&(key.clone(), generation, offset), state))
    }

    async fn unsent_dead_letters(&self, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let state = self.read();
        let of_partition = state.streams.letters.range((key.clone(), 0, i64::MIN)..=(key.clone(), u32::MAX, i64::MAX));
        let unsent = of_partition.map(|(_, letter)| letter).filter(|letter| !letter.sent).cloned();
        Ok(unsent.take(limit.clamp(1, check::MAX_PAGE) as usize).collect())
    }

    async fn dead_letters_sent(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        offsets: &[(u32, i64)],
    ) -> Result<(), StoreError> {
        self.write()?.streams.mark_sent(key, epoch, offsets)
    }
}
