//! The nodes together: who lives, who leads, who serves which part of the runs.
//!
//! Read from the store, so that every node answers alike; a node that runs alone says so. Used by the routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use motet_engine::access::Action;
use motet_engine::id::Name;
use motet_store::port::{LiveNode, ShardRow};
use serde::Serialize;
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
        nodes: members(&nodes, &rows).into_values().collect(),
    };
    body::answer(200, &view)
}

fn is_moving(row: &ShardRow) -> bool {
    let Some(owner) = &row.owner else { return false };
    row.target.as_ref().is_some_and(|target| *target != owner.node)
}

/// The nodes by name, with what they serve.
fn members(nodes: &[LiveNode], rows: &[ShardRow]) -> BTreeMap<String, MemberView> {
    let serves = |node: &LiveNode| {
        rows.iter().filter(|row| row.owner.as_ref().is_some_and(|owner| owner.incarnation == node.incarnation)).count()
    };
    let coming = |node: &LiveNode| {
        rows.iter()
            .filter(|row| is_moving(row) && row.target.as_ref().is_some_and(|target| *target == node.node))
            .count()
    };
    let member = |node: &LiveNode| MemberView {
        name: node.node.clone(),
        incarnation: node.incarnation.0,
        address: node.address.clone(),
        lease_left_ms: u64::try_from(node.left.as_millis()).unwrap_or(u64::MAX),
        shards: serves(node),
        coming: coming(node),
    };
    nodes.iter().map(|node| (node.node.clone(), member(node))).collect()
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
        let found = members(&[node("a", 1), node("b", 3)], &rows);
        let figures: Vec<_> = found.values().map(|node| (node.name.as_str(), node.shards, node.coming)).collect();
        assert_eq!(figures, [("a", 2, 0), ("b", 0, 1)]);
    }
}
