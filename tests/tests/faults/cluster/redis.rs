//! C5: Redis is cut off from one node, is killed, forgets everything, becomes two, and fails over: somebody leads all
//! the time or soon again, and no run notices.
//!
//! The servers are the row's own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_engine::time::Timestamp;
use motet_store::contract::RedisServer;
use motet_store::port::ShardRow;
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::faults::proxy::{Direction, Proxy, Rule};
use motet_tests::past::now;
use motet_tests::scale::Scale;
use motet_tests::waiting::{let_pass, until};

use super::{Cluster, NODES};

/// Longest time until a node notices that Redis does not answer, or does again.
const NOTICED: Duration = Duration::from_secs(30);

const REQUESTS: &str = "motet_election_requests_total";

/// What comes back after a question that Redis did not answer, and after one that it did.
const FAILED: [&str; 2] = ["side=\"redis\"", "outcome=\"failed\""];
const ANSWERED: [[&str; 2]; 3] = [
    ["side=\"redis\"", "outcome=\"ours\""],
    ["side=\"redis\"", "outcome=\"theirs\""],
    ["side=\"redis\"", "outcome=\"not_ours\""],
];

/// A server that every node reaches through a proxy of its own.
pub(super) struct ProxiedRedis {
    primary: RedisServer,
    proxies: Vec<Proxy>,
}

impl ProxiedRedis {
    /// Starts it; none, loudly, where Redis is not installed.
    pub(super) async fn start(test: &str) -> Result<Option<Self>> {
        let Some(primary) = RedisServer::start(test, &[]).await else { return Ok(None) };
        let mut proxies = vec![];
        for _ in 0..NODES {
            proxies.push(Proxy::start(primary.address()).await?);
        }
        Ok(Some(Self { primary, proxies }))
    }

    /// How each node reaches it.
    pub(super) fn urls(&self) -> [String; NODES] {
        let url = |node: usize| format!("redis://:{}@{}/0", RedisServer::PASSWORD, self.proxies[node].address());
        std::array::from_fn(url)
    }
}

/// A primary with a replica, and a sentinel that every node asks for the one that is the primary now.
pub(super) struct SentinelRedis {
    servers: [RedisServer; 2],
    sentinel: RedisServer,
    /// Which one is the primary.
    primary: usize,
}

impl SentinelRedis {
    /// Starts them; none, loudly, where Redis is not installed.
    pub(super) async fn start(test: &str) -> Result<Option<Self>> {
        let Some(first) = RedisServer::start(test, &[]).await else { return Ok(None) };
        let second = replica_of(&first, test).await?;
        let sentinel = RedisServer::start_sentinel(&first, "motet").await;
        let redis = Self { servers: [first, second], sentinel, primary: 0 };
        redis.until_replicated().await?;
        Ok(Some(redis))
    }

    pub(super) fn urls(&self) -> [String; NODES] {
        let (password, sentinel) = (RedisServer::PASSWORD, self.sentinel.address());
        std::array::from_fn(|_| format!("redis-sentinel://:{password}@{sentinel}/motet?sentinel_password={password}"))
    }

    /// Waits until the other server follows the primary and the sentinel knows it.
    async fn until_replicated(&self) -> Result<()> {
        let replica = &self.servers[1 - self.primary];
        until(NOTICED, "the sentinel to know a replica that follows", async || {
            let role = replica.command("ROLE").await?;
            let known = self.sentinel.command("SENTINEL REPLICAS motet").await?;
            let follows = role.contains("slave") && role.contains("connected");
            (follows && !known.starts_with("*0") && !known.contains("s_down")).then_some(())
        })
        .await
    }

    /// Kills the primary, and starts it again when the replica has become one.
    async fn fail_over(&mut self) -> Result<()> {
        self.servers[self.primary].kill();
        let replica = &self.servers[1 - self.primary];
        until(NOTICED, "the replica to be the primary", async || {
            replica.command("ROLE").await?.contains("master").then_some(())
        })
        .await?;
        self.servers[self.primary].begin().await;
        self.primary = 1 - self.primary;
        Ok(())
    }
}

async fn replica_of(primary: &RedisServer, test: &str) -> Result<RedisServer> {
    let replicates = ["--replicaof", &format!("127.0.0.1 {}", primary.address().port())];
    let replica = RedisServer::start(test, &replicates).await.context("Redis is there and does not start")?;
    until(NOTICED, "the replica to follow", async || {
        replica.command("ROLE").await?.contains("connected").then_some(())
    })
    .await?;
    Ok(replica)
}

/// The primary dies and the sentinel makes the replica one, again and again.
pub(super) async fn fails_over(
    cluster: &mut Cluster,
    load: &Load,
    scale: Scale,
    redis: &mut SentinelRedis,
) -> Result<String> {
    let times = scale.pick(1, 3, 30);
    for time in 0..times {
        let calm = Calm::before(cluster, load, scale).await?;
        redis.until_replicated().await?;
        redis.fail_over().await?;
        until_answers(cluster, 0..NODES).await?;
        let_pass(held(scale)).await;
        calm.after(cluster, &format!("fail-over {time}")).await?;
    }
    Ok(format!("{times} fail-overs of Redis by a sentinel"))
}

