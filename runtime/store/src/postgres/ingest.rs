//! Partitions and dead letters in PostgreSQL.
//!
//! A row of a partition changes in one statement that compares and sets; whoever claims it waits for the lock of an
//! ingest that is being committed, and then sees what it left. Used by `postgres`.

mod lane;
mod letter;
mod row;
mod statement;

use async_trait::async_trait;
use motet_engine::id::{Epoch, Name, Namespace};
use motet_engine::time::Timestamp;
use sqlx::postgres::PgPool;

use super::PostgresStore;
use crate::port::{Admitted, DeadLetter, DeadQuery, DeadState, Ingest, IngestStore, PartitionKey, PartitionRow, Steer};
use crate::{StoreError, check};
pub(super) use lane::{LANES, Lanes};

impl PostgresStore {
    fn open_streams(&self) -> Result<&PgPool, StoreError> {
        if self.queue.is_closed() { Err(StoreError::Closed) } else { Ok(&self.streams) }
    }
}

#[async_trait]
impl IngestStore for PostgresStore {
    async fn claim_partition(
        &self,
        key: &PartitionKey,
        owner: &str,
        now: Timestamp,
    ) -> Result<PartitionRow, StoreError> {
        check::partition(key)?;
        check::owner(owner)?;
        row::claim(self.open_streams()?, key, owner, now).await
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
        row::begin(self.open_streams()?, key, epoch, origin, next, now).await
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError> {
        check::ingest(&ingest)?;
        self.open_streams()?;
        self.lanes.ingest(&ingest).await
    }

    async fn release_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        row::release(self.open_streams()?, key, epoch, now).await
    }

    async fn forgive_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        row::forgive(self.open_streams()?, key, epoch, now).await
    }

    async fn trouble_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        check::text("trouble", trouble.as_deref().unwrap_or_default())?;
        row::trouble(self.open_streams()?, key, epoch, trouble.as_deref(), now).await
    }

    async fn steer_partition(
        &self,
        key: &PartitionKey,
        steer: Steer,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        check::steer(&steer)?;
        row::steer(self.open_streams()?, key, &steer, now).await
    }

    async fn partitions(
        &self,
        namespace: Option<&Namespace>,
        stream: Option<&Name>,
    ) -> Result<Vec<PartitionRow>, StoreError> {
        row::list(&self.readers, namespace, stream).await
    }

    async fn partition(&self, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError> {
        row::get(&self.readers, key).await
    }

    async fn dead_letters(&self, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError> {
        letter::list(&self.readers, query).await
    }

    async fn dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        letter::get(&self.readers, key, generation, offset).await
    }

    async fn settle_dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<bool, StoreError> {
        letter::settle(self.open_streams()?, key, generation, offset, state).await
    }

    async fn unsent_dead_letters(&self, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        letter::unsent(&self.readers, key, limit).await
    }

    async fn dead_letters_sent(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        offsets: &[(u32, i64)],
    ) -> Result<(), StoreError> {
        letter::mark_sent(self.open_streams()?, key, epoch, offsets).await
    }
}
