//! What one node does about shards: which it serves, hands over, takes and gives up.
//!
//! Pure: it looks at a view and tells what is to be done next; what came of it shows in the view. An epoch that was
//! handed over is never served again, whatever becomes of the release. Never asks the store and never waits. Used by
//! the machine.

mod line;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, ShardRow};

use super::settings::ShardSettings;
use super::view::View;
use crate::clock::Moment;
use line::Line;

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Let the host serve a shard.
    TakeOver {
        /// The shard.
        shard: ShardId,
        /// The epoch under which it is this node's.
        epoch: Epoch,
    },
    /// Let the host hand a shard over.
    HandOver {
        /// The shard.
        shard: ShardId,
        /// The epoch under which it was served.
        epoch: Epoch,
    },
    /// Let the host drop a shard, and forget calls to it that are under way.
    Lost {
        /// The shard.
        shard: ShardId,
        /// The epoch under which it was served.
        epoch: Epoch,
    },
    /// Ask the store to fence a life whose lease is over.
    Fence(Incarnation),
    /// Ask the store for shards, under the epochs named.
    Take(Vec<(ShardId, Epoch)>),
    /// Give shards up that were handed over.
    Release(Vec<(ShardId, Epoch)>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The host is taking it over.
    Coming,
    /// The host serves it.
    Serving,
    /// The host is handing it over.
    Going,
    /// Nothing of it lives here any more, but the table does not say so yet.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: Epoch,
    phase: Phase,
}

/// Whether a node takes and keeps shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Will {
    /// It takes shards.
    Serves,
    /// It takes none and gives its own away, when there is somebody to have them.
    Drains,
    /// It gives its own away in any case.
    Leaves,
}

/// What one node does about shards.
pub struct Ownership {
    settings: ShardSettings,
    serves_runs: bool,
    will: Will,
    /// Since when it has not been serving.
    unwilling_since: Moment,
    held: BTreeMap<ShardId, Held>,
    line: Line,
    taking: bool,
    releasing: bool,
    fencing: BTreeSet<Incarnation>,
    /// Nothing is asked of the store before, because it has just refused or failed.
    patient_until: Moment,
    /// The state of the view that was last looked at; none when something else has changed.
    seen: Option<u64>,
    wake_at: Option<Moment>,
}

impl Ownership {
    /// A node without shards. One that does not serve runs gives away what it finds to be its own.
    #[must_use]
    pub fn new(settings: ShardSettings, serves_runs: bool) -> Self {
        Self {
            settings,
            serves_runs,
            will: if serves_runs { Will::Serves } else { Will::Drains },
            unwilling_since: Moment::default(),
            held: BTreeMap::new(),
            line: Line::default(),
            taking: false,
            releasing: false,
            fencing: BTreeSet::new(),
            patient_until: Moment::default(),
            seen: None,
            wake_at: None,
        }
    }

    /// The epoch under which a shard is served here.
    #[must_use]
    pub fn serving(&self, shard: ShardId) -> Option<Epoch> {
        let held = self.held.get(&shard)?;
        matches!(held.phase, Phase::Coming | Phase::Serving).then_some(held.epoch)
    }

    /// Shards that the host has, or is being given, or is handing over; whether in the table or not.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes shards from now on, or none: what it has it gives away then.
    pub fn drain(&mut self, draining: bool, now: Moment) {
        let will = if draining || !self.serves_runs { Will::Drains } else { Will::Serves };
        if self.will != Will::Leaves && self.will != will {
            (self.will, self.unwilling_since, self.seen) = (will, now, None);
        }
    }

    /// Gives everything away from now on, whoever is there to have it.
    pub fn leave(&mut self, now: Moment) {
        (self.will, self.unwilling_since, self.seen) = (Will::Leaves, now, None);
    }

