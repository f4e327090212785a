//! Leases of the memory store, by the clock of the process.
//!
//! Never waits and never wakes anybody. Used by `memory` only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use motet_engine::id::Name;

use crate::check;
use crate::port::{Incarnation, Leader, LiveNode, Term};

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
    until: Instant,
}

struct Life {
    node: String,
    address: String,
    until: Instant,
}

fn until(lease: Duration) -> Instant {
    let millis = check::lease_millis(lease).unsigned_abs();
    Instant::now() + Duration::from_millis(millis)
}

impl Leases {
    pub(super) fn lead(&mut self, role: &Name, holder: &str, lease: Duration) -> Option<Term> {
        let there = self.roles.get(role);
        if there.is_some_and(|there| there.holder.is_some() && there.until > Instant::now()) {
            return None;
        }
        Some(self.next_term(role, holder, lease))
    }

    pub(super) fn usurp(&mut self, role: &Name, holder: &str, lease: Duration, left: Duration) -> Option<Term> {
        let in_the_way = |there: &Leadership| match &there.holder {
            Some(other) => other != holder && there.until > until(left),
            None => false,
        };
        if self.roles.get(role).is_some_and(in_the_way) {
            return None;
        }
        Some(self.next_term(role, holder, lease))
    }

    fn next_term(&mut self, role: &Name, holder: &str, lease: Duration) -> Term {
        let there = self.roles.get(role);
        let term = Term(there.map_or(1, |there| there.term.0 + 1));
        self.roles.insert(role.clone(), Leadership { term, holder: Some(holder.to_owned()), until: until(lease) });
        term
    }

    pub(super) fn renew_lead(&mut self, role: &Name, term: Term, lease: Duration) -> bool {
        let there = self.roles.get_mut(role).filter(|there| there.term == term && there.holder.is_some());
        there.map(|there| there.until = until(lease)).is_some()
    }

    pub(super) fn resign(&mut self, role: &Name, term: Term) {
        if let Some(there) = self.roles.get_mut(role).filter(|there| there.term == term) {
            there.holder = None;
        }
    }

    pub(super) fn leader(&self, role: &Name) -> Option<Leader> {
        let there = self.roles.get(role)?;
        let left = there.until.saturating_duration_since(Instant::now());
        let holder = there.holder.clone().filter(|_| !left.is_zero())?;
        Some(Leader { holder, term: there.term, left })
    }

    pub(super) fn register(&mut self, node: &str, address: &str, lease: Duration) -> Incarnation {
        self.lives.retain(|_, life| life.node != node);
        self.booted += 1;
        let incarnation = Incarnation(self.booted);
        let life = Life { node: node.to_owned(), address: address.to_owned(), until: until(lease) };
        self.lives.insert(incarnation, life);
        incarnation
    }

    pub(super) fn renew(&mut self, incarnation: Incarnation, lease: Duration) -> bool {
        self.lives.get_mut(&incarnation).map(|life| life.until = until(lease)).is_some()
    }

    pub(super) fn fence(&mut self, incarnation: Incarnation) {
        self.lives.remove(&incarnation);
    }

    pub(super) fn lives(&self, incarnation: Incarnation) -> bool {
        self.lives.contains_key(&incarnation)
    }

    pub(super) fn live(&self) -> Vec<LiveNode> {
        let now = Instant::now();
        let live = |(incarnation, life): (&Incarnation, &Life)| LiveNode {
            incarnation: *incarnation,
            node: life.node.clone(),
            address: life.address.clone(),
            left: life.until.saturating_duration_since(now),
        };
        self.lives.iter().map(live).collect()
    }
}
