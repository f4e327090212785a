//! Who takes a shard that nobody serves, and how long the others wait.
//!
//! The node that the leader named comes first, then rendezvous order. Everybody counts with what it knows, so two may
//! think that it is their turn: the store gives the shard to one. Used by the ownership.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, ShardRow};

use crate::clock::Moment;
use crate::shards::contender::place_in_line;
use crate::shards::view::View;

/// Nobody waits for more than so many others: those before may all be gone.
const PATIENCE: usize = 3;

/// Since when shards are without anybody who serves them.
#[derive(Default)]
pub(super) struct Line {
    since: BTreeMap<ShardId, (Epoch, Moment)>,
}

/// What it is this node's turn for.
#[derive(Default)]
pub(super) struct Due {
    /// Shards that can be taken.
    pub(super) free: Vec<(ShardId, Epoch)>,
    /// Owners that must be fenced first.
    pub(super) expired: BTreeSet<Incarnation>,
    /// When the next turn comes.
    pub(super) next: Option<Moment>,
}

/// Why nobody serves a shard.
enum Unserved {
    Free,
    Expired(Incarnation),
}

fn unserved(row: &ShardRow, view: &View) -> Option<Unserved> {
    let Some(owner) = &row.owner else { return Some(Unserved::Free) };
    if Some(owner.incarnation) == view.incarnation() {
        return None;
    }
    match view.is_leased(owner.incarnation) {
        None => Some(Unserved::Free),
        Some(false) => Some(Unserved::Expired(owner.incarnation)),
        Some(true) => None,
    }
}

impl Line {
    pub(super) fn due(&mut self, view: &View, now: Moment, pause: Duration) -> Due {
        let mut due = Due::default();
        for row in view.rows() {
            let Some(why) = unserved(row, view) else {
                self.since.remove(&row.shard);
                continue;
            };
            let since = self.since.entry(row.shard).or_insert((row.epoch, now));
            if since.0 != row.epoch {
                *since = (row.epoch, now);
            }
            let place = place(row, view).min(PATIENCE);
            let turn = since.1 + pause * u32::try_from(place).unwrap_or(u32::MAX);
            if now < turn {
                due.next = Some(due.next.map_or(turn, |earlier| earlier.min(turn)));
                continue;
            }
            match why {
                Unserved::Free => due.free.push((row.shard, row.epoch)),
                Unserved::Expired(incarnation) => _ = due.expired.insert(incarnation),
            }
        }
        due
    }
}

/// How many nodes come before this one.
fn place(row: &ShardRow, view: &View) -> usize {
    match row.target.as_deref() {
        Some(target) if *target == **view.own().name() => 0,
        Some(target) if view.other(target).is_some() => {
            // The target has its place in rendezvous order too, and must not count twice.
            let rest = view.others().iter().filter(|other| **other.name() != *target);
            1 + place_in_line(row.shard, view.own(), rest)
        }
        _ => place_in_line(row.shard, view.own(), view.others().iter()),
    }
}
