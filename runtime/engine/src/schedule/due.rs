//! Which times of a schedule begin a run now: those that have come, were not missed for too long, and are not in the
//! way of an earlier run.
//!
//! Follows from the schedule, the last run that it began, and the time; nothing else is remembered, so another node
//! that knows the same decides the same. Never begins anything. Used by the actor that does.

use std::time::Duration;

use crate::definition::{CatchUp, Overlap, ScheduleDefinition};
use crate::id::{Name, Namespace, RunId, ShardId, spread};
use crate::time::Timestamp;

/// Times looked at in one go; of more the newest count.
const MOST: usize = 1_000;

/// How late a time may be seen while a node looks: a store that is slow makes no time a missed one.
const LATE: Duration = Duration::from_secs(60);

/// How long a time waits for the end of an earlier run.
const QUEUED: Duration = Duration::from_secs(24 * 3600);

/// How often to look whether an earlier run has ended.
const LOOK: Duration = Duration::from_secs(1);

/// The newest run that a schedule began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastRun {
    /// The time that it began for.
    pub at: Timestamp,
    /// When it began.
    pub began: Timestamp,
    /// When it ended; none while it goes on.
    pub ended: Option<Timestamp>,
}

/// What a schedule has to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// Times that begin a run now, oldest first. With an overlap other than `allow` at most one.
    pub begin: Vec<Timestamp>,
    /// When to look again; none when there is no time any more.
    pub next: Option<Timestamp>,
}

impl ScheduleDefinition {
    /// What is to be done at `now`. Times up to `position` are settled; those after `watched_since` came while a node
    /// looked, so that they were not missed.
    #[must_use]
    pub fn due(&self, position: Timestamp, last: Option<LastRun>, watched_since: Timestamp, now: Timestamp) -> Due {
        if self.paused {
            return Due::default();
        }
        let position = last.map_or(position, |last| last.at.max(position));
        let next = self.next_after(now);
        let busy = last.is_some_and(|last| last.ended.is_none()) && self.overlap != Overlap::Allow;
        let mut begin = self.candidates(position, last, watched_since, now);
        if self.overlap != Overlap::Allow {
            begin.truncate(1);
        }
        let waits = busy && self.overlap == Overlap::Queue && !begin.is_empty();
        if busy {
            begin.clear();
        }
        let look = waits.then(|| now.after(LOOK));
        Due { begin, next: look.into_iter().chain(next).min() }
    }

    fn candidates(
        &self,
        position: Timestamp,
        last: Option<LastRun>,
        watched_since: Timestamp,
        now: Timestamp,
    ) -> Vec<Timestamp> {
        let late = self.catch_up.window().max(LATE);
        let patience = if self.overlap == Overlap::Queue { late.max(QUEUED) } else { late };
        let mut times = self.times_between(position.max(before(now, patience)), now);
        let newest = times.last().copied();
        times.retain(|at| {
            let age = now.since(*at);
            if *at > watched_since {
                return true;
            }
            match self.catch_up {
                CatchUp::Newest(window) => Some(*at) == newest && age <= window,
                CatchUp::Within(window) => age <= window,
            }
        });
        if let (Overlap::Skip, Some(LastRun { began, ended: Some(ended), .. })) = (self.overlap, last) {
            times.retain(|at| !(began <= *at && *at < ended));
        }
        times
    }

    /// The times after `from` up to `to`, oldest first; of too many about the newest [`MOST`].
    fn times_between(&self, mut from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        loop {
            let following = std::iter::successors(self.next_after(from), |at| self.next_after(*at));
            let times: Vec<_> = following.take_while(|at| *at <= to).take(MOST + 1).collect();
            if times.len() <= MOST {
                return times;
            }
            from = from.after(to.since(from) / 2);
        }
    }
}

