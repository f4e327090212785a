//! Records become runs, each once; what is wrong with one harms no other; results come back.

use std::sync::Arc;

use bytes::Bytes;
use motet_actors::node::Node;
use motet_actors::router::{PartitionView, SeekTo};
use motet_broker::memory::MemoryBroker;
use motet_broker::port::{Broker, Outgoing, Place, Record, SinkSettings};
use motet_engine::id::{Name, Namespace};
use motet_store::port::{DeadQuery, HeadState, PartitionKey, RunHead, RunQuery};
use serde_json::json;

use crate::world::{PATIENCE, World, apply, caller, until};

pub(crate) const ECHO_STREAM: &str = "
kind: Model
name: echo
backend: fake
---
kind: Workflow
name: echo
input: {schema: {type: object, required: [text], properties: {text: {type: string}}}}
steps:
  first: {call: model, model: echo, with: {text: '${ input.text }'}}
output: '${ steps.first.output.text }'
---
kind: Stream
name: words
topics: [words]
workflow: echo
input: {text: '${ value.text }'}
dead_letter: {topic: words-dlt}
output: {topic: echoed}
";

pub(crate) fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.create("words", 3);
    broker.create("words-dlt", 1);
    broker.create("echoed", 3);
    broker
}

fn key() -> PartitionKey {
    PartitionKey {
        namespace: Namespace::default(),
        stream: Name::new("words").unwrap(),
        topic: "words".to_owned(),
        partition: 0,
    }
}

pub(crate) async fn produce(broker: &MemoryBroker, partition: i32, values: impl IntoIterator<Item = (String, String)>) {
    let records = values.into_iter().map(|(key, value)| Outgoing {
        topic: "words".to_owned(),
        partition: Some(partition),
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        ..Outgoing::default()
    });
    let sink = broker.sink(SinkSettings::default()).await.unwrap();
    for sent in sink.send(records.collect()).await {
        sent.unwrap();
    }
}

pub(crate) fn words(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, String)> {
    numbers.map(|number| (format!("key{number}"), json!({"text": format!("word {number}")}).to_string()))
}

pub(crate) async fn runs(node: &Node) -> Vec<RunHead> {
    let query = RunQuery::newest(Namespace::default(), 1_000);
    node.store().list(&query).await.unwrap()
}

pub(crate) async fn ended(node: &Node, count: usize) -> Vec<RunHead> {
    until(&format!("{count} runs to end"), async || {
        let heads = runs(node).await;
        assert!(heads.len() <= count, "{} runs of {count} records", heads.len());
        heads.len() == count && heads.iter().all(|head| head.state.is_end())
    })
    .await;
    runs(node).await
}

pub(crate) fn results(broker: &MemoryBroker) -> Vec<Record> {
    (0..3).flat_map(|partition| broker.records(&Place::new("echoed", partition))).collect()
}

