//! Calls of models on a node among others: which node answers each, and what happens when that one does not.
//!
//! Decides by the rule of `placement`, over what is known at each try. Never asks a second node once one has answered,
//! be it with a failure: that is the run's to judge. Used by the router.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use motet_cluster::members::{Member, MemberState, ModelName};
use motet_engine::access::Caller;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Router;
use crate::address::Address;
use crate::message::{Answer, Ask, ModelAsk, RouteError};
use crate::models::{Asker, Holding, ModelNode, Models, not_to_be_had};
use crate::peers::{Missed, Peers};
use crate::placement::{Passed, Situation, Where};
use crate::wire::Question;

/// Nodes that a call is tried on before its asker is told why.
const TRIES: usize = 4;

/// Longest pause before the next node is tried: calls of a node that died should not all reach the next at once.
const APART: Duration = Duration::from_millis(40);

/// Shortest and longest pause of a run's call that found no room anywhere.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A call that was not refused within this time was taken: the next in line may look for room.
const TAKEN_AFTER: Duration = Duration::from_millis(50);

/// How long a node may take to hear that it is to load a model.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);

/// A call on its way.
struct Call<'a> {
    peers: &'a Arc<Peers>,
    question: Question,
    model: ModelName,
    definition: Arc<ModelDefinition>,
    packed: OnceCell<Bytes>,
    deadline: Instant,
}

impl Router {
    /// Asks a model on whichever node is best, and waits at most `patience` for its answer.
    pub(super) async fn ask_model(
        &self,
        peers: &Arc<Peers>,
        question: Question,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        let deadline = Instant::now() + patience;
        timeout_at(deadline, self.place(peers, question, deadline)).await.unwrap_or(Err(RouteError::Expired))
    }

    async fn place(&self, peers: &Arc<Peers>, question: Question, deadline: Instant) -> Result<Answer, RouteError> {
        let Address::Model(namespace, name) = &question.to else {
            return Err(RouteError::Undecodable(format!("{} is no model", question.to)));
        };
        let model = ModelName { namespace: namespace.clone(), name: name.clone() };
        let definition =
            self.catalog.known_model(namespace, name).await.map_err(|error| not_to_be_had(name, &error))?;
        let of_a_run = question.run().is_some();
        let call = Call { peers, question, model, definition, packed: OnceCell::new(), deadline };
        match self.try_nodes(&call).await {
            // The run is accepted: it must not fail for want of room.
            Err(RouteError::Overloaded(_)) if of_a_run => self.wait_for_room(&call).await,
            answered => answered,
        }
    }

    /// Tries again and again, in turn with the other calls of the model, until a node takes the call.
    async fn wait_for_room(&self, call: &Call<'_>) -> Result<Answer, RouteError> {
        let line = call.peers.placement.line(&call.model);
        let (mut pause, longest) = PAUSES;
        let mut turn = None;
        loop {
            if turn.is_none() {
                turn = line.acquire().await.ok();
            }
            sleep(pause.mul_f64(0.5 + self.entropy.fraction())).await;
            let mut tried = pin!(self.try_nodes(call));
            let answered = match timeout(TAKEN_AFTER, &mut tried).await {
                Ok(answered) => answered,
                Err(_) => {
                    turn = None;
                    tried.await
                }
            };
            match answered {
                Err(RouteError::Overloaded(_)) => pause = (pause * 2).min(longest),
                answered => return answered,
            }
        }
    }

    /// Tries a few nodes, until one answers.
    async fn try_nodes(&self, call: &Call<'_>) -> Result<Answer, RouteError> {
        let (mut passed, mut refused) = (Passed::default(), None);
        for tried in 0..TRIES {
            let members = call.peers.placement.members();
            if !members.iter().any(|member| member.is_self) {
                // Nothing was heard yet, not even of this node.
                return self.ask_own(call).await;
            }
            let (node, place) = match self.choose(call, &members, &passed) {
                Ok(chosen) => chosen,
                Err(none) => return Err(refused.unwrap_or(none)),
            };
            if tried > 0 {
                sleep(APART.mul_f64(self.entropy.fraction())).await;
            }
            metrics::counter!("motet_model_calls_placed_total", "where" => place.as_str()).increment(1);
            let answered = match place {
                Where::Here => self.ask_own(call).await.map_err(Missed::For),
                Where::Near | Where::Far => self.ask_other(call, &node).await,
            };
            let (error, why) = match answered {
                Ok(answer) => return Ok(answer),
                Err(Missed::For(error @ RouteError::Overloaded(_))) => {
                    passed.full(&node);
                    (error, "full")
                }
                Err(Missed::For(error)) if is_final(&error) => return Err(error),
                Err(Missed::For(error) | Missed::Elsewhere(error)) => {
                    passed.away(&node);
                    (error, "away")
                }
            };
            metrics::counter!("motet_model_calls_passed_over_total", "why" => why).increment(1);
            tracing::debug!(node, model = %call.model.name, %error, "a node does not take a call: the next is asked");
            // That there is no room is what the asker can act on.
            if !matches!(refused, Some(RouteError::Overloaded(_))) {
                refused = Some(error);
            }
        }
        Err(refused.unwrap_or(RouteError::Expired))
    }

