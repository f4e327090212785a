//! Several nodes over one store: who serves what, questions that travel, shards that move, nodes that die.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use motet_actors::message::{Answer, RouteError};
use motet_actors::node::Node;
use motet_actors::peers::Peers;
use motet_actors::ports::{Clock as _, SystemClock};
use motet_cluster::envelope::NodeId;
use motet_cluster::link::loopback::Loopback;
use motet_cluster::link::settings::Backoff;
use motet_cluster::link::{Link, LinkSettings};
use motet_cluster::shards::clock::SystemBootClock;
use motet_cluster::shards::{
    KeeperParts, Member, Members, Own, PlannerParts, ShardKeeper, ShardPlanner, ShardSettings,
};
use motet_engine::id::{Name, RunId, ShardId};
use motet_engine::run::Phase;
use motet_store::port::{HeadState, Incarnation, ShardRow, Term};
use serde_json::json;
use tokio::sync::watch;

use crate::world::{ECHO, PATIENCE, World, apply, caller, finish, output, submit, until};

const SHARDS: u16 = 16;

/// Workflows whose runs wait: for the model, for their turn, for a signal.
const MORE: &str = "
kind: Model
name: slow
backend: fake
parameters: {latency_ms: 150}
batch: {max: 64}
---
kind: Workflow
name: slow
steps:
  work: {call: model, model: slow, with: {text: '${ input.text }'}}
output: '${ steps.work.output.text }'
---
kind: Workflow
name: keyed
limits: {concurrency: 1, key: '${ input.customer }'}
steps:
  work: {call: model, model: slow, with: {text: '${ input.customer }'}}
output: '${ steps.work.output.text }'
---
kind: Workflow
name: asks
steps:
  ask: {call: signal, signal: answer}
output: '${ steps.ask.output }'
";

struct Peer {
    id: NodeId,
    node: Node,
    keeper: Option<ShardKeeper>,
    link: Arc<dyn Link>,
    members: watch::Sender<Arc<Members>>,
    life: watch::Receiver<Option<Incarnation>>,
    _planner: ShardPlanner,
}

/// Nodes in one process: a store, a network, and who leads.
struct Cluster {
    world: World,
    network: Loopback,
    /// Under which everybody plans.
    term: watch::Sender<Option<Term>>,
}

impl Cluster {
    async fn new() -> Self {
        let world = World::new();
        let role = Name::new("leader").unwrap();
        let term = world.store().lead(&role, "test", Duration::from_secs(600)).await.unwrap().unwrap();
        Self { world, network: Loopback::new(), term: watch::Sender::new(Some(term)) }
    }

    fn settings() -> ShardSettings {
        ShardSettings {
            renew_every: Duration::from_millis(200),
            look_every: Duration::from_millis(30),
            next_in_line_after: Duration::from_millis(50),
            plan_every: Duration::from_millis(50),
            settle: Duration::from_millis(100),
            ..ShardSettings::new(SHARDS)
        }
    }

    async fn peer(&self, name: &str) -> Peer {
        let node = self.world.member(SHARDS).await;
        let id = NodeId::new(name).unwrap();
        let (members, known) = watch::channel(Arc::new(Members::default()));
        let own = Own { node: name.to_owned(), address: String::new(), weight: 1, serves_runs: true };
        let keeper = ShardKeeper::start(KeeperParts {
            store: Arc::clone(node.store()),
            host: node.shard_host(),
            own,
            members: known.clone(),
            clock: Arc::new(SystemBootClock),
            settings: Self::settings(),
        })
        .unwrap();
        let mut life = keeper.life();
        let incarnation = life.wait_for(Option::is_some).await.unwrap().unwrap();
        let mut link = LinkSettings::new(Name::new("test").unwrap(), id.clone(), incarnation);
        link.beat = Duration::from_millis(50);
        link.suspect_after = Duration::from_millis(200);
        link.drop_after = Duration::from_millis(500);
        link.backoff = Backoff { first: Duration::from_millis(5), most: Duration::from_millis(50) };
        let link: Arc<dyn Link> = self.network.join(link, self.network.book(), node.reception()).unwrap();
        node.join(Peers {
            me: id.clone(),
            link: Arc::clone(&link),
            table: Arc::clone(keeper.table()),
            members: watch::channel(Arc::from(["a", "b", "c"].map(|name| NodeId::new(name).unwrap()))).1,
            store: Arc::clone(node.store()),
        });
        // Everybody plans under the one term: that is allowed, and what the store is there to sort out.
        let planner = ShardPlanner::start(PlannerParts {
            store: Arc::clone(node.store()),
            role: Name::new("leader").unwrap(),
            term: self.term.subscribe(),
            members: known,
            clock: Arc::new(SystemBootClock),
            settings: Self::settings(),
        })
        .unwrap();
        Peer { id, node, keeper: Some(keeper), link, members, life, _planner: planner }
    }

