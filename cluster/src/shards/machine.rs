//! One node's part in who serves what: lease, looks at the table, ownership, and every request to the store.
//!
//! Pure: it is told what happened and when, and tells what to do; whoever drives it carries that out. Answers to
//! requests that were given up count for nothing. The lease is looked at before anything else, so a node that stood
//! still finds out before it does anything more. Driven by the keeper, and by the simulation in the tests.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, LiveNode, MapVersion, ShardRow};

use super::contender::{Contender, mix};
use super::lease::{Lease, LeaseCall, jittered};
use super::members::Members;
use super::ownership::{Action, Ownership};
use super::settings::ShardSettings;
use super::view::View;
use crate::clock::Moment;

/// Added to the end of a lease before it is looked whether it was prolonged.
const JUST_AFTER: Duration = Duration::from_millis(5);

/// What a node is, for all of its life.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its name, which no other node has.
    pub node: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Its capacity in a unit that all nodes share.
    pub weight: u32,
    /// Whether it has the role `runs`.
    pub serves_runs: bool,
}

/// A request to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Begin a life.
    Register,
    /// Prolong its lease.
    Renew(Incarnation),
    /// Read what changed in the table after a version, or all of it, and then the leases.
    Look(Option<MapVersion>),
    /// Fence a life if its lease is over.
    Fence(Incarnation),
    /// Take shards.
    Take(Vec<(ShardId, Epoch)>, Incarnation),
    /// Give shards up.
    Release(Vec<(ShardId, Epoch)>, Incarnation),
}

/// What a look found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The table's version.
    pub version: MapVersion,
    /// The rows that changed.
    pub rows: Vec<ShardRow>,
    /// The lives that nobody fenced, read after the rows.
    pub lives: Vec<LiveNode>,
}

/// The store's answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Call::Register`]: the new life.
    Registered(Incarnation),
    /// To [`Call::Renew`]: whether the life goes on.
    Renewed(bool),
    /// To [`Call::Look`].
    Looked(Look),
    /// To [`Call::Fence`]: whether the life is over.
    Fenced(bool),
    /// To [`Call::Take`]: what was taken, with its new epochs.
    Taken(Vec<(ShardId, Epoch)>),
    /// To [`Call::Release`]: what was given up, with its new epochs.
    Released(Vec<(ShardId, Epoch)>),
    /// To any request: it failed, or there was no answer in time; it may have been carried out all the same.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store answered.
    Answered {
        /// The request's number.
        number: u64,
        /// Its answer.
        answer: Answer,
    },
    /// The host serves a shard.
    TookOver(ShardId, Epoch),
    /// Nothing of a shard lives here any more: it was handed over, or could not be taken over.
    HandedOver(ShardId, Epoch),
    /// Nodes told something new of themselves.
    Members(Arc<Members>),
    /// Give shards away and take no more, or begin to take again.
    Drain(bool),
    /// Give everything away and end.
    Leave,
    /// A write was refused, or somebody has heard of a change: look at lease and table at once.
    Doubt,
    /// Time has passed.
    Tick,
}

/// What is to be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Ask the store, and answer with this number.
    Ask {
        /// The request's number.
        number: u64,
        /// The request.
        call: Call,
    },
    /// The host: take over; answer with [`Event::TookOver`].
    TakeOver(ShardId, Epoch),
    /// The host: hand over; answer with [`Event::HandedOver`].
    HandOver(ShardId, Epoch),
    /// The host: drop it; calls to the host for this shard that are under way are given up.
    Lost(ShardId, Epoch),
}

struct Asked {
    call: Call,
    sent_at: Moment,
}

/// One node's part in who serves what.
pub struct Machine {
    settings: ShardSettings,
    view: View,
    lease: Lease,
    ownership: Ownership,
    asked: BTreeMap<u64, Asked>,
    last_number: u64,
    looking: bool,
    look_at: Moment,
    salt: u64,
}

impl Machine {
    /// A node that begins.
    #[must_use]
    pub fn new(own: &Own, settings: ShardSettings, now: Moment) -> Self {
        let contender = Contender::new(&own.node, own.weight);
        let salt = own.node.bytes().fold(1, |salt, byte| mix(salt ^ u64::from(byte)));
        Self {
            view: View::new(contender, settings.shards),
            lease: Lease::new(now, salt),
            ownership: Ownership::new(settings.clone(), own.serves_runs),
            settings,
            asked: BTreeMap::new(),
            last_number: 0,
            looking: false,
            look_at: now,
            salt,
        }
    }

    /// What the node knows.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the node does about shards.
    #[must_use]
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The node's life, and until when it may rely on it.
    #[must_use]
    pub fn life(&self) -> Option<(Incarnation, Moment)> {
        self.lease.held()
    }

    /// The shards whose row changed since this was last asked.
    pub(super) fn take_touched(&mut self) -> BTreeSet<ShardId> {
        self.view.take_touched()
    }

