//! The mailbox around one live run: takes inputs one after another, sends what is owed, tells who watches.
//!
//! Holds no rules; those are in the engine, and the order of durability is the driver's. Leaves the node when the run
//! has ended or only waits. Spawned by `runs`, supervised by its supervisor.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use motet_engine::access::{Caller, Principal};
use motet_engine::command::{Command, Work};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, Name, NameError, RunId, Seq};
use motet_engine::input::Input;
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use motet_store::{ErrorClass, StoreError};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::address::Address;
use crate::driver::{DriverError, RunDriver};
use crate::egress;
use crate::foresight::Foresight;
use crate::mailbox::{Letter, Vitals};
use crate::message::{Answer, Ask, CallKey, EgressAsk, IndexAsk, ModelAsk, RouteError, RunAsk};
use crate::runs::Runs;

/// A run that wants to be woken later than this gives up its actor and waits as a row.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// Longest time of a call whose step names no timeout.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// At most this many askers watch one run.
const MAX_WATCHERS: usize = 1024;

/// A message to a run and where the answer goes.
#[derive(Debug)]
pub(crate) struct RunMessage {
    pub(crate) ask: RunAsk,
    pub(crate) reply: Option<Reply>,
}

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Answer, RouteError>>;

/// What a watcher waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaited {
    /// An event after this one, or the end.
    Beyond(Seq),
    /// The end, with the whole state.
    End,
}

/// What an actor begins with: the run, and who waits for its end from the start.
pub(crate) struct Birth {
    pub(crate) driver: RunDriver,
    pub(crate) awaited_by: Option<Reply>,
    /// Whether it was brought up for a message that is on its way: it must not leave before it has read that.
    pub(crate) expected: bool,
    /// Whether the limits of its workflow let it wait: it takes messages and sends nothing.
    pub(crate) held: bool,
}

/// The actor's fixed parts.
pub(crate) struct RunActor {
    pub(crate) run: RunId,
    pub(crate) runs: Arc<Runs>,
    pub(crate) vitals: Arc<Vitals>,
}

/// What changes.
pub(crate) struct Live {
    driver: RunDriver,
    caller: Caller,
    priority: i8,
    watchers: Vec<(Awaited, Reply)>,
    calls: HashMap<CallId, AbortHandle>,
    alarm: Option<(Timestamp, AbortHandle)>,
    expected: bool,
    foresight: Foresight,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.calls.values().for_each(AbortHandle::abort);
        if let Some((_, alarm)) = &self.alarm {
            alarm.abort();
        }
    }
}

impl Actor for RunActor {
    type Msg = Letter<RunMessage>;
    type State = Live;
    type Arguments = Birth;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, birth: Birth) -> Result<Live, ActorProcessingErr> {
        let Birth { mut driver, awaited_by, expected, held } = birth;
        driver.hold(held);
        let submission = driver.run().submission();
        let caller =
            Caller { namespace: submission.namespace.clone(), principal: Principal::System, trace: submission.trace };
        let priority = submission.priority;
        let watchers = awaited_by.map(|reply| (Awaited::End, reply)).into_iter().collect();
        let (calls, foresight) = (HashMap::new(), Foresight::default());
        Ok(Live { driver, caller, priority, watchers, calls, alarm: None, expected, foresight })
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, live: &mut Live) -> Result<(), ActorProcessingErr> {
        self.begin(&myself, live).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        live: &mut Live,
    ) -> Result<(), ActorProcessingErr> {
        let (_, message) = letter.open(&self.vitals);
        live.expected = false;
        match message.ask {
            RunAsk::Read => answer(message.reply, Ok(Answer::State(Box::new(live.driver.run().state().clone())))),
            RunAsk::Watch { beyond } => self.watch(live, Awaited::Beyond(beyond), message.reply),
            RunAsk::AwaitEnd => self.watch(live, Awaited::End, message.reply),
            RunAsk::Input(input) => return self.take(&myself, live, &input, message.reply).await,
            RunAsk::Proceed => {
                let run = live.driver.run();
                let held = !self.runs.is_first(run) || !self.runs.take_turn(run, live.driver.has_begun());
                live.driver.hold(held);
                answer(message.reply, Ok(Answer::Accepted));
                return self.begin(&myself, live).await;
            }
        }
        self.settle(&myself, live).await;
        Ok(())
    }
}

