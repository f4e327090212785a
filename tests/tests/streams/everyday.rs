//! What everybody does with a stream: apply it, look at it, pause it, read on from elsewhere, mend what was wrong.

use std::process::Command;

use anyhow::{Result, ensure};
use motet_tests::place;
use motet_tests::topics::{header, record};
use motet_tests::waiting::until;
use serde_json::{Value, json};

use super::{PATIENCE, Stage, count_runs, until_partitions, until_runs};

/// Definitions as a user would write them into one file.
fn definitions(name: &str, ordering: &str) -> String {
    format!(
        "
kind: Model
name: echo
backend: fake
---
kind: Workflow
name: {name}
input: {{schema: {{type: object, required: [text], properties: {{text: {{type: string}}}}}}}}
steps:
  first: {{call: model, model: echo, with: {{text: '${{ input.text }}'}}}}
  second: {{call: transform, with: {{rest: '${{ 100 / size(input.text) }}'}}}}
output: {{said: '${{ steps.first.output.text }}'}}
---
kind: Stream
name: {name}
topics: [{name}]
workflow: {name}
input: {{text: '${{ value.text }}'}}
ordering: {ordering}
dead_letter: {{topic: {name}-dlt}}
output: {{topic: {name}-done, key: '${{ key }}'}}
"
    )
}

/// Runs a command of the binary against the node; what it prints.
fn motet(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let server = format!("http://{}", stage.node.http());
    let output = Command::new(place::motet()).args(arguments).env("MOTET_SERVER", server).output()?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "motet {arguments:?}: {said}{told}");
    Ok(said.into_owned())
}

async fn begin(stage: &Stage, name: &str, ordering: &str) -> Result<()> {
    let (dead, done) = (format!("{name}-dlt"), format!("{name}-done"));
    stage.topics.create(&[(name, 3), (&dead, 1), (&done, 2)]).await;
    let file = stage.node.data().with_extension("yaml");
    std::fs::write(&file, definitions(name, ordering))?;
    let applied = motet(stage, &["apply", &file.display().to_string()])?;
    ensure!(applied.contains(name), "{applied}");
    Ok(())
}