    /// Nodes of which each has its share of the shards.
    async fn of<const N: usize>(names: [&str; N]) -> (Self, [Peer; N]) {
        let cluster = Self::new().await;
        let mut peers = vec![];
        for name in names {
            peers.push(cluster.peer(name).await);
        }
        Self::introduce(&peers);
        let fair = usize::from(SHARDS) / N;
        let store = peers[0].node.store();
        until("fair shares and nothing on its way", async || {
            let rows = store.shards(SHARDS, None).await.unwrap().1;
            let rests =
                |row: &ShardRow| row.owner.as_ref().is_some_and(|owner| Some(&owner.node) == row.target.as_ref());
            let seen: usize = peers.iter().map(|peer| peer.shards().len()).sum();
            let fair = peers.iter().all(|peer| peer.shards().len().abs_diff(fair) <= 2);
            rows.iter().all(rests) && fair && seen == usize::from(SHARDS)
        })
        .await;
        (cluster, peers.try_into().unwrap_or_else(|_| panic!("as many as names")))
    }

    /// Tells everybody of everybody, as gossip does, for as long as somebody listens.
    fn introduce(peers: &[Peer]) {
        let all: Vec<_> =
            peers.iter().map(|peer| (peer.id.to_string(), peer.life.clone(), peer.members.clone())).collect();
        tokio::spawn(async move {
            let mut rounds = tokio::time::interval(Duration::from_millis(20));
            while all.iter().any(|(_, _, members)| !members.is_closed()) {
                rounds.tick().await;
                let member = |(node, life, _): &(String, watch::Receiver<_>, _)| {
                    let incarnation: Option<Incarnation> = *life.borrow();
                    let node = node.clone();
                    Some(Member { node, incarnation: incarnation?, weight: 1, serves_runs: true, draining: false })
                };
                let known: Arc<Members> = Arc::new(all.iter().filter_map(member).collect());
                for (_, _, members) in &all {
                    members.send_if_modified(|before| {
                        let changed = *before != known;
                        *before = Arc::clone(&known);
                        changed
                    });
                }
            }
        });
    }

    /// Ends a node as a power cut would, as far as the others can see.
    async fn kill(&self, peer: Peer) {
        self.network.kill(&peer.id);
        drop(peer.keeper);
        peer.node.end(Duration::ZERO).await;
    }
}

impl Peer {
    fn shards(&self) -> Vec<ShardId> {
        let table = self.keeper.as_ref().unwrap().table();
        let own = |shard: &ShardId| table.home(*shard).is_some_and(|home| *home.node == *self.id.as_str());
        (0..SHARDS).map(ShardId).filter(own).collect()
    }

