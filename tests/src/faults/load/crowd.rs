//! A crowd of runs that have not ended: as many as a fault shall meet, at every moment.
//!
//! Counts what the nodes count, so that a count that is wrong after a fault is noticed. Used by the clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{COUNT_EVERY, Shared};
use crate::scale::Scale;
use crate::waiting::let_pass;

/// How many runs are unfinished at every moment, and what keeps them so. One half rests as rows, the other one has
/// actors that wait for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Runs that were promised and have not ended.
    pub in_flight: usize,
    /// Longest time that a run rests.
    pub longest_rest: Duration,
    /// Calls that the model with the queue answers in a second, on each node.
    pub queue_per_second: u32,
}

impl Crowd {
    /// The crowd of the cluster's rows: 20,000 runs in the long form.
    #[must_use]
    pub fn of(scale: Scale) -> Self {
        let full = Self { in_flight: 20_000, longest_rest: Duration::from_secs(300), queue_per_second: 20 };
        let short = Self { in_flight: 2_000, longest_rest: Duration::from_secs(18), queue_per_second: 32 };
        scale.pick(short, full, full)
    }
}

/// Runs by whether they have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    unfinished: u64,
    ended: u64,
}

/// Lets as many runs be submitted as have ended, and `in_flight` more. Ends when nobody submits any more.
pub(super) async fn keep_up(load: Arc<Shared>, in_flight: usize) {
    // A little more, since some end between two looks.
    let target = in_flight + in_flight / 20;
    let mut given = 0;
    while !load.allowed.is_closed() {
        if let Some(counts) = counts(&load).await {
            let most = target + usize::try_from(counts.ended).unwrap_or_default();
            load.allowed.add_permits(most.saturating_sub(given));
            given = given.max(most);
        }
        let_pass(COUNT_EVERY).await;
    }
}

/// Waits until the number of runs that have not ended is as wanted; how many that are.
pub(super) async fn until_unfinished(load: &Shared, limit: Duration, wanted: impl Fn(u64) -> bool) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let counts = counts(load).await;
        if let Some(Counts { unfinished, .. }) = counts.filter(|counts| wanted(counts.unfinished)) {
            return Ok(unfinished);
        }
        if begun.elapsed() >= limit {
            bail!("waited {} s in vain; runs are {counts:?}\n{}", limit.as_secs(), explain(load).await);
        }
        let_pass(COUNT_EVERY).await;
    }
}

/// What some of the runs that have not ended wait for, as each of the nodes says it.
async fn explain(load: &Shared) -> String {
    let mut lines = vec![];
    for state in ["pending", "running", "waiting", "paused"] {
        let found = load.client(0).get(&format!("/api/v1/runs?state={state}&limit=2")).await;
        let runs = found.map(|reply| reply.body["runs"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
        for id in runs.iter().filter_map(|run| run["id"].as_str()) {
            for (node, client) in load.clients.iter().enumerate() {
                let why = client.get(&format!("/api/v1/runs/{id}/why")).await.map(|reply| reply.body.to_string());
                lines.push(format!("{state} {id}, node-{node}: {why:?}"));
            }
        }
    }
    lines.join("\n")
}

/// What the first node that answers counts in the store that all of them share.
async fn counts(load: &Shared) -> Option<Counts> {
    for client in &load.clients {
        let Ok(reply) = client.get("/api/v1/node").await.and_then(|reply| reply.expect(200)) else { continue };
        let Some(by_state) = reply.body["runs"]["by_state"].as_object() else { continue };
        let mut counts = Counts { unfinished: 0, ended: 0 };
        for (state, runs) in by_state {
            let runs = runs.as_u64().unwrap_or_default();
            match state.as_str() {
                "pending" | "running" | "waiting" | "paused" => counts.unfinished += runs,
                _ => counts.ended += runs,
            }
        }
        return Some(counts);
    }
    None
}
