//! The proof that records were taken as promised: every offset one run, order per key, every result there, no position
//! that went back.
//!
//! Reads the store and the topics themselves, never what a node says of them. Used by the rows that make faults.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use motet_engine::event::Event;
use motet_engine::time::Timestamp;
use motet_store::port::{HeadState, Store};
use motet_store::postgres::{PostgresOptions, PostgresStore};
use motet_tests::faults::postgres::PostgresServer;
use motet_tests::journal::read_timed_store;
use motet_tests::topics::{Topics, header};

use super::feed::Produced;

/// A watch inside the database: no position of a partition becomes less under the same generation, and none is jumped
/// to that is not known.
const WATCH: &str = "
create table went_back (topic text, part integer, before bigint, after bigint, epoch bigint, at timestamptz);
create function watch_position() returns trigger language plpgsql as $$
begin
    if new.next is null or new.next < old.next then
        insert into went_back values (new.topic, new.part, old.next, new.next, new.epoch, clock_timestamp());
    end if;
    return null;
end $$;
create trigger watch_position after update on ingest_partition for each row
    when (old.next is not null) execute function watch_position();";

/// Begins to watch positions.
pub(super) fn watch_positions(server: &PostgresServer) -> Result<()> {
    server.query("watch", WATCH).map(drop)
}

/// No position went back, and the watch would have noticed.
pub(super) fn positions_only_rose(server: &PostgresServer) -> Result<()> {
    let back = server.query("watch", "select * from went_back limit 20")?;
    ensure!(back.is_empty(), "positions went back:\n{back}");
    let forged = "begin; update ingest_partition set next = 0; select count(*) > 0 from went_back; rollback;";
    ensure!(server.query("watch", forged)?.contains('t'), "the watch does not see a position that goes back");
    Ok(())
}

/// A run as far as the proof needs it.
struct Taken {
    place: (i32, i64),
    /// When it began to be worked on, and when it ended.
    worked: (Timestamp, Timestamp),
}

/// Every record became exactly one run, which succeeded; within a key none began before the one before had ended.
pub(super) async fn every_offset_is_one_run(
    server: &PostgresServer,
    workflow: &str,
    produced: &Produced,
) -> Result<()> {
    let store = PostgresStore::open(PostgresOptions::from_url(&server.url(server.address()))?).await?;
    let mut taken = vec![];
    for run in read_timed_store(&*store, workflow).await? {
        let Some((_, Event::Submitted(submission))) = run.events.first() else {
            anyhow::bail!("{run:?} has no beginning")
        };
        let source = submission.source.as_ref().context("a run that no record began")?;
        let place = (source.partition, source.offset);
        ensure!(run.state == HeadState::Succeeded, "the run of {place:?} is {:?}: {:?}", run.state, run.events);
        let reached = run.events.iter().find(|(_, event)| matches!(event, Event::LineReached));
        let began = reached.or_else(|| run.events.get(1)).context("no second event")?.0;
        let ended = run.events.last().context("no event")?.0;
        taken.push(Taken { place, worked: (began, ended) });
    }
    store.close().await?;
    let places: BTreeSet<_> = taken.iter().map(|taken| taken.place).collect();
    let missing: Vec<_> = produced.keys().filter(|place| !places.contains(*place)).take(20).collect();
    ensure!(
        missing.is_empty(),
        "{} of {} records are no runs: {missing:?}",
        produced.len() - places.len(),
        produced.len()
    );
    ensure!(taken.len() == produced.len(), "{} runs of {} records", taken.len(), produced.len());

    let mut keys = BTreeMap::<usize, Vec<&Taken>>::new();
    for taken in &taken {
        let (key, _) = produced.get(&taken.place).with_context(|| format!("nobody produced {:?}", taken.place))?;
        keys.entry(*key).or_default().push(taken);
    }
    for (key, mut runs) in keys {
        runs.sort_by_key(|taken| taken.place);
        for pair in runs.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            ensure!(
                before.worked.1 <= after.worked.0,
                "key {key}: offset {} began before {} had ended",
                after.place.1,
                before.place.1
            );
        }
    }
    Ok(())
}

/// Every run's result is in the topic, in order within each key; how many came again. With `once` none may.
pub(super) async fn every_result_is_there(
    topics: &Topics,
    topic: &str,
    partitions: i32,
    produced: &Produced,
    once: bool,
) -> Result<usize> {
    let (mut seen, mut again) = (BTreeMap::<String, (usize, usize)>::new(), 0);
    let mut last = BTreeMap::<usize, usize>::new();
    for record in topics.content(topic, partitions).await?.into_values().flatten() {
        let text = std::str::from_utf8(record.value.as_deref().context("no value")?)?;
        let (key, number) = text.split_once('/').context("no result of ours")?;
        let what = (key.parse::<usize>()?, number.parse::<usize>()?);
        let event = header(&record, "ce_id")?;
        if let Some(known) = seen.insert(event.clone(), what) {
            ensure!(known == what, "the event {event} is {known:?} and {what:?}");
            again += 1;
            continue;
        }
        // What comes again may come late; what comes first must come in order.
        let next = last.entry(what.0).or_default();
        ensure!(*next == what.1, "key {}: result {} came where {next} was due", what.0, what.1);
        *next += 1;
    }
    ensure!(seen.len() == produced.len(), "{} results of {} records", seen.len(), produced.len());
    ensure!(!once || again == 0, "{again} results came twice");
    Ok(again)
}