/// Redis is cut off from the node that leads, in either direction; it is killed, emptied, and becomes two.
pub(super) async fn in_turn(
    cluster: &mut Cluster,
    load: &Load,
    scale: Scale,
    redis: &mut ProxiedRedis,
) -> Result<String> {
    let (cuts, times) = scale.pick((2, 1), (10, 3), (100, 30));
    for cut in 0..cuts {
        let direction = if cut % 2 == 0 { Direction::There } else { Direction::Back };
        let calm = Calm::before(cluster, load, scale).await?;
        let leader = cluster.leader.leader().map(|(name, _)| name).context("nobody leads")?;
        let victim: usize = leader.trim_start_matches("node-").parse()?;
        redis.proxies[victim].set(direction, Rule { stalled: true, ..Rule::default() });
        until_fails(cluster, victim..=victim).await?;
        let_pass(held(scale)).await;
        redis.proxies[victim].set(direction, Rule::default());
        until_answers(cluster, victim..=victim).await?;
        calm.after(cluster, &format!("cut {cut} of {leader} from Redis, {direction:?}")).await?;
    }
    for time in 0..times {
        let calm = Calm::before(cluster, load, scale).await?;
        redis.primary.kill();
        until_fails(cluster, 0..NODES).await?;
        let_pass(held(scale)).await;
        redis.primary.begin().await;
        // One that was promoted before is started as the replica that it was.
        promote(&redis.primary).await?;
        until_answers(cluster, 0..NODES).await?;
        calm.after(cluster, &format!("kill {time} of Redis")).await?;

        let calm = Calm::before(cluster, load, scale).await?;
        until_kept(&redis.primary).await?;
        let emptied = redis.primary.command("FLUSHALL").await;
        ensure!(emptied.as_deref() == Some("+OK\r\n"), "FLUSHALL said {emptied:?}");
        until_kept(&redis.primary).await?;
        let_pass(held(scale)).await;
        calm.after(cluster, &format!("Redis emptied, time {time}")).await?;

        let calm = Calm::before(cluster, load, scale).await?;
        become_two(cluster, redis, held(scale)).await?;
        calm.after(cluster, &format!("Redis was two, time {time}")).await?;
    }
    Ok(format!("Redis cut off {cuts} times, killed, emptied and become two {times} times each"))
}

/// A replica is promoted while the old primary still takes what one node writes; then the old one dies.
async fn become_two(cluster: &Cluster, redis: &mut ProxiedRedis, held: Duration) -> Result<()> {
    let replica = replica_of(&redis.primary, "redis replica").await?;
    promote(&replica).await?;
    for proxy in &redis.proxies[1..] {
        proxy.lead_to(replica.address());
    }
    until_answers(cluster, 0..NODES).await?;
    let_pass(held).await;
    redis.primary = replica;
    redis.proxies[0].lead_to(redis.primary.address());
    until_answers(cluster, 0..NODES).await
}

/// Makes a server a primary, if it is none.
async fn promote(server: &RedisServer) -> Result<()> {
    let promoted = server.command("REPLICAOF NO ONE").await;
    ensure!(promoted.as_deref() == Some("+OK\r\n"), "REPLICAOF NO ONE said {promoted:?}");
    Ok(())
}

/// How long a fault lasts after the nodes have noticed it: in the long form longer than the lease of the leader.
fn held(scale: Scale) -> Duration {
    Duration::from_secs(scale.pick(1, 12, 12))
}

/// The cluster before a fault of which no run may notice anything.
struct Calm {
    from: Timestamp,
    owners: Vec<ShardRow>,
    in_flight: u64,
}

impl Calm {
    async fn before(cluster: &Cluster, load: &Load, scale: Scale) -> Result<Self> {
        let owners = cluster.until_balanced().await?;
        let in_flight = load.until_in_flight(Crowd::of(scale).in_flight).await?;
        Ok(Self { from: now()?, owners, in_flight })
    }

    async fn after(self, cluster: &mut Cluster, what: &str) -> Result<()> {
        ensure!(cluster.rows().await? == self.owners, "{what}: a shard has moved");
        cluster.quiet.push((self.from, now()?));
        println!("{what}: {} in flight, nothing moved, {:?} leads", self.in_flight, cluster.leader.leader());
        Ok(())
    }
}

/// Waits until questions of these nodes about the lead have failed in Redis.
async fn until_fails(cluster: &Cluster, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
    for node in nodes {
        until_more(cluster, node, &[FAILED]).await?;
    }
    Ok(())
}

/// Waits until questions of these nodes about the lead have been answered by Redis.
async fn until_answers(cluster: &Cluster, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
    for node in nodes {
        until_more(cluster, node, &ANSWERED).await?;
    }
    Ok(())
}

async fn until_more(cluster: &Cluster, node: usize, outcomes: &[[&str; 2]]) -> Result<()> {
    let client = cluster.nodes[node].client();
    let count = async || {
        let mut sum = 0.0;
        for labels in outcomes {
            sum += client.metric_with(REQUESTS, labels).await.unwrap_or_default();
        }
        sum
    };
    let before = count().await;
    until(NOTICED, &format!("node-{node} to count {outcomes:?}"), async || (count().await > before).then_some(()))
        .await
        .with_context(|| cluster.nodes[node].log_tail())
}

/// Waits until the server holds something: the lease of the leader.
async fn until_kept(redis: &RedisServer) -> Result<()> {
    until(NOTICED, "the lease to be in Redis", async || {
        redis.command("DBSIZE").await.filter(|size| size != ":0\r\n").map(drop)
    })
    .await
}
