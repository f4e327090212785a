//! What runs owe to the outside goes out: in order, once where a stream asks for it, and each topic by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use motet_actors::node::Node;
use motet_broker::ErrorClass;
use motet_broker::contract::{Grounds, KafkaGrounds, MemoryGrounds, Reader, service};
use motet_broker::kafka::KafkaSettings;
use motet_broker::memory::{LARGEST, MemoryBroker};
use motet_broker::port::{Broker, Place};
use motet_engine::id::{Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_store::memory::MemoryStore;
use motet_store::port::{Admission, Entry, HeadChange, HeadState, OutboxRow, Store};
use motet_store::sqlite::SqliteStore;
use serde_json::json;

use crate::faulty::{Fault, FaultyBroker};
use crate::ingest::{ECHO_STREAM, broker, ended, partitions, produce, results, runs, words};
use crate::world::{PATIENCE, World, apply, caller, finish, submit, until};

/// A shard that every node of these tests serves.
const SHARD: ShardId = ShardId(0);

fn row(topic: &str, value: impl ToString, transactional: bool) -> OutboxRow {
    let (topic, payload) = (topic.to_owned(), Bytes::from(value.to_string()));
    OutboxRow { event: [7; 16], topic, key: None, headers: vec![], payload, transactional }
}

fn rows(topic: &str, numbers: std::ops::Range<usize>, transactional: bool) -> Vec<OutboxRow> {
    numbers.map(|number| row(topic, number, transactional)).collect()
}

fn numbers(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Has a run owe these rows that has ended.
async fn owe(store: &Arc<dyn Store>, number: u64, outbox: Vec<OutboxRow>) {
    let at = Timestamp::from_millis(1_700_000_000_000);
    let admission = Admission {
        run: RunId::new(at, SHARD, number),
        namespace: Namespace::default(),
        workflow: Name::new("over").unwrap(),
        version: "1".to_owned(),
        tags: vec![],
        entry: Entry { seq: Seq(1), count: 1, at, payload: Bytes::from_static(b"unread") },
        head: HeadChange { state: HeadState::Succeeded, wake_at: None, leaves_line: false },
        idempotency: None,
        outbox,
        line: None,
    };
    store.admit(admission).await.unwrap();
}

async fn node(store: &Arc<dyn Store>, broker: impl Into<Arc<dyn Broker>>) -> (World, Node) {
    let world = World::new();
    let node = world.ingesting_node_on(Arc::clone(store), broker.into(), 100_000).await;
    (world, node)
}

async fn nothing_waits(store: &Arc<dyn Store>) {
    until("everything to be sent", async || store.outbox_rows(1).await.unwrap() == 0).await;
}

/// The values of a topic's only partition, for readers of committed records.
async fn content(broker: &Arc<dyn Broker>, topic: &str) -> Vec<String> {
    let place = Place::new(topic, 0);
    let high = broker.bounds(&place).await.unwrap().high;
    let mut reader = Reader::of(broker, &format!("{topic}-content"), topic, 1).await;
    reader.until("everything", |reader| reader.next.get(&place).is_some_and(|next| *next >= high)).await;
    reader.close().await;
    reader.values(&place)
}

fn memory() -> Arc<dyn Grounds> {
    MemoryGrounds::around(MemoryBroker::new())
}

fn kafka(test: &str) -> Option<Arc<dyn Grounds>> {
    let brokers = service(test, "MOTET_TEST_KAFKA")?;
    Some(KafkaGrounds::around(&brokers, KafkaSettings::plaintext(&brokers)))
}

/// Whatever a transaction meets, readers see each result once and in order.
async fn check_once(grounds: &Arc<dyn Grounds>, name: &str, fault: impl Fn(&Arc<dyn Store>) -> Fault, stops: bool) {
    eprintln!("{name}");
    let topic = grounds.fresh("once");
    grounds.create(&topic, 1).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    owe(&store, 1, rows(&topic, 0..600, true)).await;
    let faulty = FaultyBroker::new(grounds.broker(), fault(&store));
    let (_world, first) = node(&store, Arc::new(faulty.clone()) as Arc<dyn Broker>).await;
    faulty.met().await;
    let last = if stops {
        first.end(Duration::ZERO).await;
        assert!(store.outbox_rows(600).await.unwrap() >= 500, "{name}: nothing was forgotten");
        owe(&store, 2, rows(&topic, 600..610, true)).await;
        node(&store, grounds.broker()).await.1
    } else {
        first
    };
    nothing_waits(&store).await;
    last.end(PATIENCE).await;
    let all = if stops { 610 } else { 600 };
    assert_eq!(content(&grounds.broker(), &topic).await, numbers(0..all), "{name}");
}

async fn check_all_once(grounds: Arc<dyn Grounds>) {
    check_once(&grounds, "stopped between both commits", |_| Fault::Silence, true).await;
    check_once(&grounds, "fenced between both commits", |store| Fault::Claimed(Arc::clone(store)), true).await;
    check_once(&grounds, "committed, but nobody knows", |_| Fault::Doubt, false).await;
    check_once(&grounds, "not committed, but nobody knows", |_| Fault::Loss, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_in_transactions_are_seen_once() {
    check_all_once(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_in_transactions_are_seen_once_in_kafka() {
    let Some(grounds) = kafka("results in transactions") else { return };
    check_all_once(grounds).await;
}

/// One that owned the shard before still holds its records and its sink when the next one has sent them.
async fn check_zombie(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("zombie");
    grounds.create(&topic, 1).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    owe(&store, 1, rows(&topic, 0..20, true)).await;
    let faulty = FaultyBroker::new(grounds.broker(), Fault::Standing);
    let (_old_world, old) = node(&store, Arc::new(faulty.clone()) as Arc<dyn Broker>).await;
    faulty.met().await;
    owe(&store, 2, rows(&topic, 20..30, true)).await;
    let (_new_world, new) = node(&store, grounds.broker()).await;
    nothing_waits(&store).await;
    let refused = faulty.let_go().await.unwrap();
    assert_eq!(refused.class(), ErrorClass::Fenced, "{refused}");
    old.end(Duration::ZERO).await;
    new.end(PATIENCE).await;
    assert_eq!(content(&grounds.broker(), &topic).await, numbers(0..30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_before_writes_nothing() {
    check_zombie(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_before_writes_nothing_to_kafka() {
    let Some(grounds) = kafka("an owner of before") else { return };
    check_zombie(grounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_missing_holds_up_only_its_own() {
    for transactional in [false, true] {
        let (memory, store) = (MemoryBroker::new(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
        memory.create("there", 1);
        let mixed = [
            rows("missing", 0..5, transactional),
            rows("there", 0..5, transactional),
            // More than a look passes over.
            rows("missing", 5..2_600, transactional),
            rows("there", 5..10, transactional),
        ];
        owe(&store, 1, mixed.concat()).await;
        let shared: Arc<dyn Broker> = Arc::new(memory.clone());
        let (_world, node) = node(&store, Arc::clone(&shared)).await;
        let there = Place::new("there", 0);
        until("the other topic's", async || memory.records(&there).len() == 10).await;
        let blocked = || node.router().streams().blocked().get("missing");
        until("the trouble", async || blocked().is_some()).await;
        let found = blocked().unwrap();
        assert!(found.reason.contains("does not exist") && found.shards == 1, "{found:?}");
        assert!(node.router().streams().blocked().get("there").is_none());
        until("what waits", async || store.outbox_rows(9_999).await.unwrap() == 2_600).await;
        memory.create("missing", 1);
        nothing_waits(&store).await;
        assert_eq!(content(&shared, "missing").await, numbers(0..2_600), "transactional: {transactional}");
        assert_eq!(content(&shared, "there").await, numbers(0..10));
        until("no trouble", async || blocked().is_none()).await;
        node.end(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_is_kept_with_what_follows_it() {
    for transactional in [false, true] {
        let (memory, store) = (MemoryBroker::new(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
        memory.create("small", 1);
        memory.create("other", 1);
        let mixed = [
            rows("small", 0..7, transactional),
            vec![row("small", "x".repeat(LARGEST + 1), transactional)],
            rows("small", 7..10, transactional),
            rows("other", 0..10, transactional),
        ];
        owe(&store, 1, mixed.concat()).await;
        let shared: Arc<dyn Broker> = Arc::new(memory.clone());
        let (_world, node) = node(&store, Arc::clone(&shared)).await;
        until("all that can go", async || store.outbox_rows(99).await.unwrap() == 4).await;
        let blocked = || node.router().streams().blocked().get("small");
        until("the trouble", async || blocked().is_some()).await;
        assert!(blocked().unwrap().reason.contains("raise max.message.bytes"), "{:?}", blocked());
        let small = content(&shared, "small").await;
        // Records that stand each for themselves may be seen before the one that does not go, and again after it.
        assert_eq!(small[..7], numbers(0..7));
        assert!(!transactional || small.len() == 7, "{small:?}");
        assert_eq!(content(&shared, "other").await, numbers(0..10));
        node.end(PATIENCE).await;
    }
}

/// A topic may have results of both kinds, when a stream was changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_of_delivery_keep_their_order() {
    let (memory, store) = (MemoryBroker::new(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    memory.create("both", 1);
    let mixed = (0..60).map(|number| row("both", number, number / 7 % 2 == 0)).collect();
    owe(&store, 1, mixed).await;
    let shared: Arc<dyn Broker> = Arc::new(memory);
    let (_world, node) = node(&store, Arc::clone(&shared)).await;
    nothing_waits(&store).await;
    assert_eq!(content(&shared, "both").await, numbers(0..60));
    node.end(PATIENCE).await;
}

/// Positions are given out again by a store that was put back: results under them are new ones and must not be taken
/// for those that the topic has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_put_back_loses_nothing() {
    let (broker, folder) = (MemoryBroker::new(), tempfile::tempdir().unwrap());
    broker.create("kept", 1);
    let shared: Arc<dyn Broker> = Arc::new(broker);
    let open = async || Arc::new(SqliteStore::open(folder.path()).await.unwrap()) as Arc<dyn Store>;
    let (file, copy) = (folder.path().join("motet.db"), folder.path().join("copy"));
    let store = open().await;
    owe(&store, 1, rows("kept", 0..3, true)).await;
    store.close().await.unwrap();
    std::fs::copy(&file, &copy).unwrap();
    for (run, owed, expected) in [(2, 3..9, numbers(0..9)), (3, 9..11, [0..9, 0..3, 9..11].map(numbers).concat())] {
        let store = open().await;
        owe(&store, run, rows("kept", owed, true)).await;
        let (_world, node) = node(&store, Arc::clone(&shared)).await;
        nothing_waits(&store).await;
        node.stop(PATIENCE).await.unwrap();
        assert_eq!(content(&shared, "kept").await, expected);
        std::fs::copy(&copy, &file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_how_its_results_go_out() {
    let (world, broker) = (World::new(), broker());
    produce(&broker, 0, words(0..40)).await;
    let node = world.ingesting_node(Arc::new(broker.clone())).await;
    apply(&node, &ECHO_STREAM.replace("{topic: echoed}", "{topic: echoed, delivery: transactional}")).await;
    ended(&node, 40).await;
    until("the results", async || results(&broker).len() == 40).await;
    let mut high = 0;
    for partition in 0..3 {
        high += broker.bounds(&Place::new("echoed", partition)).await.unwrap().high;
    }
    assert!(high > 40, "a transaction leaves its mark behind its records: {high}");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_wait_while_too_few_results_go_out() {
    let (world, broker) = (World::new(), MemoryBroker::new());
    broker.create("words", 3);
    broker.create("words-dlt", 1);
    let node = world.ingesting_node_on(Arc::clone(world.store()), Arc::new(broker.clone()), 10).await;
    apply(&node, ECHO_STREAM).await;
    let mut sent = 0;
    let held = async || {
        let views = partitions(&node).await;
        views.into_iter().find_map(|view| view.figures?.held()).filter(|words| words.contains("runs.max_outbox"))
    };
    until("the words that say so", async || {
        produce(&broker, 0, words(sent..sent + 1)).await;
        sent += 1;
        held().await.is_some()
    })
    .await;
    let began = runs(&node).await.len();
    assert!((10..sent).contains(&began), "{began} of {sent}");
    let run = submit(&node, "echo", json!({"text": "by hand"})).await;
    assert!(finish(&node, run).await.phase().is_end(), "others go on");
    broker.create("echoed", 3);
    ended(&node, sent + 1).await;
    until("the results", async || results(&broker).len() == sent).await;
    assert!(node.router().partitions(&caller(), &Name::new("words").unwrap()).await.is_ok());
    node.stop(PATIENCE).await.unwrap();
}
