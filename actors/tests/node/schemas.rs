//! Records behind a schema registry: they become runs as others do, wait while it is away, and are refused without one.

use std::sync::Arc;

use bytes::Bytes;
use motet_broker::memory::MemoryBroker;
use motet_broker::port::{Broker, Outgoing, SinkSettings};
use motet_engine::definition::document::parse_definitions;
use motet_engine::id::{Name, Namespace};
use motet_schemas::RegistryDecoder;
use motet_schemas::contract::RegistryServer;
use motet_schemas::port::RecordDecoder;
use motet_schemas::registry::{ConfluentRegistry, RegistrySettings};
use motet_store::port::{DeadQuery, HeadState, PartitionKey, RunQuery};
use serde_json::json;

use crate::world::{PATIENCE, World, apply, caller, until};

const STREAM: &str = "
kind: Workflow
name: hear
steps:
  first: {call: transform, with: {text: '${ input.text }'}}
output: '${ steps.first.output.text }'
---
kind: Stream
name: words
topics: [words]
workflow: hear
format: {value: avro, key: text}
input: {text: '${ value.text }'}
output: {topic: heard}
";

/// A record of one text, by schema 7.
fn said(text: &str) -> Vec<u8> {
    let length = u8::try_from(2 * text.len()).unwrap();
    [b"\x00\x00\x00\x00\x07", &[length][..], text.as_bytes()].concat()
}

fn schema() -> serde_json::Value {
    let schema = json!({"type": "record", "name": "Word", "fields": [{"name": "text", "type": "string"}]});
    json!({"schema": schema.to_string()})
}

async fn produce(broker: &MemoryBroker, values: Vec<Vec<u8>>) {
    let records = values.into_iter().map(|value| Outgoing {
        topic: "words".to_owned(),
        partition: Some(0),
        value: Some(Bytes::from(value)),
        ..Outgoing::default()
    });
    let sink = broker.sink(SinkSettings::default()).await.unwrap();
    for sent in sink.send(records.collect()).await {
        sent.unwrap();
    }
}

fn decoder(server: &RegistryServer) -> Option<Arc<dyn RecordDecoder>> {
    let settings = RegistrySettings { url: server.url().to_owned(), user: None, password: None, authority: None };
    Some(Arc::new(RegistryDecoder::new(Arc::new(ConfluentRegistry::new(settings).unwrap()))))
}

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.create("words", 1);
    broker.create("heard", 1);
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_wait_for_the_registry_and_what_is_wrong_is_a_dead_letter() {
    let (world, broker) = (World::new(), broker());
    let server = RegistryServer::start(json!({"ids": {"7": schema()}})).await;
    server.fail(Some((503, "")));
    let node = world.decoding_node(Arc::new(broker.clone()), decoder(&server)).await;
    apply(&node, STREAM).await;
    produce(&broker, vec![said("one"), b"{}".to_vec(), said("two"), b"\x00\x00\x00\x00\x08".to_vec()]).await;
    let words = Name::new("words").unwrap();
    let held = async || {
        let views = node.router().partitions(&caller(), &words).await.unwrap();
        views.first().and_then(|view| view.figures.as_ref().and_then(|figures| figures.held()))
    };
    until("the registry to be missed", async || {
        held().await.is_some_and(|words| words.contains("schema registry answered 503"))
    })
    .await;
    let letters = async || {
        let query = DeadQuery { with_bytes: true, ..DeadQuery::newest(Namespace::default(), 10) };
        node.router().dead_letters(&caller(), &query).await.unwrap()
    };
    assert!(letters().await.is_empty(), "what cannot be decoded now is no dead letter");
    server.fail(None);
    let heads = async || {
        let heads = node.store().list(&RunQuery::newest(Namespace::default(), 10)).await.unwrap();
        heads.iter().filter(|head| head.state == HeadState::Succeeded).count()
    };
    until("both runs", async || heads().await == 2).await;
    let mut found = letters().await;
    found.sort_by_key(|letter| letter.offset);
    let classes: Vec<_> = found.iter().map(|letter| (letter.offset, letter.class.as_str())).collect();
    assert_eq!(classes, [(1, "unframed"), (3, "unknown_schema")]);
    let key = PartitionKey {
        namespace: Namespace::default(),
        stream: words.clone(),
        topic: "words".to_owned(),
        partition: 0,
    };
    let redrive =
        async |value: Vec<u8>| node.router().redrive_dead_letter(&caller(), &key, 0, 1, Some(Bytes::from(value))).await;
    let wrong = redrive(b"[]".to_vec()).await.unwrap_err().to_string();
    assert!(wrong.contains("still wrong"), "{wrong}");
    redrive(said("mended")).await.unwrap();
    until("the third run", async || heads().await == 3).await;
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_registry_streams_that_need_one_are_refused() {
    let (world, broker) = (World::new(), broker());
    let node = world.decoding_node(Arc::new(broker.clone()), None).await;
    let definitions = parse_definitions("test.yaml", STREAM).unwrap();
    node.router().put(&caller(), &definitions[0]).await.unwrap();
    let refused = node.router().put(&caller(), &definitions[1]).await.unwrap_err().to_string();
    assert!(refused.contains("set registry.url"), "{refused}");
    apply(&node, &STREAM.replace("value: avro", "value: json")).await;
    node.stop(PATIENCE).await.unwrap();
}
