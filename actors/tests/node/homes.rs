//! Vector indexes on several nodes: each has one home, wherever its calls come from.

use std::time::Duration;

use motet_actors::message::RouteError;
use motet_engine::id::{Name, Namespace};
use motet_engine::run::Phase;
use serde_json::json;

use crate::cluster::Cluster;
use crate::world::{PATIENCE, apply, finish, output, submit};

const VECTORS: &str = "
kind: Index
name: kb
dimension: 2
---
kind: Workflow
name: keep
steps:
  put: {call: vector.upsert, with: {index: kb, id: '${ input.id }', values: '${ input.v }'}}
---
kind: Workflow
name: find
steps:
  near: {call: vector.query, with: {index: kb, vector: '${ input.v }', top_k: 1}}
output: '${ steps.near.output.matches[0].id }'
";

/// An index is on one node; every node's runs write to it and find in it what others wrote, and none finds an empty one
/// while its home is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_has_one_home_that_every_node_uses() {
    let (cluster, [a, b, c]) = Cluster::of(["a", "b", "c"]).await;
    apply(&b.node, VECTORS).await;
    let (default, kb) = (Namespace::default(), Name::new("kb").unwrap());
    // Whoever is asked first takes it, if it may.
    b.node.router().index_stats(&default, &kb, PATIENCE).await.unwrap();
    for (number, peer) in [&a, &b, &c].into_iter().enumerate() {
        let run = submit(&peer.node, "keep", json!({"id": peer.id.as_str(), "v": [1.0, number]})).await;
        assert_eq!(finish(&peer.node, run).await.phase(), Phase::Succeeded);
    }
    for (number, asked, found) in [(0, &c, "a"), (1, &a, "b"), (2, &b, "c")] {
        let run = submit(&asked.node, "find", json!({"v": [1.0, number]})).await;
        assert_eq!(output(&finish(&asked.node, run).await), json!(found));
    }
    for peer in [&a, &b, &c] {
        let stats = peer.node.router().index_stats(&default, &kb, PATIENCE).await.unwrap();
        assert_eq!(stats.namespaces.iter().map(|(_, count)| count).sum::<u64>(), 3, "{}", peer.id);
    }
    let unknown = a.node.router().index_stats(&default, &Name::new("none").unwrap(), PATIENCE).await;
    assert!(matches!(unknown, Err(RouteError::Unknown(_))), "{unknown:?}");
    cluster.kill(b).await;
    let away = a.node.router().index_stats(&default, &kb, Duration::from_secs(1)).await;
    assert!(away.is_err_and(|error| error.to_string().contains("node 'b'")));
}

/// A node that may have none hands the call to one that may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_role_asks_one_that_has_it() {
    let (_cluster, [a, b, c]) = Cluster::of(["a", "b", "c"]).await;
    apply(&c.node, VECTORS).await;
    let run = submit(&c.node, "keep", json!({"id": "x", "v": [1.0, 0.0]})).await;
    assert_eq!(finish(&c.node, run).await.phase(), Phase::Succeeded);
    for peer in [&a, &b, &c] {
        let run = submit(&peer.node, "find", json!({"v": [1.0, 0.0]})).await;
        assert_eq!(output(&finish(&peer.node, run).await), json!("x"));
    }
    assert_eq!(c.node.router().census().count("index"), 0);
    assert_eq!([&a, &b].map(|peer| peer.node.router().census().count("index")).iter().sum::<usize>(), 1);
}
