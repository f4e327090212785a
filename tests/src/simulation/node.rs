//! One boot of a simulated node: real drivers over the gated store, and around them what run actors, recovery and
//! timers do in a process.
//!
//! No thread, no executor, no real time: every operation is a future that the world polls after it has settled a
//! request of the store. Dropping the node is its crash. Used by the world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use motet_actors::catalog::Catalog;
use motet_actors::driver::{DriverError, DriverParts, NewRun, RunDriver};
use motet_actors::ports::Clock as _;
use motet_engine::command::{Command, Work};
use motet_engine::event::Event;
use motet_engine::id::{CallId, Epoch, RunId, ShardId};
use motet_engine::input::Input;
use motet_engine::run::Run;
use motet_store::port::{Admitted, IdempotencyKey, Store};
use motet_store::{ErrorClass, StoreError};

use super::clock::VirtualClock;
use super::disk::{Boot, Disk};
use super::store::GatedStore;

/// A run that wants to be woken later than this gives up its place and waits as a row.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// Longest time of a call whose step names no timeout.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs that one look at the store takes.
const BATCH: u32 = 64;

/// What a node does to the world.
pub(super) enum Effect {
    /// It sends a call, which must be answered within this many milliseconds.
    Send { run: RunId, call: CallId, work: Work, timeout: i64 },
    /// It answers a submission.
    Answer { submission: usize, answer: Result<Admitted, String>, run: RunId },
    /// It has handled an input, after which the run stands like this.
    Stands(Box<Run>),
    /// It sends a call that the same driver has sent before.
    SendsAgain(RunId, CallId),
    /// It answers that a run was cancelled.
    Cancelled(RunId),
    /// It says what happened.
    Note(String),
}

/// What an operation came to.
enum Done {
    Handled { run: RunId, driver: Box<RunDriver>, input: Input, result: Result<(), DriverError> },
    Recovered { run: RunId, result: Result<Box<RunDriver>, DriverError> },
    Parked(RunId),
    Admitted { submission: usize, run: RunId, result: Result<(Admitted, Box<RunDriver>), DriverError> },
    Claimed { shard: ShardId, result: Result<Epoch, StoreError> },
    Unfinished(Result<Vec<RunId>, StoreError>),
    Due(Result<Vec<RunId>, StoreError>),
}

/// A run that lives on the node.
#[derive(Default)]
struct Live {
    /// None while an operation has it.
    driver: Option<Box<RunDriver>>,
    inbox: VecDeque<Input>,
    /// When it is to be woken, as timers count.
    alarm: Option<i64>,
    /// What this driver has sent.
    sent: BTreeSet<CallId>,
}

/// One boot of a node.
pub(super) struct Node {
    pub(super) boot: Boot,
    clock: Arc<VirtualClock>,
    parts: DriverParts,
    epochs: BTreeMap<ShardId, Epoch>,
    live: BTreeMap<RunId, Live>,
    under_way: Vec<BoxFuture<'static, Done>>,
    effects: Vec<Effect>,
}

impl Node {
    pub(super) fn boot(boot: Boot, disk: &Arc<Disk>, clock: &Arc<VirtualClock>) -> Self {
        let store: Arc<dyn Store> = Arc::new(GatedStore { disk: Arc::clone(disk), by: boot });
        let catalog = Arc::new(Catalog::new(Arc::clone(&store), Arc::clone(clock) as _));
        let parts = DriverParts { store, catalog, clock: Arc::clone(clock) as _ };
        Self {
            boot,
            clock: Arc::clone(clock),
            parts,
            epochs: BTreeMap::new(),
            live: BTreeMap::new(),
            under_way: vec![],
            effects: vec![],
        }
    }

