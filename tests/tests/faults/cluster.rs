//! C1 to C3: three nodes over one database, of which one dies, stands still, or loses the database, in turn, under load.
//!
//! What is measured besides: how long after the fault the others serve every shard.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::faults::proxy::{Direction, Proxy, Rule};
use motet_tests::node::Node;
use motet_tests::ports::free_address;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};

const CLIENTS: usize = 48;
const NODES: usize = 3;

/// Longest time until the others serve what a node served.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// Nodes of one cluster, each behind a proxy of its own to the database.
struct Cluster {
    backing: Backing,
    nodes: Vec<Node>,
    proxies: Vec<Proxy>,
    _folders: (tempfile::TempDir, tempfile::TempDir),
}

impl Cluster {
    async fn start(test: &str) -> Result<Option<Self>> {
        let (server, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let Some(backing) = Backing::postgres(test, server.path()).await? else { return Ok(None) };
        let (mut nodes, mut proxies) = (vec![], vec![]);
        for number in 0..NODES {
            let proxy = Proxy::start(backing.server()?.address()).await?;
            let name = format!("node-{number}");
            let settings = backing
                .through(proxy.address())
                .settings(&folder.path().join(&name))
                .with("MOTET__NODE__NAME", &name)
                .with("MOTET__CLUSTER__ADDRESS", &free_address().to_string())
                .with("MOTET__RUNS__SHARDS", "48");
            nodes.push(Node::start(settings).await?);
            proxies.push(proxy);
        }
        let cluster = Self { backing, nodes, proxies, _folders: (server, folder) };
        until(TAKEN_OVER * 3, "every node has shards", async || {
            let shares = cluster.shares(0).await.ok()?;
            (shares.iter().filter(|(_, shards)| *shards > 0).count() == NODES).then_some(())
        })
        .await?;
        Ok(Some(cluster))
    }

    /// Nodes and their shards, as one of them sees them.
    async fn shares(&self, seen_by: usize) -> Result<Vec<(String, u64)>> {
        let view = self.nodes[seen_by].client().get("/api/v1/cluster").await?.expect(200)?.body;
        let nodes = view["nodes"].as_array().context("no nodes")?;
        let share = |node: &serde_json::Value| {
            (node["name"].as_str().unwrap_or_default().to_owned(), node["shards"].as_u64().unwrap_or_default())
        };
        Ok(nodes.iter().map(share).collect())
    }

    /// Waits until all but one node serve every shard; how long that took.
    async fn taken_over(&self, from: usize) -> Result<Duration> {
        let (begun, name) = (Instant::now(), format!("node-{from}"));
        until(TAKEN_OVER, "the others serve every shard", async || {
            let shares = self.shares((from + 1) % NODES).await.ok()?;
            let served: u64 = shares.iter().filter(|(node, _)| *node != name).map(|(_, shards)| shards).sum();
            (served == 48).then_some(())
        })
        .await?;
        Ok(begun.elapsed())
    }

    async fn prove(self, load: Load, row: &str, what: &str, mut times: Vec<Duration>) -> Result<()> {
        let tally = load.prove_on(self.nodes, &self.backing).await?;
        times.sort_unstable();
        let at =
            |part: usize| times.get((times.len() * part).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        let what = format!("{what}, taken over within p50 {:?}, p99 {:?}", at(50), at(99));
        super::report(row, &what, &tally);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_one_of_three_nodes_is_killed() -> Result<()> {
    let Some(mut cluster) = Cluster::start("c1_one_of_three_nodes_is_killed").await? else { return Ok(()) };
    let scale = Scale::from_environment();
    let (kills, per_kill) = (scale.pick(3, 30, 300), scale.pick(1_000, 1_500, 3_000));
    let mut seed = Seed::from_environment();
    let clients: Vec<_> = cluster.nodes.iter().map(Node::client).collect();
    let load = Load::begin_on(&clients, kills * per_kill, CLIENTS, &mut seed).await?;
    let mut times = vec![];
    for kill in 0..kills {
        load.allow(per_kill);
        let_pass(Duration::from_millis(seed.between(50, 700))).await;
        let victim = kill % NODES;
        cluster.nodes[victim].kill()?;
        let promised = load.promised();
        let taken_over = cluster.taken_over(victim).await?;
        times.push(taken_over);
        cluster.nodes[victim].restart().await?;
        println!("kill {kill} of node-{victim}: {promised} runs promised, taken over after {taken_over:?}");
    }
    cluster.prove(load, "C1", &format!("{kills} kills"), times).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_one_of_three_nodes_stands_still() -> Result<()> {
    let Some(cluster) = Cluster::start("c2_one_of_three_nodes_stands_still").await? else { return Ok(()) };
    let scale = Scale::from_environment();
    let (stops, per_stop) = (scale.pick(1, 10, 100), scale.pick(1_000, 1_500, 3_000));
    let still = Duration::from_secs(scale.pick(6, 15, 15));
    let mut seed = Seed::from_environment();
    let clients: Vec<_> = cluster.nodes.iter().map(Node::client).collect();
    let load = Load::begin_on(&clients, stops * per_stop, CLIENTS, &mut seed).await?;
    let mut times = vec![];
    for stop in 0..stops {
        load.allow(per_stop);
        let_pass(Duration::from_millis(seed.between(50, 300))).await;
        let victim = stop % NODES;
        let begun = Instant::now();
        cluster.nodes[victim].freeze()?;
        let taken_over = cluster.taken_over(victim).await?;
        times.push(taken_over);
        let_pass(still.saturating_sub(begun.elapsed())).await;
        cluster.nodes[victim].thaw()?;
        // It finds out by itself that its life is over, begins another one, and is given shards again.
        until(TAKEN_OVER * 3, "the node works again", async || {
            let shares = cluster.shares(victim).await.ok()?;
            (shares.iter().filter(|(_, shards)| *shards > 0).count() == NODES).then_some(())
        })
        .await
        .with_context(|| cluster.nodes[victim].log_tail())?;
        let lives = cluster.nodes[victim].log().matches("registered").count();
        ensure!(lives > stop / NODES + 1, "node-{victim} goes on under the life that was fenced");
        println!("stop {stop} of node-{victim}: taken over after {taken_over:?}");
    }
    cluster.prove(load, "C2", &format!("{stops} stops of {still:?}"), times).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_one_of_three_nodes_loses_the_database() -> Result<()> {
    let Some(cluster) = Cluster::start("c3_one_of_three_nodes_loses_the_database").await? else { return Ok(()) };
    let scale = Scale::from_environment();
    let (cuts, per_cut) = (scale.pick(2, 10, 100), scale.pick(1_000, 1_500, 3_000));
    let mut seed = Seed::from_environment();
    let clients: Vec<_> = cluster.nodes.iter().map(Node::client).collect();
    let load = Load::begin_on(&clients, cuts * per_cut, CLIENTS, &mut seed).await?;
    let mut times = vec![];
    for cut in 0..cuts {
        load.allow(per_cut);
        let_pass(Duration::from_millis(seed.between(50, 300))).await;
        let victim = cut % NODES;
        // Each direction in turn: nothing arrives, or nothing comes back.
        let direction = if cut % 2 == 0 { Direction::There } else { Direction::Back };
        cluster.proxies[victim].set(direction, Rule { stalled: true, ..Rule::default() });
        let taken_over = cluster.taken_over(victim).await?;
        times.push(taken_over);
        cluster.proxies[victim].set(direction, Rule::default());
        until(TAKEN_OVER * 3, "the node works again", async || {
            let shares = cluster.shares((victim + 1) % NODES).await.ok()?;
            (shares.iter().filter(|(_, shards)| *shards > 0).count() == NODES).then_some(())
        })
        .await
        .with_context(|| cluster.nodes[victim].log_tail())?;
        println!("cut {cut} of node-{victim}: taken over after {taken_over:?}");
    }
    cluster.prove(load, "C3", &format!("{cuts} partitions from the database"), times).await
}