impl RunActor {
    /// Goes on; a run that has become the first of its order records that before anything else.
    async fn begin(&self, myself: &ActorRef<Letter<RunMessage>>, live: &mut Live) -> Result<(), ActorProcessingErr> {
        if live.driver.run().state().in_line && !live.driver.is_held() {
            return self.take(myself, live, &Input::LineReached, None).await;
        }
        self.go_on(myself, live).await;
        Ok(())
    }

    async fn take(
        &self,
        myself: &ActorRef<Letter<RunMessage>>,
        live: &mut Live,
        input: &Input,
        reply: Option<Reply>,
    ) -> Result<(), ActorProcessingErr> {
        if let Input::CallFinished { call, .. } = input {
            live.calls.remove(call);
        }
        // An alarm that rang too early, by a clock that went slowly meanwhile, must be set again.
        if *input == Input::Woken
            && let Some((_, alarm)) = live.alarm.take()
        {
            alarm.abort();
        }
        match live.driver.handle(input).await {
            Ok(()) => {
                answer(reply, Ok(Answer::Accepted));
                self.go_on(myself, live).await;
                Ok(())
            }
            Err(DriverError::Rejected(rejection)) => {
                tracing::debug!(run = %self.run, %rejection, "input rejected");
                answer(reply, Ok(Answer::Rejected(rejection)));
                self.settle(myself, live).await;
                Ok(())
            }
            Err(DriverError::Store(error)) if error.class() == ErrorClass::Fenced => {
                tracing::debug!(run = %self.run, %error, "fenced: this node stops the run");
                answer(reply, Err(RouteError::NotOwner));
                self.leave(myself, live);
                self.runs.fenced(self.run.shard(), live.driver.epoch());
                Ok(())
            }
            Err(DriverError::Store(error)) if matches!(error.class(), ErrorClass::Retryable | ErrorClass::Busy) => {
                // Nothing is wrong with the run: it is loaded again when the store can be used, however long that takes.
                tracing::warn!(run = %self.run, %error, "run left until the store can be used");
                let failure = Failure::new(FailureClass::Unavailable, error.to_string());
                answer(reply, Err(RouteError::Failed(failure)));
                self.leave(myself, live);
                self.runs.backlog().leave(self.run.shard());
                Ok(())
            }
            Err(error) => {
                let failure = Failure::new(failure_class(&error), error.to_string());
                answer(reply, Err(RouteError::Failed(failure)));
                Err(error.to_string().into())
            }
        }
    }

    /// Sends what is owed and tells the watchers; leaves when there is nothing to stay for.
    async fn go_on(&self, myself: &ActorRef<Letter<RunMessage>>, live: &mut Live) {
        if live.driver.run().phase().is_end() && live.expected {
            // Brought up after its end for a message that may let it go on.
            return;
        }
        self.tell_watchers(live);
        if live.driver.run().phase().is_end() {
            self.runs.has_ended(&live.driver);
            self.runs.leave_line(live.driver.run());
            return self.leave(myself, live);
        }
        if live.driver.is_held() {
            return self.settle(myself, live).await;
        }
        if let Some(router) = self.runs.router() {
            live.foresight.look(live.driver.run(), router.models());
        }
        for command in live.driver.take_unsent() {
            if let Command::Call { id, work, timeout } = command {
                let handle = self.send(live, id, work, timeout.unwrap_or(CALL_TIMEOUT));
                live.calls.insert(id, handle);
            }
        }
        if live.calls.len() > live.driver.run().calls_owed() {
            let driver = &live.driver;
            live.calls.retain(|call, handle| {
                driver.owes(*call) || {
                    handle.abort();
                    false
                }
            });
        }
        self.settle(myself, live).await;
    }