fn text(text: &str) -> String {
    json!({ "text": text }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_runs_and_results_and_what_is_wrong_with_some_is_told() -> Result<()> {
    let Some(stage) = Stage::new("records_become_runs").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("everyday");
    begin(&stage, &name, "none").await?;
    let mut records: Vec<_> =
        (0..60).map(|it| record(&name, it % 3, &format!("key-{it}"), text(&it.to_string()))).collect();
    // One is an event, in the headers' form.
    let event =
        [("id", "e-1"), ("source", "/shop"), ("type", "placed"), ("specversion", "1.0"), ("correlationid", "order-7")];
    records[0].headers = event.iter().map(|(key, value)| (format!("ce_{key}"), Some((*value).into()))).collect();
    records.push(record(&name, 1, "broken", "{\"text\": "));
    records.push(record(&name, 2, "misfit", "{\"number\": 7}"));
    stage.topics.produce(records).await?;

    until_runs(&stage.node, &name, "succeeded", 60).await?;
    let seen = until_partitions(&stage.node, &name, 3, "no lag", |it| it["lag"] == 0).await?;
    ensure!(seen.iter().all(|it| it["state"] == "reading" && it["owner"].is_string()), "{seen:#?}");

    // Results are CloudEvents with the record's key, an id of their own each, and what caused them.
    let done = format!("{name}-done");
    until(PATIENCE, "the results", async || (stage.topics.high(&done, 2).await.ok()? == 60).then_some(())).await?;
    let (mut ids, mut said) = (vec![], vec![]);
    for record in stage.topics.content(&done, 2).await?.into_values().flatten() {
        ensure!(header(&record, "ce_type")? == "io.motet.run.succeeded", "{record:?}");
        ensure!(header(&record, "traceparent")?.len() == 55, "{record:?}");
        if record.key.as_deref() == Some(b"key-0") {
            let (correlation, cause) = (header(&record, "ce_correlationid")?, header(&record, "ce_causationid")?);
            ensure!(correlation == "order-7" && cause == "e-1", "{record:?}");
        }
        ids.push(header(&record, "ce_id")?);
        let value: Value = serde_json::from_slice(record.value.as_deref().unwrap())?;
        let key = String::from_utf8(record.key.as_deref().unwrap().to_vec())?;
        ensure!(key == format!("key-{}", value["said"].as_str().unwrap()), "{key}: {value}");
        said.push(value["said"].as_str().unwrap().parse::<usize>()?);
    }
    ids.sort();
    ids.dedup();
    said.sort_unstable();
    ensure!(ids.len() == 60 && said == (0..60).collect::<Vec<_>>(), "{said:?}");

    // Both misfits are dead letters, here and in the topic, byte for byte.
    let letters = motet(&stage, &["streams", "letters", &name])?;
    ensure!(letters.contains("VALUE_CONVERTER") && letters.contains("INPUT"), "{letters}");
    let dead = format!("{name}-dlt");
    until(PATIENCE, "the dead letters", async || (stage.topics.high(&dead, 1).await.ok()? == 2).then_some(())).await?;
    let sent: Vec<_> = stage.topics.content(&dead, 1).await?.into_values().flatten().collect();
    let broken = sent.iter().find(|record| record.key.as_deref() == Some(b"broken")).unwrap();
    ensure!(broken.value.as_deref() == Some(b"{\"text\": "), "{broken:?}");
    ensure!(header(broken, "__connect.errors.topic")? == name && header(broken, "__connect.errors.partition")? == "1");

    // A letter is mended and read once more, which begins one run; the other one is given up.
    let broken = format!("{name}/1/0/20");
    let mended = motet(&stage, &["streams", "redrive", &name, &broken, "--value", &text("mended")])?;
    ensure!(mended.starts_with("run_"), "{mended}");
    motet(&stage, &["streams", "discard", &name, &format!("{name}/2/0/20")])?;
    until_runs(&stage.node, &name, "succeeded", 61).await?;
    let open = motet(&stage, &["streams", "letters", &name])?;
    ensure!(!open.contains(&broken), "{open}");
    let shown = motet(&stage, &["streams", "show", &name])?;
    ensure!(shown.contains("reading") && shown.contains(&name), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_paused_and_read_on_from_elsewhere() -> Result<()> {
    let Some(stage) = Stage::new("partitions_are_paused").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("steered");
    begin(&stage, &name, "none").await?;
    let some = |from: u32, to: u32| (from..to).map(|it| record(&name, 0, "k", text(&it.to_string()))).collect();
    stage.topics.produce(some(0, 10)).await?;
    until_runs(&stage.node, &name, "succeeded", 10).await?;

    motet(&stage, &["streams", "pause", &name, "--partition", "0"])?;
    until_partitions(&stage.node, &name, 3, "the pause", |it| it["partition"] != 0 || it["state"] == "paused").await?;
    until(PATIENCE, "the owner hears of it", async || {
        let shown = super::partitions(&stage.client(), &name).await.ok()?;
        shown.iter().any(|it| it["here"]["held"].as_str().is_some_and(|held| held.contains("paused"))).then_some(())
    })
    .await?;
    stage.topics.produce(some(10, 20)).await?;
    until_partitions(&stage.node, &name, 3, "the lag", |it| it["partition"] != 0 || it["lag"] == 10).await?;
    ensure!(count_runs(&stage.client(), &name, "").await? == 10, "a paused partition begins no runs");
    motet(&stage, &["streams", "resume", &name, "--partition", "0"])?;
    until_runs(&stage.node, &name, "succeeded", 20).await?;

    // Read again, nothing is missing, so nothing begins; in a new generation everything begins anew.
    motet(&stage, &["streams", "seek", &name, "--partition", "0", "--to", "earliest"])?;
    let back = |it: &Value| it["partition"] != 0 || (it["next"] == 20 && it["epoch"].as_u64() >= Some(3));
    until_partitions(&stage.node, &name, 3, "everything to be read again", back).await?;
    ensure!(count_runs(&stage.client(), &name, "").await? == 20, "a second reading doubles nothing");
    motet(&stage, &["streams", "seek", &name, "--partition", "0", "--to", "15", "--again"])?;
    until_runs(&stage.node, &name, "succeeded", 25).await?;

    // A stream that is deleted reads no more; its runs stay.
    motet(&stage, &["streams", "delete", &name])?;
    stage.topics.produce(some(20, 30)).await?;
    until(PATIENCE, "the stream to be gone", async || super::partitions(&stage.client(), &name).await.err().map(drop))
        .await?;
    ensure!(count_runs(&stage.client(), &name, "").await? == 25);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_fails_waits_with_what_follows_it_until_somebody_acts() -> Result<()> {
    let Some(stage) = Stage::new("a_key_that_fails").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("ordered");
    begin(&stage, &name, "key").await?;
    // An empty text divides by nothing.
    let texts = [("a", "1"), ("b", ""), ("a", "2"), ("b", "3"), ("c", "4"), ("b", "5"), ("a", "6")];
    stage.topics.produce(texts.iter().map(|(key, it)| record(&name, 0, key, text(it))).collect()).await?;
    until_runs(&stage.node, &name, "succeeded", 4).await?;
    until_runs(&stage.node, &name, "failed", 1).await?;
    ensure!(count_runs(&stage.client(), &name, "pending").await? == 2, "what follows a failure of its key waits");
    let held = stage.client().get(&format!("/api/v1/runs?workflow={name}&holding=true")).await?.expect(200)?.body;
    let [failed] = held["runs"].as_array().unwrap().as_slice() else { anyhow::bail!("{held}") };
    let failed = failed["id"].as_str().unwrap().to_owned();
    let run = stage.client().read_run(&failed).await?;
    ensure!(run["source"]["topic"] == name.as_str() && run["source"]["offset"] == 1, "{run}");

    let skipped = motet(&stage, &["runs", "skip", &failed])?;
    ensure!(skipped.contains(&failed), "{skipped}");
    until_runs(&stage.node, &name, "succeeded", 6).await?;
    let again = stage.client().post(&format!("/api/v1/runs/{failed}/skip"), &json!({})).await?;
    ensure!(again.status == 409, "{again:?}");
    Ok(())
}
