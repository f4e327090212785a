//! Three nodes over one database, in turn under every fault that a cluster must bear, with thousands of runs in flight.
//!
//! The harness of these rows. Every node is behind proxies of its own: to the database, to Redis, and for the others on
//! the way to it. What is measured besides the proof of every promise: how long until the others serve the shards of a
//! node that is gone, how long until work is done there again, and for how long nobody led. What is proven besides:
//! nothing was written by a node that did not own the run's shard then, as the database itself saw it, and what a stale
//! owner would write is refused.

#[path = "cluster/drain.rs"]
mod drain;
#[path = "cluster/kill.rs"]
mod kill;
#[path = "cluster/link.rs"]
mod link;
#[path = "cluster/redis.rs"]
mod redis;
#[path = "cluster/report.rs"]
mod report;
#[path = "cluster/row.rs"]
mod row;
#[path = "cluster/stop.rs"]
mod stop;
#[path = "cluster/store.rs"]
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use motet_cluster::shards::{Contender, PlanLimits, ShardSettings, Situation, plan};
use motet_engine::id::{RunId, ShardId};
use motet_engine::time::Timestamp;
use motet_store::port::{ShardRow, ShardStore};
use motet_store::postgres::{PostgresOptions, PostgresStore};
use motet_tests::client::Client;
use motet_tests::faults::audit;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::leader::LeaderWatch;
use motet_tests::faults::proxy::Proxy;
use motet_tests::faults::stale::Owned;
use motet_tests::history::outage::Outage;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::past::now;
use motet_tests::ports::free_address;
use motet_tests::waiting::until;
use serde_json::Value;

const NODES: usize = 3;
const SHARDS: u16 = 48;

/// Longest time until the others serve what a node served, and until work is done there.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// Longest time until a node that came back has its share again.
const BALANCED: Duration = Duration::from_secs(45);

/// How long an application waits for one node before it asks the next.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

/// Nodes of one cluster.
struct Cluster {
    backing: Backing,
    nodes: Vec<Node>,
    /// Between each node and the database.
    stores: Vec<Proxy>,
    /// Between the others and each node.
    links: Vec<Proxy>,
    /// The test's own way to the database.
    store: Arc<PostgresStore>,
    leader: LeaderWatch,
    outages: Vec<Outage>,
    /// From when to when a fault was made that no run may notice.
    quiet: Vec<(Timestamp, Timestamp)>,
    taken_over: Vec<Duration>,
    /// Writes of stale owners that were tried and refused.
    refused: usize,
    folder: tempfile::TempDir,
    _server: tempfile::TempDir,
}

/// A node's name.
fn name(node: usize) -> String {
    format!("node-{node}")
}

/// Who owns a shard.
/// Whether so many equal nodes would be given other shards by the planner's own rule.
fn leaves_something_to_plan(rows: &[ShardRow], nodes: usize) -> bool {
    let nodes: Vec<_> = (0..nodes).map(|node| Contender::new(&name(node), 1)).collect();
    let limits = PlanLimits { load_percent: ShardSettings::new(SHARDS).load_percent, moves: usize::MAX };
    let (lives, closed) = (|_| true, |_: &str| false);
    let situation = Situation { nodes: &nodes, rows, lives: &lives, closed: &closed, settled: true, limits };
    !plan(&situation).is_empty()
}

fn owner(row: &ShardRow) -> Option<&str> {
    row.owner.as_ref().map(|owner| owner.node.as_str())
}

/// Starts a node, with the proxies between it and the database, and between the others and it.
async fn member(backing: &Backing, folder: &Path, number: usize, redis: Option<&str>) -> Result<(Node, Proxy, Proxy)> {
    let (name, listen) = (name(number), free_address());
    let (store, link) = (Proxy::start(backing.server()?.address()).await?, Proxy::start(listen).await?);
    // The watch in the database knows a writer by the name under which it connects.
    let url = format!("{}?application_name={name}", backing.server()?.url(store.address()));
    let mut settings = NodeSettings::new(folder.join(&name))
        .with("MOTET__STORE__URL", &url)
        .with("MOTET__NODE__NAME", &name)
        .with("MOTET__CLUSTER__ADDRESS", &listen.to_string())
        .with("MOTET__CLUSTER__ADVERTISE", &link.address().to_string())
        .with("MOTET__RUNS__SHARDS", &SHARDS.to_string());
    if let Some(url) = redis {
        settings = settings.with("MOTET__REDIS__URL", url);
    }
    Ok((Node::start(settings).await?, store, link))
}

impl Cluster {
    /// Starts three nodes; each is told of its own Redis where there is one. None where PostgreSQL is not installed.
    async fn start(test: &str, redis: Option<[String; NODES]>) -> Result<Option<Self>> {
        let (server, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let Some(backing) = Backing::postgres(test, server.path()).await? else { return Ok(None) };
        audit::install(backing.server()?)?;
        let options = PostgresOptions::from_url(&backing.server()?.url(backing.server()?.address()))?;
        let store = PostgresStore::open(options).await?;
        let (mut nodes, mut stores, mut links) = (vec![], vec![], vec![]);
        for number in 0..NODES {
            let redis = redis.as_ref().map(|urls| urls[number].as_str());
            let (node, store, link) = member(&backing, folder.path(), number, redis).await?;
            nodes.push(node);
            stores.push(store);
            links.push(link);
        }
        let clients: Vec<_> = nodes.iter().map(Node::client).collect();
        let leader = LeaderWatch::start(&clients);
        let cluster = Self {
            backing,
            nodes,
            stores,
            links,
            store,
            leader,
            outages: vec![],
            quiet: vec![],
            taken_over: vec![],
            refused: 0,
            folder,
            _server: server,
        };
        cluster.until_balanced().await?;
        Ok(Some(cluster))
    }

    /// Starts one more node.
    async fn add_node(&mut self) -> Result<()> {
        let (node, store, link) = member(&self.backing, self.folder.path(), self.nodes.len(), None).await?;
        self.nodes.push(node);
        self.stores.push(store);
        self.links.push(link);
        Ok(())
    }

    /// A client of each node.
    fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(|node| node.client().with_patience(CLIENT_PATIENCE)).collect()
    }

