//! Begins the runs of schedules when their times have come.
//!
//! Which times those are is the engine's rule. Nothing of its own is stored: the newest run that a schedule began says
//! how far it has come, so the position and the run are durable in one commit. A run's id and idempotency key follow
//! from schedule and time, so that neither a crash nor a second node begins one twice. Spawned by the node, one for
//! all schedules of its shards.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use motet_engine::definition::ScheduleDefinition;
use motet_engine::id::{Name, Namespace, RunId, ShardId};
use motet_engine::schedule::{Due, LastRun, run_id};
use motet_engine::time::Timestamp;
use motet_store::StoreError;
use motet_store::port::{IdempotencyKey, RunQuery};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::catalog::{CatalogError, StoredSchedule};
use crate::driver::DriverError;
use crate::router::{Router, SubmitError, SubmitRequest, system_caller};
use crate::schedules::Schedules;

/// It reads the definitions at least this often, whatever it was told: another node may have changed them.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// After a failure of the store it waits this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Schedules whose runs are begun at the same time.
const TOGETHER: usize = 32;

/// Runs looked through for the newest that a schedule began; others may carry its label too, as forks do.
const NEWEST: u32 = 100;

/// How much longer than a time can be missed its key is kept.
const KEY_LIFE: Duration = Duration::from_secs(48 * 3600);

/// The actor.
pub(crate) struct Scheduler {
    pub(crate) router: Weak<Router>,
}

/// It tells itself to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// A time may have come.
    Times,
    /// The definitions may have changed.
    Definitions,
}

type Key = (Namespace, Name);

/// How far a schedule has come.
#[derive(Debug)]
struct Known {
    revision: String,
    /// Times up to this one are settled.
    position: Timestamp,
    last: Option<(RunId, LastRun)>,
}

/// What the actor remembers.
pub(crate) struct Watched {
    /// Since when it looks.
    since: Timestamp,
    /// The schedules, and when they were read.
    stored: Vec<StoredSchedule>,
    read: tokio::time::Instant,
    known: BTreeMap<Key, Known>,
}

impl Actor for Scheduler {
    type Msg = Look;
    type State = Watched;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Look>, (): ()) -> Result<Watched, ActorProcessingErr> {
        let router = self.router.upgrade().ok_or("the node has stopped")?;
        myself.cast(Look::Definitions)?;
        let (since, read) = (router.now(), tokio::time::Instant::now());
        Ok(Watched { since, stored: vec![], read, known: BTreeMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Look>,
        what: Look,
        watched: &mut Watched,
    ) -> Result<(), ActorProcessingErr> {
        let Some(router) = self.router.upgrade() else { return Ok(()) };
        let sleep = match look(&router, watched, what).await {
            Ok(next) => {
                let now = router.now();
                next.map_or(LONGEST_SLEEP, |at| at.since(now) + Duration::from_millis(1)).min(LONGEST_SLEEP)
            }
            Err(error) => {
                tracing::warn!(%error, "schedules cannot be read; trying again");
                AFTER_FAILURE
            }
        };
        let schedules: Arc<Schedules> = Arc::clone(router.schedules());
        tokio::spawn(async move {
            let next = tokio::select! {
                () = tokio::time::sleep(sleep) => Look::Times,
                () = schedules.change() => Look::Definitions,
            };
            let _ = myself.cast(next);
        });
        Ok(())
    }
}

/// Begins what is due and says when to look again.
async fn look(router: &Arc<Router>, watched: &mut Watched, what: Look) -> Result<Option<Timestamp>, StoreError> {
    if what == Look::Definitions || watched.read.elapsed() >= LONGEST_SLEEP {
        watched.stored = router.catalog().schedules().await?;
        watched.read = tokio::time::Instant::now();
    }
    let mut before = std::mem::take(&mut watched.known);
    let since = watched.since;
    let mut own = watched.stored.clone();
    own.retain(|schedule| is_own(router, schedule));
    let looks = own.into_iter().map(|schedule| {
        let key = (schedule.namespace.clone(), schedule.definition.name.clone());
        let known = before.remove(&key);
        async move {
            let settled = settle(router, &schedule, known, since).await;
            (key, settled)
        }
    });
    let settled: Vec<_> = futures::stream::iter(looks).buffer_unordered(TOGETHER).collect().await;
    let mut next: Option<Timestamp> = None;
    for (key, settled) in settled {
        let (known, wanted) = match settled {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(schedule = %key.1, %error, "a schedule cannot be looked at; trying again");
                next = next.into_iter().chain([router.now().after(AFTER_FAILURE)]).min();
                continue;
            }
        };
        next = next.into_iter().chain(wanted).min();
        watched.known.insert(key, known);
    }
    router.schedules().keep_only(|key| watched.known.contains_key(key));
    Ok(next)
}

/// Whether this node looks after a schedule: whoever serves its shard does.
fn is_own(router: &Router, stored: &StoredSchedule) -> bool {
    let names = [stored.namespace.0.as_str().as_bytes(), stored.definition.name.as_str().as_bytes()];
    router.runs().epoch(ShardId::of(&names, router.runs().shards())).is_some()
}

