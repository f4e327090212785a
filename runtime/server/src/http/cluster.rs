//! The nodes together: who lives, who leads, who serves which part of the runs; and nodes that are to give their part
//! away.
//!
//! Lives, leader and shards are read from the store, so that every node answers alike; what nodes tell of themselves is
//! as this node has heard it. A node that runs alone says so. Used by the routes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use motet_cluster::members::{Member, Role};
use motet_engine::access::Action;
use motet_engine::id::Name;
use motet_store::port::{LiveNode, ShardRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::context::Context;
use super::problem::Problem;
use super::{App, body};

/// The nodes together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(crate) struct ClusterView {
    /// The node that answers.
    node: String,
    /// Whether it runs alone.
    alone: bool,
    /// Who plans where shards are served; null where nobody leads at this moment.
    #[schema(required)]
    leader: Option<LeaderView>,
    /// The nodes whose lives are not over.
    nodes: Vec<MemberView>,
    /// The slices of all runs.
    shards: ShardsView,
    /// Whether nodes run different versions of the program.
    version_skew: bool,
}

/// The leader.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeaderView {
    /// Its name.
    node: String,
    /// Number of its leadership.
    term: u64,
    /// What is left of its lease.
    lease_left_ms: u64,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub(crate) struct MemberView {
    /// Its name.
    name: String,
    /// Number of its present life.
    incarnation: u64,
    /// Where other nodes reach it.
    address: String,
    /// What is left of its lease; 0 when others may take its shards.
    lease_left_ms: u64,
    /// Shards that it serves.
    shards: usize,
    /// Shards of others that are on their way to it.
    coming: usize,
    /// `alive`, `suspect`, `gone`, or `unheard` while the answering node has not heard of this life.
    #[schema(value_type = String)]
    state: &'static str,
    /// Why it is not alive, in words; empty when it is.
    #[schema(value_type = String)]
    why: Cow<'static, str>,
    /// What it does for others: some of `api`, `ingest`, `runs`, `models`, `vectors`.
    roles: Vec<String>,
    /// What it is called by whoever runs it.
    labels: BTreeMap<String, String>,
    /// Whether it gives its shards away and takes none.
    draining: bool,
    /// Its share of the shards beside others.
    weight: f64,
    /// Runs with an actor on it, a few seconds ago.
    live_runs: u64,
    /// Calls that waited on it, a few seconds ago.
    queue_depth: u64,
    /// Version of its program; empty while it is not heard of.
    version: String,
    /// Where its HTTP interface is; null when it has not told.
    #[schema(required)]
    http: Option<String>,
}

/// Whether a node is to drain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Draining {
    /// False lets it take shards again; true where nothing is said.
    drain: bool,
}

impl Default for Draining {
    fn default() -> Self {
        Self { drain: true }
    }
}

/// The shard table in figures.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShardsView {
    /// How many there are.
    count: u16,
    /// Version of the table.
    version: u64,
    /// Those that no node serves.
    unserved: usize,
    /// Those that are to move.
    moving: usize,
}

/// Read who lives, who leads and who serves what
#[utoipa::path(get, path = "/api/v1/cluster", operation_id = "getCluster", tag = "node",
    responses((status = 200, description = "The nodes together.", body = ClusterView)))]
pub(crate) async fn show(State(app): State<Arc<App>>, context: Context) -> Result<Response, Problem> {
    context.caller.may(Action::ReadNode)?;
    let count = app.router.runs().shards();
    let alone = app.router.is_alone();
    let (mut leader, mut nodes) = (None, vec![]);
    let (version, rows) = app.store.shards(count, None).await?;
    if !alone {
        nodes = app.store.live().await?;
        let role = Name::new(motet_cluster::leader::ROLE).map_err(|_| Problem::new(500, "internal", "no role"))?;
        leader = app.store.leader(&role).await?;
    }
    let millis = |left: std::time::Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let told = app.router.members().unwrap_or_default();
    let nodes: Vec<_> = members(&nodes, &rows, &told).into_values().collect();
    let versions: BTreeSet<_> = nodes.iter().map(|node| &node.version).filter(|version| !version.is_empty()).collect();
    let view = ClusterView {
        node: app.name.clone(),
        alone,
        leader: leader.map(|leader| LeaderView {
            // Who stands for election calls itself by its name and its life.
            node: leader.holder.split('/').next().unwrap_or_default().to_owned(),
            term: leader.term.0,
            lease_left_ms: millis(leader.left),
        }),
        shards: ShardsView {
            count,
            version: version.0,
            unserved: if alone { 0 } else { rows.iter().filter(|row| row.owner.is_none()).count() },
            moving: rows.iter().filter(|row| is_moving(row)).count(),
        },
        version_skew: versions.len() > 1,
        nodes,
    };
    body::answer(200, &view)
}