    /// When to step again although nothing happens.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        self.wake_at
    }

    /// The host serves a shard now.
    pub fn took_over(&mut self, shard: ShardId, epoch: Epoch) {
        self.pass(shard, epoch, &[Phase::Coming], Phase::Serving);
    }

    /// Nothing of a shard lives here any more: the host has handed it over, or could not take it over.
    pub fn handed_over(&mut self, shard: ShardId, epoch: Epoch) {
        self.pass(shard, epoch, &[Phase::Coming, Phase::Going], Phase::Gone);
    }

    fn pass(&mut self, shard: ShardId, epoch: Epoch, from: &[Phase], to: Phase) {
        let held = self.held.get_mut(&shard).filter(|held| held.epoch == epoch && from.contains(&held.phase));
        if let Some(held) = held {
            held.phase = to;
            self.seen = None;
        }
    }

    /// The store answered a take; what came of it is in the view. With `vain` it gave less than was asked for.
    pub fn take_answered(&mut self, vain: bool, now: Moment) {
        self.taking = false;
        self.answered(vain, now);
    }

    /// The store answered a release; what came of it is in the view.
    pub fn release_answered(&mut self, vain: bool, now: Moment) {
        self.releasing = false;
        self.answered(vain, now);
    }

    /// The store answered whether a life is over; what came of it is in the view.
    pub fn fence_answered(&mut self, incarnation: Incarnation, vain: bool, now: Moment) {
        self.fencing.remove(&incarnation);
        self.answered(vain, now);
    }

    fn answered(&mut self, vain: bool, now: Moment) {
        self.seen = None;
        if vain {
            self.patient_until = now + self.settings.retry_after;
        }
    }

    /// What is to be done now. The same view at the same moment asks for nothing twice.
    pub fn step(&mut self, view: &View, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.seen == Some(view.revision()) && self.wake_at.is_none_or(|at| now < at) {
            return actions;
        }
        (self.seen, self.wake_at) = (Some(view.revision()), None);
        self.drop_lost(view, &mut actions);
        if view.incarnation().is_some() {
            self.find_own(view, now, &mut actions);
            self.give_away(view, now, &mut actions);
            self.release(now, &mut actions);
            self.take_unserved(view, now, &mut actions);
        }
        actions
    }

    fn drop_lost(&mut self, view: &View, actions: &mut Vec<Action>) {
        self.held.retain(|shard, held| {
            let is_own = view.row(*shard).is_some_and(|row| row.epoch == held.epoch && owned(row, view));
            // Of what was handed over nothing is left that could be dropped.
            if !is_own && held.phase != Phase::Gone {
                actions.push(Action::Lost { shard: *shard, epoch: held.epoch });
            }
            is_own
        });
    }

    /// Serves what the table says to be this node's. An answer of the store may have been lost, so the table tells
    /// more than the answers do.
    fn find_own(&mut self, view: &View, now: Moment, actions: &mut Vec<Action>) {
        for row in view.rows().iter().filter(|row| owned(row, view)) {
            let (shard, epoch) = (row.shard, row.epoch);
            if self.held.contains_key(&shard) {
                continue;
            }
            let unwanted = self.heir(row, view, now).is_some();
            if !unwanted {
                actions.push(Action::TakeOver { shard, epoch });
            }
            self.held.insert(shard, Held { epoch, phase: if unwanted { Phase::Gone } else { Phase::Coming } });
        }
    }

    /// Hands over what is to be another node's.
    fn give_away(&mut self, view: &View, now: Moment, actions: &mut Vec<Action>) {
        let mut going = self.held.values().filter(|held| held.phase == Phase::Going).count();
        let serving: Vec<ShardId> =
            self.held.iter().filter(|(_, held)| held.phase == Phase::Serving).map(|(shard, _)| *shard).collect();
        for shard in serving {
            let Some(row) = view.row(shard) else { continue };
            // Those that the leader wants to move are bounded by its plan.
            let bounded = match self.heir(row, view, now) {
                Some(Heir::Target) => false,
                Some(Heir::Anybody) => true,
                None => continue,
            };
            if bounded && going >= self.settings.max_moves_at_once {
                continue;
            }
            going += 1;
            if let Some(held) = self.held.get_mut(&shard) {
                held.phase = Phase::Going;
                actions.push(Action::HandOver { shard, epoch: held.epoch });
            }
        }
    }

    /// For whom this node gives a shard of its own away; none when it keeps it.
    fn heir(&mut self, row: &ShardRow, view: &View, now: Moment) -> Option<Heir> {
        let target = row.target.as_deref().filter(|target| *target != &**view.own().name());
        if target.is_some_and(|target| view.other(target).is_some()) {
            return Some(Heir::Target);
        }
        match self.will {
            Will::Serves => None,
            Will::Drains if view.others().is_empty() => None,
            Will::Drains => {
                let alone_at = self.unwilling_since + self.settings.drain_alone_after;
                if now < alone_at {
                    self.wake_by(alone_at);
                }
                (now >= alone_at).then_some(Heir::Anybody)
            }
            Will::Leaves => Some(Heir::Anybody),
        }
    }

    fn release(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let mut gone: Vec<(ShardId, Epoch)> = self
            .held
            .iter()
            .filter(|(_, held)| held.phase == Phase::Gone)
            .map(|(shard, held)| (*shard, held.epoch))
            .collect();
        gone.truncate(self.settings.shards_at_once);
        if gone.is_empty() || self.releasing || self.must_wait(now) {
            return;
        }
        self.releasing = true;
        actions.push(Action::Release(gone));
    }

    /// Takes what nobody serves, when it is this node's turn.
    fn take_unserved(&mut self, view: &View, now: Moment, actions: &mut Vec<Action>) {
        // Before the first look every shard seems to be free.
        if self.will != Will::Serves || view.version().is_none() {
            return;
        }
        let due = self.line.due(view, now, self.settings.next_in_line_after);
        if let Some(next) = due.next {
            self.wake_by(next);
        }
        if (due.free.is_empty() && due.expired.is_empty()) || self.must_wait(now) {
            return;
        }
        let fence = due.expired.into_iter().filter(|incarnation| self.fencing.insert(*incarnation));
        actions.extend(fence.map(Action::Fence));
        if !due.free.is_empty() && !self.taking {
            let mut asked = due.free;
            asked.truncate(self.settings.shards_at_once);
            self.taking = true;
            actions.push(Action::Take(asked));
        }
    }

    fn must_wait(&mut self, now: Moment) -> bool {
        let wait = now < self.patient_until;
        if wait {
            self.wake_by(self.patient_until);
        }
        wait
    }

    fn wake_by(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// For whom a shard is given away.
enum Heir {
    /// The node that the leader named.
    Target,
    /// Whoever comes first.
    Anybody,
}

/// Whether a row is owned by this node's present life.
fn owned(row: &ShardRow, view: &View) -> bool {
    let owner = row.owner.as_ref().map(|owner| owner.incarnation);
    owner.is_some() && owner == view.incarnation()
}
