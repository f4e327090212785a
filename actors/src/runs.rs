//! The live runs of this node: admission, activation, parking, and the way to each of them.
//!
//! At most one actor per run lives here; two that met through a race would be told apart by the store, which gives
//! each event number once. Used by the router, the run actors, recovery and timers.

mod backlog;
mod hosting;
mod nursery;
mod orders;
mod reservation;
mod turns;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use motet_engine::access::Caller;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, RunId, ShardId};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::Run;
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use ractor::ActorCell;
use tokio::sync::{Notify, oneshot, watch};

use crate::census::Census;
use crate::driver::{self, DriverParts, RunDriver};
use crate::limits::RunLimits;
use crate::mailbox::{Mailbox, SendError};
use crate::message::{Answer, RouteError, RunAsk};
use crate::ports::Clock;
use crate::router::Router;
use crate::run_actor::{Birth, RunMessage};
use crate::shards::OwnShards;
use crate::supervisor::Children;

pub(crate) use backlog::Backlog;
pub(crate) use hosting::RunHost;
pub(crate) use nursery::RunNursery;
use orders::Orders;
pub(crate) use reservation::Reservation;
pub use turns::Place;

/// How long an answer to a call waits for a place in its run's mailbox.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How often a message looks for a run that leaves while it is asked.
const CHASES: usize = 5;

/// Where a run is on its way to life.
enum Slot {
    /// Someone is bringing it up; the channel closes when that is over.
    Starting(watch::Receiver<()>),
    /// Its actor lives.
    Live(Mailbox<RunMessage>),
}

/// What a message to a run found.
enum Found {
    Live(Mailbox<RunMessage>),
    Ended(Box<Run>),
    /// It stays a row until the limits of its workflow let it in.
    Waits,
}

/// The live runs of this node.
pub struct Runs {
    parts: DriverParts,
    census: Arc<Census>,
    children: Arc<Children>,
    slots: DashMap<RunId, Slot>,
    shards: OwnShards,
    max_live: usize,
    supervisor: OnceLock<ActorCell>,
    router: OnceLock<Weak<Router>>,
    backlog: Backlog,
    /// Shards whose runs owe records to the outside.
    outbox: Backlog,
    timer_hint: watch::Sender<Option<Timestamp>>,
    limits: RunLimits,
    orders: Orders,
    idle: Notify,
}

impl Runs {
    /// No runs yet; `shards` is the number of shards and `max_live` bounds the actors.
    pub(crate) fn new(parts: DriverParts, census: Arc<Census>, shards: u16, max_live: usize) -> Arc<Self> {
        Arc::new(Self {
            parts,
            census,
            children: Arc::default(),
            slots: DashMap::new(),
            shards: OwnShards::new(shards),
            max_live,
            supervisor: OnceLock::new(),
            router: OnceLock::new(),
            backlog: Backlog::default(),
            outbox: Backlog::default(),
            timer_hint: watch::channel(None).0,
            limits: RunLimits::new(),
            orders: Orders::default(),
            idle: Notify::new(),
        })
    }

    pub(crate) fn wire(&self, supervisor: ActorCell, router: Weak<Router>) {
        // Wired once, by the node, before anything can arrive.
        let _ = self.supervisor.set(supervisor);
        let _ = self.router.set(router);
    }

    pub(crate) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// The router; none once the node has stopped.
    pub(crate) fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    pub(crate) fn parts(&self) -> &DriverParts {
        &self.parts
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.parts.clock
    }

