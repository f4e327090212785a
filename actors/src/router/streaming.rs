//! Streams from outside: where their partitions stand, steering those, and dealing with dead letters.
//!
//! Holds no rules of records; the engine does. Positions and letters are the store's, so any node answers alike. Used by
//! the HTTP API.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use motet_broker::port::{Bounds, Place, Start};
use motet_engine::access::{Action, Caller};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Name;
use motet_engine::stream::{self, Incoming, Origin, Verdict};
use motet_engine::time::Timestamp;
use motet_schemas::port::Undecided;
use motet_store::StoreError;
use motet_store::port::{DeadLetter, DeadQuery, DeadState, PartitionKey, PartitionRow, Steer};

use super::{Router, allow};
use crate::catalog::CatalogError;
use crate::message::RouteError;
use crate::streams::PartitionFigures;
use crate::submission::{SubmitError, Submitted};

/// Partitions whose ends are asked for at one time.
const TOGETHER: usize = 16;

/// A partition as people see it.
#[derive(Debug, Clone)]
pub struct PartitionView {
    /// What the store remembers.
    pub row: PartitionRow,
    /// What the topic keeps; none where the broker cannot be asked.
    pub bounds: Option<Bounds>,
    /// How the node does that has it, if it is this one.
    pub figures: Option<Arc<PartitionFigures>>,
}

impl PartitionView {
    /// Records that are not durable yet; none where that is not known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        Some(self.bounds?.high.saturating_sub(self.row.next?).max(0))
    }
}

/// Where a partition is to be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// At an offset.
    Offset(i64),
    /// At the oldest record that the topic keeps.
    Earliest,
    /// After the newest record.
    Latest,
    /// At the first record that is not older than this.
    At(Timestamp),
}