    /// The cluster as one of the nodes shows it.
    async fn view(&self, seen_by: usize) -> Result<Value> {
        let client = self.nodes[seen_by].client().with_patience(CLIENT_PATIENCE);
        Ok(client.get("/api/v1/cluster").await?.expect(200)?.body)
    }

    /// Nodes and their shards, as one of them sees them.
    async fn shares(&self, seen_by: usize) -> Result<BTreeMap<String, u64>> {
        let view = self.view(seen_by).await?;
        let nodes = view["nodes"].as_array().context("no nodes")?;
        let share =
            |node: &Value| (node["name"].as_str().unwrap_or_default().to_owned(), node["shards"].as_u64().unwrap_or(0));
        Ok(nodes.iter().map(share).collect())
    }

    /// Every shard with its epoch and its owner.
    async fn rows(&self) -> Result<Vec<ShardRow>> {
        Ok(self.store.shards(SHARDS, None).await?.1)
    }

    /// Waits until every node has shards, no shard is to move, and it has stayed so for two seconds.
    async fn until_balanced(&self) -> Result<Vec<ShardRow>> {
        let (mut still, mut since) = (vec![], Instant::now());
        until(BALANCED, "every node has its share of the shards", async || {
            let rows = self.rows().await.ok()?;
            let owners: BTreeSet<_> = rows.iter().filter_map(owner).collect();
            let at_home = |row: &ShardRow| owner(row) == row.target.as_deref();
            let all = (0..self.nodes.len()).all(|node| owners.contains(name(node).as_str()));
            // The leader waits before it plans, so a table that stands still may be one that is about to move.
            if rows != still || !all || !rows.iter().all(at_home) || leaves_something_to_plan(&rows, self.nodes.len()) {
                (still, since) = (rows, Instant::now());
                return None;
            }
            (since.elapsed() > Duration::from_secs(2)).then_some(rows)
        })
        .await
        .with_context(|| {
            let mut shares = BTreeMap::<_, usize>::new();
            for row in &still {
                *shares.entry((owner(row), row.target.as_deref())).or_default() += 1;
            }
            let logs: Vec<_> = self.nodes.iter().map(Node::log_tail).collect();
            format!("shards by owner and target: {shares:?}\n{}", logs.join("\n"))
        })
    }

    /// What a node owns, once it owns something.
    async fn until_owner(&self, node: usize) -> Result<Owned> {
        until(BALANCED, "the node owns shards", async || {
            let owned = Owned::by(&*self.store, SHARDS, &name(node)).await.ok()?;
            (!owned.shards.is_empty()).then_some(owned)
        })
        .await
        .with_context(|| self.nodes[node].log_tail())
    }

    /// A fault takes a node from now on: whoever leads on it does so no more, and its shards are unserved.
    fn fails(&mut self, node: usize, owned: &Owned) -> Result<()> {
        self.leader.fails(&name(node));
        self.outages.push(Outage { at: now()?, shards: owned.shards.keys().copied().collect() });
        Ok(())
    }

    /// Waits until all but one node serve every shard, and then writes what that one would have written. How long it
    /// took.
    async fn taken_over(&mut self, from: usize, owned: &Owned) -> Result<Duration> {
        let begun = Instant::now();
        let gone = name(from);
        until(TAKEN_OVER, "the others serve every shard", async || {
            let shares = self.shares((from + 1) % NODES).await.ok()?;
            let served: u64 = shares.iter().filter(|(node, _)| **node != gone).map(|(_, shards)| shards).sum();
            (served == u64::from(SHARDS)).then_some(())
        })
        .await?;
        let took = begun.elapsed();
        self.taken_over.push(took);
        self.refused += owned.write_late(&*self.store, &self.runs()?).await?;
        Ok(took)
    }

    /// A run on each shard, one that has not ended where there is one.
    fn runs(&self) -> Result<BTreeMap<ShardId, RunId>> {
        let newest = "select distinct on (shard) shard, encode(id, 'hex') from run order by shard, state >= 4, id";
        let mut runs = BTreeMap::new();
        for line in self.backing.server()?.query("runs", newest)?.lines() {
            let (shard, run) = line.split_once('|').context("two columns")?;
            let run = RunId::from_bytes(u128::from_str_radix(run, 16)?.to_be_bytes());
            runs.insert(ShardId(u16::from_str(shard)?), run);
        }
        Ok(runs)
    }

    /// The sum of a metric over the nodes that answer; one that a node has not is zero.
    async fn metric(&self, metric: &str) -> f64 {
        let mut sum = 0.0;
        for client in self.clients() {
            sum += client.metric(metric).await.unwrap_or_default();
        }
        sum
    }
}
