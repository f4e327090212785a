//! The dead letters of a partition on their way to the dead-letter topic: the original record, byte for byte, and what
//! was wrong with it in headers.
//!
//! The rows are the truth: what is not marked as sent is sent, so a letter may come twice after a crash and never not at
//! all. Never waits in the way of records. Used by the partition's actor.

use std::sync::Arc;

use motet_broker::port::Outgoing;
use motet_engine::definition::LetterHeaders;
use motet_engine::stream::{Letter, letter_headers};
use motet_store::port::DeadLetter;

use super::claiming::Claim;
use super::{Feed, PartitionActor, pause_after};
use crate::streams::Streams;

/// Letters that are sent together; each may be a record of any size.
const TOGETHER: u32 = 16;

impl PartitionActor {
    /// Sends what is not sent yet, unless that is being done.
    pub(super) fn send_letters(&self, feed: &mut Feed, claim: &Claim) {
        let definition = &self.seat.stream.definition;
        let Some(target) = definition.dead_letter.topic.clone() else { return };
        if feed.letters.as_ref().is_some_and(|sending| !sending.is_finished()) {
            return;
        }
        let (streams, key, epoch) = (Arc::clone(&self.streams), self.key.clone(), claim.epoch);
        let (stream, group) = (Arc::clone(&self.seat.stream), definition.group(&self.key.namespace));
        let sending = async move {
            let mut failures = 0;
            loop {
                let sent = async {
                    let letters = streams.store.unsent_dead_letters(&key, TOGETHER).await.map_err(|e| e.to_string())?;
                    if letters.is_empty() {
                        return Ok(true);
                    }
                    let headers = stream.definition.dead_letter.headers;
                    let records = letters.iter().map(|letter| outgoing(letter, &target, headers, &group)).collect();
                    send(&streams, records).await?;
                    let offsets: Vec<_> = letters.iter().map(|letter| (letter.generation, letter.offset)).collect();
                    streams.store.dead_letters_sent(&key, epoch, &offsets).await.map_err(|error| error.to_string())?;
                    Ok::<_, String>(false)
                };
                match sent.await {
                    Ok(true) => return,
                    Ok(false) => failures = 0,
                    Err(reason) => {
                        failures += 1;
                        tracing::warn!(
                            topic = target,
                            reason,
                            "dead letters cannot be sent; they are kept and tried again"
                        );
                        tokio::time::sleep(pause_after(failures, streams.entropy.fraction())).await;
                    }
                }
            }
        };
        feed.letters = Some(tokio::spawn(sending).abort_handle());
    }
}

async fn send(streams: &Streams, records: Vec<Outgoing>) -> Result<(), String> {
    let sink = streams.sink().await.map_err(|error| error.to_string())?;
    let outcomes = sink.send(records).await;
    outcomes.into_iter().try_for_each(|outcome| outcome.map(drop).map_err(|error| error.to_string()))
}

fn outgoing(letter: &DeadLetter, target: &str, family: LetterHeaders, group: &str) -> Outgoing {
    let facts = Letter {
        stream: letter.key.stream.as_str(),
        group,
        topic: &letter.key.topic,
        partition: letter.key.partition,
        offset: letter.offset,
        timestamp: letter.timestamp,
        stage: &letter.stage,
        class: &letter.class,
        message: &letter.message,
        headers: &letter.headers,
    };
    Outgoing {
        topic: target.to_owned(),
        partition: None,
        key: letter.record_key.clone(),
        value: letter.value.clone(),
        headers: letter_headers(&facts, family),
        timestamp: None,
    }
}
