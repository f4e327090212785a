//! What the leader does about shards: it looks, plans, and writes targets under its term.
//!
//! All of its work may be repeated and may be done by two leaders at once: the store takes plans of the newest term
//! only, and drops what was planned for a shard that has changed hands since. It also fences lives whose lease is over,
//! so that the list of nodes shows who is there. Never moves a shard itself. Started by the server on every node; it
//! works where the leader is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use motet_engine::id::{Epoch, Name, ShardId};
use motet_store::StoreError;
use motet_store::port::{Assignment, Incarnation, LiveNode, MapVersion, ShardRow, Store, Term};
use tokio::sync::watch;

use super::contender::Contender;
use super::members::Members;
use super::planner::{PlanLimits, Situation, plan};
use super::settings::{SettingsError, ShardSettings};
use super::view::View;
use crate::clock::{BootClock, Moment};

/// A node to which so many shards in turn were planned in vain gets no more of them for a while.
const VAIN: u32 = 3;

/// How long such a node gets no more, in times of the settle delay.
const CLOSED_FOR: u32 = 6;

/// What a leader knows of the shards, and what it makes of it. Pure.
pub struct Planning {
    settings: ShardSettings,
    view: View,
    /// The nodes that may own shards, by name.
    nodes: BTreeMap<String, Contender>,
    /// Those of them that have not told what they are: they keep what they have and get nothing new.
    unheard: BTreeSet<String>,
    /// Since when they are these; none before the first look.
    since: Option<Moment>,
    /// What was planned and has not come about yet: epoch and target.
    wanted: BTreeMap<ShardId, (Epoch, String)>,
    /// How many shards in turn a node did not take that were planned for it, and when it was last so.
    vain: BTreeMap<String, (u32, Moment)>,
}

impl Planning {
    /// A leader that has just begun: it knows nothing, and waits until nodes have settled.
    #[must_use]
    pub fn new(settings: ShardSettings) -> Self {
        let view = View::new(Contender::new("", 1), settings.shards);
        let (nodes, unheard, wanted, vain) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { settings, view, nodes, unheard, since: None, wanted, vain }
    }

    /// The version after which changes are to be read.
    #[must_use]
    pub fn version(&self) -> Option<MapVersion> {
        self.view.version()
    }

    /// Takes over what was read of table and leases, in that order, and what nodes tell of themselves.
    pub fn learn(
        &mut self,
        (version, rows): (MapVersion, Vec<ShardRow>),
        lives: &[LiveNode],
        members: Arc<Members>,
        now: Moment,
    ) {
        self.view.learn_rows(version, rows);
        self.view.learn_members(members);
        self.view.learn_lives(lives);
        let unheard = self.view.lives().filter_map(|(_, _, member)| member.filter(|member| !member.heard));
        self.unheard = unheard.map(|member| member.node.clone()).collect();
        let serves = self.view.lives().filter_map(|(_, leased, member)| {
            let member = member.filter(|member| leased && member.serves_runs && !member.draining)?;
            Some((member.node.clone(), Contender::new(&member.node, member.weight)))
        });
        let nodes: BTreeMap<_, _> = serves.collect();
        if self.since.is_none() || nodes != self.nodes {
            self.nodes = nodes;
            self.since = Some(now);
        }
        self.count_vain(now);
    }

    /// A node that lives and tells that it takes shards, but does not, must not keep them moving for ever.
    fn count_vain(&mut self, now: Moment) {
        let Self { view, nodes, wanted, vain, settings, .. } = self;
        wanted.retain(|shard, (epoch, target)| {
            let Some(row) = view.row(*shard).filter(|_| nodes.contains_key(target)) else { return false };
            let Some(owner) = row.owner.as_ref().filter(|_| row.epoch > *epoch) else { return true };
            if owner.node == *target {
                vain.remove(target);
            } else {
                let count = vain.entry(target.clone()).or_insert((0, now));
                *count = (count.0 + 1, now);
                if count.0 == VAIN {
                    tracing::warn!(
                        node = target,
                        "a node does not take shards that are planned for it: it gets no more for a while"
                    );
                }
            }
            false
        });
        vain.retain(|_, (_, at)| now.since(*at) < settings.settle * CLOSED_FOR);
    }

    /// The lives whose lease is over.
    pub fn expired(&self) -> impl Iterator<Item = Incarnation> {
        self.view.lives().filter(|(_, leased, _)| !leased).map(|(incarnation, ..)| incarnation)
    }

