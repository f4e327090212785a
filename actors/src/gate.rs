//! Which runs may be worked on now, by the limits of their workflows: a pure data structure, told the time.
//!
//! Runs of one group (a workflow, or one key of it) are inside or wait in turn. Never starts a run and knows no actor.
//! Used by `runs`, which asks before it brings a run up and tells when one has left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use motet_engine::definition::Limits;
use motet_engine::id::{Name, Namespace, RunId, ShardId};

use crate::pace::Pace;
use crate::turn::Turn;

/// Groups that hold nothing are looked for once in so many arrivals.
const SWEEP: u64 = 1024;

/// Runs that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) namespace: Namespace,
    pub(crate) workflow: Name,
    /// The evaluated key; none counts all runs of the workflow together.
    pub(crate) key: Option<Arc<str>>,
}

/// A run that asks to be worked on.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    pub(crate) run: RunId,
    pub(crate) group: Group,
    pub(crate) limits: Limits,
    pub(crate) priority: i8,
    /// Whether it was worked on before: it then takes no part of the rate, which counts beginnings.
    pub(crate) begun: bool,
}

/// Where a run stands that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How many go before it.
    pub before: usize,
    /// How many of its group are worked on.
    pub inside: usize,
}

/// The groups that have runs inside or waiting.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    groups: HashMap<Group, Line>,
    of: HashMap<RunId, Group>,
    arrivals: u64,
    /// How many runs wait, over all groups: asked with every submission.
    waiting: usize,
}

#[derive(Debug)]
struct Line {
    limits: Limits,
    pace: Option<Pace>,
    /// Whether somebody was told to ask again because of the rate.
    told: bool,
    inside: HashSet<RunId>,
    waiting: BTreeMap<Turn, (RunId, bool)>,
    turns: HashMap<RunId, Turn>,
}

impl Line {
    fn new(limits: Limits) -> Self {
        let pace = limits.rate.map(|rate| Pace::new(rate.count, rate.per));
        Self { limits, pace, told: false, inside: HashSet::new(), waiting: BTreeMap::new(), turns: HashMap::new() }
    }

    /// A newer version of the workflow may have other limits; they count from now on.
    fn follow(&mut self, limits: Limits) {
        if self.limits != limits {
            if self.limits.rate != limits.rate {
                self.pace = limits.rate.map(|rate| Pace::new(rate.count, rate.per));
            }
            self.limits = limits;
        }
    }

    fn has_room(&self) -> bool {
        self.limits.concurrency.is_none_or(|most| self.inside.len() < most as usize)
    }

    /// Whether nothing would be lost with it. A bucket that is not full knows what began lately.
    fn is_forgettable(&self, now: Duration) -> bool {
        self.inside.is_empty() && self.waiting.is_empty() && self.pace.as_ref().is_none_or(|pace| pace.is_full(now))
    }

    /// Lets the first of those that wait in, or says how long until the rate allows it; none when nothing would change
    /// by waiting.
    fn next(&mut self, now: Duration) -> Result<RunId, Option<Duration>> {
        if !self.has_room() {
            return Err(None);
        }
        let Some((&turn, &(run, begun))) = self.waiting.first_key_value() else { return Err(None) };
        if let (Some(pace), false) = (&mut self.pace, begun) {
            pace.take(now, 1).map_err(Some)?;
        }
        self.waiting.remove(&turn);
        self.turns.remove(&run);
        self.inside.insert(run);
        Ok(run)
    }
}

impl Gate {
    /// Lets a run in, or lets it wait: true when it may be worked on. `age` is how long after some fixed moment it was
    /// submitted, `now` how long after the same moment it is now.
    pub(crate) fn enter(&mut self, entrant: Entrant, age: Duration, now: Duration) -> bool {
        let Entrant { run, group, limits, priority, begun } = entrant;
        self.arrivals += 1;
        if self.arrivals.is_multiple_of(SWEEP) {
            self.groups.retain(|_, line| !line.is_forgettable(now));
        }
        let line = self.groups.entry(group.clone()).or_insert_with(|| Line::new(limits));
        line.follow(limits);
        if line.inside.contains(&run) {
            return true;
        }
        if !line.turns.contains_key(&run) {
            let turn = Turn::new(age, priority, self.arrivals);
            line.waiting.insert(turn, (run, begun));
            line.turns.insert(run, turn);
            self.of.insert(run, group);
            self.waiting += 1;
        }
        // Nobody passes those who wait already.
        let first = line.waiting.first_key_value().is_some_and(|(_, (first, _))| *first == run);
        let entered = first && line.next(now).is_ok();
        self.waiting -= usize::from(entered);
        entered
    }

