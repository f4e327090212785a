//! Draining: a node that is to give its work away hands its shards over and does not lead, until it is told otherwise.
//!
//! Decides nothing about where shards go. Used by `cluster`.

use std::time::Duration;

use motet_cluster::leader::Leader;
use motet_cluster::shards::ShardKeeper;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// The end of a node's part: how long its shards may take, and whom to tell how many were left.
type End = (Duration, oneshot::Sender<usize>);

/// The loop around the keeper of shards and the part in the election. When it is dropped, both end at once, as if the
/// process had died.
pub(super) struct Tending {
    end: Option<oneshot::Sender<End>>,
    running: JoinHandle<()>,
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Tending {
    pub(super) fn start(keeper: ShardKeeper, leader: Leader, draining: watch::Receiver<bool>) -> Self {
        let (end, ended) = oneshot::channel();
        Self { end: Some(end), running: tokio::spawn(tend(keeper, leader, draining, ended)) }
    }

    /// Resigns and hands every shard over within `patience`. Returns how many shards were not handed over.
    pub(super) async fn end(mut self, patience: Duration) -> usize {
        let (left, answer) = oneshot::channel();
        if self.end.take().is_none_or(|end| end.send((patience, left)).is_err()) {
            return 0;
        }
        answer.await.unwrap_or_default()
    }
}

async fn tend(
    keeper: ShardKeeper,
    leader: Leader,
    mut draining: watch::Receiver<bool>,
    mut ended: oneshot::Receiver<End>,
) {
    let mut drains = false;
    loop {
        tokio::select! {
            biased;
            end = &mut ended => {
                let Ok((patience, left)) = end else { return };
                leader.stop().await;
                let _ = left.send(keeper.stop(patience).await);
                return;
            }
            changed = draining.changed(), if draining.has_changed().is_ok() => {
                let now = *draining.borrow_and_update();
                if changed.is_ok() && now != drains {
                    drains = now;
                    tracing::info!(drains, "this node {}", if now { "gives its shards away" } else { "takes shards again" });
                    leader.stand(!now);
                    keeper.drain(now).await;
                }
            }
        }
    }
}
