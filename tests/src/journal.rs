//! What a data folder holds, read straight from the store while no node runs on it.
//!
//! Never writes. Used by the suites that check what was promised.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use motet_engine::event::Event;
use motet_engine::id::{Name, Namespace, RunId};
use motet_engine::time::Timestamp;
use motet_store::codec::decode_journal;
use motet_store::port::{HeadState, RunQuery, Store};
use motet_store::sqlite::SqliteStore;

/// Rows of one page.
const PAGE: u32 = 1_000;

/// One run as the store holds it.
#[derive(Debug, Clone)]
pub struct Kept {
    /// State of its head row.
    pub state: HeadState,
    /// Its events in order.
    pub events: Vec<Event>,
    /// Times of its entries after the first one, in order: those that only the owners of its shard write.
    pub written: Vec<Timestamp>,
}

/// One run with the times of its events.
#[derive(Debug, Clone)]
pub struct Timed {
    /// State of its head row.
    pub state: HeadState,
    /// Its events in order, each with the time of its entry.
    pub events: Vec<(Timestamp, Event)>,
}

/// Reads every run of one workflow in a folder.
///
/// # Errors
/// As [`read`].
pub async fn read_timed(folder: &Path, workflow: &str) -> Result<Vec<Timed>> {
    let store = SqliteStore::open(folder).await?;
    let timed = read_timed_store(&store, workflow).await?;
    store.close().await?;
    Ok(timed)
}

/// Reads every run of one workflow in a store.
///
/// # Errors
/// As [`read_store`].
pub async fn read_timed_store(store: &dyn Store, workflow: &str) -> Result<Vec<Timed>> {
    let mut timed = vec![];
    let mut query = RunQuery { workflow: Some(Name::new(workflow)?), ..all_runs() };
    loop {
        let page = store.list(&query).await?;
        let Some(last) = page.last() else { break };
        query.before = Some(last.run);
        for head in page {
            timed.push(Timed { state: head.state, events: events_of(store, head.run).await?.1 });
        }
    }
    Ok(timed)
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
            let (written, events) = events_of(store, head.run).await?;
            let events = events.into_iter().map(|(_, event)| event).collect();
            kept.insert(head.run.to_string(), Kept { state: head.state, events, written });
        }
    }
    store.close().await?;
    Ok(kept)
}

fn all_runs() -> RunQuery {
    RunQuery::newest(Namespace::default(), PAGE)
}

/// The times of the entries after the first one, and the events with the times of their entries.
async fn events_of(store: &dyn Store, run: RunId) -> Result<(Vec<Timestamp>, Vec<(Timestamp, Event)>)> {
    let stored = store.load(run, true).await?.with_context(|| format!("{run} has a head and nothing else"))?;
    let written = stored.entries.iter().skip(1).map(|entry| entry.at).collect();
    let mut events = vec![];
    for entry in stored.entries {
        let next = events.len() as u64 + 1;
        ensure!(entry.seq.0 == next, "{run}: event {next} should come, {} came", entry.seq);
        let decoded: Vec<Event> = decode_journal(&entry.payload)?;
        ensure!(decoded.len() == entry.count as usize, "{run}: an entry of {} counts {}", decoded.len(), entry.count);
        events.extend(decoded.into_iter().map(|event| (entry.at, event)));
    }
    ensure!(!events.is_empty(), "{run} has no event");
    Ok((written, events))
}
