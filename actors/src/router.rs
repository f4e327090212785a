//! The one door to every actor: addressed by (kind, key), asked in messages that can cross nodes, answered by type.
//!
//! Checks who may do what, bounds what is admitted, and puts a time limit on every question. On one node every address
//! is local. Used by the HTTP API, the CLI's embedded node, and by run actors for what their runs owe.

mod describing;
mod fallback;
mod homing;
mod placing;
mod remote;
mod steering;
mod streaming;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use motet_cluster::members::{Member, Role};
use motet_engine::access::{Action, Caller, Principal};
use motet_engine::definition::{Definition, Workflow};
use motet_engine::event::{Event, Submission};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace, RunId, Seq, ShardId};
use motet_engine::run::{Run, State};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_store::StoreError;
use motet_store::port::{DefinitionKind, IdempotencyKey, PutOutcome, RunHead, RunQuery};

use crate::address::Address;
use crate::catalog::Catalog;
use crate::census::Census;
use crate::driver::{DriverError, decode_events};
use crate::egress::Egress;
use crate::indexes::Indexes;
use crate::message::{Answer, Ask, RouteError, RunAsk};
use crate::models::{Asker, Models};
use crate::peers::Peers;
use crate::ports::{Clock, Entropy};
use crate::runs::Runs;
use crate::schedules::Schedules;
use crate::streams::Streams;
use crate::submission::{admit, admit_elsewhere};
pub use describing::ModelStanding;
pub use homing::Homes;
pub use steering::ForkRequest;
pub use streaming::{PartitionView, SeekTo};

pub use crate::submission::{Begun, SubmitError, SubmitRequest, Submitted};

/// One recorded event with its number and time.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Number inside the run.
    pub seq: Seq,
    /// When it was recorded.
    pub at: Timestamp,
    /// The event.
    pub event: Event,
}

/// The door.
pub struct Router {
    pub(crate) runs: Arc<Runs>,
    pub(crate) models: Arc<Models>,
    pub(crate) indexes: Arc<Indexes>,
    pub(crate) egress: Arc<Egress>,
    pub(crate) schedules: Arc<Schedules>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) census: Arc<Census>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) max_unfinished: u64,
    pub(crate) max_outbox: u64,
    pub(crate) open: AtomicBool,
    /// The other nodes; none on a node that runs alone.
    pub(crate) peers: OnceLock<Arc<Peers>>,
}

impl Router {
    /// The models of this node.
    #[must_use]
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// The indexes of this node.
    #[must_use]
    pub fn indexes(&self) -> &Arc<Indexes> {
        &self.indexes
    }

    /// The schedules, and how this node does with them.
    #[must_use]
    pub fn schedules(&self) -> &Arc<Schedules> {
        &self.schedules
    }

    /// The streams that this node reads.
    #[must_use]
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// The runs of this node.
    #[must_use]
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// The actors of this node.
    #[must_use]
    pub fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// Definitions.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Random bits, for new traces.
    #[must_use]
    pub fn new_trace(&self) -> TraceContext {
        let (high, low) = (self.entropy.next(), self.entropy.next());
        TraceContext::start(u128::from(high) << 64 | u128::from(low), self.entropy.next())
    }

