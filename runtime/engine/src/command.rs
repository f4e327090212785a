//! What a run owes the world: calls to make, times to be woken at.
//!
//! Commands are a function of the run's state, with ids that are stable across crashes. Used by the driver, which
//! carries them out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{CallId, Name, StepIndex};
use crate::time::Timestamp;
use crate::value::Value;

/// Identity of something owed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum CommandId {
    /// A call's attempt.
    Call(CallId),
    /// The wake-up at which the attempt after this one begins.
    Retry(CallId),
    /// The wake-up at the end of the run's own time.
    Deadline,
    /// The wake-up at the end of a wait, or of the patience for a signal.
    Wait(CallId),
}

impl CommandId {
    /// The step that owes it; none for the run's own time.
    #[must_use]
    pub fn step(self) -> Option<StepIndex> {
        match self {
            Self::Call(call) | Self::Retry(call) | Self::Wait(call) => Some(call.step),
            Self::Deadline => None,
        }
    }
}

/// Something owed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Make this call and answer with [`crate::input::Input::CallFinished`].
    Call {
        /// Identity of the call; with the run's id it is the idempotency key.
        id: CallId,
        /// What to do.
        work: Work,
        /// Longest time from sending to answer; past it the call has failed with a timeout.
        timeout: Option<Duration>,
    },
    /// Send [`crate::input::Input::Woken`] at this time or later.
    Wake {
        /// What the wake-up is for.
        id: CommandId,
        /// The earliest time.
        at: Timestamp,
    },
}

/// What a call does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Ask a model.
    Model {
        /// Name of the model.
        model: Name,
        /// Its evaluated inputs by name.
        with: Value,
    },
    /// Find near vectors.
    VectorQuery {
        /// Evaluated arguments.
        with: Value,
    },
    /// Store vectors.
    VectorUpsert {
        /// Evaluated arguments.
        with: Value,
    },
    /// Send an HTTP request.
    Http {
        /// Evaluated arguments.
        with: Value,
    },
}
