//! The simulated world: nodes over one memory store, with time, faults and the fate of every request from one seed.
//!
//! What must hold is checked at every step. The same seed gives the same history. Used by the tests.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use motet_cluster::shards::{Call, Event, Members, Order, ShardSettings};
use motet_engine::id::{Epoch, ShardId};
use motet_store::StoreError;
use motet_store::memory::MemoryStore;
use motet_store::port::{Assignment, Incarnation, MapVersion, ShardRow, Term};

use crate::node::{Node, Served};
use crate::random::Random;
use crate::trace::Trace;

/// Whoever simulates more steps than these for one world goes in circles.
const MOST_STEPS: u64 = 400_000;

/// The memory store answers at once.
pub(crate) fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> T {
    answer.now_or_never().expect("the memory store does not wait").expect("the memory store does not fail")
}

/// What is going to happen.
pub(crate) enum What {
    Wake {
        boot: u64,
        wake: u64,
    },
    Tell {
        boot: u64,
        event: Event,
    },
    Arrive {
        boot: u64,
        number: u64,
        call: Call,
    },
    /// The second half of a look: the leases.
    ReadLives {
        boot: u64,
        number: u64,
        version: MapVersion,
        rows: Vec<ShardRow>,
    },
    HostDone {
        boot: u64,
        shard: ShardId,
        call: u64,
    },
    Write {
        boot: u64,
        shard: ShardId,
        served: Served,
        carries_life: bool,
    },
    Scribble,
    Plan {
        boot: u64,
        term: Term,
    },
    Assign {
        boot: u64,
        term: Term,
        plan: Vec<Assignment>,
    },
    Thaw {
        boot: u64,
    },
    Gossip {
        boot: u64,
        number: u64,
        members: Arc<Members>,
    },
    Fault,
    Elect,
}