    /// Sets the alarm, or leaves when the run only waits and nobody waits with it.
    async fn settle(&self, myself: &ActorRef<Letter<RunMessage>>, live: &mut Live) {
        if live.driver.run().phase().is_end() {
            // Brought up after its end, and the message changed nothing.
            return self.leave(myself, live);
        }
        // One who went away must not keep a waiting run alive.
        live.watchers.retain(|(_, watcher)| !watcher.is_closed());
        let wake = live.driver.run().next_wake();
        let now = self.runs.clock().now();
        // Calls of a paused run that are under way are answered here; those that were not sent are not owed now.
        let run = live.driver.run();
        let calls_done = if run.is_paused() { live.calls.is_empty() } else { run.calls_owed() == 0 };
        let parked = !live.expected
            && (calls_done || live.driver.is_held())
            && live.watchers.is_empty()
            && wake.is_none_or(|at| at.since(now) > PARK_AFTER);
        if parked {
            live.driver.save_snapshot().await;
            self.leave(myself, live);
            self.runs.parked(self.run, wake);
        } else {
            self.set_alarm(live, wake, now);
        }
    }

    fn send(&self, live: &Live, id: CallId, work: Work, timeout: Duration) -> AbortHandle {
        let key = CallKey { run: self.run, call: id };
        let (to, ask) = match work {
            Work::Model { model, with } => (
                Address::Model(live.caller.namespace.clone(), model),
                Ask::Model(ModelAsk::Infer { with, priority: live.priority, key: Some(key) }),
            ),
            Work::VectorQuery { with } => {
                let to = index_of(&with);
                return self.send_to_index(live, id, to, IndexAsk::Query { with, run: Some(self.run) }, timeout);
            }
            Work::VectorUpsert { with } => {
                let to = index_of(&with);
                return self.send_to_index(live, id, to, IndexAsk::Upsert { with, run: Some(self.run) }, timeout);
            }
            Work::Http { with } => return self.send_out(live, id, with, timeout),
        };
        self.spawn_call(live, id, to, ask, timeout)
    }

    fn send_to_index(
        &self,
        live: &Live,
        id: CallId,
        name: Result<Name, NameError>,
        ask: IndexAsk,
        timeout: Duration,
    ) -> AbortHandle {
        match name {
            Ok(name) => {
                let to = Address::Index(live.caller.namespace.clone(), name);
                self.spawn_call(live, id, to, Ask::Index(ask), timeout)
            }
            Err(error) => {
                let failure = Failure::new(FailureClass::Invalid, format!("with.index: {error}"));
                let (runs, run, caller) = (Arc::clone(&self.runs), self.run, live.caller.clone());
                tokio::spawn(async move { runs.call_finished(&caller, run, id, Err(failure)).await }).abort_handle()
            }
        }
    }

    fn send_out(&self, live: &Live, id: CallId, with: Value, timeout: Duration) -> AbortHandle {
        let step = live.driver.run().workflow().steps.get(id.step.as_usize()).map_or("", |step| &step.name);
        // Without the attempt: a request that was sent before a crash and one that is sent after it are the same.
        let key = Some(format!("{}/{step}/{}", self.run, id.item));
        let ask = Ask::Egress(EgressAsk::Http { with, key, priority: live.priority, timeout });
        self.spawn_call(live, id, Address::Egress, ask, timeout + egress::GRACE)
    }

