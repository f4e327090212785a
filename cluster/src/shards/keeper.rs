//! The loop on every node that keeps its lease, looks at the table, and lets the host serve what is this node's.
//!
//! Decides nothing: the machine does. Requests to the store run side by side, each with a timeout, so that a slow one
//! does not cost the lease. Never blocks, and holds nothing while it waits. Started by the server; it calls the host.

mod calls;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, Store};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::host::ShardHost;
use super::machine::{Event, Machine, Order, Own};
use super::members::Members;
use super::settings::{SettingsError, ShardSettings};
use super::table::{Home, ShardTable};
use crate::clock::{BootClock, Moment};

/// Commands that may wait for the loop.
const COMMANDS: usize = 64;

/// Shards that the host is given, or hands over, at one time.
const HOST_CALLS: usize = 64;

/// How much longer than its patience a hand-over may take.
const GRACE: Duration = Duration::from_secs(1);

/// Longest sleep of the loop; the machine wakes it far earlier.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What a keeper is made of.
pub struct KeeperParts {
    /// Where the table and the leases are.
    pub store: Arc<dyn Store>,
    /// Who serves shards here.
    pub host: Arc<dyn ShardHost>,
    /// What this node is.
    pub own: Own,
    /// What nodes tell of themselves.
    pub members: watch::Receiver<Arc<Members>>,
    /// Measures leases.
    pub clock: Arc<dyn BootClock>,
    /// The numbers.
    pub settings: ShardSettings,
}

/// Whether this node may rely on its lease. Cheap to ask before any work is done: a process that stood still finds out
/// by it before its keeper runs.
#[derive(Clone)]
pub struct Standing {
    clock: Arc<dyn BootClock>,
    /// Microseconds since the boot of the machine; 0 without a lease.
    until: Arc<AtomicU64>,
}

impl Standing {
    /// Whether the lease lasts at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        micros(self.clock.now()) < self.until.load(Ordering::Acquire)
    }
}

fn micros(moment: Moment) -> u64 {
    u64::try_from(moment.since_boot().as_micros()).unwrap_or(u64::MAX)
}

enum Command {
    Doubt,
    Drain(bool),
    Stop { patience: Duration, left: oneshot::Sender<usize> },
}

/// The door to the loop. When it is dropped, the loop lets everything go at once, as if the process had died.
pub struct ShardKeeper {
    commands: mpsc::Sender<Command>,
    table: Arc<ShardTable>,
    standing: Standing,
    life: watch::Receiver<Option<Incarnation>>,
}

impl ShardKeeper {
    /// Starts the loop. It registers this node and takes what is its own by itself.
    ///
    /// # Errors
    /// When the settings do not go together.
    pub fn start(parts: KeeperParts) -> Result<Self, SettingsError> {
        parts.settings.check()?;
        let table = Arc::new(ShardTable::new(parts.settings.shards));
        let standing = Standing { clock: Arc::clone(&parts.clock), until: Arc::default() };
        let (commands, taken) = mpsc::channel(COMMANDS);
        let (told, life) = watch::channel(None);
        let machine = Machine::new(&parts.own, parts.settings.clone(), parts.clock.now());
        let keeping = Keeping {
            parts,
            machine,
            table: Arc::clone(&table),
            standing: standing.clone(),
            life: told,
            calls: FuturesUnordered::new(),
            host_calls: HashMap::new(),
            turns: Arc::new(Semaphore::new(HOST_CALLS)),
            leaving: None,
        };
        tokio::spawn(keeping.run(taken));
        Ok(Self { commands, table, standing, life })
    }

    /// The home of every shard.
    #[must_use]
    pub fn table(&self) -> &Arc<ShardTable> {
        &self.table
    }

    /// Whether this node may rely on its lease.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// This node's life, for what it tells of itself and for its writes; none while it has no lease.
    #[must_use]
    pub fn life(&self) -> watch::Receiver<Option<Incarnation>> {
        self.life.clone()
    }

    /// A write was refused for its epoch or its life, or another node told of a change: lease and table are looked at
    /// at once.
    pub fn doubt(&self) {
        // When the queue is full, a look is near anyway.
        let _ = self.commands.try_send(Command::Doubt);
    }

