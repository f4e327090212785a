//! What actors are asked and what they answer, in a form that can cross nodes.
//!
//! Every message says who asks, travels to an address, and gets a typed answer: the answer of the actor, or why there
//! is none. Used by the router and by every actor.

use std::time::Duration;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, RunId, Seq};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::State;
use motet_engine::value::Value;
use serde::{Deserialize, Serialize};

/// What an actor is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// For a run.
    Run(RunAsk),
    /// For a model.
    Model(ModelAsk),
    /// For a vector index.
    Index(IndexAsk),
    /// For another service.
    Egress(EgressAsk),
}

/// What a run is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunAsk {
    /// Take this input.
    Input(Input),
    /// The limits of the workflow let it be worked on now.
    Proceed,
    /// Answer as soon as an event after this one is recorded, or the run has ended.
    Watch {
        /// The last event that the asker knows.
        beyond: Seq,
    },
    /// Show where you stand as soon as you have ended.
    AwaitEnd,
    /// Show where you stand.
    Read,
}

/// Identity of a call's attempt: what a backend may use to recognise one that it has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallKey {
    /// The run.
    pub run: RunId,
    /// Step, item and attempt.
    pub call: CallId,
}

/// What a model is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelAsk {
    /// Answer these inputs, as part of a batch.
    Infer {
        /// Inputs by name.
        with: Value,
        /// Higher goes first.
        priority: i8,
        /// Identity of the call, when it is a run's.
        key: Option<CallKey>,
    },
    /// Begin to load the newest version, unless it is loaded or on its way.
    Load,
    /// Say what you take and give, as soon as you are loaded.
    Describe,
    /// Give back what you hold once you have answered what waits. The next call loads you again.
    Unload,
}

/// What an index is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexAsk {
    /// Find near vectors.
    Query {
        /// Arguments by name.
        with: Value,
        /// The run that asks, when one does.
        run: Option<RunId>,
    },
    /// Store vectors; the answer comes when they are durable.
    Upsert {
        /// Arguments by name.
        with: Value,
        /// The run that asks, when one does.
        run: Option<RunId>,
    },
    /// Say what it holds.
    Stats,
}

/// What is asked of another service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressAsk {
    /// Send an HTTP request and give its answer.
    Http {
        /// Arguments by name.
        with: Value,
        /// The same for every attempt of the call, so that the other side may recognise one that it has seen.
        key: Option<String>,
        /// Higher goes first.
        priority: i8,
        /// Longest time for the answer, from now.
        timeout: Duration,
    },
}

/// What an actor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The input is durable and applied.
    Accepted,
    /// The input changed nothing.
    Rejected(Rejection),
    /// Where the run stands.
    Progress {
        /// Its last event.
        seq: Seq,
        /// Whether it has ended.
        ended: bool,
    },
    /// Everything about the run.
    State(Box<State>),
    /// The output of a model, an index or another service.
    Output(Value),
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RouteError {
    /// The actor lives on another node now.
    #[error("moved to node '{0}'")]
    Moved(String),
    /// This node does not own the actor's shard, and does not know who does.
    #[error("this node does not own the shard")]
    NotOwner,
    /// A queue on the way is full.
    #[error("{0}")]
    Overloaded(String),
    /// The actor does not understand the message.
    #[error("the message cannot be read: {0}")]
    Undecodable(String),
    /// No answer came in time.
    #[error("no answer came in time")]
    Expired,
    /// There is no such actor.
    #[error("{0} does not exist")]
    Unknown(String),
    /// The actor tried and failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The model cannot be used on this node, or not now; another node may have it.
    #[error("{0}")]
    Absent(Failure),
}

impl RouteError {
    /// The same as a failure of an attempt.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let class = match &self {
            Self::Failed(failure) | Self::Absent(failure) => return failure.clone(),
            Self::Moved(_) | Self::NotOwner => FailureClass::Unavailable,
            Self::Overloaded(_) => FailureClass::Overloaded,
            Self::Undecodable(_) => FailureClass::Internal,
            Self::Expired => FailureClass::Timeout,
            Self::Unknown(_) => FailureClass::NotFound,
        };
        Failure::new(class, self.to_string())
    }
}
