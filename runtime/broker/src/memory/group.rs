//! A group in memory: who is in it, and who has which partitions.
//!
//! Deals out as Kafka's cooperative assignor does: whoever has a partition keeps it as long as the shares are even.
//! Never calls a member; it leaves events for it. Used by the state of `memory`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::BrokerError;
use crate::pattern::Pattern;
use crate::port::{CreditLimit, Ledger, Place, SourceEvent, Topics};

/// Members by number, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: BTreeMap<u64, Member>,
    next: u64,
}

/// A member, which a source awaits events for.
#[derive(Debug)]
pub(super) struct Member {
    topics: Topics,
    pattern: Option<Pattern>,
    instance: Option<String>,
    credit: CreditLimit,
    wake: Arc<Notify>,
    pub(super) seats: BTreeMap<Place, Seat>,
    pub(super) events: VecDeque<SourceEvent>,
    /// Whether it was put out of the group.
    pub(super) fenced: bool,
}

/// A partition that a member has.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) ledger: Arc<Ledger>,
    pub(super) next: Option<i64>,
    pub(super) paused: bool,
}

impl Group {
    /// A new member; one with the same instance's name is put out.
    pub(super) fn join(
        &mut self,
        topics: Topics,
        pattern: Option<Pattern>,
        instance: Option<String>,
        credit: CreditLimit,
        wake: Arc<Notify>,
    ) -> u64 {
        for member in self.members.values_mut().filter(|member| instance.is_some() && member.instance == instance) {
            member.fenced = true;
            let places: Vec<Place> = std::mem::take(&mut member.seats).into_keys().collect();
            if !places.is_empty() {
                member.events.push_back(SourceEvent::Revoked { places, lost: true });
            }
            member.events.push_back(SourceEvent::Ended(BrokerError::Fenced(
                "another member has this member's instance id; give every node an instance of its own".to_owned(),
            )));
        }
        let number = self.next;
        self.next += 1;
        let (seats, events) = (BTreeMap::new(), VecDeque::new());
        self.members.insert(number, Member { topics, pattern, instance, credit, wake, seats, events, fenced: false });
        number
    }

    pub(super) fn leave(&mut self, number: u64) -> Option<Member> {
        self.members.remove(&number)
    }

    pub(super) fn member(&mut self, number: u64) -> Option<&mut Member> {
        self.members.get_mut(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn wake(&self) {
        self.members.values().for_each(|member| member.wake.notify_one());
    }

    /// A topic was deleted: what is read of it stops.
    pub(super) fn topic_went(&mut self, topic: &str) {
        for member in self.members.values_mut() {
            let read = |(place, seat): (&Place, &mut Seat)| {
                (&*place.topic == topic && seat.next.take().is_some()).then(|| place.clone())
            };
            let read: Vec<Place> = member.seats.iter_mut().filter_map(read).collect();
            let reason = "the topic was deleted".to_owned();
            member.events.extend(read.into_iter().map(|place| SourceEvent::Gone { place, reason: reason.clone() }));
        }
    }

    /// Gives every partition to one member that wants it, in even shares, and leaves events for all who are concerned.
    pub(super) fn deal(&mut self, all: &[Place]) {
        let mut shares: BTreeMap<u64, Vec<Place>> =
            self.members.iter().filter(|(_, member)| !member.fenced).map(|(number, _)| (*number, vec![])).collect();
        let wanting = |place: &Place| {
            let wants = |(number, member): (&u64, &Member)| (!member.fenced && member.wants(place)).then_some(*number);
            self.members.iter().filter_map(wants).collect::<Vec<u64>>()
        };
        let wanted: Vec<(&Place, Vec<u64>)> =
            all.iter().map(|place| (place, wanting(place))).filter(|(_, by)| !by.is_empty()).collect();
        let fair = wanted.len().div_ceil(shares.len().max(1));
        let mut free = vec![];
        for (place, by) in wanted {
            let has = |number: &&u64| self.members.get(number).is_some_and(|member| member.seats.contains_key(place));
            let holder = by.iter().find(has).and_then(|number| shares.get_mut(number));
            match holder.filter(|share| share.len() < fair) {
                Some(share) => share.push(place.clone()),
                None => free.push((place.clone(), by)),
            }
        }
        for (place, by) in free {
            let least = by.iter().min_by_key(|number| shares.get(number).map_or(0, Vec::len)).copied();
            if let Some(share) = least.and_then(|number| shares.get_mut(&number)) {
                share.push(place);
            }
        }
        // What is taken is taken before it is given to somebody else.
        for (number, share) in &shares {
            if let Some(member) = self.members.get_mut(number) {
                member.give_up(share);
            }
        }
        for (number, share) in shares {
            if let Some(member) = self.members.get_mut(&number) {
                member.take_on(share);
            }
        }
    }
}

impl Member {
    fn wants(&self, place: &Place) -> bool {
        match (&self.topics, &self.pattern) {
            (Topics::Named(names), _) => names.iter().any(|name| **name == *place.topic),
            (Topics::Pattern(_), Some(pattern)) => pattern.matches(&place.topic),
            (Topics::Pattern(_), None) => false,
        }
    }

    fn give_up(&mut self, share: &[Place]) {
        let gone: Vec<Place> = self.seats.keys().filter(|place| !share.contains(place)).cloned().collect();
        for place in &gone {
            self.seats.remove(place);
        }
        if !gone.is_empty() {
            self.events.push_back(SourceEvent::Revoked { places: gone, lost: false });
        }
    }

    fn take_on(&mut self, share: Vec<Place>) {
        let new: Vec<Place> = share.into_iter().filter(|place| !self.seats.contains_key(place)).collect();
        for place in &new {
            let wake = Arc::clone(&self.wake);
            let ledger = Ledger::new(self.credit, move || wake.notify_one());
            self.seats.insert(place.clone(), Seat { ledger, next: None, paused: false });
        }
        if !new.is_empty() {
            self.events.push_back(SourceEvent::Assigned(new));
        }
    }
}
