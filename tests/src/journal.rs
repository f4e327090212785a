//! What a data folder holds, read straight from the store while no node runs on it.
//!
//! Never writes runs except in [`fill`], which makes a past for tests of cold starts. Used by the suites that check
//! what was promised.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use futures::stream;
use motet_engine::access::Principal;
use motet_engine::event::{Event, Submission};
use motet_engine::id::{CallId, Epoch, Name, Namespace, RunId, Seq, ShardId, StepIndex};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;
use motet_store::codec::{decode_journal, encode_journal};
use motet_store::port::{Admission, Append, Entry, HeadChange, HeadState, RunQuery, RunStore, ShardStore, Store};
use motet_store::sqlite::SqliteStore;

/// Rows of one page.
const PAGE: u32 = 1_000;

/// Writes under way at one time while a past is made.
const IN_FLIGHT: usize = 512;

/// One run as the store holds it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// State of its head row.
    pub state: HeadState,
    /// Its events in order.
    pub events: Vec<Event>,
}

/// Reads every run of a folder and checks that its events are numbered 1, 2, 3 and so on.
///
/// # Errors
/// When the folder cannot be opened, its file is not sound, an entry cannot be read, or a number is missing or there twice.
pub async fn read(folder: &Path) -> Result<BTreeMap<String, Kept>> {
    let store = SqliteStore::open(folder).await?;
    store.verify().await?;
    read_store(&store).await
}

/// Reads every run of a store, checks that its events are numbered 1, 2, 3 and so on, and closes the store.
///
/// # Errors
/// When an entry cannot be read, or a number is missing or there twice.
pub async fn read_store(store: &dyn Store) -> Result<BTreeMap<String, Kept>> {
    let mut kept = BTreeMap::new();
    let mut query = all_runs();
    loop {
        let page = store.list(&query).await?;
        let Some(last) = page.last() else { break };
        query.before = Some(last.run);
        for head in page {
            let events = events_of(store, head.run).await?;
            kept.insert(head.run.to_string(), Kept { state: head.state, events });
        }
    }
    store.close().await?;
    Ok(kept)
}

fn all_runs() -> RunQuery {
    RunQuery {
        namespace: Namespace::default(),
        workflow: None,
        states: vec![],
        tag: None,
        created_from: None,
        created_before: None,
        before: None,
        limit: PAGE,
    }
}

async fn events_of(store: &dyn Store, run: RunId) -> Result<Vec<Event>> {
    let stored = store.load(run, true).await?.with_context(|| format!("{run} has a head and nothing else"))?;
    let mut events = vec![];
    for entry in stored.entries {
        let next = events.len() as u64 + 1;
        ensure!(entry.seq.0 == next, "{run}: event {next} should come, {} came", entry.seq);
        let decoded: Vec<Event> = decode_journal(&entry.payload)?;
        ensure!(decoded.len() == entry.count as usize, "{run}: an entry of {} counts {}", decoded.len(), entry.count);
        events.extend(decoded);
    }
    ensure!(!events.is_empty(), "{run} has no event");
    Ok(events)
}

/// Fills a folder with finished runs of the last hour, each with two entries of a few hundred bytes.
///
/// # Errors
/// When the store refuses a write.
pub async fn fill(folder: &Path, runs: u64, shards: u16) -> Result<()> {
    let store = SqliteStore::open(folder).await?;
    let mut epochs = vec![];
    for shard in (0..shards).map(ShardId) {
        epochs.push(store.claim(shard, "past").await?);
    }
    let (store_ref, epochs) = (&store, &epochs);
    let first_at = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())? - 3_600_000;
    let numbers = stream::iter((0..runs).map(anyhow::Ok));
    numbers.try_for_each_concurrent(IN_FLIGHT, |number| finished_run(store_ref, epochs, number, first_at)).await?;
    store.close().await?;
    Ok(())
}

async fn finished_run(store: &SqliteStore, epochs: &[Epoch], number: u64, first_at: i64) -> Result<()> {
    let at = Timestamp::from_millis(first_at + i64::try_from(number)?);
    let place = usize::try_from(number)? % epochs.len();
    let run = RunId::new(at, ShardId(u16::try_from(place)?), number);
    let (workflow, version) = (Name::new("past")?, "1".to_owned());
    let submission = Submission {
        namespace: Namespace::default(),
        principal: Principal::System,
        workflow: workflow.clone(),
        version: version.clone(),
        input: Value::from(serde_json::json!({ "text": "a run of long ago", "number": number })),
        tags: vec![],
        priority: 0,
        trace: TraceContext::start(u128::from(number) + 1, number + 1),
        at,
    };
    let call = CallId { step: StepIndex(0), item: 0, attempt: 1 };
    let with = Value::from(serde_json::json!({ "text": "what the model was asked" }));
    let begun = [Event::Submitted(submission.into()), Event::CallScheduled { call, with }];
    let output = Value::from(serde_json::json!({ "text": "what the model answered, at some length ".repeat(3) }));
    let ended = [
        Event::StepSucceeded { step: StepIndex(0), output: Some(output), fallback: false },
        Event::RunSucceeded { output: None },
    ];
    let admission = Admission {
        run,
        namespace: Namespace::default(),
        workflow,
        version,
        tags: vec![],
        entry: Entry { seq: Seq(1), count: 2, at, payload: encode_journal(&begun)? },
        head: HeadChange { state: HeadState::Running, wake_at: None },
        idempotency: None,
    };
    store.admit(admission).await?;
    let entry = Entry { seq: Seq(3), count: 2, at, payload: encode_journal(&ended)? };
    let head = Some(HeadChange { state: HeadState::Succeeded, wake_at: None });
    store.append(Append { run, epoch: epochs[place], incarnation: None, entry, head, outbox: vec![] }).await?;
    Ok(())
}
