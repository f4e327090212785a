//! Lines before hosts: how many calls may be under way, in all and to each host, and whose turn is next.
//!
//! A host that is slow holds up nobody but its own line. Sends nothing and knows no clock. Used by the egress actor.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::turn::Turn;

/// What waits and what is under way.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    most: usize,
    most_per_host: usize,
    under_way: usize,
    waiting: usize,
    hosts: HashMap<Arc<str>, Line<T>>,
    /// The first of every line whose host has room.
    next: BTreeMap<Turn, Arc<str>>,
}

#[derive(Debug)]
struct Line<T> {
    under_way: usize,
    waiting: BTreeMap<Turn, T>,
    /// What stands for this line among the next ones.
    listed: Option<Turn>,
}

impl<T> Lines<T> {
    /// No lines yet; both bounds are at least 1.
    pub(crate) fn new(most: usize, most_per_host: usize) -> Self {
        let (most, most_per_host) = (most.max(1), most_per_host.max(1));
        Self { most, most_per_host, under_way: 0, waiting: 0, hosts: HashMap::new(), next: BTreeMap::new() }
    }

    /// Puts an item into its host's line. No two have the same turn.
    pub(crate) fn enter(&mut self, host: &Arc<str>, turn: Turn, item: T) {
        let line = self.hosts.entry(Arc::clone(host)).or_insert_with(|| Line {
            under_way: 0,
            waiting: BTreeMap::new(),
            listed: None,
        });
        line.waiting.insert(turn, item);
        self.waiting += 1;
        self.list(host);
    }

    /// The item whose turn it is; it is under way from now on.
    pub(crate) fn take(&mut self) -> Option<(Arc<str>, T)> {
        if self.under_way >= self.most {
            return None;
        }
        let host = Arc::clone(self.next.first_key_value()?.1);
        let line = self.hosts.get_mut(&host)?;
        let (_, item) = line.waiting.pop_first()?;
        line.under_way += 1;
        self.under_way += 1;
        self.waiting -= 1;
        self.list(&host);
        Some((host, item))
    }

    /// One of the host's items is not under way any more.
    pub(crate) fn leave(&mut self, host: &Arc<str>) {
        if let Some(line) = self.hosts.get_mut(host).filter(|line| line.under_way > 0) {
            line.under_way -= 1;
            self.under_way -= 1;
            self.list(host);
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Brings the list of next ones up to date with a line that has changed; forgets a line that is empty.
    fn list(&mut self, host: &Arc<str>) {
        let Some(line) = self.hosts.get_mut(host) else { return };
        let has_room = line.under_way < self.most_per_host;
        let first = line.waiting.first_key_value().map(|(turn, _)| *turn).filter(|_| has_room);
        if first != line.listed {
            if let Some(before) = line.listed {
                self.next.remove(&before);
            }
            if let Some(turn) = first {
                self.next.insert(turn, Arc::clone(host));
            }
            line.listed = first;
        }
        if line.under_way == 0 && line.waiting.is_empty() {
            self.hosts.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Happening {
        Enter(usize, i8),
        Take,
        Leave(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => (0..3usize, -1..2i8).prop_map(|(host, priority)| Happening::Enter(host, priority)),
            3 => Just(Happening::Take),
            2 => (0..3usize).prop_map(Happening::Leave),
        ]
    }

    proptest! {
        #[test]
        fn the_first_of_those_with_room_is_next(
            most in 1..5usize, most_per_host in 1..4usize, happenings in prop::collection::vec(happening(), 1..200),
        ) {
            let hosts = ["a", "b", "c"].map(Arc::<str>::from);
            let mut lines = Lines::new(most, most_per_host);
            let (mut waiting, mut under_way) = (BTreeMap::<Turn, (usize, usize)>::new(), [0usize; 3]);
            for (number, happening) in happenings.into_iter().enumerate() {
                match happening {
                    Happening::Enter(host, priority) => {
                        let turn = Turn::new(Duration::from_secs(number as u64), priority, number as u64);
                        lines.enter(&hosts[host], turn, number);
                        waiting.insert(turn, (host, number));
                    }
                    Happening::Take => {
                        let room = under_way.iter().sum::<usize>() < most;
                        let next = waiting.iter().find(|(_, (host, _))| room && under_way[*host] < most_per_host);
                        let next = next.map(|(turn, item)| (*turn, *item));
                        if let Some((turn, (host, _))) = next {
                            waiting.remove(&turn);
                            under_way[host] += 1;
                        }
                        let expected = next.map(|(_, (host, number))| (Arc::clone(&hosts[host]), number));
                        prop_assert_eq!(lines.take(), expected);
                    }
                    Happening::Leave(host) => {
                        lines.leave(&hosts[host]);
                        under_way[host] = under_way[host].saturating_sub(1);
                    }
                }
                prop_assert_eq!(lines.waiting(), waiting.len());
                prop_assert_eq!(lines.under_way(), under_way.iter().sum::<usize>());
                let in_use = |host: usize| under_way[host] > 0 || waiting.values().any(|(other, _)| *other == host);
                prop_assert_eq!(lines.hosts.len(), (0..3).filter(|host| in_use(*host)).count());
            }
        }
    }
}
