//! The actor of one partition of a stream: claims it, turns its records into durable runs, gives it up.
//!
//! Holds records only while they are on their way into the store, bounded by the credit that they carry. Offset, runs
//! and dead letters change in one write, guarded by the epoch of the claim; what follows from a record is the engine's
//! rule. Never writes without a claim and never skips an offset that it cannot account for: then it stops and says what
//! to do. Spawned by `streams` for each partition that the group gives to this node.

mod claiming;
mod ingesting;
mod letters;
mod reading;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use motet_broker::port::Batch;
use motet_engine::access::Caller;
use motet_store::port::{PartitionKey, PartitionRow};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::mailbox::{Letter, Mailbox, Vitals};
use crate::streams::{Seat, Streams};
use claiming::{Claim, Unclaimed};
use ingesting::{Ingested, Portion};

/// A first wait before something is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait before something is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Once or twice as long is waited before a row is claimed that another node has claimed since.
const POLITE: Duration = Duration::from_secs(2);

/// Places in the mailbox are waited for as long as this by what the actor itself began.
const PATIENCE: Duration = Duration::from_secs(60);

/// Claims without progress after which records are taken one by one, so that the one that ends processes is found.
const CAREFUL_AFTER: u32 = 3;

/// Claims without progress after which the next record is held to be what ends processes, and becomes a dead letter.
const POISON_AFTER: u32 = 6;

/// Records that are taken one by one once that is called for: more than any process had in hand.
const CAREFUL_FOR: u32 = 4_096;

/// What a partition's actor is told.
pub(crate) enum PartitionMessage {
    /// Claim the partition, now or again.
    Claim,
    /// What became of a claim.
    Claimed(Result<Claim, Unclaimed>),
    /// Records that follow those before.
    Records(Batch),
    /// What became of some records.
    Ingested(Ingested),
    /// How the row stands, as far as it was seen to change.
    Row(PartitionRow),
    /// Reading is over: the broker does not have what comes next.
    Cut(String),
    /// The group gave the partition to somebody else.
    Revoked {
        /// Whether it did so without asking: somebody else may read already.
        lost: bool,
    },
}

/// The actor's fixed parts.
pub(crate) struct PartitionActor {
    pub(crate) streams: Arc<Streams>,
    pub(crate) key: PartitionKey,
    pub(crate) seat: Seat,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) caller: Caller,
}

/// Where the actor stands.
enum Stage {
    /// It does not own the row; somebody is claiming it, or it is claimed again after a while.
    Claiming,
    /// It owns the row and reads.
    Reading(Claim),
    /// It owns the row and stands still by request.
    Paused(Claim),
    /// It stands still until somebody has acted on its trouble.
    Stopped,
    /// The group took the partition away: it ends when what it has in hand is settled.
    Leaving(Option<Claim>),
}

/// What changes.
pub(crate) struct Feed {
    stage: Stage,
    mailbox: Mailbox<PartitionMessage>,
    /// Batches that wait for the store, in order.
    waiting: VecDeque<Batch>,
    /// Where the next batch must begin; none until the first one after a claim has come.
    expected: Option<i64>,
    /// What is on its way into the store.
    in_hand: Option<AbortHandle>,
    /// Records that are still to be taken one by one.
    careful: u32,
    /// Failures in a row.
    failures: u32,
    letters: Option<AbortHandle>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.in_hand.iter().chain(&self.letters).for_each(AbortHandle::abort);
    }
}

