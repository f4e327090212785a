//! Definitions of streams: each content is a revision, which outlives the stream.

use std::sync::Arc;

use motet_actors::catalog::CatalogError;
use motet_engine::definition::{Definition, parse_definitions};
use motet_engine::event::Event;
use motet_engine::id::{Name, Namespace};
use motet_engine::run::State;
use motet_engine::stream::{Incoming, Origin, Verdict, read};
use motet_engine::time::Timestamp;
use motet_store::codec::{decode_disposable, decode_journal, encode_disposable, encode_journal};

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

/// A snapshot that cannot be read is dropped without a word, so nothing else would notice.
#[test]
fn what_a_run_comes_from_is_in_journals_and_snapshots() {
    let text = format!("{ORDERS}ordering: key\n---\nkind: Workflow\nname: triage\nsteps: {{a: {{call: signal}}}}\n");
    let definitions = parse_definitions("f", &text).unwrap();
    let [Definition::Stream(stream), Definition::Workflow(workflow)] = &definitions[..] else {
        panic!("{definitions:?}")
    };
    let (namespace, revision, since) = (Namespace::default(), Arc::from("1"), Timestamp::from_millis(1));
    let origin = Origin { namespace: &namespace, revision: &revision, generation: 0, since, cluster: "c", shards: 64 };
    let record = Incoming {
        topic: "orders".into(),
        partition: 3,
        offset: 42,
        timestamp: None,
        key: Some(vec![0, 255].into()),
        value: Some("{}".into()),
        headers: vec![("correlation-id".into(), Some("abc".into())), ("kafka_replyTopic".into(), None)],
    };
    let Verdict::Start(start) = read(stream, &origin, &record, None) else { panic!("no run") };
    let (run, events) = start.begin(&namespace, workflow, since, 64).unwrap();
    let snapshot = encode_disposable(run.state()).unwrap();
    assert_eq!(decode_disposable::<State>(&snapshot).unwrap(), *run.state());
    let journal = encode_journal(&events).unwrap();
    assert_eq!(decode_journal::<Vec<Event>>(&journal).unwrap(), events);
    let mut plain = run.state().clone();
    Arc::make_mut(&mut plain.submission).source = None;
    let snapshot = encode_disposable(&plain).unwrap();
    assert_eq!(decode_disposable::<State>(&snapshot).unwrap(), plain);
}
