//! The frames of `proto/link.proto`, and how envelopes and answers become them and come back.
//!
//! What cannot be read is an answer of its own, never a panic. Used by the two halves of the link alone.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Epoch, Name, ShardId};
use motet_engine::trace::TraceContext;
use tokio::time::Instant;

use crate::envelope::{self, Kind, MessageId, NodeId, Parcel, Route, Sender};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/link.proto, which explains the fields"
)]
mod generated {
    tonic::include_proto!("motet.link.v1");
}

pub(crate) use generated::{
    Answer, Envelope, Failed, Frame, Hello, Lane, Moved, answer, carrier_client, carrier_server,
};

/// Bytes of a frame that an envelope takes besides its payload, at most.
pub(crate) const ENVELOPE_OVERHEAD: usize = 160;

impl From<envelope::Lane> for Lane {
    fn from(lane: envelope::Lane) -> Self {
        match lane {
            envelope::Lane::Control => Self::Control,
            envelope::Lane::Bulk => Self::Bulk,
        }
    }
}

/// The frame's form of a parcel that is sent now.
pub(crate) fn envelope(parcel: &Parcel, id: u64, protocol: u32, one_way: bool, remaining: Duration) -> Envelope {
    let trace = parcel.trace;
    Envelope {
        id,
        protocol,
        kind: parcel.kind.0,
        version: parcel.version,
        payload: parcel.payload.clone(),
        remaining_micros: u64::try_from(remaining.as_micros()).unwrap_or(u64::MAX),
        one_way,
        shard: parcel.route.shard.map(|shard| u32::from(shard.0)),
        table_version: parcel.route.table_version,
        epoch: parcel.route.epoch.map_or(0, |epoch| epoch.0),
        correlation: parcel.correlation.map_or(0, |id| id.0),
        trace_high: trace.map_or(0, |trace| (trace.trace_id >> 64) as u64),
        trace_low: trace.map_or(0, |trace| trace.trace_id as u64),
        trace_span: trace.map_or(0, |trace| trace.span_id),
        trace_sampled: trace.is_some_and(|trace| trace.sampled),
    }
}

/// What arrived, or why it cannot be read.
pub(crate) fn received(
    found: Envelope,
    sender: &Arc<Sender>,
    lane: envelope::Lane,
    now: Instant,
) -> Result<envelope::Envelope, String> {
    let shard = match found.shard.map(u16::try_from) {
        None => None,
        Some(Ok(shard)) => Some(ShardId(shard)),
        Some(Err(_)) => return Err(format!("{} is no shard", found.shard.unwrap_or_default())),
    };
    let trace_id = u128::from(found.trace_high) << 64 | u128::from(found.trace_low);
    let trace = (trace_id != 0 && found.trace_span != 0).then_some(TraceContext {
        trace_id,
        span_id: found.trace_span,
        sampled: found.trace_sampled,
    });
    Ok(envelope::Envelope {
        sender: Arc::clone(sender),
        lane,
        protocol: found.protocol,
        id: MessageId(found.id),
        one_way: found.one_way,
        deadline: deadline(now, found.remaining_micros),
        parcel: Parcel {
            route: Route {
                shard,
                table_version: found.table_version,
                epoch: (found.epoch != 0).then_some(Epoch(found.epoch)),
            },
            correlation: (found.correlation != 0).then_some(MessageId(found.correlation)),
            trace,
            kind: Kind(found.kind),
            version: found.version,
            payload: found.payload,
        },
    })
}

/// When an envelope that arrived now expires. Whatever was sent, it is at most a day from now.
fn deadline(now: Instant, remaining_micros: u64) -> Instant {
    now + Duration::from_micros(remaining_micros).min(envelope::MAX_PATIENCE)
}

/// The frame's form of an answer.
pub(crate) fn answer(id: u64, answer: &envelope::Answer) -> Answer {
    use answer::Outcome;
    let outcome = match answer {
        envelope::Answer::Ack(payload) => Outcome::Ack(payload.clone()),
        envelope::Answer::Moved { owner, epoch, table_version } => {
            Outcome::Moved(Moved { owner: owner.to_string(), epoch: epoch.0, table_version: *table_version })
        }
        envelope::Answer::NotOwner => Outcome::NotOwner(true),
        envelope::Answer::Overloaded { retry_after } => {
            Outcome::Overloaded(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX))
        }
        envelope::Answer::Undecodable(why) => Outcome::Undecodable(why.clone()),
        envelope::Answer::Expired => Outcome::Expired(true),
        envelope::Answer::Failed(failure) => Outcome::Failed(Failed {
            class: failure.class.as_str().to_owned(),
            message: failure.message.clone(),
            retry_after_ms: failure.retry_after_ms,
        }),
    };
    Answer { id, outcome: Some(outcome) }
}

/// What the other side answered. A kind of answer that this program does not know is a failure that says so.
pub(crate) fn answered(found: Answer) -> envelope::Answer {
    use answer::Outcome;
    let unreadable = |what: &str| {
        envelope::Answer::Failed(Failure::new(FailureClass::Internal, format!("the peer's answer has {what}")))
    };
    match found.outcome {
        None => unreadable("an outcome that this version does not know"),
        Some(Outcome::Ack(payload)) => envelope::Answer::Ack(payload),
        Some(Outcome::Moved(moved)) => match Name::new(&moved.owner) {
            Ok(owner) => envelope::Answer::Moved {
                owner: NodeId(owner),
                epoch: Epoch(moved.epoch),
                table_version: moved.table_version,
            },
            Err(error) => unreadable(&format!("no node as owner: {error}")),
        },
        Some(Outcome::NotOwner(_)) => envelope::Answer::NotOwner,
        Some(Outcome::Overloaded(millis)) => {
            envelope::Answer::Overloaded { retry_after: Duration::from_millis(millis).min(envelope::MAX_PATIENCE) }
        }
        Some(Outcome::Undecodable(why)) => envelope::Answer::Undecodable(why),
        Some(Outcome::Expired(_)) => envelope::Answer::Expired,
        Some(Outcome::Failed(failed)) => envelope::Answer::Failed(Failure {
            class: class_of(&failed.class),
            message: failed.message,
            retry_after_ms: failed.retry_after_ms,
        }),
    }
}

/// Bytes that an answer holds, as [`envelope::Answer::bytes`] counts them.
pub(crate) fn answer_bytes(answer: &Answer) -> usize {
    match &answer.outcome {
        Some(answer::Outcome::Ack(payload)) => payload.len(),
        Some(answer::Outcome::Undecodable(why)) => why.len(),
        Some(answer::Outcome::Failed(failed)) => failed.message.len(),
        _ => 0,
    }
}

fn class_of(name: &str) -> FailureClass {
    FailureClass::ALL.into_iter().find(|class| class.as_str() == name).unwrap_or(FailureClass::Internal)
}

#[cfg(test)]
mod tests;
