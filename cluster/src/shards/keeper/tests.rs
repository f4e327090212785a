//! The loop against the memory store, in real time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;
use motet_engine::id::Name;
use motet_store::memory::MemoryStore;

use super::*;
use crate::clock::SystemBootClock;
use crate::shards::members::Member;
use crate::shards::planning::{PlannerParts, ShardPlanner};

const SHARDS: u16 = 16;

/// Nothing here may take longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it serves, by shard.
struct Host {
    serving: watch::Sender<BTreeMap<ShardId, Epoch>>,
    handed_over: AtomicU32,
    lost: AtomicU32,
}

impl Host {
    fn new() -> Arc<Self> {
        let serving = watch::Sender::new(BTreeMap::new());
        Arc::new(Self { serving, handed_over: AtomicU32::new(0), lost: AtomicU32::new(0) })
    }

    /// Waits until it serves so many shards, all of them under at least some epoch.
    async fn serves(&self, shards: u16, epoch: u64) {
        let mut seen = self.serving.subscribe();
        let enough = |serving: &BTreeMap<ShardId, Epoch>| {
            serving.len() == usize::from(shards) && serving.values().all(|its| its.0 >= epoch)
        };
        tokio::time::timeout(PATIENCE, seen.wait_for(enough)).await.unwrap().unwrap();
    }
}

#[async_trait]
impl ShardHost for Host {
    async fn take_over(&self, shard: ShardId, epoch: Epoch) {
        self.serving.send_modify(|serving| {
            assert_eq!(serving.insert(shard, epoch), None, "{shard} is served already");
        });
    }

    async fn hand_over(&self, shard: ShardId, _: Duration) {
        tokio::task::yield_now().await;
        self.handed_over.fetch_add(1, Ordering::Relaxed);
        self.serving.send_modify(|serving| _ = serving.remove(&shard));
    }

    fn lost(&self, shard: ShardId) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.serving.send_modify(|serving| _ = serving.remove(&shard));
    }
}

/// A clock that can be put forward, as if the machine had been asleep.
#[derive(Default)]
struct Slept(AtomicU64);

