//! What arrives at a run, and why a run may turn it down.
//!
//! Used by the run and by everyone who sends to one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Principal;
use crate::failure::Failure;
use crate::id::CallId;
use crate::value::Value;

/// One thing that arrived.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A call was answered.
    CallFinished {
        /// The call, with the attempt that was answered.
        call: CallId,
        /// Its output or failure.
        outcome: Result<Value, Failure>,
    },
    /// Time has passed: retries and the run's own deadline may be due.
    Woken,
    /// Someone wants the run to end.
    Cancel {
        /// Who asks.
        by: Principal,
        /// Why.
        reason: Option<String>,
    },
    /// Someone has something to say to a step that waits for it, now or later.
    Signal {
        /// Name under which steps wait for it.
        name: Arc<str>,
        /// What it says.
        payload: Value,
        /// The sender's id of it: the same id counts once.
        id: Arc<str>,
        /// Who sends it.
        by: Principal,
    },
    /// Someone wants the run to stand still: what is under way is recorded, nothing new begins.
    Pause {
        /// Who asks.
        by: Principal,
        /// Why.
        reason: Option<String>,
    },
    /// Someone wants the run to go on.
    Resume {
        /// Who asks.
        by: Principal,
    },
    /// Someone wants a run that has ended to go on from a step.
    Retry {
        /// The step by name; the failed one, and whatever else did not end, where none is named.
        from: Option<Arc<str>>,
        /// Who asks.
        by: Principal,
    },
    /// The run is the first of its order now.
    LineReached,
    /// Someone wants a run that ended without success to give its place in an order up.
    LeaveLine {
        /// Who asks.
        by: Principal,
    },
}

/// Why an input changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// End states absorb.
    #[error("the run has ended")]
    Ended,
    /// The call is not owed: an older attempt, an answer that came twice, or a call of another run.
    #[error("call {0} is not owed")]
    NotOwed(CallId),
    /// Nothing is due yet.
    #[error("nothing is due")]
    NotDue,
    /// The workflow has no step that waits for such a signal.
    #[error("no step of the workflow waits for a signal '{name}'{}", offer(known))]
    SignalUnknown {
        /// The name that was given.
        name: Arc<str>,
        /// The names that steps wait for.
        known: Vec<Arc<str>>,
    },
    /// Every step that waits for such a signal has ended.
    #[error("nothing waits for a signal '{name}' any more")]
    SignalNotAwaited {
        /// The name that was given.
        name: Arc<str>,
    },
    /// The payload does not fit the schema of the step that waits for it.
    #[error("the payload of the signal '{name}' does not fit its schema: {mistakes}")]
    SignalUnfit {
        /// The name that was given.
        name: Arc<str>,
        /// What does not fit, and where.
        mistakes: String,
    },
    /// The payload is too large.
    #[error("the payload of the signal has {bytes} bytes; at most {most} are allowed")]
    SignalTooLarge {
        /// Size that was found.
        bytes: usize,
        /// Size that is allowed.
        most: usize,
    },
    /// As many signals wait to be taken, or have come in all, as a run keeps.
    #[error("the run keeps {most} signals already")]
    SignalsFull {
        /// How many that is.
        most: usize,
    },
    /// A signal with this id has been received already; it counts once.
    #[error("the signal with the id '{id}' was received already")]
    SignalRepeated {
        /// The id.
        id: Arc<str>,
    },
    /// The run stands still already.
    #[error("the run is paused already")]
    Paused,
    /// The run is not paused.
    #[error("the run is not paused")]
    NotPaused,
    /// Only a run that has ended can be retried.
    #[error("the run has not ended, so there is nothing to retry")]
    NotEnded,
    /// Every step has its output.
    #[error("no step failed: name the step to retry from")]
    NothingToRetry,
    /// The workflow has no such step.
    #[error("the workflow has no step '{name}'")]
    UnknownStep {
        /// The name that was given.
        name: Arc<str>,
    },
    /// While a run goes on, those after it in its order wait for it.
    #[error("the run has not ended, so it keeps its place in its order; cancel it to let the next one go on")]
    LineInUse,
    /// The run stands in no order, or not any more.
    #[error("the run holds no place in an order")]
    NoLine,
}

/// The signals that can be sent instead, as the end of a sentence.
fn offer(known: &[Arc<str>]) -> String {
    match known {
        [] => "; it has no signal step".to_owned(),
        known => format!("; there are {}", known.iter().take(12).map(|name| &**name).collect::<Vec<_>>().join(", ")),
    }
}