    /// Runs of a workflow, all of which another node serves; submitted there.
    async fn runs(&self, workflow: &str, count: usize) -> Vec<RunId> {
        let mut runs = vec![];
        for number in 0..count {
            runs.push(
                submit(&self.node, workflow, json!({"text": number.to_string(), "customer": number.to_string()})).await,
            );
        }
        runs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_the_shards_and_answer_for_each_other() {
    let (_cluster, [a, b, c]) = Cluster::of(["a", "b", "c"]).await;
    let all: BTreeSet<_> = [&a, &b, &c].iter().flat_map(|peer| peer.shards()).collect();
    assert_eq!(all.len(), usize::from(SHARDS));
    apply(&a.node, &format!("{ECHO}---{MORE}")).await;
    // Whoever takes a submission keeps the run on a shard of its own; anybody may wait for it.
    for (from, at) in [(&a, &b), (&b, &c), (&c, &a)] {
        let own = from.shards();
        for run in from.runs("echo", 8).await {
            assert!(own.contains(&run.shard()), "{run} is on a shard of another node");
            assert_eq!(finish(&at.node, run).await.phase(), Phase::Succeeded);
        }
    }
    // A signal from elsewhere; its repetition; another namespace's run; one that is not there.
    let run = submit(&a.node, "asks", json!({})).await;
    let by = caller();
    let signal = || b.node.router().signal(&by, run, "answer".into(), json!({"yes": 1}).into(), "1".into());
    assert!(matches!(signal().await.unwrap(), Answer::Accepted));
    assert_eq!(output(&finish(&c.node, run).await), json!({"yes": 1}));
    assert!(matches!(signal().await.unwrap(), Answer::Rejected(_)));
    let nobody = RunId::new(a.node.router().now(), a.shards()[0], 1);
    let missing = b.node.router().cancel(&caller(), nobody, None).await;
    assert!(matches!(missing, Err(RouteError::Unknown(_))), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_counted_together_wait_for_each_other_wherever_they_come_in() {
    let (_cluster, [a, b]) = Cluster::of(["a", "b"]).await;
    apply(&a.node, MORE).await;
    let mut runs = vec![];
    for number in 0..6 {
        let peer = if number % 2 == 0 { &a } else { &b };
        runs.push(submit(&peer.node, "keyed", json!({"customer": "one"})).await);
    }
    let shards: BTreeSet<_> = runs.iter().map(|run| run.shard()).collect();
    assert_eq!(shards.len(), 1, "runs of one key lie on one shard");
    let mut ends = vec![];
    for run in &runs {
        finish(&a.node, *run).await;
        let events = b.node.router().events(*run, motet_engine::id::Seq(0), 100).await.unwrap();
        ends.push(events.last().unwrap().at.as_millis());
    }
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= 149), "two went at once: {ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_a_dead_node_go_on_elsewhere() {
    let (cluster, [a, b, c]) = Cluster::of(["a", "b", "c"]).await;
    apply(&a.node, MORE).await;
    let mut runs = c.runs("slow", 24).await;
    runs.extend(c.runs("keyed", 6).await);
    let waiting = submit(&c.node, "asks", json!({})).await;
    // Somebody waits for them already while their node dies.
    let ends = runs.iter().map(|run| finish(&a.node, *run));
    let (ends, ()) = tokio::join!(futures::future::join_all(ends), cluster.kill(c));
    assert!(ends.iter().all(|run| run.phase() == Phase::Succeeded));
    let signalled = b.node.router().signal(&caller(), waiting, "answer".into(), json!(7).into(), "1".into()).await;
    assert!(matches!(signalled, Ok(Answer::Accepted)), "{signalled:?}");
    assert_eq!(output(&finish(&a.node, waiting).await), json!(7));
    until("the survivors serve every shard", async || a.shards().len() + b.shards().len() == usize::from(SHARDS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_hands_its_runs_over_and_no_question_fails() {
    let (_cluster, [a, mut b]) = Cluster::of(["a", "b"]).await;
    apply(&a.node, MORE).await;
    let mut runs = b.runs("slow", 24).await;
    runs.extend(b.runs("keyed", 6).await);
    let asked = runs.iter().map(|run| finish(&a.node, *run));
    let leaving = b.keeper.take().unwrap().stop(PATIENCE);
    let (ends, left) = tokio::join!(futures::future::join_all(asked), leaving);
    assert_eq!(left, 0, "shards were not handed over");
    assert!(ends.iter().all(|run| run.phase() == Phase::Succeeded));
    assert_eq!(b.node.router().runs().live(), 0);
    // What it takes now belongs to the other one, who finds it without being told.
    let run = submit(&b.node, "slow", json!({"text": "late"})).await;
    assert_eq!(output(&finish(&a.node, run).await), json!("late"));
    b.link.close(Duration::from_secs(1)).await;
    assert_eq!(b.node.end(Duration::ZERO).await, 0);
}

/// Nobody serves the shard that goes away, so its runs stay due for ever.
#[tokio::test(flavor = "multi_thread")]
async fn runs_wake_although_a_shard_goes_away_while_they_do() {
    let world = World::new();
    let node = world.member(2).await;
    let (stays, goes) = (ShardId(0), ShardId(1));
    for shard in [stays, goes] {
        let epoch = world.store().claim(shard, "test").await.unwrap();
        node.shard_host().take_over(shard, epoch).await;
    }
    apply(&node, "kind: Workflow\nname: rest\nsteps: {w: {call: wait, with: {until: '${ input.until }'}}}").await;
    let due = SystemClock::default().now().after(Duration::from_secs(2));
    let rest = json!({"until": due.to_rfc3339().unwrap()});
    let mut runs = vec![];
    for _ in 0..500 {
        runs.push(submit(&node, "rest", rest.clone()).await);
    }
    let ended = async || {
        let counts = world.store().counts().await.unwrap();
        counts.iter().any(|(state, runs)| *state == HeadState::Succeeded && *runs > 0)
    };
    until("the first of many to wake", ended).await;
    node.shard_host().lost(goes);
    // One more than were due with the shard that went away: it is met by a later look.
    runs.push(submit(&node, "rest", json!({"until": due.after(Duration::from_secs(2)).to_rfc3339().unwrap()})).await);
    for run in runs.into_iter().filter(|run| run.shard() == stays) {
        finish(&node, run).await;
    }
}
