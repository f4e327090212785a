//! Definitions of streams: each content is a revision, which outlives the stream.

use motet_actors::catalog::CatalogError;
use motet_engine::id::{Name, Namespace};

use crate::world::{PATIENCE, World, apply, caller};

const ORDERS: &str = "
kind: Stream
name: orders
topics: [orders]
workflow: triage
";

#[tokio::test(flavor = "multi_thread")]
async fn each_content_is_a_revision_that_can_be_read_for_ever() {
    let world = World::new();
    let node = world.node().await;
    let catalog = node.router().catalog();
    let (namespace, name) = (Namespace::default(), Name::new("orders").unwrap());
    let listed = async || {
        let streams = catalog.streams().await.unwrap();
        streams.iter().map(|it| (it.revision.clone(), it.definition.paused)).collect::<Vec<_>>()
    };
    assert!(listed().await.is_empty());
    apply(&node, ORDERS).await;
    apply(&node, ORDERS).await;
    assert_eq!(listed().await, [("1".to_owned(), false)]);
    apply(&node, &format!("{ORDERS}paused: true\n")).await;
    assert_eq!(listed().await, [("2".to_owned(), true)]);
    assert!(node.router().delete_stream(&caller(), &name).await.unwrap());
    assert!(!node.router().delete_stream(&caller(), &name).await.unwrap());
    assert!(listed().await.is_empty() && catalog.schedules().await.unwrap().is_empty());
    for (revision, paused) in [("1", false), ("2", true), ("1", false)] {
        let stream = catalog.stream(&namespace, &name, revision).await.unwrap();
        assert_eq!(stream.paused, paused, "a run that ends late still finds what it was begun by");
    }
    assert!(matches!(catalog.stream(&namespace, &name, "9").await, Err(CatalogError::Unknown { kind: "stream", .. })));
    assert!(matches!(catalog.stream(&namespace, &name, "3").await, Err(CatalogError::Unreadable { .. })));
    apply(&node, ORDERS).await;
    assert_eq!(listed().await, [("4".to_owned(), false)], "a stream of the name may begin again");
    node.stop(PATIENCE).await.unwrap();
}