    /// When to come again with [`Event::Tick`] if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        let look = (!self.looking && self.lease.held().is_some()).then_some(self.look_at);
        [self.lease.wake_at(), self.ownership.wake_at(), look].into_iter().flatten().min()
    }

    /// Takes in what happened and tells what is to be carried out, in this order.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Order> {
        let mut orders = Vec::new();
        // Whatever happened: a node whose lease is over knows it before it does anything about it.
        self.check_lease(now, &mut orders);
        match event {
            Event::Answered { number, answer } => self.answered(number, answer, now),
            Event::TookOver(shard, epoch) => self.ownership.took_over(shard, epoch),
            Event::HandedOver(shard, epoch) => self.ownership.handed_over(shard, epoch),
            Event::Members(members) => self.view.learn_members(members),
            Event::Drain(draining) => self.ownership.drain(draining, now),
            Event::Leave => self.ownership.leave(now),
            Event::Doubt => {
                self.lease.doubt(now);
                self.look_at = now;
            }
            Event::Tick => {}
        }
        self.check_lease(now, &mut orders);
        if let Some(call) = self.lease.due(now) {
            let call = match call {
                LeaseCall::Register => Call::Register,
                LeaseCall::Renew(incarnation) => Call::Renew(incarnation),
            };
            self.ask(call, now, &mut orders);
        }
        if !self.looking && now >= self.look_at && self.lease.held().is_some() {
            self.looking = true;
            self.ask(Call::Look(self.view.version()), now, &mut orders);
        }
        self.act(now, &mut orders);
        orders
    }

    /// Ends the work of a life that is over.
    fn check_lease(&mut self, now: Moment, orders: &mut Vec<Order>) {
        self.lease.expire(now);
        let life = self.lease.held().map(|(incarnation, _)| incarnation);
        if self.view.incarnation() != life {
            self.view.learn_own(life);
            self.act(now, orders);
        }
    }

    fn act(&mut self, now: Moment, orders: &mut Vec<Order>) {
        for action in self.ownership.step(&self.view, now) {
            let Some(incarnation) = self.view.incarnation() else {
                // Without a life there is nothing to do but to let go.
                if let Action::Lost { shard, epoch } = action {
                    orders.push(Order::Lost(shard, epoch));
                }
                continue;
            };
            match action {
                Action::TakeOver { shard, epoch } => orders.push(Order::TakeOver(shard, epoch)),
                Action::HandOver { shard, epoch } => orders.push(Order::HandOver(shard, epoch)),
                Action::Lost { shard, epoch } => orders.push(Order::Lost(shard, epoch)),
                Action::Fence(other) => self.ask(Call::Fence(other), now, orders),
                Action::Take(shards) => self.ask(Call::Take(shards, incarnation), now, orders),
                Action::Release(shards) => self.ask(Call::Release(shards, incarnation), now, orders),
            }
        }
    }

    fn ask(&mut self, call: Call, now: Moment, orders: &mut Vec<Order>) {
        self.last_number += 1;
        let number = self.last_number;
        self.asked.insert(number, Asked { call: call.clone(), sent_at: now });
        orders.push(Order::Ask { number, call });
    }

    fn answered(&mut self, number: u64, answer: Answer, now: Moment) {
        let Some(Asked { call, sent_at }) = self.asked.remove(&number) else { return };
        match (call, answer) {
            (Call::Register, Answer::Registered(incarnation)) => {
                self.lease.registered(incarnation, sent_at, &self.settings);
                // Whoever was fenced by it is free to be taken from.
                self.look_at = now;
            }
            (Call::Renew(of), Answer::Renewed(lives)) => _ = self.lease.renewed(of, lives, sent_at, &self.settings),
            (Call::Register | Call::Renew(_), _) => self.lease.failed(now, &self.settings),
            (Call::Look(_), answer) => self.looked(answer, sent_at, now),
            (Call::Fence(other), answer) => {
                if let Answer::Fenced(over) = answer {
                    self.view.learn_fenced(other, over);
                }
                let vain = answer != Answer::Fenced(true);
                self.ownership.fence_answered(other, vain, now);
            }
            (Call::Take(asked, incarnation), answer) => {
                let taken = if let Answer::Taken(taken) = answer { taken } else { Vec::new() };
                self.view.learn_taken(&taken, incarnation);
                let vain = taken.len() < asked.len();
                self.ownership.take_answered(vain, now);
                self.look_if(vain, now);
            }
            (Call::Release(asked, _), answer) => {
                let released = if let Answer::Released(released) = answer { released } else { Vec::new() };
                self.view.learn_released(&released);
                let vain = released.len() < asked.len();
                self.ownership.release_answered(vain, now);
                self.look_if(vain, now);
            }
        }
    }

    /// What was tried in vain was tried on a view that is too old.
    fn look_if(&mut self, vain: bool, now: Moment) {
        if vain {
            self.look_at = self.look_at.min(now);
        }
    }

    fn looked(&mut self, answer: Answer, sent_at: Moment, now: Moment) {
        self.looking = false;
        self.salt = mix(self.salt);
        let Answer::Looked(Look { version, rows, lives }) = answer else {
            self.look_at = now + jittered(self.settings.retry_after, self.salt);
            return;
        };
        self.view.learn_rows(version, rows);
        let first_end = self.view.learn_lives(&lives);
        let regular = sent_at + self.settings.look_every;
        let early = first_end.map_or(regular, |left| now + left + JUST_AFTER);
        self.look_at = regular.min(early).max(now);
        // A life that is not among them was fenced, unless it is younger than the look: asking tells.
        if self.lease.held().is_some_and(|(own, _)| lives.iter().all(|life| life.incarnation != own)) {
            self.lease.doubt(now);
        }
    }
}
