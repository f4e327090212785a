//! Makes a past: fills a store with runs that were never run, for tests and benches of what a node does with many.
//!
//! Writes through the store's own port while no node runs on it. Used by the tests and benches of cold starts, parked
//! runs and timers.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures::{TryStreamExt, stream};
use motet_engine::access::Principal;
use motet_engine::event::{Event, Submission};
use motet_engine::id::{CallId, Epoch, Name, Namespace, RunId, Seq, ShardId, StepIndex};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use motet_store::codec::encode_journal;
use motet_store::port::{Admission, Append, Entry, HeadChange, HeadState, Store};
use motet_store::sqlite::SqliteStore;

/// Writes under way at one time.
const IN_FLIGHT: usize = 512;

/// The workflow of runs that sleep; put it before a node meets them.
pub const SLEEPER: &str = r#"
kind: Workflow
name: sleeper
version: "1"
steps:
  nap: {call: wait, with: {until: "${ input.until }"}}
output: {woken: true}
"#;

/// What all runs of a past have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// They have ended: two entries of a few hundred bytes.
    Finished,
    /// They wait as rows until this time.
    Asleep(Timestamp),
}

/// Fills the SQLite store of a data folder, as [`fill`] does.
///
/// # Errors
/// When the folder cannot be opened or the store refuses a write.
pub async fn fill_folder(folder: &Path, runs: u64, shards: u16, past: Past) -> Result<()> {
    let store = SqliteStore::open(folder).await?;
    fill(&store, runs, shards, past).await?;
    store.close().await?;
    Ok(())
}

/// Fills a store with runs of the last hour.
///
/// # Errors
/// When the store refuses a write.
pub async fn fill(store: &dyn Store, runs: u64, shards: u16, past: Past) -> Result<()> {
    let mut epochs = vec![];
    // Runs that sleep were only admitted, which needs no shard.
    for shard in (0..shards).map(ShardId).filter(|_| past == Past::Finished) {
        epochs.push(store.claim(shard, "past").await?);
    }
    let epochs = &epochs;
    let first_at = now()?.as_millis() - 3_600_000;
    let numbers = stream::iter((0..runs).map(anyhow::Ok));
    numbers
        .try_for_each_concurrent(IN_FLIGHT, |number| async move {
            let at = Timestamp::from_millis(first_at + i64::try_from(number % 3_600_000)?);
            match past {
                Past::Finished => finished_run(store, epochs, number, at).await,
                Past::Asleep(until) => sleeping_run(store, shards, number, at, until).await,
            }
        })
        .await
}

/// The time of day.
///
/// # Errors
/// When the clock stands before 1970.
pub fn now() -> Result<Timestamp> {
    Ok(Timestamp::from_millis(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?))
}

async fn finished_run(store: &dyn Store, epochs: &[Epoch], number: u64, at: Timestamp) -> Result<()> {
    let place = usize::try_from(number)? % epochs.len();
    let run = RunId::new(at, ShardId(u16::try_from(place)?), number);
    let input = serde_json::json!({ "text": "a run of long ago", "number": number });
    let call = CallId { step: StepIndex(0), item: 0, attempt: 1 };
    let with = Value::from(serde_json::json!({ "text": "what the model was asked" }));
    let begun = Event::CallScheduled { call, with };
    let output = Value::from(serde_json::json!({ "text": "what the model answered, at some length ".repeat(3) }));
    let ended = [
        Event::StepSucceeded { step: StepIndex(0), output: Some(output), fallback: false },
        Event::RunSucceeded { output: None },
    ];
    let head = HeadChange { state: HeadState::Running, wake_at: None, leaves_line: false };
    store.admit(admission(run, "past", number, at, input, begun, head)?).await?;
    let entry = Entry { seq: Seq(3), count: 2, at, payload: encode_journal(&ended)? };
    let head = Some(HeadChange { state: HeadState::Succeeded, wake_at: None, leaves_line: false });
    store.append(Append { run, epoch: epochs[place], incarnation: None, entry, head, outbox: vec![] }).await?;
    Ok(())
}

async fn sleeping_run(store: &dyn Store, shards: u16, number: u64, at: Timestamp, until: Timestamp) -> Result<()> {
    let run = RunId::new(at, ShardId(u16::try_from(number % u64::from(shards))?), number);
    let text = until.to_rfc3339().context("a time that has no text")?;
    let call = CallId { step: StepIndex(0), item: 0, attempt: 1 };
    let with = Value::from(serde_json::json!({ "until": text }));
    let asleep = Event::WaitBegan { call, with, until: Some(until) };
    let head = HeadChange { state: HeadState::Waiting, wake_at: Some(until), leaves_line: false };
    store.admit(admission(run, "sleeper", number, at, serde_json::json!({ "until": text }), asleep, head)?).await?;
    Ok(())
}

fn admission(
    run: RunId,
    workflow: &str,
    number: u64,
    at: Timestamp,
    input: serde_json::Value,
    second: Event,
    head: HeadChange,
) -> Result<Admission> {
    let (workflow, version) = (Name::new(workflow)?, "1".to_owned());
    let submission = Submission {
        namespace: Namespace::default(),
        principal: Principal::System,
        workflow: workflow.clone(),
        version: version.clone(),
        input: Value::from(input),
        tags: vec![],
        priority: 0,
        trace: TraceContext::start(u128::from(number) + 1, number + 1),
        at,
        source: None,
    };
    let events = [Event::Submitted(submission.into()), second];
    Ok(Admission {
        run,
        namespace: Namespace::default(),
        workflow,
        version,
        tags: vec![],
        entry: Entry { seq: Seq(1), count: 2, at, payload: encode_journal(&events)? },
        head,
        idempotency: None,
        outbox: vec![],
        line: None,
    })
}
