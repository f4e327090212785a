//! Claiming a partition: whose it is from now on, where reading begins, and whether the topic is still the one it was.
//!
//! Never begins to read; the actor does. Used by the partition's actor.

use std::sync::Arc;

use motet_broker::port::{Broker, Place, Start};
use motet_broker::{BrokerError, ErrorClass as BrokerClass};
use motet_engine::definition::Start as StreamStart;
use motet_engine::id::Epoch;
use motet_engine::time::Timestamp;
use motet_store::port::{PartitionKey, PartitionRow};
use motet_store::{ErrorClass, StoreError};

use super::PartitionActor;
use crate::streams::Streams;

/// The right to write a partition, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) epoch: Epoch,
    /// First offset that is not durable yet.
    pub(crate) next: i64,
    pub(crate) generation: u32,
    pub(crate) since: Timestamp,
    /// The cluster and the topic that offsets are of.
    pub(crate) origin: Arc<str>,
    /// Claims since the last progress, this one included.
    pub(crate) barren: u32,
    pub(crate) paused: bool,
}

/// Why a partition is not claimed.
#[derive(Debug)]
pub(crate) enum Unclaimed {
    /// Somebody must act: the words say what to do.
    Stopped(String),
    /// It is tried again after a while.
    Later(String),
}

impl From<StoreError> for Unclaimed {
    fn from(error: StoreError) -> Self {
        Self::Later(format!("the store: {error}"))
    }
}

impl From<BrokerError> for Unclaimed {
    fn from(error: BrokerError) -> Self {
        match error.class() {
            BrokerClass::Permanent => Self::Stopped(error.to_string()),
            _ => Self::Later(format!("the broker: {error}")),
        }
    }
}

impl PartitionActor {
    /// What claims the partition.
    pub(super) fn claiming(&self) -> impl Future<Output = Result<Claim, Unclaimed>> + Send + 'static {
        let (streams, key) = (Arc::clone(&self.streams), self.key.clone());
        let (stream, place) = (Arc::clone(&self.seat.stream), self.seat.place.clone());
        async move {
            let router = streams.router().ok_or_else(|| Unclaimed::Later("the node stops".to_owned()))?;
            let broker = streams.broker().ok_or_else(|| Unclaimed::Stopped("no broker is set".to_owned()))?;
            let row = streams.store.claim_partition(&key, &streams.node, router.now()).await?;
            match place_of(&**broker, &place, &row, stream.definition.start).await {
                Ok((origin, next, high)) => {
                    if row.next != Some(next) || *row.origin != *origin {
                        streams.store.begin_partition(&key, row.epoch, &origin, next, router.now()).await?;
                    }
                    if row.trouble.is_some() {
                        streams.store.trouble_partition(&key, row.epoch, None, router.now()).await?;
                    }
                    // Whoever ended before had nothing of this partition in hand.
                    let barren = if next >= high && row.barren > 1 {
                        streams.store.forgive_partition(&key, row.epoch, router.now()).await?;
                        0
                    } else {
                        row.barren
                    };
                    Ok(Claim {
                        epoch: row.epoch,
                        next,
                        generation: row.generation,
                        since: row.since,
                        origin: origin.into(),
                        barren,
                        paused: row.paused,
                    })
                }
                Err(Unclaimed::Stopped(trouble)) => {
                    let told = Some(trouble.clone());
                    streams.store.trouble_partition(&key, row.epoch, told, router.now()).await?;
                    Err(Unclaimed::Stopped(trouble))
                }
                Err(later) => Err(later),
            }
        }
    }

    /// Lets the row go, so that whoever comes next need not wait for anything.
    pub(super) fn release(&self, claim: Option<Claim>) {
        let Some(claim) = claim else { return };
        let (streams, key) = (Arc::clone(&self.streams), self.key.clone());
        tokio::spawn(async move {
            let Some(router) = streams.router() else { return };
            match streams.store.release_partition(&key, claim.epoch, router.now()).await {
                Ok(()) => {}
                // Whoever has it now has claimed it without waiting.
                Err(error) if error.class() == ErrorClass::Fenced => {}
                Err(error) => tracing::debug!(%error, "a partition was not released; the next owner claims it"),
            }
        });
    }

    /// Writes down why the partition stands still, for whoever looks.
    pub(super) fn tell_trouble(&self, claim: Claim, trouble: String) {
        let (streams, key): (Arc<Streams>, _) = (Arc::clone(&self.streams), self.key.clone());
        tokio::spawn(async move {
            let Some(router) = streams.router() else { return };
            let told = streams.store.trouble_partition(&key, claim.epoch, Some(trouble), router.now()).await;
            if let Err(error) = told {
                tracing::warn!(%error, "why a partition stands still could not be written down");
            }
        });
    }
}

/// What is said where a topic of the same name has taken another one's place.
pub(super) fn other_topic(key: &PartitionKey) -> String {
    format!(
        "topic '{}' is not the one that was read before: it was made anew, or belongs to another cluster. To read it from \
         its beginning into new runs: motet streams seek {} --partition {} --to earliest --again",
        key.topic, key.stream, key.partition
    )
}

/// Of which cluster and topic the offsets are, where reading goes on, and where the partition ends.
async fn place_of(
    broker: &dyn Broker,
    place: &Place,
    row: &PartitionRow,
    start: StreamStart,
) -> Result<(String, i64, i64), Unclaimed> {
    let origin = broker.origin(&place.topic).await?;
    if !row.origin.is_empty() && row.origin != origin {
        return Err(Unclaimed::Stopped(other_topic(&row.key)));
    }
    let Some(next) = row.next else {
        let start = match start {
            StreamStart::Earliest => Start::Earliest,
            StreamStart::Latest => Start::Latest,
            StreamStart::At(moment) => Start::At(moment),
        };
        return Ok((origin, broker.offset_for(place, start).await?, broker.bounds(place).await?.high));
    };
    let bounds = broker.bounds(place).await?;
    if next < bounds.low {
        return Err(Unclaimed::Stopped(format!(
            "records {next} to {} were deleted before this stream had read them (retention). To go on with what is left: \
             motet streams seek {} --partition {} --to {}",
            bounds.low - 1,
            row.key.stream,
            place.partition,
            bounds.low
        )));
    }
    if next > bounds.high {
        return Err(Unclaimed::Stopped(format!(
            "the stream has read up to offset {next}, but the topic ends at {}: it was cut or made anew. To go on: motet \
             streams seek {} --partition {} --to {}",
            bounds.high, row.key.stream, place.partition, bounds.high
        )));
    }
    Ok((origin, next, bounds.high))
}
