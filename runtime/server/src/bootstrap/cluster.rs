//! A node among others: its lease and its shards, its link, its part in the election, and whom it knows.
//!
//! Decides nothing: the cluster's own loops do. Used by `bootstrap` where the settings name an address for the link.

mod belonging;
mod roster;
mod tending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use motet_actors::node::Node;
use motet_actors::peers::Peers;
use motet_actors::placement::Placement;
use motet_actors::router::Homes;
use motet_cluster::clock::SystemBootClock;
use motet_cluster::envelope::NodeId;
use motet_cluster::leader::{Leader, LeaderSettings};
use motet_cluster::link::grpc::tls::TlsSettings;
use motet_cluster::link::grpc::{self, GrpcSettings, Security};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{Link as _, LinkSettings};
use motet_cluster::members::{Capacity, MemberSettings, Profile, Role, Roles, Version};
use motet_cluster::shards::{KeeperParts, Own, PlannerParts, ShardKeeper, ShardPlanner, ShardSettings};
use motet_config::Settings;
use motet_engine::id::Name;
use motet_store::codec::JOURNAL_VERSION;
use motet_store::port::{Incarnation, Lease, Store};
use tokio::sync::watch;

use belonging::{Belonging, BelongingParts};
use roster::Roster;
use tending::Tending;

/// How long a node waits for its first lease.
const FIRST_LEASE: Duration = Duration::from_secs(15);

/// How long a link that ends answers what is under way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What makes a node one of several.
pub(super) struct Membership {
    link: Arc<NodeLink>,
    belonging: Belonging,
    draining: watch::Sender<bool>,
    tending: Tending,
    _planner: ShardPlanner,
}

impl Membership {
    /// Joins a node to its cluster; it is given shards from then on. None where it runs alone.
    pub(super) async fn join(settings: &Settings, node: &Node) -> anyhow::Result<Option<Self>> {
        let Some(listen) = settings.cluster.address else { return Ok(None) };
        let own = Identity::of(settings)?;
        let store = Arc::clone(node.store());
        let roster = Roster::new(own.weight);
        let shards = ShardSettings::new(settings.runs.shards);
        let keeper = ShardKeeper::start(KeeperParts {
            store: Arc::clone(&store),
            host: node.shard_host(),
            own: Own {
                node: own.node.to_string(),
                address: own.advertise.to_string(),
                weight: own.weight,
                serves_runs: own.roles.has(Role::Runs),
            },
            members: roster.contenders(),
            clock: Arc::new(SystemBootClock),
            settings: shards.clone(),
        })?;
        let incarnation = first_life(&keeper).await?;
        let link_settings = LinkSettings::new(own.cluster.clone(), own.node.clone(), incarnation);
        let version = Version {
            binary: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: (*link_settings.protocols.start(), *link_settings.protocols.end()),
            events: u32::from(JOURNAL_VERSION),
        };
        let link = grpc::start(
            link_settings,
            GrpcSettings { listen, advertise: settings.cluster.advertise, security: security(settings)? },
            roster.book(),
            node.reception(),
        )
        .await
        .context("the link to other nodes cannot start (cluster.*)")?;
        let holder = format!("{}/{}", own.node, incarnation.0);
        let (leader, planner) = elect(settings, &holder, &store, &roster, shards)?;
        let (draining, drains) = watch::channel(false);
        let peers = Peers {
            me: own.node.clone(),
            link: Arc::clone(&link) as Arc<_>,
            table: Arc::clone(keeper.table()),
            members: roster.list(),
            placement: Placement::new(roster.list()),
            homes: Homes::new(own.roles.has(Role::Vectors)),
            draining: draining.clone(),
            store: Arc::clone(&store),
        };
        let belonging = Belonging::start(BelongingParts {
            settings: MemberSettings {
                cluster: own.cluster.to_string(),
                seeds: settings.cluster.seeds(),
                ..MemberSettings::default()
            },
            name: own.node.to_string(),
            address: own.advertise,
            profile: own.profile(settings, version),
            datagrams: Arc::clone(link.gossip()) as Arc<_>,
            store: store as Arc<_>,
            life: keeper.life(),
            draining: drains.clone(),
            models: node.models_told(),
            router: Arc::clone(node.router()),
            roster,
        });
        node.join(peers);
        tracing::info!(address = %own.advertise, %incarnation, "member of the cluster");
        let tending = Tending::start(keeper, leader, drains);
        Ok(Some(Self { link, belonging, draining, tending, _planner: planner }))
    }

    /// Hands everything over, at most within `patience`, and leaves.
    pub(super) async fn leave(self, patience: Duration) {
        // Others hear of it while shards are handed over.
        self.draining.send_replace(true);
        let left = self.tending.end(patience).await;
        if left > 0 {
            tracing::warn!(shards = left, "shards were not handed over in time; others take them when they see it");
        }
        self.belonging.leave().await;
        self.link.close(LAST_WORDS).await;
    }
}

/// Stands for election, and plans where shards are served while it leads.
fn elect(
    settings: &Settings,
    holder: &str,
    store: &Arc<dyn Store>,
    roster: &Roster,
    shards: ShardSettings,
) -> anyhow::Result<(Leader, ShardPlanner)> {
    let leading = LeaderSettings::default();
    let role = Name::new(&leading.role)?;
    let volatile = super::adapters::volatile(settings)?.map(|volatile| volatile as Arc<dyn Lease>);
    let leader = Leader::start(leading, holder, Arc::clone(store) as Arc<_>, volatile)?;
    let planner = ShardPlanner::start(PlannerParts {
        store: Arc::clone(store),
        role,
        term: leader.watch(),
        members: roster.contenders(),
        clock: Arc::new(SystemBootClock),
        settings: shards,
    })?;
    Ok((leader, planner))
}

async fn first_life(keeper: &ShardKeeper) -> anyhow::Result<Incarnation> {
    let mut life = keeper.life();
    let first = tokio::time::timeout(FIRST_LEASE, life.wait_for(Option::is_some)).await;
    let first = first.ok().and_then(|life| life.ok().and_then(|life| *life));
    first.context("the store gave this node no lease; see the log")
}

/// What this node is to others.
struct Identity {
    cluster: Name,
    node: NodeId,
    /// Where others reach it.
    advertise: SocketAddr,
    weight: u32,
    roles: Roles,
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
        let weight = match cluster.weight {
            0 => u32::try_from(processors()).unwrap_or(u32::MAX),
            weight => weight,
        };
        let roles = cluster.roles().into_iter().map(str::parse).collect::<Result<_, _>>().context("cluster.roles")?;
        Ok(Self { cluster: name, node, advertise, weight, roles })
    }

    /// What it tells others of itself.
    fn profile(&self, settings: &Settings, version: Version) -> Profile {
        let http = settings.http.address;
        Profile {
            roles: self.roles,
            labels: settings.cluster.labels(),
            capacity: Capacity {
                cores: u32::try_from(processors()).unwrap_or(u32::MAX),
                memory_bytes: memory(),
                model_memory_bytes: settings.models.memory_bytes,
                weight: f64::from(self.weight),
            },
            version,
            http: (!http.ip().is_unspecified() && http.port() != 0).then(|| http.to_string()),
            ..Profile::default()
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory of the machine in bytes; 0 where it does not say.
fn memory() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|total| total.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
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