/// Let a node give its work away
///
/// Its shards go to the other nodes one by one, without an end to any run; meanwhile and afterwards it answers requests
/// as before. It has heard of it when this answers; it is done when it serves no shard any more. A node that is started
/// anew takes shards again.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/drain", operation_id = "drainNode", tag = "node",
    params(("name" = String, Path, description = "Name of the node.")),
    request_body = Draining,
    responses((status = 202, description = "The node has heard of it.", body = MemberView)))]
pub(crate) async fn drain(
    State(app): State<Arc<App>>,
    context: Context,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    context.caller.may(Action::ControlNode)?;
    let Draining { drain } = body::json(&headers, &body::read(&app, &headers, body).await?)?;
    let told = app.router.members().unwrap_or_default();
    let others = told.iter().any(|other| other.name != name && other.takes(Role::Runs));
    if drain && !app.router.is_alone() && !others {
        return Err(Problem::new(
            409,
            "last_node",
            "no other node takes shards: the runs of this one would stand still",
        ));
    }
    app.router.drain(&name, drain).await?;
    let (_, rows) = app.store.shards(app.router.runs().shards(), None).await?;
    let nodes = app.store.live().await?;
    let gone = || Problem::new(404, "not_found", format!("node '{name}' is gone"));
    let mut view = members(&nodes, &rows, &told).remove(&name).ok_or_else(gone)?;
    view.draining = drain;
    body::answer(202, &view)
}

fn is_moving(row: &ShardRow) -> bool {
    let Some(owner) = &row.owner else { return false };
    row.target.as_ref().is_some_and(|target| *target != owner.node)
}

/// The nodes by name, with what they serve and what they tell of themselves.
fn members(nodes: &[LiveNode], rows: &[ShardRow], told: &[Member]) -> BTreeMap<String, MemberView> {
    let serves = |node: &LiveNode| {
        rows.iter().filter(|row| row.owner.as_ref().is_some_and(|owner| owner.incarnation == node.incarnation)).count()
    };
    let coming = |node: &LiveNode| {
        rows.iter()
            .filter(|row| is_moving(row) && row.target.as_ref().is_some_and(|target| *target == node.node))
            .count()
    };
    let view = |node: &LiveNode| {
        let heard = told.iter().find(|member| member.incarnation == node.incarnation && member.name == node.node);
        let profile = heard.map(|member| member.profile.clone()).unwrap_or_default();
        let why = match heard {
            Some(member) if !member.flaws.is_empty() => Cow::Owned(member.flaws.join("; ")),
            Some(member) => Cow::Borrowed(member.state.why()),
            None => Cow::Borrowed("this node has not heard of it yet"),
        };
        MemberView {
            name: node.node.clone(),
            incarnation: node.incarnation.0,
            address: node.address.clone(),
            lease_left_ms: u64::try_from(node.left.as_millis()).unwrap_or(u64::MAX),
            shards: serves(node),
            coming: coming(node),
            state: heard.map_or("unheard", |member| member.state.as_str()),
            why,
            roles: profile.roles.iter().map(|role| role.to_string()).collect(),
            labels: profile.labels,
            draining: profile.draining,
            weight: profile.capacity.weight,
            live_runs: profile.load.live_runs,
            queue_depth: profile.load.queue_depth,
            version: profile.version.binary,
            http: profile.http,
        }
    };
    nodes.iter().map(|node| (node.node.clone(), view(node))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use motet_engine::id::{Epoch, ShardId};
    use motet_store::port::{Incarnation, ShardOwner};

    use super::*;

    #[test]
    fn shards_count_for_the_life_that_owns_them() {
        let node = |name: &str, life: u64| LiveNode {
            incarnation: Incarnation(life),
            node: name.to_owned(),
            address: format!("{name}:1"),
            left: Duration::from_secs(1),
        };
        let row = |shard: u16, owner: Option<(&str, u64)>, target: Option<&str>| ShardRow {
            shard: ShardId(shard),
            epoch: Epoch(1),
            owner: owner.map(|(node, life)| ShardOwner { incarnation: Incarnation(life), node: node.to_owned() }),
            target: target.map(str::to_owned),
        };
        let rows = [
            row(0, Some(("a", 1)), Some("a")),
            row(1, Some(("a", 1)), Some("b")),
            // Of an earlier life, which is over.
            row(2, Some(("b", 2)), Some("b")),
            row(3, None, Some("b")),
        ];
        let found = members(&[node("a", 1), node("b", 3)], &rows, &[]);
        let figures: Vec<_> = found.values().map(|node| (node.name.as_str(), node.shards, node.coming)).collect();
        assert_eq!(figures, [("a", 2, 0), ("b", 0, 1)]);
    }
}
