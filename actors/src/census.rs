//! Which actors live on this node and how they do: mailbox depth, age of the oldest message, restarts, quarantine.
//!
//! Never starts or stops an actor. Written by the supervisors, read by the API and by metrics.

use std::sync::Arc;

use dashmap::DashMap;
use serde::Serialize;

use crate::address::Address;
use crate::mailbox::Vitals;

/// What the census knows of one actor.
#[derive(Debug, Clone)]
struct Citizen {
    vitals: Arc<Vitals>,
    quarantined: Option<Arc<str>>,
}

/// One line of the census.
#[derive(Debug, Clone, Serialize)]
pub struct CensusLine {
    /// Who it is.
    pub actor: String,
    /// Kind of actor.
    pub kind: &'static str,
    /// Messages that wait.
    pub depth: u64,
    /// Places in the mailbox.
    pub capacity: u64,
    /// How long the oldest message has waited, at most, in milliseconds.
    pub age_ms: u64,
    /// Messages handled.
    pub handled: u64,
    /// Restarts.
    pub restarts: u64,
    /// Why it is not restarted any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Arc<str>>,
}

/// All actors of this node.
#[derive(Debug, Default)]
pub struct Census {
    citizens: DashMap<Address, Citizen>,
}

impl Census {
    /// Enters an actor; keeps the vitals of one that is there already, so that restarts are counted.
    pub fn enter(&self, address: Address, capacity: usize) -> Arc<Vitals> {
        let mut citizen = self
            .citizens
            .entry(address)
            .or_insert_with(|| Citizen { vitals: Vitals::new(capacity), quarantined: None });
        citizen.quarantined = None;
        Arc::clone(&citizen.vitals)
    }

    /// Strikes an actor that ended well.
    pub fn leave(&self, address: &Address) {
        self.citizens.remove(address);
    }

    /// Counts a restart.
    pub fn restarted(&self, address: &Address) {
        if let Some(citizen) = self.citizens.get(address) {
            citizen.vitals.restarted();
        }
    }

    /// Notes that an actor is not restarted any more.
    pub fn quarantine(&self, address: &Address, reason: &str) {
        if let Some(mut citizen) = self.citizens.get_mut(address) {
            citizen.quarantined = Some(reason.into());
        }
    }

    /// Number of actors of a kind.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.citizens.iter().filter(|citizen| citizen.key().kind() == kind).count()
    }

    /// Messages that wait for actors of some kinds.
    #[must_use]
    pub fn waiting(&self, kinds: &[&str]) -> u64 {
        let asked = self.citizens.iter().filter(|citizen| kinds.contains(&citizen.key().kind()));
        asked.map(|citizen| citizen.vitals.depth()).sum()
    }

    /// What the census knows of one actor.
    #[must_use]
    pub fn line(&self, address: &Address) -> Option<CensusLine> {
        self.citizens.get(address).map(|citizen| line(address, &citizen))
    }

    /// The actors with the most waiting messages first, at most `limit` of them.
    #[must_use]
    pub fn lines(&self, limit: usize) -> Vec<CensusLine> {
        let mut lines: Vec<_> = self.citizens.iter().map(|entry| line(entry.key(), entry.value())).collect();
        lines.sort_by(|a, b| (b.depth, b.restarts, &a.actor).cmp(&(a.depth, a.restarts, &b.actor)));
        lines.truncate(limit);
        lines
    }
}

fn line(address: &Address, citizen: &Citizen) -> CensusLine {
    let vitals = &citizen.vitals;
    CensusLine {
        actor: address.to_string(),
        kind: address.kind(),
        depth: vitals.depth(),
        capacity: vitals.capacity(),
        age_ms: u64::try_from(vitals.age().as_millis()).unwrap_or(u64::MAX),
        handled: vitals.handled(),
        restarts: vitals.restarts(),
        quarantined: citizen.quarantined.clone(),
    }
}