    /// What is to be written now.
    #[must_use]
    pub fn plan(&mut self, now: Moment) -> Vec<Assignment> {
        let nodes: Vec<Contender> = self.nodes.values().cloned().collect();
        let situation = Situation {
            nodes: &nodes,
            rows: self.view.rows(),
            lives: &|incarnation| self.view.is_leased(incarnation) == Some(true),
            closed: &|node| self.unheard.contains(node) || self.vain.get(node).is_some_and(|(count, _)| *count >= VAIN),
            settled: self.since.is_some_and(|since| now.since(since) >= self.settings.settle),
            limits: PlanLimits { load_percent: self.settings.load_percent, moves: self.settings.max_moves_at_once },
        };
        let assignment = |(shard, node): (ShardId, &Contender)| {
            let epoch = self.view.row(shard)?.epoch;
            Some(Assignment { shard, epoch, target: node.name().to_string() })
        };
        let plan: Vec<_> = plan(&situation).into_iter().filter_map(assignment).collect();
        self.wanted.extend(plan.iter().map(|new| (new.shard, (new.epoch, new.target.clone()))));
        plan
    }
}

#[cfg(test)]
mod tests;

/// What the leader's loop is made of.
pub struct PlannerParts {
    /// Where the table is.
    pub store: Arc<dyn Store>,
    /// Under which name the leader is elected.
    pub role: Name,
    /// This node's term while it leads.
    pub term: watch::Receiver<Option<Term>>,
    /// What nodes tell of themselves.
    pub members: watch::Receiver<Arc<Members>>,
    /// Measures how long nodes have settled.
    pub clock: Arc<dyn BootClock>,
    /// The numbers.
    pub settings: ShardSettings,
}

/// The leader's loop. It ends when it is dropped.
#[derive(Debug)]
pub struct ShardPlanner {
    running: tokio::task::JoinHandle<()>,
}

impl Drop for ShardPlanner {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl ShardPlanner {
    /// Starts the loop; it works whenever there is a term.
    ///
    /// # Errors
    /// When the settings do not go together.
    pub fn start(parts: PlannerParts) -> Result<Self, SettingsError> {
        parts.settings.check()?;
        Ok(Self { running: tokio::spawn(run(parts)) })
    }
}

async fn run(mut parts: PlannerParts) {
    loop {
        let term = *parts.term.borrow_and_update();
        let Some(term) = term else {
            if parts.term.changed().await.is_err() {
                return;
            }
            continue;
        };
        tracing::info!(term = term.0, "this node plans where shards are served");
        let ended = tokio::select! {
            () = lead(&parts.store, &parts.role, term, &parts.members, &*parts.clock, &parts.settings) => parts.term.changed().await,
            ended = parts.term.changed() => ended,
        };
        if ended.is_err() {
            return;
        }
    }
}

/// Plans until the term is over.
async fn lead(
    store: &Arc<dyn Store>,
    role: &Name,
    term: Term,
    members: &watch::Receiver<Arc<Members>>,
    clock: &dyn BootClock,
    settings: &ShardSettings,
) {
    let mut planning = Planning::new(settings.clone());
    let mut rounds = tokio::time::interval(settings.plan_every);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let members = Arc::clone(&members.borrow());
        let work = round(&**store, role, term, &mut planning, members, clock);
        match tokio::time::timeout(settings.lease, work).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                tracing::warn!(term = term.0, "another node leads by now: this one plans no more");
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "shards cannot be planned now; trying again"),
            Err(_) => tracing::warn!("shards cannot be planned now: the store does not answer; trying again"),
        }
    }
}

/// One plan; whether the term lasts.
async fn round(
    store: &dyn Store,
    role: &Name,
    term: Term,
    planning: &mut Planning,
    members: Arc<Members>,
    clock: &dyn BootClock,
) -> Result<bool, StoreError> {
    let rows = store.shards(planning.settings.shards, planning.version()).await?;
    let lives = store.live().await?;
    planning.learn(rows, &lives, members, clock.now());
    for life in planning.expired().collect::<Vec<_>>() {
        if store.fence_expired(life).await? {
            metrics::counter!("motet_cluster_fenced_total").increment(1);
            tracing::info!(%life, "a node whose lease was over is fenced");
        }
    }
    let plan = planning.plan(clock.now());
    metrics::gauge!("motet_cluster_shard_plan_size").set(plan.len() as f64);
    if plan.is_empty() {
        return Ok(true);
    }
    let leads = store.assign(role, term, &plan).await?;
    if leads {
        metrics::counter!("motet_cluster_shard_assignments_total").increment(plan.len() as u64);
        tracing::info!(term = term.0, shards = plan.len(), nodes = planning.nodes.len(), "shards got new targets");
    }
    Ok(leads)
}