/// Begins the runs of one schedule that are due; how far it has come then, and when to look again.
async fn settle(
    router: &Arc<Router>,
    stored: &StoredSchedule,
    known: Option<Known>,
    since: Timestamp,
) -> Result<(Known, Option<Timestamp>), StoreError> {
    let key = (stored.namespace.clone(), stored.definition.name.clone());
    let mut known = match known.filter(|known| known.revision == stored.revision) {
        Some(known) => known,
        None => {
            let last = newest(router, stored).await?;
            Known { revision: stored.revision.clone(), position: stored.since, last }
        }
    };
    loop {
        refresh(router, &mut known).await?;
        let last = known.last.map(|(_, last)| last);
        let Due { begin, next } = stored.definition.due(known.position, last, since, router.now());
        router.schedules().note(&key, |figures| {
            figures.next_at = stored.definition.next_after(router.now()).filter(|_| !stored.definition.paused);
            figures.last_at = last.map(|last| last.at);
            figures.last_run = known.last.map(|(run, _)| run);
        });
        if begin.is_empty() {
            return Ok((known, next));
        }
        for at in begin {
            match begin_run(router, stored, at).await {
                Ok(run) => {
                    metrics::counter!("motet_schedule_runs_total").increment(1);
                    let began = router.now();
                    known.last = Some((run, LastRun { at, began, ended: None }));
                    router.schedules().note(&key, |figures| {
                        figures.begun += 1;
                        figures.last_error = None;
                    });
                }
                Err(error) => {
                    tracing::warn!(schedule = %key.1, at = at.as_millis(), %error, "a scheduled run was not begun");
                    router.schedules().note(&key, |figures| figures.last_error = Some(error.to_string()));
                    if passes(&error) {
                        return Ok((known, Some(router.now().after(AFTER_FAILURE))));
                    }
                }
            }
            known.position = known.position.max(at);
        }
    }
}

/// Whether the same may go well a little later.
fn passes(error: &SubmitError) -> bool {
    matches!(
        error,
        SubmitError::Full(_)
            | SubmitError::Stopping
            | SubmitError::Broken(_)
            | SubmitError::Driver(DriverError::Store(_))
            | SubmitError::Catalog(CatalogError::Store(_))
    )
}

/// Asks how the last run stands, unless it is known to have ended.
async fn refresh(router: &Router, known: &mut Known) -> Result<(), StoreError> {
    let Some((run, last)) = &mut known.last else { return Ok(()) };
    if last.ended.is_none() {
        match router.runs().parts().store.head(*run).await? {
            Some(head) => {
                last.began = head.created_at;
                last.ended = head.finished_at;
            }
            // It was forgotten, which only happens to runs that have ended.
            None => last.ended = Some(last.began),
        }
    }
    Ok(())
}

/// The newest run that the schedule began: its id carries the time that it began for.
async fn newest(router: &Router, stored: &StoredSchedule) -> Result<Option<(RunId, LastRun)>, StoreError> {
    let (namespace, name) = (&stored.namespace, &stored.definition.name);
    let query = RunQuery { tag: Some(label(name)), ..RunQuery::newest(namespace.clone(), NEWEST) };
    let heads = router.runs().parts().store.list(&query).await?;
    let shards = router.runs().shards();
    // On which shard a run lies, its workflow's limits may have decided.
    let own = |run: RunId| run.on(ShardId(0)) == run_id(namespace, name, run.created_at(), shards).on(ShardId(0));
    Ok(heads
        .into_iter()
        .find(|head| own(head.run))
        .map(|head| (head.run, LastRun { at: head.run.created_at(), began: head.created_at, ended: head.finished_at })))
}

/// The label that every run of a schedule carries.
fn label(schedule: &Name) -> String {
    format!("schedule:{schedule}")
}

async fn begin_run(router: &Arc<Router>, stored: &StoredSchedule, at: Timestamp) -> Result<RunId, SubmitError> {
    let schedule: &ScheduleDefinition = &stored.definition;
    let id = run_id(&stored.namespace, &schedule.name, at, router.runs().shards());
    let mut tags = vec![label(&schedule.name)];
    tags.extend(schedule.tags.iter().cloned());
    let request = SubmitRequest {
        workflow: schedule.workflow.clone(),
        version: schedule.version.clone(),
        input: schedule.input.clone(),
        tags,
        priority: schedule.priority,
        idempotency: Some(IdempotencyKey {
            key: format!("schedule:{}:{}", schedule.name, at.as_millis()),
            // Which content it had does not count: one time begins one run, also when the schedule was changed.
            fingerprint: [0; 32],
            expires_at: router.now().after(schedule.catch_up.window() + KEY_LIFE),
        }),
    };
    let mut caller = system_caller(stored.namespace.clone());
    caller.trace = router.new_trace();
    match router.begin_as(&caller, request, id, false).await {
        Ok(begun) => Ok(begun.submitted.run),
        Err(SubmitError::Driver(DriverError::Store(StoreError::SeqTaken { run, .. }))) if run.on(id.shard()) == id => {
            Ok(run)
        }
        Err(error) => Err(error),
    }
}
