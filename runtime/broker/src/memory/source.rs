//! A member of a group in memory: takes records out of the logs when somebody asks for them.
//!
//! Holds no records of its own, so there is nothing to prefetch or to forget. Used through the port.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::group::Member;
use super::world::{State, World};
use crate::BrokerError;
use crate::pattern::Pattern;
use crate::port::{
    Batch, BatchLimit, Bounds, Credit, Place, PlaceLag, RecordSource, SourceEvent, SourceHandle, SourceSettings,
};

/// A member of a group.
pub(super) struct MemorySource {
    seat: MemoryHandle,
    wake: Arc<Notify>,
    batch: BatchLimit,
    ended: bool,
}

/// Steers a member.
#[derive(Clone)]
struct MemoryHandle {
    world: Arc<World>,
    group: String,
    number: u64,
}

impl MemorySource {
    pub(super) fn join(world: &Arc<World>, settings: SourceSettings, pattern: Option<Pattern>) -> Self {
        let SourceSettings { group, topics, instance, credit, batch, .. } = settings;
        let wake = Arc::new(Notify::new());
        let number = world.change(|state| {
            state.reshaped = true;
            let found = state.groups.entry(group.clone()).or_default();
            found.join(topics, pattern, instance, credit, Arc::clone(&wake))
        });
        let seat = MemoryHandle { world: Arc::clone(world), group, number };
        Self { seat, wake, batch, ended: false }
    }

    fn take(&self) -> Option<SourceEvent> {
        let MemoryHandle { group, number, .. } = &self.seat;
        self.seat.world.touch(|state| {
            if let Some(event) = state.groups.get_mut(group)?.member(*number)?.events.pop_front() {
                return Some(event);
            }
            read(state, group, *number, self.batch)
        })
    }
}

/// The next batch of the first partition that may be read; credit keeps one from taking all the turns.
fn read(state: &mut State, group: &str, number: u64, limit: BatchLimit) -> Option<SourceEvent> {
    let member = state.groups.get_mut(group)?.member(number)?;
    let mut begun: Vec<(Place, i64)> = vec![];
    for (place, seat) in &member.seats {
        if let Some(next) = seat.next.filter(|_| !seat.paused && !seat.ledger.rests()) {
            begun.push((place.clone(), next));
        }
    }
    for (place, next) in begun {
        let Ok(bounds) = state.log(&place).map(super::world::Log::bounds) else { continue };
        let Bounds { low, high } = bounds;
        if !bounds.contain(next) {
            let member = state.groups.get_mut(group)?.member(number)?;
            member.seats.get_mut(&place)?.next = None;
            return Some(SourceEvent::OutOfRange { place, position: next, low, high });
        }
        if next == high {
            continue;
        }
        let ledger = Arc::clone(&state.groups.get_mut(group)?.member(number)?.seats.get(&place)?.ledger);
        let (mut records, mut credit, mut full) = (vec![], ledger.take_none(), false);
        for record in state.log(&place).ok()?.from(next) {
            let fits = credit.records() < limit.records.max(1) && credit.bytes() + record.bytes() <= limit.bytes;
            if !(fits || records.is_empty()) || ledger.rests() {
                full = true;
                break;
            }
            let mut one: Credit = ledger.take(record.bytes());
            credit.absorb(&mut one);
            records.push(record.clone());
        }
        // Behind the last record there may be marks of transactions.
        let last = records.last().map_or(next, |record| record.offset + 1);
        let reached = if full { last } else { high };
        state.groups.get_mut(group)?.member(number)?.seats.get_mut(&place)?.next = Some(reached);
        return Some(SourceEvent::Records(Batch::new(place, records, (next, reached), credit)));
    }
    None
}

#[async_trait]
impl RecordSource for MemorySource {
    async fn next(&mut self) -> SourceEvent {
        loop {
            if self.ended {
                return SourceEvent::Ended(BrokerError::Closed);
            }
            if let Some(event) = self.take() {
                self.ended = matches!(event, SourceEvent::Ended(_));
                return event;
            }
            self.wake.notified().await;
        }
    }

    fn handle(&self) -> Arc<dyn SourceHandle> {
        Arc::new(self.seat.clone())
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        let MemoryHandle { world, group, number } = &self.seat;
        // Batches that wait there give their credit back outside of the lock.
        drop(world.change(|state| {
            state.reshaped = true;
            state.groups.get_mut(group).and_then(|found| found.leave(*number))
        }));
    }
}

impl MemoryHandle {
    fn with(&self, change: impl FnOnce(&mut Member)) {
        self.world.touch(|state| {
            if let Some(member) = state.groups.get_mut(&self.group).and_then(|group| group.member(self.number)) {
                change(member);
            }
            if let Some(group) = state.groups.get(&self.group) {
                group.wake();
            }
        });
    }
}

impl SourceHandle for MemoryHandle {
    fn begin(&self, place: &Place, offset: i64) {
        self.with(|member| {
            if let Some(seat) = member.seats.get_mut(place) {
                seat.next = Some(offset.max(0));
            }
        });
    }

    fn halt(&self, place: &Place) {
        self.with(|member| {
            if let Some(seat) = member.seats.get_mut(place) {
                seat.next = None;
            }
        });
    }

    fn pause(&self, place: &Place, paused: bool) {
        self.with(|member| {
            if let Some(seat) = member.seats.get_mut(place) {
                seat.paused = paused;
            }
        });
    }

    fn commit(&self, _: &Place, _: i64) {}

    fn lag(&self) -> Vec<PlaceLag> {
        self.world.touch(|state| {
            let mut lag: Vec<PlaceLag> = vec![];
            if let Some(member) = state.groups.get_mut(&self.group).and_then(|group| group.member(self.number)) {
                lag.extend(member.seats.iter().map(|(place, seat)| PlaceLag {
                    place: place.clone(),
                    position: seat.next,
                    high: None,
                    paused: seat.paused || (seat.next.is_some() && seat.ledger.rests()),
                    credit_used: seat.ledger.used(),
                }));
            }
            for one in &mut lag {
                one.high = state.log(&one.place).ok().map(|log| log.bounds().high);
            }
            lag
        })
    }
}