impl Router {
    /// The partitions of a stream, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn partitions(&self, caller: &Caller, stream: &Name) -> Result<Vec<PartitionView>, RouteError> {
        use futures::StreamExt as _;
        allow(caller, Action::ReadDefinition)?;
        // The rows of a stream that was deleted stay for one that is put again under its name.
        self.catalog.newest_stream(&caller.namespace, stream).await.map_err(unknown_stream)?;
        let rows = self.store().partitions(Some(&caller.namespace), Some(stream)).await.map_err(unavailable)?;
        let views = futures::stream::iter(rows).map(|row| async move {
            let bounds = match self.streams.broker() {
                Some(broker) => broker.bounds(&place(&row.key)).await.ok(),
                None => None,
            };
            let figures = self.streams.partition_figures(&row.key);
            PartitionView { row, bounds, figures }
        });
        Ok(views.buffered(TOGETHER).collect().await)
    }

    /// Stops a partition, or lets it go on.
    ///
    /// # Errors
    /// When there is no such partition or the store fails.
    pub async fn pause_partition(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        pause: bool,
    ) -> Result<PartitionRow, RouteError> {
        self.steer_partition(caller, key, Steer::Pause(pause)).await
    }

    /// Takes the trouble of a partition away, so that it is tried again where it stood.
    ///
    /// # Errors
    /// When there is no such partition or the store fails.
    pub async fn clear_partition(&self, caller: &Caller, key: &PartitionKey) -> Result<PartitionRow, RouteError> {
        self.steer_partition(caller, key, Steer::Clear).await
    }

    /// Reads a partition on from elsewhere. Whoever has it is fenced and begins there. With `again`, records that became
    /// runs become new ones; without it only what is missing becomes a run.
    ///
    /// # Errors
    /// When there is no such partition, the topic has no such offset, or store or broker cannot be reached.
    pub async fn seek_partition(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        to: SeekTo,
        again: bool,
    ) -> Result<PartitionRow, RouteError> {
        allow(caller, Action::WriteDefinition)?;
        let offset = self.offset_of(key, to).await?;
        self.steer_partition(caller, key, Steer::Seek { offset, again }).await
    }

    async fn offset_of(&self, key: &PartitionKey, to: SeekTo) -> Result<i64, RouteError> {
        let Some(broker) = self.streams.broker() else {
            return match to {
                SeekTo::Offset(offset) if offset >= 0 => Ok(offset),
                _ => Err(invalid("no broker is set here (kafka.brokers), so only an offset can be named")),
            };
        };
        let (place, away) = (place(key), |error: motet_broker::BrokerError| {
            RouteError::from(Failure::new(FailureClass::Unavailable, error.to_string()))
        });
        let start = match to {
            SeekTo::Earliest => Start::Earliest,
            SeekTo::Latest => Start::Latest,
            SeekTo::At(at) => Start::At(at),
            SeekTo::Offset(offset) => {
                let Bounds { low, high } = broker.bounds(&place).await.map_err(away)?;
                return if (low..=high).contains(&offset) {
                    Ok(offset)
                } else {
                    Err(invalid(&format!("the partition has offsets from {low} to {high}, not {offset}")))
                };
            }
        };
        broker.offset_for(&place, start).await.map_err(away)
    }

    async fn steer_partition(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        steer: Steer,
    ) -> Result<PartitionRow, RouteError> {
        allow(caller, Action::WriteDefinition)?;
        let row = self.store().steer_partition(key, steer, self.now()).await.map_err(unavailable)?;
        self.streams.changed();
        row.ok_or_else(|| RouteError::Unknown(key.to_string()))
    }

    /// Dead letters, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn dead_letters(&self, caller: &Caller, query: &DeadQuery) -> Result<Vec<DeadLetter>, RouteError> {
        allow(caller, Action::ReadRun)?;
        self.store().dead_letters(query).await.map_err(unavailable)
    }

    /// One dead letter, with its bytes.
    ///
    /// # Errors
    /// When it does not exist or the store cannot be read.
    pub async fn dead_letter(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<DeadLetter, RouteError> {
        allow(caller, Action::ReadRun)?;
        let found = self.store().dead_letter(key, generation, offset).await.map_err(unavailable)?;
        found.ok_or_else(|| RouteError::Unknown(format!("a dead letter of offset {offset} in {key}")))
    }

    /// Gives a dead letter up.
    ///
    /// # Errors
    /// When it does not exist, was dealt with before, or the store fails.
    pub async fn discard_dead_letter(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<(), RouteError> {
        allow(caller, Action::ControlRun)?;
        self.dead_letter(caller, key, generation, offset).await?;
        self.settle(key, generation, offset, DeadState::Discarded).await
    }

    async fn settle(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<(), RouteError> {
        match self.store().settle_dead_letter(key, generation, offset, state).await.map_err(unavailable)? {
            true => Ok(()),
            false => Err(Failure::new(FailureClass::Invalid, "the dead letter was dealt with before").into()),
        }
    }

    /// Reads the record of a dead letter once more, with another value where one is given, and begins its run. The run's
    /// id follows from where the record lies, so that doing it twice begins one run.
    ///
    /// # Errors
    /// When it does not exist, was dealt with before, is still wrong, or the run cannot be started.
    pub async fn redrive_dead_letter(
        &self,
        caller: &Caller,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        value: Option<Bytes>,
    ) -> Result<Submitted, SubmitError> {
        allow(caller, Action::SubmitRun)?;
        let letter = self.dead_letter(caller, key, generation, offset).await?;
        if letter.state != DeadState::Open {
            return Err(RouteError::from(Failure::new(FailureClass::Invalid, "it was dealt with before")).into());
        }
        let stream = self.catalog.newest_stream(&key.namespace, &key.stream).await?;
        let row = self.store().partition(key).await?.ok_or_else(|| RouteError::Unknown(key.to_string()))?;
        let definition = &stream.definition;
        let workflow =
            self.catalog.workflow(&key.namespace, &definition.workflow, definition.version.as_deref()).await?;
        let shards = self.runs.shards();
        let origin = Origin {
            namespace: &key.namespace,
            revision: &stream.revision.as_str().into(),
            generation,
            since: row.since,
            cluster: &row.origin,
            shards,
        };
        let incoming = Incoming {
            topic: key.topic.as_str().into(),
            partition: key.partition,
            offset,
            timestamp: letter.timestamp,
            key: letter.record_key,
            value: value.or(letter.value),
            headers: letter.headers,
        };
        let decoded = self.streams.decode(definition, &incoming).await.map_err(|undecided| match undecided {
            Undecided::Dead(reason) => still_wrong(&reason.to_string()),
            Undecided::Later(words) => RouteError::from(Failure::new(FailureClass::Unavailable, words)).into(),
        })?;
        let read = catch_unwind(AssertUnwindSafe(|| stream::read(definition, &origin, &incoming, decoded)));
        let start = match read {
            Ok(Verdict::Start(start)) => start,
            Ok(Verdict::Skip(_)) => return Err(still_wrong("the stream passes such records over")),
            Ok(Verdict::Dead(reason)) => return Err(still_wrong(&reason.to_string())),
            Err(_) => return Err(still_wrong("reading it broke the reader again")),
        };
        let (run, events) = start
            .begin(&key.namespace, &workflow, self.now(), shards)
            .map_err(|reason| still_wrong(&reason.to_string()))?;
        let id = run.id();
        let submitted = match self.admit(run, events, None, false).await {
            Ok(begun) => begun.submitted,
            // It was begun before, and only the letter did not say so.
            Err(SubmitError::Driver(crate::driver::DriverError::Store(StoreError::SeqTaken { .. }))) => {
                Submitted { run: id, replayed: true }
            }
            Err(error) => return Err(error),
        };
        self.settle(key, generation, offset, DeadState::Redriven).await?;
        Ok(submitted)
    }

    fn store(&self) -> &Arc<dyn motet_store::port::Store> {
        &self.runs.parts().store
    }
}

fn place(key: &PartitionKey) -> Place {
    Place { topic: key.topic.as_str().into(), partition: key.partition }
}

fn unknown_stream(error: CatalogError) -> RouteError {
    match error {
        error @ CatalogError::Unknown { .. } => RouteError::Unknown(error.to_string()),
        error => Failure::new(FailureClass::Unavailable, error.to_string()).into(),
    }
}

fn invalid(words: &str) -> RouteError {
    Failure::new(FailureClass::Invalid, words).into()
}

fn still_wrong(words: &str) -> SubmitError {
    RouteError::from(Failure::new(FailureClass::Invalid, format!("the record is still wrong: {words}"))).into()
}

fn unavailable(error: StoreError) -> RouteError {
    let class = match error {
        StoreError::Refused(_) => FailureClass::Invalid,
        _ => FailureClass::Unavailable,
    };
    Failure::new(class, error.to_string()).into()
}
