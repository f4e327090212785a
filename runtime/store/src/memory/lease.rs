//! Leases of the memory store, by the clock that it was given.
//!
//! Never waits, never wakes anybody and reads no clock: callers tell the time. Used by `memory` only.

use std::collections::BTreeMap;
use std::time::Duration;

use motet_engine::id::Name;

use crate::check;
use crate::port::{Incarnation, Leader, LiveNode, ShardOwner, Term};

#[derive(Default)]
pub(super) struct Leases {
    roles: BTreeMap<Name, Leadership>,
    lives: BTreeMap<Incarnation, Life>,
    /// The last number given out.
    booted: u64,
}

struct Leadership {
    term: Term,
    /// None after the leader resigned.
    holder: Option<String>,
    until: Duration,
}

struct Life {
    node: String,
    address: String,
    until: Duration,
}

fn until(now: Duration, lease: Duration) -> Duration {
    now + Duration::from_millis(check::lease_millis(lease).unsigned_abs())
}

impl Leases {
    pub(super) fn lead(&mut self, role: &Name, holder: &str, now: Duration, lease: Duration) -> Option<Term> {
        let there = self.roles.get(role);
        if there.is_some_and(|there| there.holder.is_some() && there.until > now) {
            return None;
        }
        Some(self.next_term(role, holder, now, lease))
    }

    pub(super) fn usurp(
        &mut self,
        role: &Name,
        holder: &str,
        now: Duration,
        lease: Duration,
        left: Duration,
    ) -> Option<Term> {
        let in_the_way = |there: &Leadership| match &there.holder {
            Some(other) => other != holder && there.until > until(now, left),
            None => false,
        };
        if self.roles.get(role).is_some_and(in_the_way) {
            return None;
        }
        Some(self.next_term(role, holder, now, lease))
    }

    fn next_term(&mut self, role: &Name, holder: &str, now: Duration, lease: Duration) -> Term {
        let there = self.roles.get(role);
        let term = Term(there.map_or(1, |there| there.term.0 + 1));
        self.roles.insert(role.clone(), Leadership { term, holder: Some(holder.to_owned()), until: until(now, lease) });
        term
    }

    pub(super) fn renew_lead(&mut self, role: &Name, term: Term, now: Duration, lease: Duration) -> bool {
        let there = self.roles.get_mut(role).filter(|there| there.term == term && there.holder.is_some());
        there.map(|there| there.until = until(now, lease)).is_some()
    }

    pub(super) fn resign(&mut self, role: &Name, term: Term) {
        if let Some(there) = self.roles.get_mut(role).filter(|there| there.term == term) {
            there.holder = None;
        }
    }

    pub(super) fn leader(&self, role: &Name, now: Duration) -> Option<Leader> {
        let there = self.roles.get(role)?;
        let left = there.until.saturating_sub(now);
        let holder = there.holder.clone().filter(|_| !left.is_zero())?;
        Some(Leader { holder, term: there.term, left })
    }

    /// Whether a term is not over.
    pub(super) fn is_term(&self, role: &Name, term: Term) -> bool {
        self.roles.get(role).is_some_and(|there| there.term == term && there.holder.is_some())
    }

    pub(super) fn register(&mut self, node: &str, address: &str, now: Duration, lease: Duration) -> Incarnation {
        self.lives.retain(|_, life| life.node != node);
        self.booted += 1;
        let incarnation = Incarnation(self.booted);
        let life = Life { node: node.to_owned(), address: address.to_owned(), until: until(now, lease) };
        self.lives.insert(incarnation, life);
        incarnation
    }

    pub(super) fn renew(&mut self, incarnation: Incarnation, now: Duration, lease: Duration) -> bool {
        self.lives.get_mut(&incarnation).map(|life| life.until = until(now, lease)).is_some()
    }

    pub(super) fn fence(&mut self, incarnation: Incarnation) {
        self.lives.remove(&incarnation);
    }

    pub(super) fn lives(&self, incarnation: Incarnation) -> bool {
        self.lives.contains_key(&incarnation)
    }

    pub(super) fn fence_expired(&mut self, incarnation: Incarnation, now: Duration) -> bool {
        self.lives.retain(|its, life| *its != incarnation || life.until > now);
        !self.lives(incarnation)
    }

    /// Whether a life is not fenced and its lease has not run out.
    pub(super) fn is_leased(&self, incarnation: Incarnation, now: Duration) -> bool {
        self.lives.get(&incarnation).is_some_and(|life| life.until > now)
    }

    /// A life that is not fenced, as the owner of a shard.
    pub(super) fn owner(&self, incarnation: Incarnation) -> Option<ShardOwner> {
        self.lives.get(&incarnation).map(|life| ShardOwner { incarnation, node: life.node.clone() })
    }

    pub(super) fn live(&self, now: Duration) -> Vec<LiveNode> {
        let live = |(incarnation, life): (&Incarnation, &Life)| LiveNode {
            incarnation: *incarnation,
            node: life.node.clone(),
            address: life.address.clone(),
            left: life.until.saturating_sub(now),
        };
        self.lives.iter().map(live).collect()
    }
}