    /// Number of shards, of all nodes together.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards.count()
    }

    /// One of this node's shards, by a random number; none when it serves none.
    pub(crate) fn any_shard(&self, drawn: u64) -> Option<ShardId> {
        self.shards.any(drawn)
    }

    /// Number of run actors.
    #[must_use]
    pub fn live(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < self.max_live
    }

    /// What recovery has to do.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// What the relay has to do.
    pub(crate) fn outbox(&self) -> &Backlog {
        &self.outbox
    }

    /// A run has ended. Only what waits to be sent is worth a look at the outbox: records come by the thousand.
    pub(crate) fn has_ended(&self, driver: &RunDriver) {
        let shard = driver.run().id().shard();
        if driver.owes_result() && self.epoch(shard).is_some() {
            self.outbox.add(shard);
        }
    }

    pub(crate) fn timer_hints(&self) -> watch::Receiver<Option<Timestamp>> {
        self.timer_hint.subscribe()
    }

    /// A run gave up its actor; it wants to be woken at this time.
    pub(crate) fn parked(&self, run: RunId, wake: Option<Timestamp>) {
        tracing::debug!(%run, wake = wake.map(Timestamp::as_millis), "run waits without an actor");
        if let Some(at) = wake {
            self.timer_hint.send_if_modified(|next| {
                let earlier = next.is_none_or(|next| at < next);
                if earlier {
                    *next = Some(at);
                }
                earlier
            });
        }
    }

    pub(crate) fn hint_taken(&self) {
        self.timer_hint.send_if_modified(|next| {
            *next = None;
            false
        });
    }

    /// Runs that are worked on or wait for room, for their turn or for recovery. Those that wait for a time or a
    /// signal cost nothing and do not count.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        (self.slots.len() + self.limits.waiting() + self.orders.waiting()) as u64 + self.backlog.runs()
    }

    /// Whether somebody has a run in hand: it lives, or waits for its turn.
    pub(crate) fn has_in_hand(&self, run: RunId) -> bool {
        self.slots.contains_key(&run) || self.waits_for_turn(run) || self.orders.is_waiting(run)
    }

    /// A run has no actor any more; one that never had its turn keeps its place in the line.
    pub(crate) fn left(self: &Arc<Self>, run: RunId, keeps_turn: bool) {
        self.slots.remove(&run);
        if !keeps_turn {
            self.give_up_turn(run);
        }
        if self.slots.is_empty() {
            self.idle.notify_waiters();
        }
    }

    /// Resolves when no run lives here.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.slots.is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// Keeps a place for a run that is about to be admitted, so that recovery does not start it a second time.
    pub(crate) fn reserve(self: &Arc<Self>, run: RunId) -> Option<Reservation> {
        let (begun, starting) = watch::channel(());
        match self.slots.entry(run) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::Starting(starting));
                Some(Reservation::new(Arc::clone(self), run, begun))
            }
        }
    }

    /// Delivers a message to a run, bringing it up when it waits as a row.
    pub(crate) async fn ask(self: &Arc<Self>, caller: &Caller, run: RunId, ask: RunAsk) -> Result<Answer, RouteError> {
        let revives = matches!(ask, RunAsk::Input(Input::Retry { .. } | Input::LeaveLine { .. }));
        for _ in 0..CHASES {
            if self.epoch(run.shard()).is_none() {
                return Err(RouteError::NotOwner);
            }
            let mailbox = match self.find(run, true, revives).await? {
                Found::Ended(run) => return Ok(answer_for_ended(&run, &ask)),
                Found::Live(mailbox) => mailbox,
                Found::Waits => continue,
            };
            let (reply, answer) = oneshot::channel();
            match mailbox.try_send(caller, RunMessage { ask: ask.clone(), reply: Some(reply) }) {
                Ok(()) => {}
                Err(SendError::Full) => return Err(RouteError::Overloaded(format!("the mailbox of {run} is full"))),
                Err(SendError::Gone) => {
                    self.forget(run, &mailbox);
                    continue;
                }
            }
            // A dropped reply means that the run left with the message unread: it is looked up again.
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(RouteError::Failed(Failure::new(
            FailureClass::Unavailable,
            format!("{run} cannot be reached; see its actor"),
        )))
    }

    fn forget(&self, run: RunId, mailbox: &Mailbox<RunMessage>) {
        let dead = mailbox.actor().get_id();
        self.slots.remove_if(&run, |_, slot| matches!(slot, Slot::Live(live) if live.actor().get_id() == dead));
    }

    /// Hands the outcome of a call to its run. When the run's mailbox stays full its actor is ended: what is owed is
    /// then sent again, so that no answer can be lost for good.
    pub(crate) async fn call_finished(
        self: &Arc<Self>,
        caller: &Caller,
        run: RunId,
        call: CallId,
        outcome: Result<Value, Failure>,
    ) {
        let Some(mailbox) = self.settled_mailbox(run).await else { return };
        let message = RunMessage { ask: RunAsk::Input(Input::CallFinished { call, outcome }), reply: None };
        if mailbox.send(caller, message, ANSWER_PATIENCE).await == Err(SendError::Full) {
            tracing::error!(%run, %call, "mailbox stays full: the run is brought up again");
            mailbox.actor().kill();
        }
    }

    /// Tells a run that time has passed; whether it had something to do about it.
    pub(crate) async fn wake(self: &Arc<Self>, caller: &Caller, run: RunId) -> bool {
        match self.ask(caller, run, RunAsk::Input(Input::Woken)).await {
            Ok(Answer::Rejected(rejection)) => {
                tracing::debug!(%run, %rejection, "a run was woken for nothing");
                false
            }
            Ok(_) => true,
            // Whoever owns it now wakes it.
            Err(RouteError::NotOwner) => true,
            Err(error) => {
                tracing::warn!(%run, %error, "a run could not be woken; it stays due");
                false
            }
        }
    }

    /// The mailbox of a run once nobody is bringing it up; none when it is not live.
    async fn settled_mailbox(&self, run: RunId) -> Option<Mailbox<RunMessage>> {
        loop {
            let mut starting = match &*self.slots.get(&run)? {
                Slot::Live(mailbox) => return Some(mailbox.clone()),
                Slot::Starting(starting) => starting.clone(),
            };
            while starting.changed().await.is_ok() {}
        }
    }

    fn mailbox(&self, run: RunId) -> Option<Mailbox<RunMessage>> {
        match &*self.slots.get(&run)? {
            Slot::Live(mailbox) => Some(mailbox.clone()),
            Slot::Starting(_) => None,
        }
    }

    /// The mailbox of a run, which is brought up when it waits as a row; `expected` when a message for it follows,
    /// `revives` when that may let a run go on that has ended.
    async fn find(self: &Arc<Self>, run: RunId, expected: bool, revives: bool) -> Result<Found, RouteError> {
        loop {
            let starting = match self.slots.get(&run).as_deref() {
                Some(Slot::Live(mailbox)) => return Ok(Found::Live(mailbox.clone())),
                Some(Slot::Starting(starting)) => Some(starting.clone()),
                None => None,
            };
            if let Some(mut starting) = starting {
                // Closed when the start is over, well or not; then the map knows more.
                while starting.changed().await.is_ok() {}
                continue;
            }
            if let Some(reservation) = self.reserve(run) {
                return self.bring_up(reservation, expected, revives).await;
            }
        }
    }

    async fn bring_up(
        self: &Arc<Self>,
        reservation: Reservation,
        expected: bool,
        revives: bool,
    ) -> Result<Found, RouteError> {
        let run = reservation.run();
        let epoch = self.epoch(run.shard()).ok_or(RouteError::NotOwner)?;
        let driver = RunDriver::recover(&self.parts, run, epoch).await?;
        if driver.run().phase().is_end() && !revives {
            return Ok(Found::Ended(Box::new(driver.run().clone())));
        }
        let held = !self.is_first(driver.run()) || !self.take_turn(driver.run(), driver.has_begun());
        if held && !expected {
            return Ok(Found::Waits);
        }
        let started = reservation.start(Birth { driver, awaited_by: None, expected, held }).await;
        if started.is_err() {
            self.give_up_turn(run);
        }
        started.map(Found::Live)
    }

    /// Brings a run up unless it is up or has ended; for recovery and timers.
    pub(crate) async fn activate(self: &Arc<Self>, run: RunId) -> Result<(), RouteError> {
        self.find(run, false, false).await.map(drop)
    }

    /// A run as it stands, live or not, without bringing it up.
    pub(crate) async fn read(self: &Arc<Self>, caller: &Caller, run: RunId) -> Result<Run, RouteError> {
        if let Some(mailbox) = self.mailbox(run) {
            let (reply, answer) = oneshot::channel();
            let sent = mailbox.try_send(caller, RunMessage { ask: RunAsk::Read, reply: Some(reply) });
            if sent.is_ok()
                && let Ok(Ok(Answer::State(state))) = answer.await
            {
                let submission = &state.submission;
                let workflow = self
                    .parts
                    .catalog
                    .workflow(&submission.namespace, &submission.workflow, Some(&submission.version))
                    .await
                    .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
                return Run::restore(run, workflow, *state)
                    .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()).into());
            }
        }
        Ok(driver::read_run(&self.parts, run).await?)
    }

    /// Ends every actor without ending its run: what is durable is picked up by the next start.
    pub(crate) async fn stop(&self) {
        let actors: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| match slot.value() {
                Slot::Live(mailbox) => Some(mailbox.actor().clone()),
                Slot::Starting(_) => None,
            })
            .collect();
        for actor in actors {
            actor.stop(Some("the node stops".into()));
        }
        self.slots.clear();
    }
}

fn answer_for_ended(run: &Run, ask: &RunAsk) -> Answer {
    match ask {
        RunAsk::Input(_) | RunAsk::Proceed => Answer::Rejected(Rejection::Ended),
        RunAsk::Watch { .. } => Answer::Progress { seq: run.seq(), ended: true },
        RunAsk::Read | RunAsk::AwaitEnd => Answer::State(Box::new(run.state().clone())),
    }
}
