//! What the clients submit: a workflow of every kind of call, and the same one with a rest or a long queue in it.
//!
//! All of them end with the same output. Used by the clients.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Crowd;
use crate::client::Client;
use crate::seed::Seed;

/// The queues hold far fewer calls than the runs owe at once: an accepted run waits for room and never fails for it.
const MODELS: [(&str, &str); 2] = [
    ("echo", "kind: Model\nname: echo\nbackend: fake\nbatch: {max: 32}\nparameters: {latency_ms: 4}\n"),
    (
        "shaky",
        "kind: Model\nname: shaky\nbackend: fake\nbatch: {max: 16}\nparameters: {latency_ms: 2, fail_every: 4}\n",
    ),
];

/// Naps of a run that rests: each one's end is work that comes due, wherever the run's shard is then.
const NAPS: u64 = 3;

/// The workflow of runs that end as soon as they can.
pub(super) const SURVIVOR: &str = "survivor";
/// The one of runs that wait as rows in between.
const RESTING: &str = "resting";
/// The one of runs that wait with an actor in between.
const QUEUEING: &str = "queueing";

fn workflow(name: &str, middle: &str) -> String {
    let needs = if middle.is_empty() { "[draft]" } else { "[middle]" };
    format!(
        r#"
kind: Workflow
name: {name}
version: "1"
steps:
  draft: {{call: model, model: echo, with: {{text: "${{ input.text }}"}}}}
{middle}
  parts: {{needs: {needs}, call: transform, with: {{list: ["${{ steps.draft.output.text }}-a", "${{ steps.draft.output.text }}-b", "${{ steps.draft.output.text }}-c"]}}}}
  each: {{for_each: "${{ steps.parts.output.list }}", as: part, call: model, model: echo, with: {{text: "${{ part }}"}}}}
  shaky: {{needs: {needs}, call: model, model: shaky, with: {{text: "shaky ${{ steps.draft.output.text }}"}},
          retry: {{max_attempts: 100, backoff: {{initial: 2ms, factor: 1.5, max: 40ms}}}}}}
  finish: {{needs: [each], call: model, model: echo, with: {{text: "done ${{ steps.shaky.output.text }}"}}}}
output: {{text: "${{ steps.finish.output.text }}", count: "${{ size(steps.each.output) }}"}}
"#
    )
}

/// Puts what runs need.
pub(super) async fn put(client: &Client, crowd: Option<&Crowd>) -> Result<()> {
    for (name, model) in MODELS {
        client.put_definition("models", name, model).await?;
    }
    client.put_definition("workflows", SURVIVOR, &workflow(SURVIVOR, "")).await?;
    if let Some(crowd) = crowd {
        // Batches of a second: whatever the machine is, so many of these calls are answered in a second by each node.
        let slow = format!(
            "kind: Model\nname: slow\nbackend: fake\nbatch: {{max: {}}}\ntimeout: 1h\nqueue: 100000\n\
             parameters: {{latency_ms: 1000}}\n",
            crowd.queue_per_second
        );
        client.put_definition("models", "slow", &slow).await?;
        let rest = "  middle: {needs: [draft], for_each: \"${ input.naps }\", as: nap, max_concurrency: 1, call: wait, \
                    with: {for: \"${ nap }\"}}";
        client.put_definition("workflows", RESTING, &workflow(RESTING, rest)).await?;
        let queue =
            "  middle: {needs: [draft], call: model, model: slow, timeout: 1h, with: {text: \"${ input.text }\"}}";
        client.put_definition("workflows", QUEUEING, &workflow(QUEUEING, queue)).await?;
    }
    Ok(())
}

/// The workflow and the input of a submission, the same whenever it is made.
pub(super) fn request(number: usize, crowd: Option<&Crowd>) -> (&'static str, Value) {
    let text = format!("run {number}");
    match crowd {
        None => (SURVIVOR, json!({ "text": text })),
        Some(_) if number % 2 == 1 => (QUEUEING, json!({ "text": text })),
        Some(crowd) => {
            let longest = u64::try_from((crowd.longest_rest / NAPS as u32).as_millis()).unwrap_or(u64::MAX);
            let mut draw = Seed::new(number as u64);
            let naps: Vec<_> = (0..NAPS).map(|_| format!("{}ms", draw.between(1, longest))).collect();
            (RESTING, json!({ "text": text, "naps": naps }))
        }
    }
}

/// The output that a run must have.
pub(super) fn output(number: usize) -> Value {
    json!({ "text": format!("done shaky run {number}"), "count": 3 })
}

/// How long the last runs may take to come to their end when nothing is submitted any more.
pub(super) fn patience(crowd: Option<&Crowd>) -> Duration {
    let crowded = crowd.map(|crowd| {
        // Every second run stands in the line of one model, which a single node can have to itself.
        crowd.longest_rest + Duration::from_secs(crowd.in_flight as u64 / u64::from(crowd.queue_per_second.max(1)))
    });
    super::FINISH + crowded.unwrap_or_default()
}