    /// Gives shards away and takes no more, or begins to take again. Whoever drains also tells it the others.
    pub async fn drain(&self, draining: bool) {
        let _ = self.commands.send(Command::Drain(draining)).await;
    }

    /// Hands everything over within `patience`, lets go of the rest, and ends this node's life, so that others need not
    /// wait for its lease. Returns how many shards were not handed over.
    pub async fn stop(self, patience: Duration) -> usize {
        let (left, answer) = oneshot::channel();
        if self.commands.send(Command::Stop { patience, left }).await.is_err() {
            return 0;
        }
        answer.await.unwrap_or_default()
    }
}

struct Leaving {
    until: tokio::time::Instant,
    left: oneshot::Sender<usize>,
}

/// The loop's state.
struct Keeping {
    parts: KeeperParts,
    machine: Machine,
    table: Arc<ShardTable>,
    standing: Standing,
    life: watch::Sender<Option<Incarnation>>,
    calls: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// What the host is at, by shard.
    host_calls: HashMap<ShardId, AbortHandle>,
    turns: Arc<Semaphore>,
    leaving: Option<Leaving>,
}

impl Keeping {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut members = self.parts.members.clone();
        let mut told = true;
        self.handle(Event::Members(Arc::clone(&members.borrow_and_update())));
        loop {
            let now = self.parts.clock.now();
            let pause = self.machine.wake_at().map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP);
            let end = self.leaving.as_ref().map(|leaving| leaving.until);
            let event = tokio::select! {
                biased;
                Some(done) = self.calls.next(), if !self.calls.is_empty() => done,
                command = commands.recv(), if end.is_none() => match command {
                    Some(Command::Doubt) => Some(Event::Doubt),
                    Some(Command::Drain(draining)) => Some(Event::Drain(draining)),
                    Some(Command::Stop { patience, left }) => {
                        tracing::info!(shards = self.machine.ownership().held(), "shards are handed over: this node leaves");
                        self.leaving = Some(Leaving { until: tokio::time::Instant::now() + patience, left });
                        Some(Event::Leave)
                    }
                    None => break,
                },
                changed = members.changed(), if told => {
                    told = changed.is_ok();
                    Some(Event::Members(Arc::clone(&members.borrow_and_update())))
                }
                () = tokio::time::sleep(pause) => Some(Event::Tick),
                () = sleep_until(end) => break,
            };
            if let Some(event) = event {
                self.handle(event);
            }
            if end.is_some() && self.machine.ownership().held() == 0 {
                break;
            }
        }
        self.end().await;
    }

    /// Whatever is left is let go, and the node's life ends.
    async fn end(mut self) {
        self.standing.until.store(0, Ordering::Release);
        let left = self.machine.ownership().held();
        for call in self.host_calls.values() {
            call.abort();
        }
        self.calls.clear();
        for shard in (0..self.parts.settings.shards).map(ShardId) {
            if self.machine.ownership().serving(shard).is_some() || self.host_calls.contains_key(&shard) {
                self.parts.host.lost(shard);
            }
        }
        self.life.send_replace(None);
        let Some(Leaving { left: answer, .. }) = self.leaving else { return };
        if let Some((life, _)) = self.machine.life() {
            let fenced = tokio::time::timeout(self.parts.settings.call_timeout, self.parts.store.fence(life)).await;
            if !matches!(fenced, Ok(Ok(()))) {
                tracing::warn!("the node's lease could not be ended; others wait until it is over");
            }
        }
        tracing::info!(left, "this node has left");
        let _ = answer.send(left);
    }

    fn handle(&mut self, event: Event) {
        if let Event::TookOver(shard, _) | Event::HandedOver(shard, _) = &event {
            self.host_calls.remove(shard);
        }
        let before = self.machine.life();
        let orders = self.machine.handle(event, self.parts.clock.now());
        let after = self.machine.life();
        // Before anything is carried out: whoever asks must not rely on a lease that is over.
        self.standing.until.store(after.map_or(0, |(_, until)| micros(until)), Ordering::Release);
        let (before, after) = (before.map(|(life, _)| life), after.map(|(life, _)| life));
        if before != after {
            self.tell_life(before, after);
        }
        for order in orders {
            self.carry_out(order);
        }
        self.publish();
    }

    fn tell_life(&self, before: Option<Incarnation>, after: Option<Incarnation>) {
        self.life.send_replace(after);
        match (before, after) {
            (_, Some(life)) => tracing::info!(node = self.parts.own.node, %life, "this node is registered"),
            (Some(life), None) => {
                metrics::counter!("motet_cluster_self_fenced_total").increment(1);
                tracing::warn!(
                    node = self.parts.own.node, %life,
                    "this node could not renew its lease in time, or was fenced: it drops its shards and registers \
                     again (if this goes on: does another process use its name?)"
                );
            }
            (None, None) => {}
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Ask { number, call } => {
                let (store, settings) = (Arc::clone(&self.parts.store), self.parts.settings.clone());
                let own = self.parts.own.clone();
                self.calls.push(Box::pin(async move {
                    let answer = calls::ask(&*store, &own, &settings, call).await;
                    Some(Event::Answered { number, answer })
                }));
            }
            Order::TakeOver(shard, epoch) => self.take_over(shard, epoch),
            Order::HandOver(shard, epoch) => self.hand_over(shard, epoch),
            Order::Lost(shard, epoch) => {
                if let Some(call) = self.host_calls.remove(&shard) {
                    call.abort();
                }
                tracing::warn!(%shard, %epoch, "the shard is not this node's any more: it is dropped");
                metrics::counter!("motet_cluster_shards_lost_total").increment(1);
                self.parts.host.lost(shard);
            }
        }
    }

    fn take_over(&mut self, shard: ShardId, epoch: Epoch) {
        tracing::debug!(%shard, %epoch, "the shard is served here");
        metrics::counter!("motet_cluster_shards_taken_total").increment(1);
        let (host, patience) = (Arc::clone(&self.parts.host), self.parts.settings.hand_over_patience);
        self.host_call(shard, async move {
            if tokio::time::timeout(patience, host.take_over(shard, epoch)).await.is_ok() {
                return Event::TookOver(shard, epoch);
            }
            tracing::error!(%shard, "the shard could not be taken over in time: it is given up");
            host.lost(shard);
            Event::HandedOver(shard, epoch)
        });
    }

    fn hand_over(&mut self, shard: ShardId, epoch: Epoch) {
        tracing::debug!(%shard, %epoch, "the shard is handed over");
        metrics::counter!("motet_cluster_shards_handed_over_total").increment(1);
        let (host, patience) = (Arc::clone(&self.parts.host), self.parts.settings.hand_over_patience);
        self.host_call(shard, async move {
            if tokio::time::timeout(patience + GRACE, host.hand_over(shard, patience)).await.is_err() {
                tracing::warn!(%shard, "the shard did not come to rest in time: it is dropped");
                host.lost(shard);
            }
            Event::HandedOver(shard, epoch)
        });
    }

    fn host_call(&mut self, shard: ShardId, call: impl Future<Output = Event> + Send + 'static) {
        let (handle, registration) = AbortHandle::new_pair();
        let turns = Arc::clone(&self.turns);
        let in_turn = async move {
            let _turn = turns.acquire_owned().await;
            call.await
        };
        self.calls.push(Box::pin(async move { Abortable::new(in_turn, registration).await.ok() }));
        self.host_calls.insert(shard, handle);
    }

    /// Tells routers what has changed.
    fn publish(&mut self) {
        let touched = self.machine.take_touched();
        let view = self.machine.view();
        if let Some(version) = view.version() {
            self.table.set_version(version);
        }
        if touched.is_empty() {
            return;
        }
        let rows = touched.into_iter().filter_map(|shard| view.row(shard)).map(|row| {
            let home = row.owner.as_ref().map(|owner| Home {
                node: owner.node.as_str().into(),
                incarnation: owner.incarnation,
                epoch: row.epoch,
            });
            (row.shard, row.epoch, home)
        });
        self.table.enter(rows);
        metrics::gauge!("motet_cluster_shards_held").set(self.machine.ownership().held() as f64);
    }
}

async fn sleep_until(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