    fn spawn_call(&self, live: &Live, id: CallId, to: Address, ask: Ask, timeout: Duration) -> AbortHandle {
        let (runs, run, caller) = (Arc::clone(&self.runs), self.run, live.caller.clone());
        tokio::spawn(async move {
            let Some(router) = runs.router() else { return };
            let outcome = match router.ask(&caller, &to, ask, timeout).await {
                Ok(Answer::Output(output)) => Ok(output),
                Ok(_) => Err(Failure::new(FailureClass::Internal, format!("{to} gave an answer of another kind"))),
                Err(RouteError::Expired) => {
                    Err(Failure::new(FailureClass::Timeout, format!("{to} gave no answer within {timeout:?}")))
                }
                Err(error) => Err(error.into_failure()),
            };
            runs.call_finished(&caller, run, id, outcome).await;
        })
        .abort_handle()
    }

    fn set_alarm(&self, live: &mut Live, wake: Option<Timestamp>, now: Timestamp) {
        if live.alarm.as_ref().map(|(at, _)| *at) == wake {
            return;
        }
        if let Some((_, alarm)) = live.alarm.take() {
            alarm.abort();
        }
        let Some(at) = wake else { return };
        let (runs, run, caller) = (Arc::clone(&self.runs), self.run, live.caller.clone());
        // One millisecond more than the difference: the clock must show the time, not almost show it.
        let wait = at.since(now) + Duration::from_millis(1);
        let alarm = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            runs.wake(&caller, run).await;
        });
        live.alarm = Some((at, alarm.abort_handle()));
    }

    fn watch(&self, live: &mut Live, awaited: Awaited, reply: Option<Reply>) {
        let Some(reply) = reply else { return };
        live.watchers.retain(|(_, watcher)| !watcher.is_closed());
        if live.watchers.len() >= MAX_WATCHERS {
            let words = format!("{} is watched by {MAX_WATCHERS} others already", self.run);
            answer(Some(reply), Err(RouteError::Overloaded(words)));
        } else {
            live.watchers.push((awaited, reply));
            self.tell_watchers(live);
        }
    }

    fn tell_watchers(&self, live: &mut Live) {
        if live.watchers.is_empty() {
            return;
        }
        let run = live.driver.run();
        let (seq, ended) = (run.seq(), run.phase().is_end());
        let due = |awaited: Awaited| ended || matches!(awaited, Awaited::Beyond(beyond) if seq > beyond);
        for place in (0..live.watchers.len()).rev().filter(|place| due(live.watchers[*place].0)).collect::<Vec<_>>() {
            let (awaited, watcher) = live.watchers.swap_remove(place);
            let words = match awaited {
                Awaited::Beyond(_) => Answer::Progress { seq, ended },
                Awaited::End => Answer::State(Box::new(live.driver.run().state().clone())),
            };
            answer(Some(watcher), Ok(words));
        }
    }

    fn leave(&self, myself: &ActorRef<Letter<RunMessage>>, live: &Live) {
        self.runs.left(self.run, live.driver.is_held() && !live.driver.run().phase().is_end());
        myself.stop(None);
    }
}

/// The index that a call names.
fn index_of(with: &Value) -> Result<Name, NameError> {
    Name::new(with.get("index").and_then(|name| name.as_str()).unwrap_or_default())
}

/// Answers whoever still listens; one who went away needs no answer.
fn answer(reply: Option<Reply>, words: Result<Answer, RouteError>) {
    if let Some(reply) = reply {
        let _ = reply.send(words);
    }
}

impl From<DriverError> for RouteError {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Unknown(run) => Self::Unknown(run.to_string()),
            error => Failure::new(failure_class(&error), error.to_string()).into(),
        }
    }
}

fn failure_class(error: &DriverError) -> FailureClass {
    match error {
        DriverError::Store(StoreError::Busy) => FailureClass::Overloaded,
        DriverError::Store(error) if error.class() == ErrorClass::Retryable => FailureClass::Unavailable,
        DriverError::Unknown(_) | DriverError::Catalog(crate::catalog::CatalogError::Unknown { .. }) => {
            FailureClass::NotFound
        }
        _ => FailureClass::Internal,
    }
}