    /// Whether this node runs alone.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.peers.get().is_none()
    }

    /// Whether new runs are taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Starts a run. It is durable when this returns.
    ///
    /// # Errors
    /// When it may not be started or could not be made durable; then nothing was started.
    pub async fn submit(&self, caller: &Caller, request: SubmitRequest) -> Result<Submitted, SubmitError> {
        self.begin(caller, request, false).await.map(|begun| begun.submitted)
    }

    /// Starts a run like [`Router::submit`] and keeps hold of it: where it stands now, and with `awaited` its end as
    /// soon as it comes, without asking the store again.
    ///
    /// # Errors
    /// When it may not be started or could not be made durable; then nothing was started.
    pub async fn begin(&self, caller: &Caller, request: SubmitRequest, awaited: bool) -> Result<Begun, SubmitError> {
        self.begin_as(caller, request, self.new_run_id(), awaited).await
    }

    /// An id for a run of now: on a shard of this node, so that no other has to be told, or on any where it has none.
    fn new_run_id(&self) -> RunId {
        let drawn = self.entropy.next();
        let any = || ShardId(u16::try_from(drawn % u64::from(self.runs.shards().max(1))).unwrap_or(0));
        let shard = self.runs.any_shard(drawn).unwrap_or_else(any);
        RunId::new(self.clock.now(), shard, self.entropy.next())
    }

    /// The same with a given id, which must not be that of another run.
    pub(crate) async fn begin_as(
        &self,
        caller: &Caller,
        request: SubmitRequest,
        id: RunId,
        awaited: bool,
    ) -> Result<Begun, SubmitError> {
        self.check_room(caller)?;
        let workflow = self.catalog.workflow(&caller.namespace, &request.workflow, request.version.as_deref()).await?;
        let submission = Submission {
            namespace: caller.namespace.clone(),
            principal: caller.principal.clone(),
            workflow: workflow.name.clone(),
            version: workflow.version.clone(),
            input: request.input,
            tags: request.tags,
            priority: request.priority,
            trace: caller.trace,
            at: self.clock.now(),
            source: None,
        };
        let (run, events) = Run::submit(id, &workflow, submission, self.runs.shards()).map_err(SubmitError::Unfit)?;
        self.admit(run, events, request.idempotency, awaited).await
    }

    fn check_room(&self, caller: &Caller) -> Result<(), SubmitError> {
        caller.may(Action::SubmitRun)?;
        if !self.is_open() {
            return Err(SubmitError::Stopping);
        }
        if self.is_full() {
            return Err(SubmitError::Full(self.runs.unfinished()));
        }
        Ok(())
    }

    /// Whether this node has as many unfinished runs as it takes.
    pub(crate) fn is_full(&self) -> bool {
        self.runs.unfinished() >= self.max_unfinished
    }

    /// Whether so many unfinished runs are as many as all nodes take together.
    pub(crate) fn is_crowded(&self, unfinished: u64) -> bool {
        unfinished >= self.max_unfinished.saturating_mul(self.serving_nodes())
    }

    /// How many results may wait to be sent, of all nodes together.
    pub(crate) fn outbox_bound(&self) -> u64 {
        self.max_outbox.saturating_mul(self.serving_nodes())
    }

    /// The nodes that serve runs, this one alone where there are no others.
    fn serving_nodes(&self) -> u64 {
        let serves = |member: &&Member| member.profile.roles.has(Role::Runs);
        self.members().map_or(1, |members| members.iter().filter(serves).count().max(1)) as u64
    }

    async fn admit(
        &self,
        run: Run,
        events: Vec<Event>,
        idempotency: Option<IdempotencyKey>,
        awaited: bool,
    ) -> Result<Begun, SubmitError> {
        let id = run.id();
        let Some(epoch) = self.runs.epoch(id.shard()) else {
            let peers = self.peers.get().ok_or(SubmitError::Stopping)?;
            return admit_elsewhere(&self.runs, peers, run, events, idempotency).await;
        };
        let reservation = self.runs.reserve(id);
        let admitting = admit(Arc::clone(&self.runs), run, events, idempotency, reservation, epoch, awaited);
        // On a task of its own: a client that hangs up while the commit is under way must not leave a durable run
        // that nobody carries on.
        match tokio::spawn(admitting).await {
            Ok(begun) => begun,
            Err(error) => Err(Failure::new(FailureClass::Internal, format!("admission broke off: {error}")).into()),
        }
    }

    /// Waits until a run that was begun has ended, at most `patience`, and gives it as it stands then.
    ///
    /// # Errors
    /// When the run cannot be read.
    pub async fn end_of(&self, caller: &Caller, begun: Begun, patience: Duration) -> Result<Run, RouteError> {
        let deadline = tokio::time::Instant::now() + patience;
        let run = match begun.run {
            Some(run) if run.phase().is_end() => return Ok(run),
            run => run,
        };
        if let (Some(run), Some(end)) = (run, begun.end) {
            match tokio::time::timeout_at(deadline, end).await {
                Ok(Ok(Ok(Answer::State(state)))) => return restored(run.id(), Arc::clone(run.workflow()), *state),
                Err(_) => return self.read_run(caller, run.id()).await,
                // Its actor ended before the run did: whoever carries it on is asked.
                Ok(_) => {}
            }
        }
        let patience = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.wait_for_end(caller, begun.submitted.run, patience).await
    }

    /// Asks an actor of this node, and waits at most `patience` for its answer.
    async fn ask_here(
        &self,
        caller: &Caller,
        to: &Address,
        ask: Ask,
        patience: Duration,
        asker: Asker,
    ) -> Result<Answer, RouteError> {
        let answered = async {
            match (to, ask) {
                (Address::Run(run), Ask::Run(ask)) => self.runs.ask(caller, *run, ask).await,
                (Address::Model(_, name), Ask::Model(ask)) => self.models.ask(caller, name, ask, patience, asker).await,
                (Address::Index(_, name), Ask::Index(ask)) => {
                    self.indexes.ask(caller, name, ask).await.map(Answer::Output)
                }
                (Address::Egress, Ask::Egress(ask)) => self.egress.ask(caller, ask).await.map(Answer::Output),
                (to, _) => Err(RouteError::Undecodable(format!("{to} does not take such messages"))),
            }
        };
        tokio::time::timeout(patience, answered).await.unwrap_or(Err(RouteError::Expired))
    }

    /// A run as it stands.
    ///
    /// # Errors
    /// When it does not exist in the caller's namespace or cannot be read.
    pub async fn read_run(&self, caller: &Caller, run: RunId) -> Result<Run, RouteError> {
        allow(caller, Action::ReadRun)?;
        let found = self.runs.read(caller, run).await?;
        if found.submission().namespace == caller.namespace {
            Ok(found)
        } else {
            Err(RouteError::Unknown(run.to_string()))
        }
    }

    /// Waits until a run has an event after `beyond` or has ended, at most `patience`.
    ///
    /// # Errors
    /// [`RouteError::Expired`] when nothing happened in time.
    pub async fn watch(
        &self,
        caller: &Caller,
        run: RunId,
        beyond: Seq,
        patience: Duration,
    ) -> Result<(Seq, bool), RouteError> {
        allow(caller, Action::ReadRun)?;
        match self.ask(caller, &Address::Run(run), Ask::Run(RunAsk::Watch { beyond }), patience).await? {
            Answer::Progress { seq, ended } => Ok((seq, ended)),
            _ => Err(Failure::new(FailureClass::Internal, "an answer of another kind").into()),
        }
    }

    /// Waits until a run has ended, at most `patience`, and gives it as it stands then.
    ///
    /// # Errors
    /// When the run does not exist or cannot be read.
    pub async fn wait_for_end(&self, caller: &Caller, run: RunId, patience: Duration) -> Result<Run, RouteError> {
        allow(caller, Action::ReadRun)?;
        match self.ask(caller, &Address::Run(run), Ask::Run(RunAsk::AwaitEnd), patience).await {
            Ok(Answer::State(state)) if state.submission.namespace == caller.namespace => {
                let submission = &state.submission;
                let workflow = self
                    .catalog
                    .workflow(&submission.namespace, &submission.workflow, Some(&submission.version))
                    .await
                    .map_err(|error| Failure::new(FailureClass::Internal, error.to_string()))?;
                restored(run, workflow, *state)
            }
            // It ended on another node: its state is in the store that both share.
            Ok(Answer::Progress { .. }) | Err(RouteError::Expired) => self.read_run(caller, run).await,
            Ok(_) => Err(RouteError::Unknown(run.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Recorded events after `after`, in order, of at most `entries` journal entries.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn events(&self, run: RunId, after: Seq, entries: u32) -> Result<Vec<Recorded>, DriverError> {
        let store = &self.runs.parts().store;
        let mut recorded = vec![];
        for entry in store.entries(run, after, entries).await? {
            for (place, event) in decode_events(&**store, &entry.payload).await?.into_iter().enumerate() {
                let seq = Seq(entry.seq.0 + place as u64);
                if seq > after {
                    recorded.push(Recorded { seq, at: entry.at, event });
                }
            }
        }
        Ok(recorded)
    }

    /// Head rows, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_runs(&self, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
        self.runs.parts().store.list(query).await
    }

    /// Checks a definition against what this node can do, stores it, and has a model loaded where it belongs.
    ///
    /// # Errors
    /// When the node cannot serve it or the store fails.
    pub async fn put(&self, caller: &Caller, definition: &Definition) -> Result<PutOutcome, RouteError> {
        allow(caller, Action::WriteDefinition)?;
        match definition {
            Definition::Model(model) => self.models.check(model)?,
            Definition::Index(index) => self.indexes.check(index)?,
            // Kept without a broker it would promise runs that never begin.
            Definition::Stream(_) if self.streams.broker().is_none() => {
                let words = "no broker is set, so nothing reads topics: set kafka.brokers, then put the stream again";
                return Err(Failure::new(FailureClass::Invalid, words).into());
            }
            // Like one without a broker: its records would wait for ever.
            Definition::Stream(stream) if !self.streams.decodes(stream) => {
                let words = "its format needs a schema registry: set registry.url, then put the stream again";
                return Err(Failure::new(FailureClass::Invalid, words).into());
            }
            Definition::Workflow(_) | Definition::Schedule(_) | Definition::Stream(_) => {}
        }
        let outcome = self
            .catalog
            .put(&caller.namespace, definition)
            .await
            .map_err(|error| Failure::new(FailureClass::Unavailable, error.to_string()))?;
        if let (Definition::Model(model), PutOutcome::Created | PutOutcome::Unchanged) = (definition, outcome) {
            self.prepare(caller, model).await?;
        }
        if outcome == PutOutcome::Created
            && let Some(peers) = self.peers.get()
        {
            peers.tell_defined();
        }
        match (definition, outcome) {
            (Definition::Schedule(_), PutOutcome::Created) => self.schedules.changed(),
            (Definition::Stream(_), PutOutcome::Created) => self.streams.changed(),
            _ => {}
        }
        Ok(outcome)
    }
}

impl Router {
    /// Ends a schedule; whether there was one. The runs that it began go on.
    ///
    /// # Errors
    /// When it is not allowed or the store fails.
    pub async fn delete_schedule(&self, caller: &Caller, name: &Name) -> Result<bool, RouteError> {
        let gone = self.delete(caller, DefinitionKind::Schedule, name).await?;
        if gone {
            self.schedules.changed();
        }
        Ok(gone)
    }

    /// Ends a stream; whether there was one. The runs that its records began go on.
    ///
    /// # Errors
    /// When it is not allowed or the store fails.
    pub async fn delete_stream(&self, caller: &Caller, name: &Name) -> Result<bool, RouteError> {
        let gone = self.delete(caller, DefinitionKind::Stream, name).await?;
        if gone {
            self.streams.changed();
            if let Some(peers) = self.peers.get() {
                peers.tell_defined();
            }
        }
        Ok(gone)
    }

    async fn delete(&self, caller: &Caller, kind: DefinitionKind, name: &Name) -> Result<bool, RouteError> {
        allow(caller, Action::WriteDefinition)?;
        let gone = self.catalog.delete(kind, &caller.namespace, name).await;
        gone.map_err(|error| Failure::new(FailureClass::Unavailable, error.to_string()).into())
    }
}

fn restored(id: RunId, workflow: Arc<Workflow>, state: State) -> Result<Run, RouteError> {
    Run::restore(id, workflow, state).map_err(|error| Failure::new(FailureClass::Internal, error.to_string()).into())
}

fn allow(caller: &Caller, action: Action) -> Result<(), RouteError> {
    caller.may(action).map_err(|denied| Failure::new(FailureClass::Denied, denied.to_string()).into())
}

/// The system itself as a caller, for what nobody asked for.
#[must_use]
pub fn system_caller(namespace: Namespace) -> Caller {
    Caller { namespace, principal: Principal::System, trace: TraceContext::start(1, 1) }
}
