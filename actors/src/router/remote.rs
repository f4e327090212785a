//! Questions to actors that may live on another node, and questions that come from there.
//!
//! Decides only where to ask and when to ask again; where shards are is the table's to say, where models are is
//! `placing`'s. Used by the router.

use std::sync::Arc;
use std::time::Duration;

use motet_cluster::envelope::{Answer as Reply, NodeId};
use motet_cluster::members::Member;
use motet_engine::access::Caller;
use motet_engine::id::{RunId, ShardId};
use tokio::time::Instant;

use super::Router;
use crate::address::Address;
use crate::message::{Answer, Ask, ModelAsk, RouteError};
use crate::models::Asker;
use crate::peers::{Missed, Peers};
use crate::wire::Question;

/// How long a question waits for news of a shard before its home is asked again.
const PAUSE: Duration = Duration::from_millis(100);

impl Router {
    /// Asks the actor at an address, wherever it lives, and waits at most `patience` for its answer. While the actor's
    /// shard moves, the question waits for its new home.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask(&self, caller: &Caller, to: &Address, ask: Ask, patience: Duration) -> Result<Answer, RouteError> {
        match (to, ask) {
            (Address::Model(namespace, name), Ask::Model(ask @ ModelAsk::Infer { .. })) => {
                Box::pin(self.ask_models(caller, namespace, name, ask, patience)).await
            }
            (_, ask) => self.ask_one(caller, to, ask, patience).await,
        }
    }

    /// Asks whom it is addressed to, and nobody else.
    pub(super) async fn ask_one(
        &self,
        caller: &Caller,
        to: &Address,
        ask: Ask,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        match (self.peers.get(), to) {
            (Some(peers), Address::Run(run)) => {
                let question = Question { caller: caller.clone(), to: to.clone(), ask };
                self.ask_owner(peers, run.shard(), question, patience).await
            }
            (Some(peers), Address::Model(..)) => {
                let question = Question { caller: caller.clone(), to: to.clone(), ask };
                // In a room of its own, so that a question on one node does not grow by what it never does.
                Box::pin(self.ask_model(peers, question, patience)).await
            }
            (Some(peers), Address::Index(..)) => {
                let question = Question { caller: caller.clone(), to: to.clone(), ask };
                Box::pin(self.ask_index(peers, question, patience)).await
            }
            _ => self.ask_here(caller, to, ask, patience, Asker::Own).await,
        }
    }

    async fn ask_owner(
        &self,
        peers: &Peers,
        shard: ShardId,
        question: Question,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        let deadline = Instant::now() + patience;
        let mut changes = peers.table.subscribe();
        loop {
            changes.mark_unchanged();
            let left = deadline.saturating_duration_since(Instant::now());
            let missed = if self.runs.epoch(shard).is_some() {
                match self.ask_here(&question.caller, &question.to, question.ask.clone(), left, Asker::Own).await {
                    Err(error @ RouteError::NotOwner) => error,
                    answered => return answered,
                }
            } else if let Some(home) = peers.home(shard) {
                match peers.ask(&home, &question, left).await {
                    Ok(answer) => return Ok(answer),
                    Err(Missed::For(error)) => return Err(error),
                    Err(Missed::Elsewhere(error)) => error,
                }
            } else {
                RouteError::NotOwner
            };
            let pause = PAUSE.mul_f64(0.5 + self.entropy.fraction());
            if Instant::now() + pause >= deadline {
                return Err(missed);
            }
            // A change of any shard is looked at: they come in crowds or not at all.
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    /// Answers a question of another node, from here or not at all.
    pub(crate) async fn answer_peer(&self, question: &Question, patience: Duration) -> Result<Answer, RouteError> {
        if let (Some(peers), Address::Index(..)) = (self.peers.get(), &question.to) {
            return Box::pin(self.answer_for_index(peers, question, patience)).await;
        }
        match self.ask_here(&question.caller, &question.to, question.ask.clone(), patience, Asker::Peer).await? {
            // Whoever asked reads it from the store: a state may be larger than what travels between nodes.
            Answer::State(state) => Ok(Answer::Progress { seq: state.seq, ended: state.phase.is_end() }),
            answer => Ok(answer),
        }
    }

    /// The answer to a question about a shard that this node does not serve.
    pub(crate) fn not_mine(&self, shard: ShardId) -> Reply {
        let home = self.peers.get().and_then(|peers| peers.home(shard).map(|home| (home, peers.table.version())));
        let Some((home, version)) = home else { return Reply::NotOwner };
        match NodeId::new(&home.node) {
            Ok(owner) => Reply::Moved { owner, epoch: home.epoch, table_version: version.0 },
            Err(_) => Reply::NotOwner,
        }
    }

    /// Tells the node that serves a run's shard that the run was admitted.
    pub(crate) fn tell_owner(&self, run: RunId) {
        if let Some(peers) = self.peers.get() {
            peers.tell_admitted(run);
        }
    }

    /// The nodes that this one knows, itself included; none when it runs alone.
    #[must_use]
    pub fn members(&self) -> Option<Arc<Vec<Member>>> {
        self.peers.get().map(|peers| peers.members.borrow().clone())
    }

    /// Has a node of the cluster give its work away, or take some again; returns when it has heard of it. Its shards
    /// move one by one then, without an end to any run, and it goes on answering for all of them.
    ///
    /// # Errors
    /// When this node runs alone, knows no such node, or does not reach it.
    pub async fn drain(&self, node: &str, drain: bool) -> Result<(), RouteError> {
        match self.peers.get() {
            Some(peers) => peers.drain(node, drain).await,
            None => {
                Err(RouteError::Unknown(format!("node '{node}' (this node runs alone: cluster.address is not set)")))
            }
        }
    }

    /// This node gives its work away from now on, or takes some again.
    pub(crate) fn begin_drain(&self, drain: bool) -> Reply {
        let Some(peers) = self.peers.get() else { return Reply::NotOwner };
        peers.draining.send_replace(drain);
        Reply::taken()
    }

    /// Brings up a run that another node has admitted on a shard of this one.
    pub(crate) async fn bring_up_admitted(&self, run: RunId) -> Reply {
        if self.runs.epoch(run.shard()).is_none() {
            return self.not_mine(run.shard());
        }
        if !self.runs.has_room() {
            self.runs.backlog().leave(run.shard());
        } else if let Err(error) = self.runs.activate(run).await {
            tracing::debug!(%run, %error, "an admitted run is brought up later");
            self.runs.backlog().leave(run.shard());
        }
        Reply::taken()
    }
}
