//! C6: one of three nodes drains under load, takes shards again, and a fourth node comes: no request fails, answers
//! come as fast as before or nearly, and no more than a fair share moves.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_tests::client::Client;
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::history::outage::percentile;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::report::times;
use super::{Cluster, NODES, SHARDS, owner};

/// Requests per second, over all nodes in turn; each waits for the end of its run.
const PER_SECOND: u64 = 40;

/// Requests that wait for their answers at one time; one more than that has failed.
const OUTSTANDING: usize = 512;

/// The stated time for a drain.
const DRAINED: Duration = Duration::from_secs(30);

const CLIENTS: usize = 8;

/// What answered requests took, by the time at which they were sent; and what went wrong.
#[derive(Default)]
struct Answers {
    took: Vec<(Instant, Duration)>,
    failed: Vec<String>,
    promised: Vec<(String, String)>,
}

/// Requests at a steady rate until it is stopped.
struct Steady {
    answers: Arc<Mutex<Answers>>,
    places: Arc<Semaphore>,
    sending: JoinHandle<()>,
}

impl Steady {
    fn start(nodes: Vec<Client>) -> Self {
        let answers = Arc::<Mutex<Answers>>::default();
        let places = Arc::new(Semaphore::new(OUTSTANDING));
        let sending = tokio::spawn({
            let (answers, places) = (Arc::clone(&answers), Arc::clone(&places));
            async move {
                let mut ticks = interval(Duration::from_millis(1_000 / PER_SECOND));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for number in 0.. {
                    ticks.tick().await;
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        answers.lock().unwrap().failed.push(format!("steady-{number}: nobody answers any more"));
                        continue;
                    };
                    let (client, answers) = (nodes[number % nodes.len()].clone(), Arc::clone(&answers));
                    tokio::spawn(async move {
                        request(&client, &answers, format!("steady-{number}")).await;
                        drop(place);
                    });
                }
            }
        });
        Self { answers, places, sending }
    }

    /// What requests took that were sent between two moments, sorted.
    fn between(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let answers = self.answers.lock().unwrap();
        let sent = answers.took.iter().filter(|(sent, _)| *sent >= from && *sent < to);
        let mut took: Vec<_> = sent.map(|(_, took)| *took).collect();
        took.sort_unstable();
        took
    }

    /// Ends it and waits for the last answer. The promised runs by key.
    async fn stop(self) -> Result<Vec<(String, String)>> {
        self.sending.abort();
        let all = u32::try_from(OUTSTANDING)?;
        let free = tokio::time::timeout(DRAINED, self.places.acquire_many(all)).await;
        drop(free.context("answers did not come")??);
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        ensure!(answers.failed.is_empty(), "{} requests failed: {:#?}", answers.failed.len(), answers.failed);
        Ok(answers.promised)
    }
}

async fn request(client: &Client, answers: &Mutex<Answers>, key: String) {
    let sent = Instant::now();
    let path = "/api/v1/workflows/survivor/runs?wait=20s";
    let request = client.request(Method::POST, path).header("idempotency-key", &key);
    let reply = client.send(request.json(&json!({ "input": { "text": key } }))).await;
    let mut answers = answers.lock().unwrap();
    match reply {
        Ok(reply) if reply.status == 200 && reply.body["state"] == "succeeded" => {
            answers.took.push((sent, sent.elapsed()));
            answers.promised.push((key, reply.body["id"].as_str().unwrap_or_default().to_owned()));
        }
        Ok(reply) => answers.failed.push(format!("{key}: {} {}", reply.status, reply.body)),
        Err(error) => answers.failed.push(format!("{key}: {error:#}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_a_node_drains_and_a_node_comes_under_load() -> Result<()> {
    let scale = Scale::from_environment();
    let _turn = super::row::turn(scale).await;
    let Some(mut cluster) = Cluster::start("c6_a_node_drains_and_a_node_comes_under_load", None).await? else {
        return Ok(());
    };
    let (span, in_flight) = (Duration::from_secs(scale.pick(10, 60, 60)), scale.pick(300, 2_000, 2_000));
    let crowd = Crowd { in_flight, longest_rest: span, queue_per_second: 24 };
    let mut seed = Seed::from_environment();
    let load = Load::hold(cluster.clients(), crowd, CLIENTS, &mut seed).await?;
    load.until_in_flight(in_flight).await?;
    let nodes: Vec<_> = cluster.nodes.iter().map(motet_tests::node::Node::client).collect();
    let steady = Steady::start(nodes);

    let begun = Instant::now();
    let_pass(span).await;
    let (asked, usual) = (Instant::now(), steady.between(begun, Instant::now()));
    let drained = drain(&cluster, 1).await?;
    let_pass(span.saturating_sub(asked.elapsed())).await;
    let while_draining = steady.between(asked, Instant::now());
    cluster.nodes[1].check_running()?;
    tell(&cluster, 1, false).await?;
    let before = cluster.until_balanced().await?;

    let came = Instant::now();
    cluster.add_node().await?;
    let after = cluster.until_balanced().await?;
    let while_coming = steady.between(came, Instant::now());
    let moved: Vec<_> = before.iter().zip(&after).filter(|(one, other)| owner(one) != owner(other)).collect();
    let fair = (usize::from(SHARDS) * 110).div_ceil(100 * (NODES + 1));

    load.extend(steady.stop().await?);
    println!("C6: drained within {drained:?}; {} of {SHARDS} shards moved to a fourth node, fair {fair}", moved.len());
    println!(
        "C6: requests took {} before, {} while a node drained, {} while one came",
        times(&usual),
        times(&while_draining),
        times(&while_coming)
    );
    cluster.prove(load, "C6", "1 node drained and taken back, 1 added, no request failed").await?;
    let (usual, draining) = (percentile(&usual, 99), percentile(&while_draining, 99));
    ensure!(draining < usual * 2, "p99 was {usual:?} and became {draining:?} while a node drained");
    ensure!(moved.len() <= fair, "{} shards moved, {fair} were fair", moved.len());
    let fourth = super::name(NODES);
    ensure!(moved.iter().all(|(_, to)| owner(to) == Some(&fourth)), "shards moved that were not for the new node");
    Ok(())
}

/// Lets a node give its shards away; how long it took.
async fn drain(cluster: &Cluster, node: usize) -> Result<Duration> {
    let begun = Instant::now();
    let told = tell(cluster, node, true).await?;
    ensure!(told["draining"] == true, "told to drain, it says {told}");
    until(DRAINED, "the node has no shards", async || {
        let shares = cluster.shares(node).await.ok()?;
        (shares.get(&super::name(node)) == Some(&0)).then_some(())
    })
    .await
    .with_context(|| cluster.nodes[node].log_tail())?;
    Ok(begun.elapsed())
}

/// Tells a node, by way of another one, that it is to drain or to take shards again.
async fn tell(cluster: &Cluster, node: usize, drain: bool) -> Result<Value> {
    let path = format!("/api/v1/nodes/{}/drain", super::name(node));
    let client = cluster.nodes[(node + 1) % NODES].client();
    Ok(client.post(&path, &json!({ "drain": drain })).await?.expect(202)?.body)
}
