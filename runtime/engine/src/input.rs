//! What arrives at a run, and why a run may turn it down.
//!
//! Used by the run and by everyone who sends to one.

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
}
