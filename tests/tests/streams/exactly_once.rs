//! Keyed records into three nodes that are killed, frozen, stopped and started again, over a broker that dies too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use motet_tests::faults::kafka::KafkaServer;
use motet_tests::nodes::Nodes;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::skip::skip;
use motet_tests::topics::Topics;
use motet_tests::waiting::{let_pass, until};

use super::feed::Feed;
use super::{partitions, proof};

const NODES: usize = 3;
const PARTITIONS: i32 = 8;

/// Longest time from the last fault until everything that was produced has become runs that ended.
const SETTLED: Duration = Duration::from_secs(180);

const DEFINITIONS: [(&str, &str, &str); 3] = [
    ("models", "echo", "kind: Model\nname: echo\nbackend: fake\nparameters: {latency_ms: 2}\n"),
    (
        "workflows",
        "handle",
        "kind: Workflow\nname: handle\nsteps:\n  first: {call: model, model: echo, with: {text: '${ input.text }'}}\n\
         output: '${ steps.first.output.text }'\n",
    ),
    (
        "streams",
        "orders",
        "kind: Stream\nname: orders\ntopics: [orders]\nworkflow: handle\ninput: {text: '${ value.text }'}\n\
         ordering: key\noutput: {topic: done, key: '${ key }', value: '${ output }', delivery: DELIVERY}\n",
    ),
];

/// What is done to the system, in an order that the seed draws.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    Broker,
    Leave,
}

/// Three nodes, their database, and a broker of their own.
struct World {
    nodes: Nodes,
    kafka: KafkaServer,
    topics: Topics,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(test: &str, delivery: &str) -> Result<Option<Self>> {
        if !KafkaServer::is_installed() {
            skip(test, "Kafka is not installed: tests/services/services install kafka");
            return Ok(None);
        }
        let Some(mut nodes) = Nodes::begin(test).await? else { return Ok(None) };
        proof::watch_positions(nodes.backing().server()?)?;
        let folder = tempfile::tempdir()?;
        let kafka = KafkaServer::start(folder.path()).await?;
        let brokers = kafka.address().to_string();
        let topics = Topics::at(&brokers).await?;
        topics.create(&[("orders", PARTITIONS), ("done", PARTITIONS)]).await;
        for number in 0..NODES {
            nodes.add(&format!("node-{number}"), |settings| settings.with("MOTET__KAFKA__BROKERS", &brokers)).await?;
        }
        nodes.until_everybody_serves(NODES).await?;
        for (kind, name, text) in DEFINITIONS {
            nodes.client(0).put_definition(kind, name, &text.replace("DELIVERY", delivery)).await?;
        }
        Ok(Some(Self { nodes, kafka, topics, _folder: folder }))
    }

    async fn befall(&mut self, fault: Fault, seed: &mut Seed) -> Result<()> {
        let victim = usize::try_from(seed.between(0, NODES as u64))?;
        match fault {
            Fault::Kill => {
                self.nodes.nodes[victim].kill()?;
                let_pass(Duration::from_millis(seed.between(0, 2_000))).await;
                self.nodes.nodes[victim].restart().await?;
            }
            Fault::Freeze => {
                self.nodes.nodes[victim].freeze()?;
                let_pass(Duration::from_millis(seed.between(2_000, 12_000))).await;
                self.nodes.nodes[victim].thaw()?;
                // One that lost its lease ends by itself, or goes on: either way it is to be there afterwards.
                let client = self.nodes.client(victim);
                if client.until_ready(Duration::from_secs(10)).await.is_err() && !self.nodes.nodes[victim].is_running()
                {
                    self.nodes.nodes[victim].wait(Duration::from_secs(10)).await?;
                    self.nodes.nodes[victim].restart().await?;
                }
            }
            Fault::Broker => {
                self.kafka.kill();
                let_pass(Duration::from_millis(seed.between(0, 3_000))).await;
                self.kafka.restart().await?;
            }
            Fault::Leave => {
                self.nodes.nodes[victim].stop().await?;
                let_pass(Duration::from_millis(seed.between(0, 1_000))).await;
                self.nodes.nodes[victim].restart().await?;
            }
        }
        Ok(())
    }