    /// A run is not worked on any more, or does not wait any more.
    pub(crate) fn leave(&mut self, run: RunId) -> Option<Group> {
        let group = self.of.remove(&run)?;
        let line = self.groups.get_mut(&group)?;
        line.inside.remove(&run);
        if let Some(turn) = line.turns.remove(&run) {
            line.waiting.remove(&turn);
            self.waiting -= 1;
        }
        Some(group)
    }

    /// The runs of a shard are counted elsewhere from now on; a group lies on one shard.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        let runs: Vec<_> = self.of.keys().copied().filter(|run| run.shard() == shard).collect();
        for run in runs {
            self.leave(run);
        }
    }

    /// Lets in whoever may come in now, and says when to ask again because of the rate; only one asker is told, and
    /// that one says so when it comes `again`.
    pub(crate) fn admit(&mut self, group: &Group, now: Duration, again: bool) -> (Vec<RunId>, Option<Duration>) {
        let Some(line) = self.groups.get_mut(group) else { return (vec![], None) };
        line.told &= !again;
        let mut admitted = vec![];
        let wait = loop {
            match line.next(now) {
                Ok(run) => admitted.push(run),
                Err(wait) => break wait.filter(|_| !line.told),
            }
        };
        line.told |= wait.is_some();
        self.waiting -= admitted.len();
        if line.is_forgettable(now) {
            self.groups.remove(group);
        }
        (admitted, wait)
    }

    /// Whether a run waits.
    pub(crate) fn is_waiting(&self, run: RunId) -> bool {
        let line = self.of.get(&run).and_then(|group| self.groups.get(group));
        line.is_some_and(|line| line.turns.contains_key(&run))
    }

    /// Where a run stands that waits; none when it does not.
    pub(crate) fn place(&self, run: RunId) -> Option<Place> {
        let line = self.groups.get(self.of.get(&run)?)?;
        let turn = line.turns.get(&run)?;
        Some(Place { before: line.waiting.range(..turn).count(), inside: line.inside.len() })
    }

    /// How many runs wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use motet_engine::definition::Rate;
    use motet_engine::time::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn run(number: u64) -> RunId {
        RunId::new(Timestamp::from_millis(1_700_000_000_000), ShardId(0), number)
    }

    fn group(key: &str) -> Group {
        Group { namespace: Namespace::default(), workflow: Name::new("triage").unwrap(), key: Some(key.into()) }
    }

    fn entrant(number: u64, key: &str, limits: Limits) -> Entrant {
        Entrant { run: run(number), group: group(key), limits, priority: 0, begun: false }
    }

    fn concurrency(most: u32) -> Limits {
        Limits { concurrency: Some(most), rate: None }
    }

    fn rate(count: u32, millis: u64) -> Limits {
        Limits { concurrency: None, rate: Some(Rate { count, per: Duration::from_millis(millis) }) }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn runs_of_one_key_wait_for_each_other_and_for_no_one_else() {
        let mut gate = Gate::default();
        assert!(gate.enter(entrant(1, "a", concurrency(1)), at(1), at(1)));
        assert!(!gate.enter(entrant(2, "a", concurrency(1)), at(2), at(2)));
        assert!(!gate.enter(entrant(3, "a", concurrency(1)), at(3), at(3)));
        assert!(gate.enter(entrant(4, "b", concurrency(1)), at(3), at(3)));
        // Asking again changes nothing.
        assert!(gate.enter(entrant(1, "a", concurrency(1)), at(1), at(4)));
        assert!(!gate.enter(entrant(3, "a", concurrency(1)), at(3), at(4)));
        assert_eq!(gate.place(run(3)), Some(Place { before: 1, inside: 1 }));
        assert_eq!(gate.place(run(1)), None);
        // One that waits may go away.
        assert_eq!(gate.leave(run(2)), Some(group("a")));
        assert_eq!(gate.admit(&group("a"), at(5), false), (vec![], None));
        gate.leave(run(1));
        assert_eq!(gate.admit(&group("a"), at(6), false), (vec![run(3)], None));
        assert_eq!(gate.leave(run(9)), None);
    }

    #[test]
    fn a_higher_limit_of_a_newer_version_counts_at_once() {
        let mut gate = Gate::default();
        for number in 1..=3 {
            gate.enter(entrant(number, "a", concurrency(1)), at(number), at(number));
        }
        assert!(!gate.enter(entrant(4, "a", concurrency(3)), at(4), at(4)));
        assert_eq!(gate.admit(&group("a"), at(4), false), (vec![run(2), run(3)], None));
    }

    #[test]
    fn the_rate_counts_beginnings_only() {
        let mut gate = Gate::default();
        let limits = rate(2, 1000);
        assert!(gate.enter(entrant(1, "a", limits), at(0), at(0)));
        assert!(gate.enter(entrant(2, "a", limits), at(0), at(0)));
        assert!(!gate.enter(entrant(3, "a", limits), at(0), at(0)));
        assert_eq!(gate.admit(&group("a"), at(400), false), (vec![], Some(at(100))));
        // One asker is enough.
        assert_eq!(gate.admit(&group("a"), at(450), false), (vec![], None));
        assert_eq!(gate.admit(&group("a"), at(500), true), (vec![run(3)], None));
        gate.leave(run(1));
        assert!(gate.enter(Entrant { begun: true, ..entrant(1, "a", limits) }, at(0), at(500)));
    }

    #[test]
    fn groups_without_runs_are_forgotten() {
        let mut gate = Gate::default();
        for number in 0..3 * SWEEP {
            assert!(gate.enter(entrant(number, &number.to_string(), rate(1, 1000)), at(number), at(number)));
            gate.leave(run(number));
        }
        assert!(gate.groups.len() as u64 <= SWEEP + 1001, "{}", gate.groups.len());
        assert!(gate.of.is_empty());
    }

    proptest! {
        #[test]
        fn no_more_than_allowed_are_inside_and_everyone_gets_in(
            arrivals in prop::collection::vec((0u8..3, -3i8..4, 0u64..50), 1..120),
            most in 1u32..5,
        ) {
            let mut gate = Gate::default();
            let mut inside: HashMap<String, Vec<RunId>> = HashMap::new();
            let (mut now, mut entered) = (0, 0);
            for (number, (key, priority, pause)) in arrivals.iter().enumerate() {
                now += pause;
                let key = key.to_string();
                let who = Entrant { priority: *priority, ..entrant(number as u64, &key, concurrency(most)) };
                let id = who.run;
                let waiting: usize = gate.groups.values().map(|line| line.waiting.len()).sum();
                prop_assert_eq!(gate.waiting(), waiting);
                let held = inside.entry(key.clone()).or_default();
                if gate.enter(who, at(now), at(now)) {
                    held.push(id);
                    entered += 1;
                }
                prop_assert!(held.len() <= most as usize);
                if pause % 2 == 0 && !held.is_empty() {
                    gate.leave(held.remove(0));
                    let (admitted, again) = gate.admit(&group(&key), at(now), false);
                    prop_assert_eq!(again, None);
                    entered += admitted.len();
                    held.extend(admitted);
                    prop_assert!(held.len() <= most as usize);
                }
            }
            for (key, mut held) in inside {
                while let Some(id) = held.pop() {
                    gate.leave(id);
                    let (admitted, _) = gate.admit(&group(&key), at(now), false);
                    entered += admitted.len();
                    held.extend(admitted);
                }
            }
            prop_assert_eq!(entered, arrivals.len());
            prop_assert!(gate.groups.is_empty() && gate.of.is_empty() && gate.waiting() == 0);
        }
    }
}