    /// The next node for a call, and how far it is.
    fn choose(&self, call: &Call<'_>, members: &[Member], passed: &Passed) -> Result<(String, Where), RouteError> {
        let situation = self.situation(members, &call.model, &call.definition, passed);
        let Some(pick) = situation.pick() else {
            return Err(Failure::new(FailureClass::Unavailable, situation.why_none()).into());
        };
        if pick.wants_more && call.peers.placement.may_prompt(&call.model) {
            self.prompt(call.peers, &call.question, &situation.wanted(Some(pick.member)));
        }
        Ok((pick.member.name.clone(), pick.place))
    }

    async fn ask_own(&self, call: &Call<'_>) -> Result<Answer, RouteError> {
        let Question { caller, to, ask } = &call.question;
        let left = call.deadline.saturating_duration_since(Instant::now());
        self.ask_here(caller, to, ask.clone(), left, Asker::Own).await
    }

    async fn ask_other(&self, call: &Call<'_>, node: &str) -> Result<Answer, Missed> {
        let packed = call.packed.get_or_try_init(|| call.peers.packed(&call.question)).await.map_err(Missed::For)?;
        let left = call.deadline.saturating_duration_since(Instant::now());
        call.peers.ask_node(node, &call.question, packed.clone(), left).await
    }

    fn situation<'a>(
        &self,
        members: &'a [Member],
        model: &'a ModelName,
        definition: &'a ModelDefinition,
        passed: &'a Passed,
    ) -> Situation<'a> {
        let here = self.models.replica(&model.namespace, &model.name);
        Situation { members, model, placement: &definition.placement, here, passed, draw: self.entropy.fraction() }
    }

    /// Has nodes begin to load a model. Lossy: its calls come there sooner or later.
    fn prompt(&self, peers: &Arc<Peers>, question: &Question, nodes: &[&Member]) {
        for member in nodes {
            let (caller, to) = (question.caller.clone(), question.to.clone());
            let question = Question { caller, to, ask: Ask::Model(ModelAsk::Load) };
            let (peers, models) = (Arc::clone(peers), Arc::clone(&self.models));
            let (own, node) = (member.is_self, member.name.clone());
            tracing::info!(node, model = %question.to, "a node is to load a model");
            tokio::spawn(async move {
                let heard = if own { load_own(&models, &question).await } else { tell(&peers, &node, &question).await };
                if let Err(error) = heard {
                    tracing::debug!(node, model = %question.to, %error, "a node does not load a model");
                }
            });
        }
    }

    /// Has a model loaded that was put: here where this node runs alone, otherwise on its homes and on whoever has an
    /// older version.
    pub(super) async fn prepare(&self, caller: &Caller, definition: &ModelDefinition) -> Result<(), RouteError> {
        let (namespace, name) = (caller.namespace.clone(), definition.name.clone());
        let peers = self.peers.get();
        let members = peers.map(|peers| peers.placement.members()).unwrap_or_default();
        let Some(peers) = peers.filter(|_| members.iter().any(|member| member.is_self)) else {
            // A node that is still to join does not know what will be its own.
            let own =
                self.models.holding() == Holding::All || (peers.is_some() && self.models.holding() == Holding::Placed);
            return if own { self.models.load(&namespace, &name).await } else { Ok(()) };
        };
        let passed = Passed::default();
        let model = ModelName { namespace, name };
        let situation = self.situation(&members, &model, definition, &passed);
        let nodes: Vec<_> = situation.holders().into_iter().chain(situation.wanted(None)).collect();
        let to = Address::Model(model.namespace.clone(), model.name.clone());
        let question = Question { caller: caller.clone(), to, ask: Ask::Model(ModelAsk::Load) };
        self.prompt(peers, &question, &nodes);
        Ok(())
    }

    /// The nodes that have a model, as they tell; none when this node runs alone.
    #[must_use]
    pub fn model_nodes(&self, namespace: &Namespace, name: &Name) -> Option<Vec<ModelNode>> {
        let members = self.peers.get()?.placement.members();
        let model = ModelName { namespace: namespace.clone(), name: name.clone() };
        let told = |member: &Member| {
            let own = || self.models.replica(namespace, name);
            let replica = if member.is_self { own() } else { member.profile.replicas.get(&model).copied() };
            replica.map(|replica| ModelNode::new(&member.name, &replica))
        };
        let there = members.iter().filter(|member| !matches!(member.state, MemberState::Gone(_)));
        Some(there.filter_map(told).collect())
    }
}

async fn load_own(models: &Arc<Models>, question: &Question) -> Result<(), RouteError> {
    match &question.to {
        Address::Model(namespace, name) => models.load(namespace, name).await,
        _ => Ok(()),
    }
}

async fn tell(peers: &Peers, node: &str, question: &Question) -> Result<(), RouteError> {
    let payload = peers.packed(question).await?;
    match peers.ask_node(node, question, payload, LOAD_PATIENCE).await {
        Ok(_) => Ok(()),
        Err(Missed::For(error) | Missed::Elsewhere(error)) => Err(error),
    }
}

/// Whether an error of one node says what any other would say.
fn is_final(error: &RouteError) -> bool {
    !matches!(error, RouteError::Absent(_) | RouteError::NotOwner | RouteError::Moved(_) | RouteError::Undecodable(_))
}