impl BootClock for Slept {
    fn now(&self) -> Moment {
        SystemBootClock.now() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

struct Node {
    keeper: ShardKeeper,
    host: Arc<Host>,
    clock: Arc<Slept>,
    members: watch::Sender<Arc<Members>>,
}

fn settings() -> ShardSettings {
    ShardSettings {
        look_every: Duration::from_millis(30),
        next_in_line_after: Duration::from_millis(100),
        plan_every: Duration::from_millis(50),
        settle: Duration::from_millis(200),
        ..ShardSettings::new(SHARDS)
    }
}

fn start(store: &Arc<dyn Store>, name: &str) -> Node {
    let (host, clock) = (Host::new(), Arc::new(Slept::default()));
    let (told, members) = watch::channel(Arc::default());
    let keeper = ShardKeeper::start(KeeperParts {
        store: Arc::clone(store),
        host: Arc::clone(&host) as Arc<dyn ShardHost>,
        own: Own { node: name.to_owned(), address: String::new(), weight: 1, serves_runs: true },
        members,
        clock: Arc::clone(&clock) as Arc<dyn BootClock>,
        settings: settings(),
    });
    Node { keeper: keeper.unwrap(), host, clock, members: told }
}

/// What the gossip would tell of some nodes.
fn gossip(nodes: &[(&str, &Node)]) -> Arc<Members> {
    let member = |(name, node): &(&str, &Node)| Member {
        node: (*name).to_owned(),
        incarnation: node.keeper.life().borrow().unwrap(),
        weight: 1,
        serves_runs: true,
        draining: false,
        heard: true,
    };
    Arc::new(nodes.iter().map(member).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_hands_over_and_the_next_one_serves() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = start(&store, "first");
    first.host.serves(SHARDS, 1).await;
    assert!(first.keeper.standing().holds() && first.keeper.life().borrow().is_some());
    let second = start(&store, "second");
    assert_eq!(first.keeper.stop(PATIENCE).await, 0);
    assert_eq!(first.host.handed_over.load(Ordering::Relaxed), u32::from(SHARDS));
    assert_eq!(first.host.lost.load(Ordering::Relaxed), 0);
    second.host.serves(SHARDS, 3).await;
    let mut homes = second.keeper.table().subscribe();
    let all_at_home = || {
        let homes = (0..SHARDS).map(|shard| second.keeper.table().home(ShardId(shard)));
        homes.flatten().filter(|home| home.node.as_ref() == "second").count() == usize::from(SHARDS)
    };
    tokio::time::timeout(PATIENCE, homes.wait_for(|_| all_at_home())).await.unwrap().unwrap();
    assert!(second.keeper.table().version() > motet_store::port::MapVersion(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_node_that_dies_are_taken_when_its_lease_is_over() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = start(&store, "first");
    first.host.serves(SHARDS, 1).await;
    let second = start(&store, "second");
    drop(first.keeper);
    first.host.serves(0, 0).await;
    assert_eq!(first.host.lost.load(Ordering::Relaxed), u32::from(SHARDS), "it lets go and tells nobody");
    second.host.serves(SHARDS, 2).await;
    assert_eq!(store.live().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_was_asleep_lets_go_and_begins_anew() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let node = start(&store, "only");
    node.host.serves(SHARDS, 1).await;
    let (standing, before) = (node.keeper.standing().clone(), *node.keeper.life().borrow());
    assert!(standing.holds());
    node.clock.0.store(15, Ordering::SeqCst);
    // Whatever the loop has done by now: an answer under the old life would be wrong.
    assert!(!standing.holds() || *node.keeper.life().borrow() != before);
    node.keeper.doubt();
    node.host.serves(SHARDS, 2).await;
    assert_eq!(node.host.lost.load(Ordering::Relaxed), u32::from(SHARDS));
    assert_ne!(*node.keeper.life().borrow(), before);
    node.keeper.drain(true).await;
    assert_eq!(node.keeper.stop(PATIENCE).await, 0);
    assert!(store.live().await.unwrap().is_empty(), "nobody need wait for its lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_gives_a_node_that_comes_its_share() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let role = Name::new("planner").unwrap();
    let (elected, term) = watch::channel(None);
    let (told, members) = watch::channel(Arc::default());
    let planner = ShardPlanner::start(PlannerParts {
        store: Arc::clone(&store),
        role: role.clone(),
        term,
        members,
        clock: Arc::new(SystemBootClock),
        settings: settings(),
    });
    let first = start(&store, "first");
    first.host.serves(SHARDS, 1).await;
    let second = start(&store, "second");
    second.keeper.life().wait_for(Option::is_some).await.unwrap();
    let both = gossip(&[("first", &first), ("second", &second)]);
    for hears in [&first.members, &second.members, &told] {
        hears.send_replace(Arc::clone(&both));
    }
    // A term that is over plans nothing; the one after it does.
    let old = store.lead(&role, "old", Duration::ZERO).await.unwrap();
    let new = store.lead(&role, "new", Duration::from_secs(600)).await.unwrap();
    elected.send_replace(old);
    elected.send_replace(new);
    second.host.serves(SHARDS / 2, 3).await;
    first.host.serves(SHARDS / 2, 1).await;
    assert_eq!(first.host.handed_over.load(Ordering::Relaxed), u32::from(SHARDS / 2));
    drop(planner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_do_not_go_together_are_refused() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (_, members) = watch::channel(Arc::default());
    let refused = ShardKeeper::start(KeeperParts {
        store,
        host: Host::new(),
        own: Own { node: "a".to_owned(), address: String::new(), weight: 1, serves_runs: true },
        members,
        clock: Arc::new(SystemBootClock),
        settings: ShardSettings::new(0),
    });
    assert!(refused.is_err_and(|error| error.to_string().contains("1 to 4096")));
}
