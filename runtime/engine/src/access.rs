//! Who asks, for which namespace, and whether that is allowed: the one table of actions.
//!
//! Never authenticates; the server does, and hands in a [`Caller`]. Used at every door of the system.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::Namespace;
use crate::trace::TraceContext;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// Whoever can reach the loopback interface of a node without authentication configured.
    Local,
    /// The system itself: recovery, timers, relays.
    System,
    /// An authenticated user or key, by name.
    Named(Arc<str>),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::System => f.write_str("system"),
            Self::Named(name) => write!(f, "user:{name}"),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start a run.
    SubmitRun,
    /// Read runs, their events and outputs.
    ReadRun,
    /// Cancel, pause, resume and retry a run.
    ControlRun,
    /// Send a run a signal.
    SignalRun,
    /// Read workflows, models, indexes, schedules and streams.
    ReadDefinition,
    /// Put workflows, models, indexes, schedules and streams, and delete the last two.
    WriteDefinition,
    /// Call a model outside a run.
    InferModel,
    /// Read the vectors of an index.
    ReadIndex,
    /// Change the vectors of an index.
    WriteIndex,
    /// Read the node's state.
    ReadNode,
    /// Have a node give its work away, or take some again.
    ControlNode,
}

/// Who asks, for which namespace, as part of which trace: travels with every message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Caller {
    /// The tenant whose resources are meant.
    pub namespace: Namespace,
    /// Who asks.
    pub principal: Principal,
    /// The operation that this is part of.
    pub trace: TraceContext,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} may not {action:?} in namespace '{namespace}'")]
pub struct Denied {
    principal: Principal,
    action: Action,
    namespace: Namespace,
}

impl Caller {
    /// Looks the action up in the table. Without authentication there are the local user and the system, and both
    /// may do everything; a named principal may do nothing until roles are configured.
    ///
    /// # Errors
    /// When the table does not allow it.
    pub fn may(&self, action: Action) -> Result<(), Denied> {
        match self.principal {
            Principal::Local | Principal::System => Ok(()),
            Principal::Named(_) => {
                Err(Denied { principal: self.principal.clone(), action, namespace: self.namespace.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_local_user_and_the_system_are_allowed() {
        for (principal, allowed) in
            [(Principal::Local, true), (Principal::System, true), (Principal::Named("eve".into()), false)]
        {
            let caller = Caller { namespace: Namespace::default(), principal, trace: TraceContext::start(1, 1) };
            assert_eq!(caller.may(Action::SubmitRun).is_ok(), allowed);
        }
    }
}
