//! A node among others: its lease and its shards, its link, its part in the election, and whom it knows.
//!
//! Decides nothing: the cluster's own loops do. Used by `bootstrap` where the settings name an address for the link.

mod roster;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use motet_actors::node::Node;
use motet_actors::peers::Peers;
use motet_actors::placement::Placement;
use motet_cluster::envelope::NodeId;
use motet_cluster::leader::{Leader, LeaderSettings};
use motet_cluster::link::grpc::tls::TlsSettings;
use motet_cluster::link::grpc::{self, GrpcSettings, Security};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{Link as _, LinkSettings};
use motet_cluster::shards::clock::SystemBootClock;
use motet_cluster::shards::{KeeperParts, Own, PlannerParts, ShardKeeper, ShardPlanner, ShardSettings};
use motet_config::Settings;
use motet_engine::id::Name;
use motet_store::port::Lease;
use motet_store::redis::{RedisSettings, RedisVolatile};

use roster::Roster;

/// How long a node waits for its first lease.
const FIRST_LEASE: Duration = Duration::from_secs(15);

/// How long a link that ends answers what is under way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What makes a node one of several.
pub(super) struct Membership {
    keeper: ShardKeeper,
    leader: Leader,
    link: Arc<NodeLink>,
    _planner: ShardPlanner,
    _roster: Roster,
}

impl Membership {
    /// Joins a node to its cluster; it is given shards from then on. None where it runs alone.
    pub(super) async fn join(settings: &Settings, node: &Node) -> anyhow::Result<Option<Self>> {
        let Some(listen) = settings.cluster.address else { return Ok(None) };
        let own = Identity::of(settings)?;
        let store = Arc::clone(node.store());
        let roster = Roster::start(Arc::clone(&store), own.weight);
        let shards = ShardSettings::new(settings.runs.shards);
        let keeper = ShardKeeper::start(KeeperParts {
            store: Arc::clone(&store),
            host: node.shard_host(),
            own: Own {
                node: own.node.to_string(),
                address: own.advertise.clone(),
                weight: own.weight,
                serves_runs: own.serves_runs,
            },
            members: roster.members(),
            clock: Arc::new(SystemBootClock),
            settings: shards.clone(),
        })?;
        let mut life = keeper.life();
        let incarnation = tokio::time::timeout(FIRST_LEASE, life.wait_for(Option::is_some)).await;
        let incarnation = incarnation.ok().and_then(|life| life.ok().and_then(|life| *life));
        let incarnation = incarnation.context("the store gave this node no lease; see the log")?;
        let link = grpc::start(
            LinkSettings::new(own.cluster, own.node.clone(), incarnation),
            GrpcSettings { listen, advertise: settings.cluster.advertise, security: security(settings)? },
            roster.book(),
            node.reception(),
        )
        .await
        .context("the link to other nodes cannot start (cluster.*)")?;
        let leading = LeaderSettings::default();
        let role = Name::new(&leading.role)?;
        let holder = format!("{}/{}", own.node, incarnation.0);
        let leader = Leader::start(leading, &holder, Arc::clone(&store) as Arc<_>, redis(settings)?)?;
        let planner = ShardPlanner::start(PlannerParts {
            store: Arc::clone(&store),
            role,
            term: leader.watch(),
            members: roster.members(),
            clock: Arc::new(SystemBootClock),
            settings: shards,
        })?;
        node.join(Peers {
            me: own.node,
            link: Arc::clone(&link) as Arc<_>,
            table: Arc::clone(keeper.table()),
            members: roster.names(),
            placement: Placement::new(tokio::sync::watch::channel(Arc::default()).1),
            store,
        });
        tracing::info!(address = %own.advertise, %incarnation, "member of the cluster");
        Ok(Some(Self { keeper, leader, link, _planner: planner, _roster: roster }))
    }

    /// Hands everything over, at most within `patience`, and leaves.
    pub(super) async fn leave(self, patience: Duration) {
        self.leader.stop().await;
        let left = self.keeper.stop(patience).await;
        if left > 0 {
            tracing::warn!(shards = left, "shards were not handed over in time; others take them when they see it");
        }
        self.link.close(LAST_WORDS).await;
    }
}

/// What this node is to others.
struct Identity {
    cluster: Name,
    node: NodeId,
    /// Where others reach it.
    advertise: String,
    weight: u32,
    serves_runs: bool,
}

impl Identity {
    fn of(settings: &Settings) -> anyhow::Result<Self> {
        let cluster = &settings.cluster;
        if !settings.store.url.expose().starts_with("postgres") {
            bail!(
                "cluster.address: nodes of a cluster share a PostgreSQL; set store.url to postgres://..., or run alone"
            );
        }
        let node = NodeId::new(&settings.node.name).map_err(|error| anyhow::anyhow!("node.name: {error}"))?;
        let name = Name::new(&cluster.name).map_err(|error| anyhow::anyhow!("cluster.name: {error}"))?;
        let advertise = cluster.advertise.or(cluster.address).context("cluster.address is not set")?;
        if advertise.ip().is_unspecified() || advertise.port() == 0 {
            bail!("cluster.advertise: other nodes cannot reach {advertise}; name the address that they can reach");
        }
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let weight = match cluster.weight {
            0 => u32::try_from(processors()).unwrap_or(u32::MAX),
            weight => weight,
        };
        let serves_runs = cluster.roles().contains(&"runs");
        Ok(Self { cluster: name, node, advertise: advertise.to_string(), weight, serves_runs })
    }
}

/// Where the leader is elected first; the store alone decides where there is none.
fn redis(settings: &Settings) -> anyhow::Result<Option<Arc<dyn Lease>>> {
    let Some(url) = &settings.redis.url else { return Ok(None) };
    let mut options = RedisSettings::from_url(url.expose()).context("redis.url")?;
    // Clusters that share a Redis must not meet in it.
    options.prefix = format!("{}-{}", options.prefix, settings.cluster.name);
    Ok(Some(RedisVolatile::open(options).context("redis.url")?))
}

fn security(settings: &Settings) -> anyhow::Result<Security> {
    let cluster = &settings.cluster;
    match (&cluster.certificate, &cluster.key, &cluster.authority) {
        (Some(certificate), Some(key), Some(authority)) => {
            Ok(Security::Tls(TlsSettings::new(certificate.clone(), key.clone(), authority.clone())))
        }
        (None, None, None) => Ok(Security::Plain { beyond_loopback: false }),
        _ => bail!("cluster.certificate, cluster.key and cluster.authority belong together: set all three or none"),
    }
}
