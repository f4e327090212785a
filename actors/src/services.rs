//! The node's own actors, one of each: timers, recovery, schedules, streams and the relay of results.
//!
//! Decides nothing of theirs; knows how each is begun anew after it failed. Used by the node.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use motet_engine::id::ShardId;
use ractor::{Actor, ActorCell};

use crate::address::Address;
use crate::recovery::Recovery;
use crate::relay::Relay;
use crate::router::Router;
use crate::runs::Runs;
use crate::schedule_actor::Scheduler;
use crate::streams::{StreamKeeper, Streams};
use crate::supervisor::{Children, Nursery};
use crate::timers::Timers;

/// The node's own actors, one of each.
pub(crate) struct Services {
    runs: Arc<Runs>,
    streams: Arc<Streams>,
    router: Weak<Router>,
    per_second: u32,
    children: Arc<Children>,
    supervisor: OnceLock<ActorCell>,
}

impl Services {
    /// Services that are not started yet; `per_second` unfinished runs are brought up.
    pub(crate) fn new(runs: Arc<Runs>, streams: Arc<Streams>, router: Weak<Router>, per_second: u32) -> Arc<Self> {
        Arc::new(Self { runs, streams, router, per_second, children: Arc::default(), supervisor: OnceLock::new() })
    }

    pub(crate) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Starts them all under their supervisor.
    pub(crate) async fn start(&self, supervisor: ActorCell) -> Result<(), String> {
        // Wired once, by the node.
        let _ = self.supervisor.set(supervisor);
        for service in [Address::Timers(ShardId(0)), Address::Recovery, Address::Scheduler, Address::StreamKeeper] {
            self.revive(&service).await?;
        }
        if self.streams.broker().is_some() {
            self.revive(&Address::Relay(ShardId(0))).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Nursery for Services {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        let Some(supervisor) = self.supervisor.get().cloned() else { return Err("not wired".into()) };
        let runs = Arc::clone(&self.runs);
        let cell = match child {
            Address::Timers(_) => {
                Actor::spawn_linked(None, Timers { runs }, (), supervisor).await.map(|(actor, _)| actor.get_cell())
            }
            Address::Recovery => {
                let recovery = Recovery { runs, per_second: self.per_second };
                Actor::spawn_linked(None, recovery, (), supervisor).await.map(|(actor, _)| actor.get_cell())
            }
            Address::Scheduler => {
                let scheduler = Scheduler { router: Weak::clone(&self.router) };
                Actor::spawn_linked(None, scheduler, (), supervisor).await.map(|(actor, _)| actor.get_cell())
            }
            Address::StreamKeeper => {
                let keeper = StreamKeeper { streams: Arc::clone(&self.streams) };
                Actor::spawn_linked(None, keeper, (), supervisor).await.map(|(actor, _)| actor.get_cell())
            }
            Address::Relay(_) => {
                let relay = Relay::new(runs, Arc::clone(&self.streams));
                Actor::spawn_linked(None, relay, (), supervisor).await.map(|(actor, _)| actor.get_cell())
            }
            _ => return Ok(()),
        };
        self.children.enter(&cell.map_err(|error| error.to_string())?, child.clone());
        Ok(())
    }

    fn ended(&self, _: &Address) {}

    fn quarantined(&self, child: &Address, reason: &str) {
        tracing::error!(service = %child, reason, "a service of the node stays down");
    }
}
