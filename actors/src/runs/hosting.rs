//! Shards that come to this node and leave it, with the runs that live here.
//!
//! Never claims nor releases a shard in the store: whoever does calls these in between. What a run has recorded is
//! durable already, so handing over is only ending its actor. Used by the node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use motet_cluster::shards::ShardHost;
use motet_engine::id::{Epoch, RunId, ShardId};
use ractor::ActorCell;
use tokio::sync::watch;

use super::{Runs, Slot};

/// The runs of a node as those who move shards see them.
pub(crate) struct RunHost(pub(crate) Arc<Runs>);

#[async_trait]
impl ShardHost for RunHost {
    async fn take_over(&self, shard: ShardId, epoch: Epoch) {
        self.0.take_over(shard, epoch);
    }

    async fn hand_over(&self, shard: ShardId, patience: Duration) {
        if !self.0.hand_over(shard, patience).await {
            tracing::warn!(%shard, ?patience, "runs of a shard that moves did not stop in time and are dropped");
            self.0.drop_actors(shard);
        }
    }

    fn lost(&self, shard: ShardId) {
        self.0.lost(shard);
    }
}

impl Runs {
    /// The epoch under which this node serves a shard; none when it does not.
    pub(crate) fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        self.shards.epoch(shard)
    }

    /// Serves a shard from now on. Its unfinished runs come up in the background, its timers ring.
    pub(crate) fn take_over(&self, shard: ShardId, epoch: Epoch) {
        self.shards.take(shard, epoch);
        self.backlog.add(shard);
        self.outbox.add(shard);
        self.timer_hint.send_replace(Some(self.clock().now()));
        if let Some(router) = self.router() {
            router.schedules().changed();
        }
    }

    /// Takes nothing more for a shard and resolves when none of its runs lives here; false when that took longer than
    /// `patience`.
    pub(crate) async fn hand_over(self: &Arc<Self>, shard: ShardId, patience: Duration) -> bool {
        self.shards.give_up(shard);
        self.limits.forget(shard);
        self.orders.forget(shard);
        let gone = async {
            loop {
                let (actors, starting) = self.living(shard);
                if actors.is_empty() && starting.is_empty() {
                    return;
                }
                for mut starting in starting {
                    while starting.changed().await.is_ok() {}
                }
                // An actor that stops finishes the message in hand. One that is ending by itself takes no such order:
                // it is waited for all the same, or this would go round without a pause while its slot is there.
                let stops = actors.into_iter().map(|(run, actor)| async move {
                    actor.stop(Some("its shard moves".into()));
                    if actor.wait(Some(patience)).await.is_ok() {
                        self.strike(run, &actor);
                    }
                });
                futures::future::join_all(stops).await;
            }
        };
        tokio::time::timeout(patience, gone).await.is_ok()
    }

    /// Drops a shard that belongs to somebody else already: its actors end at once, wherever they are.
    pub(crate) fn lost(&self, shard: ShardId) {
        if !self.shards.give_up(shard) {
            return;
        }
        self.limits.forget(shard);
        self.orders.forget(shard);
        self.drop_actors(shard);
    }

    fn drop_actors(&self, shard: ShardId) {
        for (run, actor) in self.living(shard).0 {
            actor.kill();
            self.strike(run, &actor);
        }
    }

    /// A write of this epoch was refused because of it: if the node still believes in it, the shard is lost.
    pub(crate) fn fenced(&self, shard: ShardId, epoch: Epoch) {
        metrics::counter!("motet_writes_fenced_total").increment(1);
        if self.epoch(shard) == Some(epoch) {
            tracing::warn!(%shard, %epoch, "fenced: somebody else owns the shard, and this node stops serving it");
            metrics::counter!("motet_shards_fenced_total").increment(1);
            self.lost(shard);
        } else {
            // The run was brought up before the shard went away and came back.
            self.backlog.add(shard);
        }
    }

    /// Tells whoever serves a run's shard that the run is there.
    pub(crate) fn tell_owner(&self, run: RunId) {
        if self.epoch(run.shard()).is_some() {
            return self.backlog.leave(run.shard());
        }
        if let Some(router) = self.router() {
            router.tell_owner(run);
        }
    }

    /// Resolves when recovery has something to do: at once, or among other nodes after `pause` at the latest.
    pub(crate) async fn something_to_sweep(&self, pause: Duration) {
        if tokio::time::timeout(pause, self.backlog.more()).await.is_ok() {
            return;
        }
        if self.router().is_some_and(|router| router.is_alone()) {
            return self.backlog.more().await;
        }
        self.sweep_soon();
    }

    /// Runs were admitted of which nobody here knows yet.
    pub(crate) fn sweep_soon(&self) {
        self.shards.own().for_each(|shard| self.backlog.add(shard));
    }

    /// The shards that this node serves.
    pub(crate) fn own_shards(&self) -> Vec<ShardId> {
        self.shards.own().collect()
    }

    /// The actors of a shard, and the starts that are under way.
    fn living(&self, shard: ShardId) -> (Vec<(RunId, ActorCell)>, Vec<watch::Receiver<()>>) {
        let (mut actors, mut starting) = (vec![], vec![]);
        for slot in self.slots.iter().filter(|slot| slot.key().shard() == shard) {
            match slot.value() {
                Slot::Live(mailbox) => actors.push((*slot.key(), mailbox.actor().get_cell())),
                Slot::Starting(begun) => starting.push(begun.clone()),
            }
        }
        (actors, starting)
    }

    /// Frees the slot of an actor that has ended.
    fn strike(&self, run: RunId, actor: &ActorCell) {
        let dead = actor.get_id();
        self.slots.remove_if(&run, |_, slot| matches!(slot, Slot::Live(live) if live.actor().get_id() == dead));
    }
}
