//! The same definitions on a laptop's store alone and on three nodes with everything: same outputs, same histories; and
//! runs of both doors share batches.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use motet_broker::contract::service;
use motet_tests::client::{Client, Submission};
use motet_tests::node::Node;
use motet_tests::nodes::Nodes;
use motet_tests::topics::{Topics, record};
use motet_tests::waiting::until;
use serde_json::{Value, json};

use super::{PATIENCE, Stage, until_runs};

/// A model that takes its time, so that calls of many runs meet before it.
const MODEL: &str = "
kind: Model
name: slow
backend: fake
parameters: {latency_ms: 150}
batch: {max: 64, window: 100ms}
";

const WORKFLOW: &str = "
kind: Workflow
name: NAME
steps:
  first: {call: model, model: slow, with: {text: '${ input.text }'}}
  second: {call: transform, with: {length: '${ size(steps.first.output.text) }'}}
output: {said: '${ steps.first.output.text }', length: '${ steps.second.output.length }'}
";

fn stream(name: &str) -> String {
    format!("kind: Stream\nname: {name}\ntopics: [{name}]\nworkflow: {name}\nordering: none\n")
}

async fn define(client: &Client, name: &str, parameters: &str) -> Result<()> {
    client.put_definition("models", "slow", &MODEL.replace("{latency_ms: 150}", parameters)).await?;
    client.put_definition("workflows", name, &WORKFLOW.replace("NAME", name)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_records_and_of_requests_share_batches() -> Result<()> {
    let Some(stage) = Stage::new("share_batches").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("shared");
    stage.topics.create(&[(&name, 1)]).await;
    define(&stage.client(), &name, "{latency_ms: 150, tell_batch: 1}").await?;
    stage.client().put_definition("streams", &name, &stream(&name)).await?;
    let client = stage.client();
    let records = (0..30).map(|it| record(&name, 0, "k", json!({"text": format!("record {it}")}).to_string()));
    let requests = async {
        for it in 0..30 {
            let input = json!({"text": format!("request {it}")});
            let Submission::Accepted(_) = client.submit(&name, &input, &format!("{name}-{it}")).await else {
                anyhow::bail!("request {it} was not taken");
            };
        }
        Ok(())
    };
    let (produced, requested) = tokio::join!(stage.topics.produce(records.collect()), requests);
    produced?;
    requested?;
    until_runs(&stage.node, &name, "succeeded", 60).await?;
    // The model says with each answer which batch it came from.
    let runs = client.get(&format!("/api/v1/runs?workflow={name}&limit=500")).await?.expect(200)?.body;
    let mut batches = BTreeMap::<String, (usize, usize)>::new();
    for run in runs["runs"].as_array().context("no runs")? {
        let id = run["id"].as_str().context("no id")?;
        let shown = client.read_run(id).await?;
        let from_record = shown["source"].is_object();
        let (records, requests) = batches.entry(run_batch(&shown)?).or_default();
        if from_record { *records += 1 } else { *requests += 1 }
    }
    let mixed = batches.values().filter(|(records, requests)| *records > 0 && *requests > 0).count();
    println!("batches by (records, requests): {:?}", batches.values().collect::<Vec<_>>());
    ensure!(mixed > 0, "no batch had calls of both: {batches:?}");
    Ok(())
}

/// The number of the batch that a run's call was in.
fn run_batch(run: &Value) -> Result<String> {
    Ok(run["steps"]["first"]["output"]["batch"].as_str().with_context(|| format!("no batch: {run}"))?.to_owned())
}

/// Events of a run without what differs from place to place: identities and times.
fn normalised(events: Vec<Value>) -> Vec<Value> {
    let strip = |mut event: Value| {
        if let Some(map) = event.as_object_mut() {
            for key in ["id", "run", "at", "time", "trace", "trace_id", "batch", "duration_ms", "queued_ms"] {
                map.remove(key);
            }
        }
        event
    };
    events.into_iter().map(strip).collect()
}

/// What each record came to, by its offset: output and history.
async fn histories(client: &Client, name: &str, count: usize) -> Result<BTreeMap<i64, (Value, Vec<Value>)>> {
    let runs = client.get(&format!("/api/v1/runs?workflow={name}&limit=500")).await?.expect(200)?.body;
    let mut histories = BTreeMap::new();
    for run in runs["runs"].as_array().context("no runs")? {
        let id = run["id"].as_str().context("no id")?;
        let shown = client.read_run(id).await?;
        let offset = shown["source"]["offset"].as_i64().context("no offset")?;
        histories.insert(offset, (shown["output"].clone(), normalised(client.events(id).await?)));
    }
    ensure!(histories.len() == count, "{} of {count} runs", histories.len());
    Ok(histories)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_laptop_and_a_cluster_come_to_the_same() -> Result<()> {
    let (Some(brokers), Some(redis)) = (service("same", "MOTET_TEST_KAFKA"), service("same", "MOTET_TEST_REDIS_URL"))
    else {
        return Ok(());
    };
    let Some(laptop) = Stage::new("same").await? else { return Ok(()) };
    let Some(mut cluster) = Nodes::begin("same").await? else { return Ok(()) };
    for number in 0..3 {
        let settings = |settings: motet_tests::node::NodeSettings| {
            settings.with("MOTET__KAFKA__BROKERS", &brokers).with("MOTET__REDIS__URL", &redis)
        };
        cluster.add(&format!("node-{number}"), settings).await?;
    }
    cluster.until_everybody_serves(3).await?;
    let topics = Topics::at(&brokers).await?;
    let name = topics.grounds().fresh("same");
    topics.create(&[(&name, 1)]).await;
    topics
        .produce((0..40).map(|it| record(&name, 0, "k", json!({"text": format!("word {it}")}).to_string())).collect())
        .await?;
    // Two groups, so that each system reads everything.
    for (client, group) in [(laptop.client(), "laptop"), (cluster.client(1), "cluster")] {
        define(&client, &name, "{latency_ms: 150}").await?;
        let stream = format!("{}group: {name}-{group}\n", stream(&name));
        client.put_definition("streams", &name, &stream).await?;
    }
    until_runs(&laptop.node, &name, "succeeded", 40).await?;
    let last: &Node = &cluster.nodes[2];
    until(PATIENCE, "the cluster's runs", async || {
        (super::count_runs(&last.client(), &name, "succeeded").await.ok()? == 40).then_some(())
    })
    .await
    .with_context(|| cluster.logs())?;
    let (alone, together) =
        (histories(&laptop.client(), &name, 40).await?, histories(&cluster.client(0), &name, 40).await?);
    for (offset, one) in &alone {
        ensure!(Some(one) == together.get(offset), "offset {offset}: {one:#?} and {:#?}", together.get(offset));
    }
    Ok(())
}
