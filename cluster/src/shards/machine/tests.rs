//! A node against the memory store in time that the test makes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use motet_store::memory::MemoryStore;
use motet_store::port::{LeaseStore, ShardStore};

use super::*;

const SHARDS: u16 = 64;

/// How long the way to the store and back takes.
const WAY: Duration = Duration::from_millis(5);

struct Stage {
    millis: Arc<AtomicU64>,
    store: MemoryStore,
    machine: Machine,
    on_the_way: Vec<(Moment, Event)>,
    serving: BTreeSet<ShardId>,
}

fn at_once<T>(answer: impl Future<Output = Result<T, motet_store::StoreError>>) -> T {
    answer.now_or_never().unwrap().unwrap()
}

impl Stage {
    fn new() -> Self {
        let millis = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&millis);
        let own = Own { node: "a".to_owned(), address: String::new(), weight: 1, serves_runs: true };
        Self {
            millis,
            store: MemoryStore::with_clock(move || Duration::from_millis(seen.load(Ordering::Relaxed))),
            machine: Machine::new(&own, ShardSettings::new(SHARDS), Moment::default()),
            on_the_way: vec![],
            serving: BTreeSet::new(),
        }
    }

    fn now(&self) -> Moment {
        Moment::new(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }

    fn pass(&self, pause: Duration) {
        self.millis.fetch_add(pause.as_millis() as u64, Ordering::Relaxed);
    }

    fn tell(&mut self, event: Event) -> Vec<Order> {
        let now = self.now();
        let orders = self.machine.handle(event, now);
        for order in &orders {
            match order.clone() {
                Order::Ask { number, call } => {
                    let answer = self.ask(call);
                    self.on_the_way.push((now + WAY, Event::Answered { number, answer }));
                }
                Order::TakeOver(shard, epoch) => {
                    self.serving.insert(shard);
                    self.on_the_way.push((now + WAY, Event::TookOver(shard, epoch)));
                }
                Order::HandOver(shard, epoch) => {
                    self.serving.remove(&shard);
                    self.on_the_way.push((now + WAY, Event::HandedOver(shard, epoch)));
                }
                Order::Lost(shard, _) => _ = self.serving.remove(&shard),
            }
        }
        orders
    }

    fn ask(&self, call: Call) -> Answer {
        let (store, lease) = (&self.store, ShardSettings::new(SHARDS).lease);
        match call {
            Call::Register => Answer::Registered(at_once(store.register("a", "", lease))),
            Call::Renew(life) => Answer::Renewed(at_once(store.renew(life, lease))),
            Call::Look(after) => {
                let (version, rows) = at_once(store.shards(SHARDS, after));
                Answer::Looked(Look { version, rows, lives: at_once(store.live()) })
            }
            Call::Fence(life) => Answer::Fenced(at_once(store.fence_expired(life))),
            Call::Take(asked, life) => Answer::Taken(at_once(store.take(&asked, life))),
            Call::Release(asked, life) => Answer::Released(at_once(store.release(&asked, life))),
        }
    }

    /// Lives for a while, step by millisecond.
    fn live(&mut self, long: Duration) {
        let end = self.now() + long;
        while self.now() < end {
            let now = self.now();
            let due: Vec<_> = {
                let (due, later) = std::mem::take(&mut self.on_the_way).into_iter().partition(|(at, _)| *at <= now);
                self.on_the_way = later;
                due
            };
            due.into_iter().for_each(|(_, event)| _ = self.tell(event));
            if self.machine.wake_at().is_some_and(|at| at <= now) {
                self.tell(Event::Tick);
            }
            self.pass(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_cluster_of_one_serves_everything_within_a_second() {
    let mut stage = Stage::new();
    stage.tell(Event::Tick);
    stage.live(Duration::from_millis(100));
    assert_eq!(stage.serving.len(), usize::from(SHARDS));
    assert_eq!(stage.machine.ownership().held(), usize::from(SHARDS));
    stage.live(Duration::from_secs(20));
    assert_eq!(stage.serving.len(), usize::from(SHARDS), "and goes on doing so");
    assert_eq!(at_once(stage.store.epoch(ShardId(0))), Epoch(1));
}

/// After a crash and a quick start under the same name nobody waits for the old lease.
#[test]
fn a_new_boot_takes_the_shards_of_the_old_one_at_once() {
    let mut stage = Stage::new();
    let before = at_once(stage.store.register("a", "", Duration::from_secs(3)));
    let all: Vec<_> = (0..SHARDS).map(|shard| (ShardId(shard), Epoch(0))).collect();
    at_once(stage.store.take(&all, before));
    stage.tell(Event::Tick);
    stage.live(Duration::from_millis(100));
    assert_eq!(stage.serving.len(), usize::from(SHARDS));
    assert_eq!(at_once(stage.store.epoch(ShardId(0))), Epoch(2));
}

#[test]
fn a_node_that_stood_still_lets_go_before_anything_else() {
    let late_answer = |stage: &mut Stage| stage.on_the_way.pop().map_or(Event::Tick, |(_, event)| event);
    for what in ["the clock", "an answer from before", "work that is done", "members"] {
        let mut stage = Stage::new();
        stage.tell(Event::Tick);
        stage.live(Duration::from_secs(2));
        let (life, _) = stage.machine.life().unwrap();
        stage.pass(Duration::from_secs(15));
        let event = match what {
            "the clock" => Event::Tick,
            "an answer from before" => late_answer(&mut stage),
            "work that is done" => Event::TookOver(ShardId(0), Epoch(1)),
            _ => Event::Members(Arc::default()),
        };
        let orders = stage.tell(event);
        let lost = orders.iter().take_while(|order| matches!(order, Order::Lost(..))).count();
        assert_eq!(lost, usize::from(SHARDS), "{what}");
        assert_eq!(stage.machine.life(), None, "{what}");
        assert!(matches!(orders[lost], Order::Ask { call: Call::Register, .. }), "{what}: {:?}", orders[lost]);
        stage.live(Duration::from_millis(200));
        assert!(stage.machine.life().unwrap().0 > life, "{what}: it comes back by itself");
        assert_eq!(stage.serving.len(), usize::from(SHARDS), "{what}");
    }
}

#[test]
fn a_fenced_node_finds_out_and_comes_back() {
    let mut stage = Stage::new();
    stage.tell(Event::Tick);
    stage.live(Duration::from_secs(1));
    let (life, _) = stage.machine.life().unwrap();
    at_once(stage.store.fence(life));
    stage.live(Duration::from_millis(500));
    assert!(stage.machine.life().unwrap().0 > life, "a look shows it");
    assert_eq!(stage.serving.len(), usize::from(SHARDS));
    assert_eq!(at_once(stage.store.epoch(ShardId(5))), Epoch(2));
}

#[test]
fn answers_that_were_given_up_count_for_nothing() {
    let mut stage = Stage::new();
    let orders = stage.tell(Event::Tick);
    let [Order::Ask { number, call: Call::Register }] = orders[..] else { panic!("{orders:?}") };
    stage.on_the_way.clear();
    stage.tell(Event::Answered { number, answer: Answer::Failed });
    stage.tell(Event::Answered { number, answer: Answer::Registered(Incarnation(99)) });
    assert_eq!(stage.machine.life(), None, "it was given up, so its time is not known to be right");
    stage.live(Duration::from_millis(300));
    let (life, until) = stage.machine.life().unwrap();
    stage.tell(Event::Answered { number, answer: Answer::Registered(Incarnation(98)) });
    assert_eq!(stage.machine.life(), Some((life, until)));
}

#[test]
fn a_node_that_leaves_gives_everything_up() {
    let mut stage = Stage::new();
    stage.tell(Event::Tick);
    stage.live(Duration::from_millis(100));
    stage.tell(Event::Leave);
    stage.live(Duration::from_millis(200));
    assert_eq!((stage.serving.len(), stage.machine.ownership().held()), (0, 0));
    let rows = at_once(stage.store.shards(SHARDS, None)).1;
    assert!(rows.iter().all(|row| row.owner.is_none() && row.epoch == Epoch(2)));
}