/// Something that is going to happen, by time and then by order of planning.
struct Planned(Duration, u64, What);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    clock: Arc<AtomicU64>,
    pub(crate) store: MemoryStore,
    pub(crate) random: Random,
    pub(crate) settings: ShardSettings,
    queue: BinaryHeap<Planned>,
    planned: u64,
    steps: u64,
    /// By boot.
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) boots: u64,
    /// The name of every boot there ever was.
    pub(crate) names: BTreeMap<u64, String>,
    /// Whether faults happen.
    pub(crate) noise: bool,
    pub(crate) store_away_until: Duration,
    /// Who ever served a shard under an epoch.
    pub(crate) served: BTreeMap<(ShardId, Epoch), u64>,
    pub(crate) boot_of: BTreeMap<Incarnation, u64>,
    /// Lives that a late registration of their own node ended: they may be surprised.
    pub(crate) surprised: BTreeSet<Incarnation>,
    /// Shards whose owner died, stands still or cannot reach the store, and since when.
    pub(crate) orphans: BTreeMap<ShardId, Duration>,
    /// Since when there has always been somebody who could take shards.
    pub(crate) able_since: Duration,
    pub(crate) take_overs: Vec<Duration>,
    /// The next event number of each shard's run.
    pub(crate) next_seq: Vec<u64>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) host_call: u64,
    pub(crate) newest_term: Term,
    pub(crate) gossips: u64,
    pub(crate) trace: Trace,
    pub(crate) broken: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&clock);
        let mut random = Random::new(seed);
        let shards = u16::try_from(random.between(8, 33)).unwrap();
        let settings = ShardSettings {
            settle: Duration::from_secs(2),
            max_moves_at_once: random.between(2, 9) as usize,
            drain_alone_after: Duration::from_secs(3),
            hand_over_patience: Duration::from_secs(4),
            shards_at_once: random.between(4, 20) as usize,
            ..ShardSettings::new(shards)
        };
        let mut world = Self {
            now: Duration::ZERO,
            clock,
            store: MemoryStore::with_clock(move || Duration::from_micros(seen.load(Ordering::Relaxed))),
            random,
            next_seq: vec![2; usize::from(shards)],
            settings,
            queue: BinaryHeap::new(),
            planned: 0,
            steps: 0,
            nodes: BTreeMap::new(),
            boots: 0,
            names: BTreeMap::new(),
            noise: true,
            store_away_until: Duration::ZERO,
            served: BTreeMap::new(),
            boot_of: BTreeMap::new(),
            surprised: BTreeSet::new(),
            orphans: BTreeMap::new(),
            able_since: Duration::ZERO,
            take_overs: vec![],
            accepted: 0,
            refused: 0,
            host_call: 0,
            newest_term: Term(0),
            gossips: 0,
            trace: Trace::new(verbose),
            broken: vec![],
        };
        world.admit_runs();
        world.after(Duration::ZERO, What::Scribble);
        world
    }

    pub(crate) fn after(&mut self, pause: Duration, what: What) {
        self.planned += 1;
        self.queue.push(Planned(self.now + pause, self.planned, what));
    }

    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, line);
    }

    pub(crate) fn breach(&mut self, what: String) {
        self.note(format_args!("BROKEN: {what}"));
        self.broken.push(what);
    }

    /// Lives until a time, or until something is broken.
    pub(crate) fn live_until(&mut self, end: Duration) {
        while self.broken.is_empty() && self.queue.peek().is_some_and(|next| next.0 <= end) {
            let Some(Planned(at, _, what)) = self.queue.pop() else { break };
            self.now = at;
            self.clock.store(at.as_micros() as u64, Ordering::Relaxed);
            self.steps += 1;
            if self.steps > MOST_STEPS {
                self.breach("the world goes in circles".to_owned());
            }
            self.happen(what);
            if !self.is_somebody_able() {
                self.able_since = self.now;
            }
        }
        self.now = self.now.max(end);
        self.clock.store(self.now.as_micros() as u64, Ordering::Relaxed);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Wake { boot, wake } => {
                if self.nodes.get(&boot).is_some_and(|node| node.wake == wake) {
                    self.tell(boot, Event::Tick);
                }
            }
            What::Tell { boot, event } => self.tell(boot, event),
            What::Arrive { boot, number, call } => self.arrive(boot, number, call),
            What::ReadLives { boot, number, version, rows } => self.read_lives(boot, number, version, rows),
            What::HostDone { boot, shard, call } => self.host_done(boot, shard, call),
            What::Write { boot, shard, served, carries_life } => self.write(boot, shard, served, carries_life),
            What::Scribble => self.scribble(),
            What::Plan { boot, term } => self.plan(boot, term),
            What::Assign { boot, term, plan } => self.assign(boot, term, &plan),
            What::Thaw { boot } => self.thaw(boot),
            What::Gossip { boot, number, members } => self.hear(boot, number, members),
            What::Fault => self.fault(),
            What::Elect => self.elect(),
        }
    }

    /// Lets a node take in what happened, and carries out what it wants.
    pub(crate) fn tell(&mut self, boot: u64, event: Event) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        if node.is_frozen(now) {
            if !matches!(event, Event::Tick) {
                node.missed.push(event);
            }
            return;
        }
        let orders = node.machine.handle(event, node.moment(now));
        for order in orders {
            self.carry_out(boot, order);
        }
        self.check_node(boot);
        self.tell_others(boot);
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        node.wake += 1;
        let wake = node.wake;
        if let Some(at) = node.machine.wake_at().map(|moment| node.time_of(moment)) {
            self.after(at.saturating_sub(now), What::Wake { boot, wake });
        }
        let is_gone = self.nodes.get(&boot).is_some_and(|node| node.leaving && node.machine.ownership().held() == 0);
        if is_gone {
            self.leave(boot);
        }
    }

    fn carry_out(&mut self, boot: u64, order: Order) {
        self.note(format_args!("{boot} {order:?}"));
        match order {
            Order::Ask { number, call } => self.send(boot, number, call),
            Order::TakeOver(shard, epoch) => self.take_over(boot, shard, epoch),
            Order::HandOver(shard, _) => {
                let takes = if self.noise && self.random.percent(3) {
                    self.settings.hand_over_patience
                } else {
                    self.random.millis(1, 300)
                };
                self.host_works(boot, shard, takes);
            }
            Order::Lost(shard, _) => {
                if let Some(node) = self.nodes.get_mut(&boot) {
                    node.host_calls.remove(&shard);
                    node.serving.remove(&shard);
                }
            }
        }
    }

    fn take_over(&mut self, boot: u64, shard: ShardId, epoch: Epoch) {
        let first = *self.served.entry((shard, epoch)).or_insert(boot);
        if first != boot {
            self.breach(format!("shard {shard} was served under epoch {epoch} by boot {first} and by boot {boot}"));
        }
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        let Some(life) = node.life() else {
            self.breach(format!("boot {boot} begins to serve shard {shard} without a lease"));
            return;
        };
        if node.serving.insert(shard, Served { epoch, life }).is_some() {
            self.breach(format!("boot {boot} is given shard {shard} twice"));
        }
        let takes = self.random.millis(1, 40);
        self.host_works(boot, shard, takes);
    }

    fn host_works(&mut self, boot: u64, shard: ShardId, takes: Duration) {
        self.host_call += 1;
        let call = self.host_call;
        if let Some(node) = self.nodes.get_mut(&boot) {
            node.host_calls.insert(shard, call);
        }
        self.after(takes, What::HostDone { boot, shard, call });
    }

    fn host_done(&mut self, boot: u64, shard: ShardId, call: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        if node.is_frozen(now) {
            // The host stands still with its node.
            let rest = node.frozen_until - now + Duration::from_micros(call % 1_000);
            self.after(rest, What::HostDone { boot, shard, call });
            return;
        }
        if node.host_calls.get(&shard) != Some(&call) {
            return;
        }
        node.host_calls.remove(&shard);
        let Some(Served { epoch, .. }) = node.serving.get(&shard).copied() else { return };
        if node.machine.ownership().serving(shard).is_some() {
            // While nobody could have taken it, nobody is to blame.
            if let Some(since) = self.orphans.remove(&shard).filter(|since| *since >= self.able_since) {
                self.take_overs.push(now - since);
            }
            self.tell(boot, Event::TookOver(shard, epoch));
        } else {
            node.serving.remove(&shard);
            self.tell(boot, Event::HandedOver(shard, epoch));
        }
    }

    /// What must hold of a node that is awake, after everything that it does.
    fn check_node(&mut self, boot: u64) {
        let Some(node) = self.nodes.get(&boot) else { return };
        let without_lease = node.life().is_none() && !node.serving.is_empty();
        let old_life = node.serving.values().any(|served| Some(served.life) != node.life());
        if without_lease || old_life {
            let what = format!("boot {boot} serves {:?} while its life is {:?}", node.serving, node.life());
            self.breach(what);
        }
    }

    pub(crate) fn thaw(&mut self, boot: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&boot).filter(|node| !node.is_frozen(now)) else { return };
        let mut missed = std::mem::take(&mut node.missed);
        self.note(format_args!("{boot} goes on"));
        // Whatever comes first: an answer from long ago, a timeout, or the clock.
        let at = self.random.draw() as usize % (missed.len() + 1);
        let later = missed.split_off(at);
        missed.into_iter().for_each(|event| self.tell(boot, event));
        self.tell(boot, Event::Tick);
        later.into_iter().for_each(|event| self.tell(boot, event));
        // Its lease lasted: it goes on with what it has.
        if let Some(node) = self.nodes.get(&boot) {
            self.orphans.retain(|shard, _| !node.serving.contains_key(shard));
        }
    }

    fn is_somebody_able(&self) -> bool {
        let able = |node: &Node| {
            !node.is_frozen(self.now) && !node.draining && !node.leaving && node.cut_off_until <= self.now
        };
        self.store_away_until <= self.now && self.nodes.values().any(able)
    }

    pub(crate) fn awake(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| !node.is_frozen(self.now)).map(|(boot, _)| *boot).collect()
    }
}
