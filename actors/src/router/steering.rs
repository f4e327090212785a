//! Steering runs from outside: cancel, signal, pause, resume, retry, fork.
//!
//! Holds no rules of runs: each is an input whose answer comes from the run. Used by the HTTP API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use motet_engine::access::{Action, Caller};
use motet_engine::id::RunId;
use motet_engine::input::Input;
use motet_engine::run::{Fork, Run};
use motet_engine::value::Value;
use motet_store::port::{IdempotencyKey, RunHead};

use super::{Begun, Router, SubmitError, allow};
use crate::address::Address;
use crate::driver::DriverError;
use crate::message::{Answer, Ask, RouteError, RunAsk};

/// How long the answer of a run is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A new run to be made of an existing one.
#[derive(Debug, Clone)]
pub struct ForkRequest {
    /// The step to begin from, by name.
    pub step: Arc<str>,
    /// Another input; the existing run's where none is given.
    pub input: Option<Value>,
    /// Other outputs of steps that do not run again, by name.
    pub outputs: BTreeMap<Arc<str>, Value>,
    /// The client's key for repeating safely.
    pub idempotency: Option<IdempotencyKey>,
}

impl Router {
    /// Asks a run to end.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn cancel(&self, caller: &Caller, run: RunId, reason: Option<String>) -> Result<Answer, RouteError> {
        self.steer(caller, Action::ControlRun, run, Input::Cancel { by: caller.principal.clone(), reason }).await
    }

    /// Sends a run a signal. It is durable when this returns; the same id counts once.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn signal(
        &self,
        caller: &Caller,
        run: RunId,
        name: Arc<str>,
        payload: Value,
        id: Arc<str>,
    ) -> Result<Answer, RouteError> {
        let signal = Input::Signal { name, payload, id, by: caller.principal.clone() };
        self.steer(caller, Action::SignalRun, run, signal).await
    }

    /// Asks a run to stand still.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn pause(&self, caller: &Caller, run: RunId, reason: Option<String>) -> Result<Answer, RouteError> {
        self.steer(caller, Action::ControlRun, run, Input::Pause { by: caller.principal.clone(), reason }).await
    }

    /// Has a run that ended without success give its place in an order up, so that the next one goes on.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn leave_line(&self, caller: &Caller, run: RunId) -> Result<Answer, RouteError> {
        self.steer(caller, Action::ControlRun, run, Input::LeaveLine { by: caller.principal.clone() }).await
    }

    /// Who stands first in the order of a run; none where it stands in none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn first_in_line(&self, run: &Run) -> Result<Option<RunHead>, RouteError> {
        let Some(line) = run.submission().source.as_ref().and_then(|source| source.order) else { return Ok(None) };
        let store = &self.runs.parts().store;
        Ok(store.line_head(run.id().shard(), line).await.map_err(DriverError::from)?)
    }

    /// Asks a paused run to go on.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn resume(&self, caller: &Caller, run: RunId) -> Result<Answer, RouteError> {
        self.steer(caller, Action::ControlRun, run, Input::Resume { by: caller.principal.clone() }).await
    }

    /// Asks a run that has ended to go on from the step of a name, or from the one that failed.
    ///
    /// # Errors
    /// When the run does not exist or could not record it.
    pub async fn retry(&self, caller: &Caller, run: RunId, from: Option<Arc<str>>) -> Result<Answer, RouteError> {
        self.steer(caller, Action::ControlRun, run, Input::Retry { from, by: caller.principal.clone() }).await
    }

    async fn steer(&self, caller: &Caller, action: Action, run: RunId, input: Input) -> Result<Answer, RouteError> {
        allow(caller, action)?;
        // Another namespace's run must not be reached.
        let head = self.runs.parts().store.head(run).await.map_err(DriverError::from)?;
        if head.is_none_or(|head| head.namespace != caller.namespace) {
            return Err(RouteError::Unknown(run.to_string()));
        }
        self.ask(caller, &Address::Run(run), Ask::Run(RunAsk::Input(input)), PATIENCE).await
    }

    /// Starts a new run from a step of an existing one. It is durable when this returns.
    ///
    /// # Errors
    /// When it may not be started or could not be made durable; then nothing was started.
    pub async fn fork(&self, caller: &Caller, source: RunId, request: ForkRequest) -> Result<Begun, SubmitError> {
        self.check_room(caller)?;
        let source = self.read_run(caller, source).await?;
        // The new run goes its own way: also to a shard of its own.
        let id = self.new_run_id();
        let ForkRequest { step, input, outputs, idempotency } = request;
        let fork =
            Fork { step, input, outputs, by: caller.principal.clone(), trace: caller.trace, at: self.clock.now() };
        let (run, events) = source.fork(id, fork, self.runs.shards())?;
        self.admit(run, events, idempotency, false).await
    }
}