pub(crate) async fn partitions(node: &Node) -> Vec<PartitionView> {
    node.router().partitions(&caller(), &Name::new("words").unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_runs_and_their_results_come_back() {
    let (world, broker) = (World::new(), broker());
    produce(&broker, 0, words(0..40)).await;
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, ECHO_STREAM).await;
    produce(&broker, 1, words(40..80)).await;
    let heads = ended(&node, 80).await;
    assert!(heads.iter().all(|head| head.state == HeadState::Succeeded));
    until("the results", async || results(&broker).len() == 80).await;
    let mut texts: Vec<_> = results(&broker).into_iter().filter_map(|record| record.value).collect();
    texts.sort();
    let mut expected: Vec<_> = (0..80).map(|number| Bytes::from(format!("word {number}"))).collect();
    expected.sort();
    assert_eq!(texts, expected);
    until("no lag", async || partitions(&node).await.iter().all(|view| view.lag() == Some(0))).await;
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_becomes_a_dead_letter_and_the_rest_goes_on() {
    let (world, broker) = (World::new(), broker());
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, ECHO_STREAM).await;
    produce(&broker, 0, words(0..5)).await;
    let bad = [("k".to_owned(), "{".to_owned()), ("k".to_owned(), json!({"text": 7}).to_string())];
    produce(&broker, 0, bad).await;
    produce(&broker, 0, words(5..10)).await;
    ended(&node, 10).await;
    let query = DeadQuery { with_bytes: true, ..DeadQuery::newest(Namespace::default(), 10) };
    let mut letters = node.router().dead_letters(&caller(), &query).await.unwrap();
    letters.sort_by_key(|letter| letter.offset);
    let found: Vec<_> = letters.iter().map(|letter| (letter.offset, letter.stage.as_str())).collect();
    assert_eq!(found, [(5, "VALUE_CONVERTER"), (6, "SCHEMA")]);
    assert_eq!(letters[0].value.as_deref(), Some(b"{".as_slice()));
    let sent = Place::new("words-dlt", 0);
    until("both to be sent", async || broker.records(&sent).len() == 2).await;
    assert_eq!(broker.records(&sent)[0].value.as_deref(), Some(b"{".as_slice()));
    assert!(broker.records(&sent)[0].headers.iter().any(|(name, _)| name == "__connect.errors.exception.message"));
    let mended = Some(Bytes::from(json!({"text": "mended"}).to_string()));
    let again = node.router().redrive_dead_letter(&caller(), &key(), 0, 5, mended).await.unwrap();
    assert!(!again.replayed);
    ended(&node, 11).await;
    assert!(node.router().redrive_dead_letter(&caller(), &key(), 0, 5, None).await.is_err());
    node.router().discard_dead_letter(&caller(), &key(), 0, 6).await.unwrap();
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeking_back_fills_holes_and_a_new_generation_begins_new_runs() {
    let (world, broker) = (World::new(), broker());
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, ECHO_STREAM).await;
    produce(&broker, 0, words(0..20)).await;
    ended(&node, 20).await;
    let at_end = async || partitions(&node).await[0].row.next == Some(20);
    until("all to be read", at_end).await;
    node.router().seek_partition(&caller(), &key(), SeekTo::Earliest, false).await.unwrap();
    until("all to be read again", at_end).await;
    ended(&node, 20).await;
    let row = node.router().seek_partition(&caller(), &key(), SeekTo::Offset(15), true).await.unwrap();
    assert_eq!((row.generation, row.next), (1, Some(15)));
    ended(&node, 25).await;
    assert!(node.router().seek_partition(&caller(), &key(), SeekTo::Offset(21), false).await.is_err());
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_where_the_one_before_it_stopped() {
    let (world, broker) = (World::new(), broker());
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, ECHO_STREAM).await;
    produce(&broker, 2, words(0..30)).await;
    ended(&node, 30).await;
    node.stop(PATIENCE).await.unwrap();
    produce(&broker, 2, words(30..50)).await;
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    ended(&node, 50).await;
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_stands_still_by_request_and_when_its_topic_was_made_anew() {
    let (world, broker) = (World::new(), broker());
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, ECHO_STREAM).await;
    produce(&broker, 0, words(0..3)).await;
    ended(&node, 3).await;
    node.router().pause_partition(&caller(), &key(), true).await.unwrap();
    let held = async || partitions(&node).await[0].figures.as_ref().and_then(|figures| figures.held());
    until("the pause", async || held().await.is_some_and(|words| words.contains("paused"))).await;
    produce(&broker, 0, words(3..6)).await;
    node.router().pause_partition(&caller(), &key(), false).await.unwrap();
    ended(&node, 6).await;
    broker.delete("words");
    broker.create("words", 3);
    produce(&broker, 0, words(6..8)).await;
    let trouble = async || partitions(&node).await[0].row.trouble.clone();
    until("the trouble", async || trouble().await.is_some_and(|words| words.contains("made anew"))).await;
    assert_eq!(runs(&node).await.len(), 6, "nothing is read of another topic");
    node.router().seek_partition(&caller(), &key(), SeekTo::Earliest, true).await.unwrap();
    ended(&node, 8).await;
    node.stop(PATIENCE).await.unwrap();
}

/// Nodes ended again and again with the same records in hand: the first of them is parked, the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_ends_processes_is_parked() {
    let (world, broker) = (World::new(), broker());
    produce(&broker, 0, words(0..5)).await;
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, &format!("{ECHO_STREAM}paused: true\n")).await;
    let origin = broker.origin("words").await.unwrap();
    for claim in 0..7 {
        let row = node.store().claim_partition(&key(), "gone", node.router().now()).await.unwrap();
        if claim == 0 {
            node.store().begin_partition(&key(), row.epoch, &origin, 0, row.since).await.unwrap();
        }
    }
    apply(&node, ECHO_STREAM).await;
    ended(&node, 4).await;
    let letters = DeadQuery::newest(Namespace::default(), 10);
    let letters = node.router().dead_letters(&caller(), &letters).await.unwrap();
    let told: Vec<_> = letters.iter().map(|letter| (letter.offset, &*letter.stage, &*letter.class)).collect();
    assert_eq!(told, [(0, "CRASH", "poison")]);
    // A partition without anything to read says nothing of what comes next, however often its owners ended.
    let idle = PartitionKey { partition: 1, ..key() };
    node.stop(PATIENCE).await.unwrap();
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    for _ in 0..7 {
        node.store().claim_partition(&idle, "gone", node.router().now()).await.unwrap();
    }
    until("the idle partition to be claimed again", async || {
        node.store().partition(&idle).await.unwrap().is_some_and(|row| row.owner == "test" && row.barren == 0)
    })
    .await;
    produce(&broker, 1, words(5..8)).await;
    ended(&node, 7).await;
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_key_waits_with_what_follows_it_and_the_others_go_on() {
    let (world, broker) = (World::new(), broker());
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    let ordered = ECHO_STREAM
        .replace("workflow: echo\ninput", "workflow: echo\nordering: key\ninput")
        .replace("output: '${ steps.first.output.text }'", "output: '${ 10 / int(input.text) }'");
    apply(&node, &ordered).await;
    let value = |text: &str| json!({"text": text}).to_string();
    let records = [("a", "5"), ("b", "0"), ("a", "2"), ("b", "1"), ("c", "1"), ("b", "10")];
    produce(&broker, 0, records.map(|(key, text)| (key.to_owned(), value(text)))).await;
    let count = async |state| runs(&node).await.iter().filter(|head| head.state == state).count();
    until("what can go on", async || count(HeadState::Succeeded).await == 3 && count(HeadState::Failed).await == 1)
        .await;
    assert_eq!(count(HeadState::Pending).await, 2);
    let parked = RunQuery { holding: true, ..RunQuery::newest(Namespace::default(), 10) };
    let parked = node.store().list(&parked).await.unwrap();
    assert_eq!(parked.len(), 1);
    node.router().leave_line(&caller(), parked[0].run).await.unwrap();
    until("the rest", async || count(HeadState::Succeeded).await == 5).await;
    until("the results", async || results(&broker).len() == 6).await;
    node.stop(PATIENCE).await.unwrap();
}