    /// Waits until every partition was read to its end and every run has ended.
    async fn until_settled(&self, produced: usize) -> Result<Duration> {
        let (begun, mut last) = (Instant::now(), String::new());
        let server = self.nodes.backing().server()?;
        let settled = until(SETTLED, "every record to be a run that ended", async || {
            let read = partitions(&self.nodes.client(0), "orders").await.ok()?;
            let ended = server.query("looks", "select count(*) from run where state = 4").ok()?;
            last = format!("{ended} of {produced} runs have ended; {read:#?}");
            let read = read.len() == usize::try_from(PARTITIONS).ok()? && read.iter().all(|it| it["lag"] == 0);
            (read && ended == produced.to_string()).then_some(())
        });
        settled.await.with_context(|| format!("{last}\n{}", self.nodes.logs()))?;
        Ok(begun.elapsed())
    }
}

/// Kills, freezes, restarts of the broker, joins and leaves in a random order. With transactions the broker lives: one
/// that stands alone and dies within a transaction answers nobody of that id for minutes after its restart.
fn faults(scale: Scale, broker_dies: bool, seed: &mut Seed) -> Vec<Fault> {
    let (kills, freezes, brokers, leaves) =
        (scale.pick(3, 25, 100), scale.pick(1, 5, 20), scale.pick(1, 2, 10), scale.pick(1, 12, 50));
    let brokers = if broker_dies { brokers } else { 0 };
    let counts = [(Fault::Kill, kills), (Fault::Freeze, freezes), (Fault::Broker, brokers), (Fault::Leave, leaves)];
    let mut faults: Vec<_> = counts.into_iter().flat_map(|(fault, count)| vec![fault; count]).collect();
    for place in (1..faults.len()).rev() {
        faults.swap(place, usize::try_from(seed.between(0, place as u64 + 1)).unwrap_or(0));
    }
    faults
}

async fn every_record_once(test: &str, delivery: &str, records: usize) -> Result<()> {
    let (scale, mut seed) = (Scale::from_environment(), Seed::from_environment());
    let Some(mut world) = World::new(test, delivery).await? else { return Ok(()) };
    let once = delivery == "transactional";
    let faults = faults(scale, !once, &mut seed);
    let mut feed = Feed::new("orders", PARTITIONS, scale.pick(200, 2_000, 2_000));
    let each = records.div_ceil(faults.len() + 1);
    feed.produce(&world.topics, each).await?;
    for (number, fault) in faults.iter().enumerate() {
        let_pass(Duration::from_millis(seed.between(100, 2_500))).await;
        println!("{test}: fault {number}: {fault:?}");
        if let Fault::Broker = fault {
            world.befall(*fault, &mut seed).await?;
            feed.produce(&world.topics, each).await?;
        } else {
            feed.produce(&world.topics, each).await?;
            world.befall(*fault, &mut seed).await?;
        }
    }
    let settled = world.until_settled(feed.produced.len()).await?;
    until(SETTLED, "every result to be sent", async || {
        let owed = world.nodes.backing().server().ok()?.query("looks", "select count(*) from outbox").ok()?;
        (owed == "0").then_some(())
    })
    .await
    .with_context(|| world.nodes.logs())?;
    for node in &mut world.nodes.nodes {
        node.stop().await?;
    }
    let server = world.nodes.backing().server()?;
    proof::every_offset_is_one_run(server, "handle", &feed.produced).await?;
    proof::positions_only_rose(server)?;
    let again = proof::every_result_is_there(&world.topics, "done", PARTITIONS, &feed.produced, once).await?;
    println!(
        "{test}: {} records, {} faults, each one run, order kept in each key, no position went back; {again} results \
         came twice; settled after {:.1} s",
        feed.produced.len(),
        faults.len(),
        settled.as_secs_f64()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_every_record_becomes_one_run_whatever_dies() -> Result<()> {
    let records = Scale::from_environment().pick(6_000, 100_000, 100_000);
    every_record_once("f7", "idempotent", records).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f7_results_in_transactions_are_seen_once_whatever_dies() -> Result<()> {
    let records = Scale::from_environment().pick(2_000, 20_000, 100_000);
    every_record_once("f7 in transactions", "transactional", records).await
}
