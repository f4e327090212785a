//! What a stream stands on is away for a while, or is not there any more: it waits, or stops with words that help.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_broker::port::Place;
use motet_tests::faults::backing::Backing;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::topics::{Topics, record};
use motet_tests::waiting::{let_pass, until};
use serde_json::Value;

use super::{PATIENCE, Stage, count_runs, partitions, until_partitions, until_runs};

fn definitions(name: &str) -> [(&'static str, String); 2] {
    let workflow = format!(
        "kind: Workflow\nname: {name}\nsteps: {{a: {{call: transform, with: {{value: '${{ input.text }}'}}}}}}\n\
         output: '${{ steps.a.output.value }}'\n"
    );
    let stream = format!("kind: Stream\nname: {name}\ntopics: [{name}]\nworkflow: {name}\n");
    [("workflows", workflow), ("streams", stream)]
}

async fn begin(node: &Node, topics: &Topics, name: &str, count: i32) -> Result<()> {
    topics.create(&[(name, 2)]).await;
    produce(topics, name, 0..count).await?;
    for (kind, text) in definitions(name) {
        node.client().put_definition(kind, name, &text).await?;
    }
    Ok(())
}

async fn produce(topics: &Topics, name: &str, numbers: std::ops::Range<i32>) -> Result<()> {
    let value = |number: i32| format!("{{\"text\": \"{number}\"}}");
    topics.produce(numbers.map(|it| record(name, it % 2, &it.to_string(), value(it))).collect()).await.map(drop)
}

/// The database is away in mid-load: the member stays in its group, nothing is lost, and the lag drains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_away_for_a_while() -> Result<()> {
    let Some(brokers) = motet_broker::contract::service("the_database_is_away", "MOTET_TEST_KAFKA") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let Some(backing) = Backing::postgres("the_database_is_away", folder.path()).await? else { return Ok(()) };
    let settings = backing.settings(&folder.path().join("node")).with("MOTET__KAFKA__BROKERS", &brokers);
    let (node, topics) = (Node::start(settings).await?, Topics::at(&brokers).await?);
    let name = topics.grounds().fresh("away");
    begin(&node, &topics, &name, 200).await?;
    until_runs(&node, &name, "succeeded", 200).await?;
    let epochs = |seen: &[Value]| seen.iter().map(|it| it["epoch"].as_u64()).collect::<Vec<_>>();
    let before = epochs(&until_partitions(&node, &name, 2, "no lag", |it| it["lag"] == 0).await?);

    let server = backing.server()?;
    server.end_immediately()?;
    produce(&topics, &name, 200..400).await?;
    // Longer than the store waits for its server before it refuses writes.
    let_pass(Duration::from_secs(Scale::from_environment().pick(13, 20, 60))).await;
    produce(&topics, &name, 400..480).await?;
    server.restart().await?;
    until_runs(&node, &name, "succeeded", 480).await?;
    let after = epochs(&until_partitions(&node, &name, 2, "no lag", |it| it["lag"] == 0).await?);
    ensure!(before == after, "the partitions went away and came back: {before:?} {after:?}");
    Ok(())
}

/// Retention has passed the position: nothing is skipped without a word, and a seek goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_has_passed_the_position() -> Result<()> {
    let Some(mut stage) = Stage::new("retention").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("retained");
    begin(&stage.node, &stage.topics, &name, 40).await?;
    until_runs(&stage.node, &name, "succeeded", 40).await?;
    stage.node.stop().await?;
    produce(&stage.topics, &name, 40..80).await?;
    stage.topics.grounds().trim(&Place::new(&name, 0), 30).await;
    stage.node.restart().await?;
    let stopped = stopped(&stage.node, &name).await?;
    ensure!(stopped.contains("20") && stopped.contains("30") && stopped.contains("seek"), "{stopped}");
    // The other partition goes on.
    until_runs(&stage.node, &name, "succeeded", 60).await?;
    ensure!(count_runs(&stage.client(), &name, "").await? == 60, "nothing was begun past what is missing");
    let path = format!("/api/v1/streams/{name}/partitions/{name}/0/seek");
    stage.client().post(&path, &serde_json::json!({"to": "earliest"})).await?.expect(202)?;
    until_runs(&stage.node, &name, "succeeded", 70).await
}

/// The topic was deleted and made anew: its offsets mean other records now, so the partition stops until somebody says
/// that the new one is meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_was_made_anew() -> Result<()> {
    let Some(stage) = Stage::new("made_anew").await? else { return Ok(()) };
    let name = stage.topics.grounds().fresh("anew");
    begin(&stage.node, &stage.topics, &name, 40).await?;
    until_runs(&stage.node, &name, "succeeded", 40).await?;
    stage.topics.grounds().delete(&name).await;
    stage.topics.create(&[(&name, 2)]).await;
    // As many as before and more: by their offsets alone they could be what follows.
    produce(&stage.topics, &name, 0..60).await?;
    let words = stopped(&stage.node, &name).await?;
    ensure!(words.contains("anew") || words.contains("deleted") || words.contains("another"), "{words}");
    ensure!(
        count_runs(&stage.client(), &name, "").await? == 40,
        "records of another topic begin nothing by themselves"
    );
    until_partitions(&stage.node, &name, 2, "both to stop", |it| it["state"] == "stopped").await?;
    for (partition, runs) in [(0, 70), (1, 100)] {
        let path = format!("/api/v1/streams/{name}/partitions/{name}/{partition}/seek");
        stage.client().post(&path, &serde_json::json!({"to": "earliest"})).await?.expect(202)?;
        until_runs(&stage.node, &name, "succeeded", runs).await?;
    }
    Ok(())
}

/// Waits until the first partition stands still; why, as the API says it.
async fn stopped(node: &Node, stream: &str) -> Result<String> {
    let client = node.client();
    let trouble = until(PATIENCE, "the partition to stop", async || {
        let seen = partitions(&client, stream).await.ok()?;
        let first = seen.iter().find(|it| it["partition"] == 0)?;
        (first["state"] == "stopped").then(|| first["trouble"].as_str().map(str::to_owned)).flatten()
    });
    trouble.await.with_context(|| node.log_tail())
}