    /// The shards that the node believes to own.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.epochs.keys().copied().collect()
    }

    /// The epoch under which the node believes to own a shard.
    pub(super) fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        self.epochs.get(&shard).copied()
    }

    /// The runs whose drivers rest between two inputs, as they stand.
    pub(super) fn resting(&self) -> impl Iterator<Item = &Run> {
        self.live.values().filter_map(|live| Some(live.driver.as_ref()?.run()))
    }

    pub(super) fn is_live(&self, run: RunId) -> bool {
        self.live.contains_key(&run)
    }

    pub(super) fn next_alarm(&self) -> Option<i64> {
        self.live.values().filter_map(|live| live.alarm).min()
    }

    pub(super) fn claim(&mut self, shard: ShardId) {
        let parts = self.parts.clone();
        self.begin(async move { Done::Claimed { shard, result: parts.store.claim(shard, "simulated").await } });
    }

    /// Looks for the runs of a shard that nobody works on, as recovery does.
    pub(super) fn sweep(&mut self, shard: ShardId) {
        let parts = self.parts.clone();
        self.begin(async move { Done::Unfinished(parts.store.unfinished(shard, None, BATCH).await) });
    }

    /// Looks for the runs of a shard whose time has come, as the timers do.
    pub(super) fn look(&mut self, shard: ShardId) {
        let (parts, now) = (self.parts.clone(), self.clock.now());
        self.begin(async move { Done::Due(parts.store.due(shard, now, BATCH).await) });
    }

    /// Admits a run as the router does.
    pub(super) fn admit(&mut self, submission: usize, run: Run, events: Vec<Event>, key: Option<IdempotencyKey>) {
        let (parts, id) = (self.parts.clone(), run.id());
        let Some(epoch) = self.epoch(id.shard()) else { return };
        self.begin(async move {
            let result = async {
                let new = NewRun::prepare(&parts, run, events, key, false).await?;
                let (admitted, driver) = new.admit(&parts, epoch).await?;
                Ok((admitted, Box::new(driver)))
            };
            Done::Admitted { submission, run: id, result: result.await }
        });
    }

    /// Delivers an input, bringing the run up when it waits as a row.
    pub(super) fn deliver(&mut self, run: RunId, input: Input) {
        if self.live.contains_key(&run) || self.bring_up(run) {
            self.live.entry(run).or_default().inbox.push_back(input);
            self.go(run);
        }
    }

    /// Wakes the live runs whose alarm is due.
    pub(super) fn ring(&mut self) {
        let passed = self.clock.passed();
        let due = |live: &Live| live.alarm.is_some_and(|at| at <= passed);
        let runs: Vec<_> = self.live.iter().filter(|(_, live)| due(live)).map(|(run, _)| *run).collect();
        for run in runs {
            self.live.entry(run).or_default().alarm = None;
            self.deliver(run, Input::Woken);
        }
    }

    /// Carries every operation as far as it goes and says what that does to the world.
    pub(super) fn poll(&mut self) -> Vec<Effect> {
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        loop {
            let mut done = vec![];
            self.under_way.retain_mut(|operation| match operation.poll_unpin(&mut context) {
                Poll::Ready(outcome) => {
                    done.push(outcome);
                    false
                }
                Poll::Pending => true,
            });
            if done.is_empty() {
                return std::mem::take(&mut self.effects);
            }
            done.into_iter().for_each(|outcome| self.take(outcome));
        }
    }

    fn begin(&mut self, operation: impl Future<Output = Done> + Send + 'static) {
        self.under_way.push(operation.boxed());
    }

    fn take(&mut self, outcome: Done) {
        match outcome {
            Done::Handled { run, driver, input, result } => self.handled(run, driver, &input, result),
            Done::Recovered { run, result: Ok(driver) } if driver.run().phase().is_end() => {
                self.live.remove(&run);
            }
            Done::Recovered { run, result: Ok(driver) } => {
                self.live.entry(run).or_default().driver = Some(driver);
                self.go_on(run);
            }
            Done::Recovered { run, result: Err(error) } => {
                self.live.remove(&run);
                self.note(format!("{run} is not brought up: {error}"));
            }
            Done::Parked(run) => {
                let inbox = self.live.remove(&run).map(|live| live.inbox).unwrap_or_default();
                inbox.into_iter().for_each(|input| self.deliver(run, input));
            }
            Done::Admitted { submission, run, result } => {
                let answer = match result {
                    Ok((admitted, driver)) => {
                        if admitted == Admitted::New && !driver.run().phase().is_end() {
                            self.live.insert(run, Live { driver: Some(driver), ..Live::default() });
                        }
                        Ok(admitted)
                    }
                    Err(error) => Err(error.to_string()),
                };
                // The answer may be sent before the run's first calls, and after; here it is the first.
                self.effects.push(Effect::Answer { submission, answer, run });
                self.go_on(run);
            }
            Done::Claimed { shard, result: Ok(epoch) } => {
                self.epochs.insert(shard, epoch);
                self.sweep(shard);
            }
            Done::Claimed { shard, result: Err(error) } => self.note(format!("shard {shard} is not claimed: {error}")),
            Done::Unfinished(Ok(runs)) => {
                for run in runs {
                    if !self.live.contains_key(&run) {
                        self.bring_up(run);
                    }
                }
            }
            Done::Due(Ok(runs)) => runs.into_iter().for_each(|run| self.deliver(run, Input::Woken)),
            Done::Unfinished(Err(error)) | Done::Due(Err(error)) => self.note(format!("no look at the store: {error}")),
        }
    }

    fn handled(&mut self, run: RunId, driver: Box<RunDriver>, input: &Input, result: Result<(), DriverError>) {
        match result {
            Ok(()) => {
                if matches!(input, Input::Cancel { .. }) {
                    self.effects.push(Effect::Cancelled(run));
                }
                self.effects.push(Effect::Stands(Box::new(driver.run().clone())));
                self.live.entry(run).or_default().driver = Some(driver);
                self.go_on(run);
            }
            Err(DriverError::Rejected(rejection)) => {
                self.note(format!("{run} rejects: {rejection}"));
                self.live.entry(run).or_default().driver = Some(driver);
                self.settle(run);
            }
            Err(DriverError::Store(error)) if error.class() == ErrorClass::Fenced => {
                self.live.remove(&run);
                // It takes nothing more from this shard; what lives of it already goes on as a zombie.
                if matches!(&error, StoreError::Fenced { carried, .. } if self.epoch(run.shard()) == Some(*carried)) {
                    self.epochs.remove(&run.shard());
                }
                self.note(format!("{run} is fenced: {error}"));
            }
            Err(error) => {
                self.note(format!("{run} is brought up again: {error}"));
                self.live.remove(&run);
                self.bring_up(run);
            }
        }
    }

    /// Starts to bring a run up; false when its shard is not this node's.
    fn bring_up(&mut self, run: RunId) -> bool {
        let Some(epoch) = self.epoch(run.shard()) else { return false };
        self.live.insert(run, Live::default());
        let parts = self.parts.clone();
        self.begin(async move {
            Done::Recovered { run, result: RunDriver::recover(&parts, run, epoch).await.map(Box::new) }
        });
        true
    }

    /// Sends what is owed, then looks at what comes next.
    fn go_on(&mut self, run: RunId) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let Some(driver) = &mut live.driver else { return };
        if driver.run().phase().is_end() {
            self.live.remove(&run);
            return;
        }
        // Nobody stands before it: every line has one run.
        if driver.run().state().in_line && !live.inbox.contains(&Input::LineReached) {
            live.inbox.push_front(Input::LineReached);
        }
        for command in driver.take_unsent() {
            if let Command::Call { id, work, timeout } = command {
                if !live.sent.insert(id) {
                    self.effects.push(Effect::SendsAgain(run, id));
                }
                let timeout = i64::try_from(timeout.unwrap_or(CALL_TIMEOUT).as_millis()).unwrap();
                self.effects.push(Effect::Send { run, call: id, work, timeout });
            }
        }
        self.settle(run);
    }

    /// Sets the alarm, or leaves when the run only waits.
    fn settle(&mut self, run: RunId) {
        let now = self.clock.now();
        let Some(live) = self.live.get_mut(&run) else { return };
        let Some(driver) = &live.driver else { return };
        let (wake, owed) = (driver.run().next_wake(), driver.run().calls_owed());
        live.alarm = wake.map(|at| self.clock.passed_at(at) + 1);
        let waits = wake.is_none_or(|at| at.since(now) > PARK_AFTER);
        if live.inbox.is_empty() && owed == 0 && waits {
            if let Some(mut driver) = live.driver.take() {
                self.begin(async move {
                    driver.save_snapshot().await;
                    Done::Parked(run)
                });
            }
        } else {
            self.go(run);
        }
    }

    /// Hands the next input to a driver that rests.
    fn go(&mut self, run: RunId) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.driver.is_none() {
            return;
        }
        let Some(input) = live.inbox.pop_front() else { return };
        if let Some(mut driver) = live.driver.take() {
            self.begin(async move {
                let result = driver.handle(&input).await;
                Done::Handled { run, driver, input, result }
            });
        }
    }

    fn note(&mut self, what: String) {
        self.effects.push(Effect::Note(what));
    }
}