impl Actor for PartitionActor {
    type Msg = Letter<PartitionMessage>;
    type State = Feed;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Feed, ActorProcessingErr> {
        let mailbox = Mailbox::new(myself, Arc::clone(&self.vitals));
        mailbox.try_send(&self.caller, PartitionMessage::Claim)?;
        self.seat.figures.next.store(-1, Ordering::Relaxed);
        Ok(Feed {
            stage: Stage::Claiming,
            mailbox,
            waiting: VecDeque::new(),
            expected: None,
            in_hand: None,
            careful: 0,
            failures: 0,
            letters: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        feed: &mut Feed,
    ) -> Result<(), ActorProcessingErr> {
        match letter.open(&self.vitals).1 {
            PartitionMessage::Claim => self.claim(feed),
            PartitionMessage::Claimed(outcome) => self.claimed(feed, outcome),
            PartitionMessage::Records(batch) => self.take(feed, batch),
            PartitionMessage::Ingested(ingested) => self.ingested(feed, ingested),
            PartitionMessage::Row(row) => self.look_at(feed, row),
            PartitionMessage::Cut(reason) => self.stop_reading(feed, reason),
            PartitionMessage::Revoked { lost } => self.revoked(feed, lost),
        }
        self.go_on(&myself, feed);
        Ok(())
    }
}

impl PartitionActor {
    /// Sends the next records into the store when nothing is on its way; ends when there is nothing to stay for.
    fn go_on(&self, myself: &ActorRef<Letter<PartitionMessage>>, feed: &mut Feed) {
        if let Stage::Leaving(claim) = &mut feed.stage {
            if feed.in_hand.is_none() {
                let claim = claim.take();
                feed.waiting.clear();
                self.release(claim);
                myself.stop(None);
            }
            return;
        }
        let Stage::Reading(claim) = &feed.stage else { return };
        if feed.in_hand.is_none()
            && let Some(portion) = Portion::next(&mut feed.waiting, feed.careful > 0)
        {
            feed.careful = feed.careful.saturating_sub(u32::try_from(portion.len()).unwrap_or(u32::MAX));
            feed.in_hand = Some(self.ingest(claim.clone(), portion, feed.mailbox.clone()));
        }
        let waiting: usize = feed.waiting.iter().map(|batch| batch.records.len()).sum();
        self.seat.figures.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    /// Claims the row on a task of its own, unless there is no call for it any more.
    fn claim(&self, feed: &mut Feed) {
        if !matches!(feed.stage, Stage::Claiming) {
            return;
        }
        if feed.in_hand.is_some() {
            return self.claim_later(feed);
        }
        let claiming = self.claiming();
        let (mailbox, caller) = (feed.mailbox.clone(), self.caller.clone());
        let task = tokio::spawn(async move {
            let outcome = claiming.await;
            let _ = mailbox.send(&caller, PartitionMessage::Claimed(outcome), PATIENCE).await;
        });
        feed.in_hand = Some(task.abort_handle());
    }

    fn claimed(&self, feed: &mut Feed, outcome: Result<Claim, Unclaimed>) {
        feed.in_hand = None;
        match outcome {
            Ok(claim) if matches!(feed.stage, Stage::Leaving(_)) => feed.stage = Stage::Leaving(Some(claim)),
            Ok(claim) => self.begin(feed, claim),
            Err(Unclaimed::Stopped(trouble)) => {
                tracing::error!(partition = %self.vitals_name(), trouble, "a partition stands still");
                self.seat.figures.hold(trouble);
                self.settle_in(feed, Stage::Stopped);
            }
            Err(Unclaimed::Later(reason)) => {
                tracing::warn!(partition = %self.vitals_name(), reason, "a partition cannot be claimed yet");
                self.seat.figures.hold(reason);
                self.claim_later(feed);
            }
        }
    }

    /// The row is this actor's: reads from where it stands.
    fn begin(&self, feed: &mut Feed, claim: Claim) {
        tracing::info!(partition = %self.vitals_name(), epoch = %claim.epoch, offset = claim.next, "partition claimed");
        feed.failures = 0;
        feed.waiting.clear();
        feed.expected = None;
        if claim.barren > CAREFUL_AFTER {
            feed.careful = CAREFUL_FOR;
            tracing::warn!(partition = %self.vitals_name(), claims = claim.barren, offset = claim.next,
                "nodes ended again and again before this offset: its records are taken one by one");
        }
        self.seat.figures.next.store(claim.next, Ordering::Relaxed);
        self.send_letters(feed, &claim);
        if claim.paused {
            self.seat.figures.hold("paused by request");
            feed.stage = Stage::Paused(claim);
        } else {
            self.seat.figures.hold("");
            self.seat.handle.begin(&self.seat.place, claim.next);
            feed.stage = Stage::Reading(claim);
        }
    }

    fn take(&self, feed: &mut Feed, batch: Batch) {
        let Stage::Reading(claim) = &feed.stage else { return };
        match feed.expected {
            // Read before the claim, for an offset of before: the source was told another one since.
            None if batch.from != claim.next => {}
            Some(expected) if batch.from != expected => {
                tracing::error!(partition = %self.vitals_name(), expected, found = batch.from, "records are missing");
                self.claim_anew(feed);
            }
            _ => {
                feed.expected = Some(batch.next);
                feed.waiting.push_back(batch);
            }
        }
    }

    fn ingested(&self, feed: &mut Feed, ingested: Ingested) {
        feed.in_hand = None;
        match ingested {
            Ingested::Done { next, letters } => {
                feed.failures = 0;
                let (Stage::Reading(claim) | Stage::Paused(claim) | Stage::Leaving(Some(claim))) = &mut feed.stage
                else {
                    return;
                };
                claim.next = next;
                claim.barren = 0;
                let claim = claim.clone();
                self.seat.figures.hold("");
                self.seat.handle.commit(&self.seat.place, next);
                if letters {
                    self.send_letters(feed, &claim);
                }
            }
            Ingested::Fenced => {
                tracing::warn!(partition = %self.vitals_name(), "fenced: the partition was claimed anew, or its offset set");
                if !matches!(feed.stage, Stage::Leaving(_)) {
                    self.settle_in(feed, Stage::Claiming);
                    self.claim_politely(feed);
                }
            }
            Ingested::Stopped(trouble) => self.stop_reading(feed, trouble),
        }
    }

    /// The row was changed by somebody: pauses, goes on, or claims it anew.
    fn look_at(&self, feed: &mut Feed, row: PartitionRow) {
        match &feed.stage {
            Stage::Reading(claim) | Stage::Paused(claim) if row.epoch > claim.epoch => {
                self.settle_in(feed, Stage::Claiming);
                self.claim_politely(feed);
            }
            Stage::Reading(claim) if row.paused => {
                let claim = Claim { paused: true, ..claim.clone() };
                self.seat.handle.halt(&self.seat.place);
                feed.waiting.clear();
                self.seat.figures.hold("paused by request");
                feed.stage = Stage::Paused(claim);
            }
            Stage::Paused(_) if !row.paused => self.claim_anew(feed),
            Stage::Stopped if row.trouble.is_none() => self.claim_anew(feed),
            _ => {}
        }
    }

    /// Stands still with a trouble that somebody must act on.
    fn stop_reading(&self, feed: &mut Feed, trouble: String) {
        let (Stage::Reading(claim) | Stage::Paused(claim)) = &feed.stage else { return };
        tracing::error!(partition = %self.vitals_name(), trouble, "a partition stands still");
        self.seat.figures.hold(trouble.clone());
        self.tell_trouble(claim.clone(), trouble);
        self.settle_in(feed, Stage::Stopped);
    }

    fn settle_in(&self, feed: &mut Feed, stage: Stage) {
        self.seat.handle.halt(&self.seat.place);
        feed.waiting.clear();
        feed.stage = stage;
    }

    /// Begins again at what is durable.
    fn claim_anew(&self, feed: &mut Feed) {
        self.settle_in(feed, Stage::Claiming);
        self.claim_later(feed);
    }

    /// Claims again after a fence. Another node that has the row was given it by the group: this one is about to hear
    /// that it was taken from it, and must not take it back until then.
    fn claim_politely(&self, feed: &Feed) {
        let (streams, key) = (Arc::clone(&self.streams), self.key.clone());
        let (mailbox, caller) = (feed.mailbox.clone(), self.caller.clone());
        tokio::spawn(async move {
            let row = streams.store.partition(&key).await.ok().flatten();
            let elsewhere = row.is_some_and(|row| !row.owner.is_empty() && row.owner != streams.node);
            let pause = if elsewhere { POLITE } else { FIRST_PAUSE };
            tokio::time::sleep(pause.mul_f64(1.0 + streams.entropy.fraction())).await;
            let _ = mailbox.send(&caller, PartitionMessage::Claim, PATIENCE).await;
        });
    }

    fn claim_later(&self, feed: &mut Feed) {
        feed.failures = feed.failures.saturating_add(1);
        let pause = pause_after(feed.failures, self.streams.entropy.fraction());
        let (mailbox, caller) = (feed.mailbox.clone(), self.caller.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = mailbox.send(&caller, PartitionMessage::Claim, PATIENCE).await;
        });
    }

    fn revoked(&self, feed: &mut Feed, lost: bool) {
        let stage = std::mem::replace(&mut feed.stage, Stage::Leaving(None));
        feed.waiting.clear();
        if let (Stage::Reading(claim) | Stage::Paused(claim), false) = (stage, lost) {
            feed.stage = Stage::Leaving(Some(claim));
        }
    }

    fn vitals_name(&self) -> crate::address::Address {
        crate::address::Address::from(&self.key)
    }
}

/// How long to wait after so many failures in a row; `fraction` in `0.0..1.0` is the jitter.
fn pause_after(failures: u32, fraction: f64) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << failures.clamp(1, 16).saturating_sub(1)).min(LONGEST_PAUSE);
    bound.mul_f64(0.5 + fraction / 2.0)
}