fn before(at: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

/// The id of the run that a schedule begins for a time: always the same one, so that no time begins two runs, and in
/// the order of the times.
#[must_use]
pub fn run_id(namespace: &Namespace, schedule: &Name, at: Timestamp, shards: u16) -> RunId {
    let time = at.as_millis().to_le_bytes();
    let names = [namespace.0.as_str().as_bytes(), schedule.as_str().as_bytes(), &time];
    RunId::new(at, ShardId::of(&names, shards), spread(&names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Definition, parse_definitions};

    /// Seconds after a full hour.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1_000)
    }

    fn schedule(extra: &str) -> std::sync::Arc<ScheduleDefinition> {
        let text = format!("kind: Schedule\nname: s\nworkflow: w\ncron: '* * * * *'\n{extra}");
        match parse_definitions("f", &text).unwrap().remove(0) {
            Definition::Schedule(schedule) => schedule,
            other => panic!("{other:?}"),
        }
    }

    fn last(time: i64, began: i64, ended: Option<i64>) -> Option<LastRun> {
        Some(LastRun { at: at(time), began: at(began), ended: ended.map(at) })
    }

    #[test]
    fn what_is_due() {
        let within = "catch_up: {window: 5m}\n";
        let queue = "overlap: queue\n";
        let allow = "overlap: allow\ncatch_up: {window: 5m}\n";
        // Every minute: schedule, last run, watched since, now, what begins, when to look again.
        for (extra, last_run, watched, now, begin, next) in [
            ("", None, 0, 59, vec![], 60),
            ("", None, 0, 60, vec![60], 120),
            ("", last(60, 60, Some(61)), 0, 119, vec![], 120),
            ("", last(60, 60, Some(61)), 0, 121, vec![120], 180),
            ("", last(60, 60, None), 0, 121, vec![], 180),
            ("", last(60, 60, Some(125)), 0, 179, vec![], 180),
            ("", last(60, 60, Some(61)), 600, 601, vec![600], 660),
            ("", last(60, 60, Some(61)), 659, 659, vec![600], 660),
            ("", last(60, 60, Some(61)), 640, 645, vec![600], 660),
            (within, last(60, 60, Some(61)), 600, 601, vec![360], 660),
            (within, last(360, 601, Some(602)), 600, 602, vec![420], 660),
            (within, last(360, 601, Some(650)), 600, 660, vec![420], 720),
            (queue, last(60, 60, None), 0, 300, vec![], 301),
            (queue, last(60, 60, None), 0, 119, vec![], 120),
            (queue, last(60, 60, Some(299)), 0, 300, vec![120], 360),
            (queue, last(120, 300, Some(301)), 0, 302, vec![180], 360),
            (allow, last(60, 60, None), 0, 300, vec![120, 180, 240, 300], 360),
            (allow, last(60, 60, None), 3600, 3601, vec![3360, 3420, 3480, 3540, 3600], 3660),
            ("paused: true\n", None, 0, 60, vec![], -1),
        ] {
            let due = schedule(extra).due(at(0), last_run, at(watched), at(now));
            let expected = Due { begin: begin.into_iter().map(at).collect(), next: (next >= 0).then(|| at(next)) };
            assert_eq!(due, expected, "{extra:?} at {now}");
        }
    }

    #[test]
    fn a_long_absence_costs_little_and_begins_a_bounded_number() {
        let text =
            "kind: Schedule\nname: s\nworkflow: w\ncron: '* * * * * *'\noverlap: allow\ncatch_up: {window: 365d}";
        let Definition::Schedule(each_second) = parse_definitions("f", text).unwrap().remove(0) else { panic!() };
        let due = each_second.due(at(0), None, at(30_000_000), at(30_000_000));
        assert!((MOST / 2..=MOST).contains(&due.begin.len()), "{}", due.begin.len());
        assert_eq!(due.begin.last(), Some(&at(30_000_000)));
    }

    #[test]
    fn one_time_has_one_run() {
        let (namespace, name) = (Namespace::default(), Name::new("s").unwrap());
        let id = run_id(&namespace, &name, at(1), 64);
        assert_eq!((id, id.created_at()), (run_id(&namespace, &name, at(1), 64), at(1)));
        assert!(id < run_id(&namespace, &name, at(2), 64));
        assert_ne!(id, run_id(&namespace, &Name::new("t").unwrap(), at(1), 64));
    }
}
