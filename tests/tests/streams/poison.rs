//! Poison among the records: it holds up no partition, and every bit of it is accounted for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use motet_tests::topics::record;
use motet_tests::waiting::until;
use serde_json::Value;

use super::{Stage, partitions, until_partitions, until_runs};

const PARTITIONS: i32 = 4;
const RECORDS: i32 = 2_000;

/// No partition may stand still for longer.
const LONGEST: Duration = Duration::from_secs(10);

const STREAM: &str = "
kind: Workflow
name: NAME
input: {schema: {type: object, required: [text], properties: {text: {type: string}}}}
steps: {a: {call: transform, with: {value: '${ input.text }'}}}
output: '${ steps.a.output.value }'
---
kind: Stream
name: NAME
topics: [NAME]
workflow: NAME
";

/// More than a run's input may have.
const LARGE: usize = 20 << 20;

/// What is wrong with some records, by turns.
fn poison(number: i32) -> Bytes {
    match number % 5 {
        _ if [2, 9, 16].contains(&number) => Bytes::from(format!("{{\"text\": \"{}\"}}", "y".repeat(LARGE))),
        0 => Bytes::from_static(b"\xff\xfe no text"),
        1 => Bytes::from_static(b"{\"text\": 7}"),
        2 => Bytes::from("[".repeat(10_000)),
        3 => Bytes::from_static(b"{\"text\": \"cut off"),
        _ => Bytes::from_static(b""),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_holds_up_nothing_and_all_of_it_is_kept() -> Result<()> {
    let Some(stage) = Stage::new("poison").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("poison");
    stage.topics.grounds().create_large(&name, PARTITIONS, LARGE + (1 << 20)).await;
    let mut wrong = BTreeMap::new();
    let records: Vec<_> = (0..RECORDS)
        .map(|number| {
            let bad = number % 100 == 37;
            let value = if bad { poison(number / 100) } else { Bytes::from(format!("{{\"text\": \"{number}\"}}")) };
            record(&name, number % PARTITIONS, &number.to_string(), value)
        })
        .collect();
    for (record, delivered) in records.iter().zip(stage.topics.produce(records.clone()).await?) {
        let number: i32 = std::str::from_utf8(record.key.as_deref().unwrap())?.parse()?;
        if number % 100 == 37 {
            wrong.insert((delivered.partition, delivered.offset), record.value.clone().unwrap());
        }
    }
    for document in STREAM.replace("NAME", &name).split("---") {
        let kind = if document.contains("kind: Workflow") { "workflows" } else { "streams" };
        stage.client().put_definition(kind, &name, document).await?;
    }

    // Every partition is looked at until its end: how long each stood still at the most.
    let (client, mut moved, mut longest) = (stage.client(), BTreeMap::new(), Duration::ZERO);
    until(super::PATIENCE, "everything to be read", async || {
        let read = partitions(&client, &name).await.ok()?;
        for partition in &read {
            let (next, high) = (partition["next"].as_i64(), partition["high"].as_i64());
            let (at, since) = moved.entry(partition["partition"].as_i64()).or_insert((next, Instant::now()));
            if next != *at {
                (*at, *since) = (next, Instant::now());
            } else if next != high {
                longest = longest.max(since.elapsed());
            }
        }
        (read.len() == usize::try_from(PARTITIONS).ok()? && read.iter().all(|it| it["lag"] == 0)).then_some(())
    })
    .await
    .with_context(|| stage.node.log_tail())?;
    ensure!(longest < LONGEST, "a partition stood still for {longest:?}");

    // All poison is there, byte for byte, and nothing else is.
    let listed = client.get(&format!("/api/v1/streams/{name}/dead-letters?limit=1000")).await?.expect(200)?.body;
    let letters = listed["dead_letters"].as_array().context("no letters")?;
    ensure!(letters.len() == wrong.len(), "{} letters of {} wrong records", letters.len(), wrong.len());
    for letter in letters {
        let (partition, offset) = (letter["partition"].as_i64().unwrap(), letter["offset"].as_i64().unwrap());
        let path = format!("/api/v1/streams/{name}/dead-letters/{name}/{partition}/0/{offset}");
        let shown = client.get(&path).await?.expect(200)?.body;
        let expected = &wrong[&(i32::try_from(partition)?, offset)];
        ensure!(
            kept(&shown["record"]["value"])? == *expected,
            "{partition}/{offset} was changed: {}",
            letter["message"]
        );
    }
    until_partitions(&stage.node, &name, 4, "the owner's counts", |it| it["here"]["held"].is_null()).await?;
    println!("poison: {} of {RECORDS} records, no partition stood still for longer than {longest:?}", wrong.len());
    Ok(())
}

const CRASHING: &str = "
kind: Model
name: NAME
backend: fake
parameters: {latency_ms: 5}
batch: {max: 32, window: 20ms}
---
kind: Workflow
name: NAME
steps: {a: {call: model, model: NAME, with: {text: '${ input.text }'}}}
output: '${ steps.a.output.text }'
---
kind: Stream
name: NAME
topics: [NAME]
workflow: NAME
";

/// The text over which the backend `fake` crashes.
const CRASH: &str = "__crash__";

/// Records of this test; each batch of calls has some that crash it.
const HANDLED: i32 = 400;

/// Records over which a model crashes, as a network that panics does: their runs fail and say so, no other run of the
/// same batches does, and no partition waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_crash_a_model_take_no_others_along() -> Result<()> {
    let Some(stage) = Stage::new("crashing").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("crashing");
    stage.topics.create(&[(&name, PARTITIONS)]).await;
    let crashes = |number: i32| number % 20 == 7;
    let records = (0..HANDLED).map(|number| {
        let text = if crashes(number) { CRASH.to_owned() } else { number.to_string() };
        record(&name, number % PARTITIONS, &number.to_string(), format!("{{\"text\": \"{text}\"}}"))
    });
    stage.topics.produce(records.collect()).await?;
    for document in CRASHING.replace("NAME", &name).split("---") {
        let kinds = [("kind: Model", "models"), ("kind: Workflow", "workflows"), ("kind: Stream", "streams")];
        let kind = kinds.iter().find(|(line, _)| document.contains(line)).context("no kind")?.1;
        stage.client().put_definition(kind, &name, document).await?;
    }
    let crashed = (0..HANDLED).filter(|number| crashes(*number)).count();
    until_runs(&stage.node, &name, "succeeded", usize::try_from(HANDLED)? - crashed).await?;
    until_runs(&stage.node, &name, "failed", crashed).await?;
    until_partitions(&stage.node, &name, 4, "no lag", |it| it["lag"] == 0 && it["here"]["dead"] == 0).await?;

    let failed = format!("/api/v1/runs?workflow={name}&limit=500&state=failed");
    let listed = stage.client().get(&failed).await?.expect(200)?.body;
    for run in listed["runs"].as_array().context("no runs")? {
        let shown = stage.client().read_run(run["id"].as_str().context("no id")?).await?;
        let error = &shown["error"];
        ensure!(error["class"] == "internal" && error["message"].as_str().unwrap().contains("crashed"), "{shown}");
        let number = shown["source"]["offset"].as_i64().unwrap() * i64::from(PARTITIONS)
            + shown["source"]["partition"].as_i64().unwrap();
        ensure!(crashes(i32::try_from(number)?), "record {number} was not to blame: {shown}");
    }
    Ok(())
}

/// The bytes of a value as the API shows them.
fn kept(value: &Value) -> Result<Bytes> {
    use base64::Engine as _;
    if let Some(text) = value["text"].as_str() {
        return Ok(Bytes::from(text.to_owned()));
    }
    let text = value["base64"].as_str().with_context(|| format!("no bytes in {value}"))?;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?.into())
}
