//! What is known of models without calling them: what they take and give, where they stand; and having them loaded or
//! unloaded.
//!
//! Decides nothing about where a model belongs; `placing` does. Used by the surfaces that serve models.

use std::time::Duration;

use motet_cluster::members::MemberState;
use motet_engine::access::{Action, Caller};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Name;
use motet_engine::value::Value;

use super::{Router, allow};
use crate::address::Address;
use crate::message::{Answer, Ask, ModelAsk, RouteError};
use crate::models::{ModelDescription, not_to_be_had};
use crate::peers::Missed;
use crate::wire::Question;

/// Where a model stands, on the nodes of a cluster taken together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelStanding {
    /// `ready` where a node has it, `loading`, `failed`, or `unloaded` where nobody asked for it yet.
    pub state: &'static str,
    /// Why it is not ready, for people; empty where it is.
    pub reason: String,
}

impl Router {
    /// What a model takes and gives, on whichever node has it. It is loaded for that if need be, within `patience`.
    ///
    /// # Errors
    /// When it does not exist, or cannot be loaded in time.
    pub async fn describe_model(
        &self,
        caller: &Caller,
        model: &Name,
        patience: Duration,
    ) -> Result<ModelDescription, RouteError> {
        allow(caller, Action::InferModel)?;
        let to = Address::Model(caller.namespace.clone(), model.clone());
        match self.ask(caller, &to, Ask::Model(ModelAsk::Describe), patience).await? {
            Answer::Output(answer) => Ok(ModelDescription::read(&answer)?),
            _ => Err(Failure::new(FailureClass::Internal, "an answer of another kind").into()),
        }
    }

    /// Has a model loaded where it belongs, and waits at most `patience` until a node has it.
    ///
    /// # Errors
    /// When it does not exist, or cannot be loaded in time.
    pub async fn load_model(&self, caller: &Caller, model: &Name, patience: Duration) -> Result<(), RouteError> {
        self.begin_load(caller, model).await?;
        self.describe_model(caller, model, patience).await.map(drop)
    }

    /// Has a model loaded where it belongs; returns without waiting for it.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn begin_load(&self, caller: &Caller, model: &Name) -> Result<(), RouteError> {
        allow(caller, Action::InferModel)?;
        let known = self.catalog.known_model(&caller.namespace, model).await;
        let definition = known.map_err(|error| not_to_be_had(model, &error))?;
        self.prepare(caller, &definition).await
    }

    /// Has every node give back what it holds of a model, once it has answered what waits. The next call loads it again.
    ///
    /// # Errors
    /// When it does not exist, is being loaded, or a node that has it does not answer within `patience`.
    pub async fn unload_model(&self, caller: &Caller, model: &Name, patience: Duration) -> Result<(), RouteError> {
        allow(caller, Action::WriteDefinition)?;
        let known = self.catalog.known_model(&caller.namespace, model).await;
        known.map_err(|error| not_to_be_had(model, &error))?;
        self.models.unload(&caller.namespace, model)?;
        let Some(peers) = self.peers.get() else { return Ok(()) };
        let holders = self.model_nodes(&caller.namespace, model).unwrap_or_default();
        let members = peers.placement.members();
        let others = members
            .iter()
            .filter(|member| !member.is_self && !matches!(member.state, MemberState::Gone(_)))
            .filter(|member| holders.iter().any(|holder| holder.node == member.name));
        let to = Address::Model(caller.namespace.clone(), model.clone());
        let question = Question { caller: caller.clone(), to, ask: Ask::Model(ModelAsk::Unload) };
        let payload = peers.packed(&question).await?;
        let asked = others.map(|member| peers.ask_node(&member.name, &question, payload.clone(), patience));
        for answered in futures::future::join_all(asked).await {
            answered.map_err(|(Missed::For(error) | Missed::Elsewhere(error))| error)?;
        }
        Ok(())
    }

    /// Where a model stands, as far as this node has heard.
    #[must_use]
    pub fn model_standing(&self, caller: &Caller, model: &Name) -> ModelStanding {
        let own = self.models.view(&caller.namespace, model);
        let nodes = self.model_nodes(&caller.namespace, model).unwrap_or_default();
        let told = nodes.iter().map(|node| node.state);
        let states: Vec<_> = own.as_ref().map(|view| view.state).into_iter().chain(told).collect();
        let state = ["ready", "loading", "failed"].into_iter().find(|state| states.contains(state));
        let failed = || {
            let own = own.as_ref().and_then(|view| view.error.as_ref()).map(ToString::to_string);
            let where_failed = nodes.iter().find(|node| node.state == "failed");
            own.or(where_failed.map(|node| format!("node '{}' could not load it", node.node))).unwrap_or_default()
        };
        match state {
            Some("ready") => ModelStanding { state: "ready", reason: String::new() },
            Some("failed") => ModelStanding { state: "failed", reason: failed() },
            Some(state) => ModelStanding { state, reason: "it is being loaded".to_owned() },
            None => ModelStanding { state: "unloaded", reason: "it is not loaded; its next call loads it".to_owned() },
        }
    }

    /// Calls a model outside a run.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn infer(
        &self,
        caller: &Caller,
        model: &Name,
        with: Value,
        patience: Duration,
    ) -> Result<Value, RouteError> {
        allow(caller, Action::InferModel)?;
        let to = Address::Model(caller.namespace.clone(), model.clone());
        let ask = Ask::Model(ModelAsk::Infer { with, priority: 0, key: None });
        match self.ask(caller, &to, ask, patience).await? {
            Answer::Output(output) => Ok(output),
            _ => Err(Failure::new(FailureClass::Internal, "an answer of another kind").into()),
        }
    }
}
