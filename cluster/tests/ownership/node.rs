//! A simulated node: the real machine, a host that only notes what it serves, and a clock that runs a little wrong.
//!
//! Used by the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use motet_cluster::clock::Moment;
use motet_cluster::shards::{Event, Machine, Members, Own, Planning, ShardSettings};
use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, Term};

use crate::random::Random;

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    /// What the host serves, whether the table still says so or not.
    pub(crate) serving: BTreeMap<ShardId, Served>,
    /// What the host is at, by shard; a call that was given up has another number.
    pub(crate) host_calls: BTreeMap<ShardId, u64>,
    pub(crate) frozen_until: Duration,
    /// What arrived while it stood still.
    pub(crate) missed: Vec<Event>,
    pub(crate) draining: bool,
    pub(crate) leaving: bool,
    /// None of its requests reach the store until then.
    pub(crate) cut_off_until: Duration,
    pub(crate) members: Arc<Members>,
    /// The number of the gossip that it heard last.
    pub(crate) heard: u64,
    pub(crate) leads: Option<(Term, Planning)>,
    /// The wake-up that counts.
    pub(crate) wake: u64,
    /// What it last told of itself.
    pub(crate) told: Option<(Incarnation, bool)>,
    began: Duration,
    /// Its clock gains or loses so many parts of a million.
    drift: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Served {
    pub(crate) epoch: Epoch,
    pub(crate) life: Incarnation,
}

impl Node {
    pub(crate) fn new(name: String, settings: &ShardSettings, now: Duration, random: &mut Random) -> Self {
        let own = Own { node: name.clone(), address: String::new(), weight: 1, serves_runs: true };
        let drift = i64::try_from(random.between(0, 10_000)).unwrap() - 5_000;
        let mut node = Self {
            name,
            machine: Machine::new(&own, settings.clone(), Moment::default()),
            serving: BTreeMap::new(),
            host_calls: BTreeMap::new(),
            frozen_until: Duration::ZERO,
            missed: vec![],
            draining: false,
            leaving: false,
            cut_off_until: Duration::ZERO,
            members: Arc::default(),
            heard: 0,
            leads: None,
            wake: 0,
            told: None,
            began: now,
            drift,
        };
        node.machine = Machine::new(&own, settings.clone(), node.moment(now));
        node
    }

    /// What its clock shows.
    pub(crate) fn moment(&self, now: Duration) -> Moment {
        let micros = (now - self.began).as_micros() as i64;
        Moment::new(Duration::from_micros((1_000_000 + micros + micros * self.drift / 1_000_000).unsigned_abs()))
    }

    /// When its clock will show a moment, not earlier.
    pub(crate) fn time_of(&self, moment: Moment) -> Duration {
        let micros = moment.since_boot().as_micros() as i64 - 1_000_000;
        let real = micros * 1_000_000 / (1_000_000 + self.drift) + 2;
        self.began + Duration::from_micros(real.max(0).unsigned_abs())
    }

    pub(crate) fn life(&self) -> Option<Incarnation> {
        self.machine.life().map(|(life, _)| life)
    }

    pub(crate) fn is_frozen(&self, now: Duration) -> bool {
        self.frozen_until > now
    }
}
