//! This node among the members: it joins the gossip with each of its lives, tells what it is and what it has to do, and
//! hands on who else is there.
//!
//! Ends and begins no life; the keeper of shards does. Never gives up: what cannot begin is tried again. Used by
//! `cluster`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use motet_actors::ports::{Entropy, SystemEntropy};
use motet_actors::router::Router;
use motet_cluster::members::datagrams::Datagrams;
use motet_cluster::members::{Identity, Load, MemberError, MemberSettings, Members, ModelName, Profile, Replica};
use motet_store::port::{Incarnation, LeaseStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::roster::Roster;

/// Time between two looks at what this node has to do.
const LOOK_AT_LOAD: Duration = Duration::from_secs(2);

/// Pause before gossip that could not begin is begun again; jittered.
const PAUSE: Duration = Duration::from_secs(1);

/// Kinds of actors whose waiting messages are calls.
const CALLED: [&str; 3] = ["model", "index", "egress"];

/// What belonging is made of.
pub(super) struct BelongingParts {
    pub(super) settings: MemberSettings,
    pub(super) name: String,
    /// Where other nodes reach this one.
    pub(super) address: SocketAddr,
    pub(super) profile: Profile,
    pub(super) datagrams: Arc<dyn Datagrams>,
    pub(super) store: Arc<dyn LeaseStore>,
    /// The life of this node.
    pub(super) life: watch::Receiver<Option<Incarnation>>,
    /// Whether it gives its work away.
    pub(super) draining: watch::Receiver<bool>,
    /// The models that it has.
    pub(super) models: watch::Receiver<BTreeMap<ModelName, Replica>>,
    pub(super) router: Arc<Router>,
    pub(super) roster: Roster,
}

/// The loop. Ends when it is dropped, without telling anybody.
pub(super) struct Belonging {
    ended: CancellationToken,
    running: JoinHandle<()>,
}

impl Drop for Belonging {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Belonging {
    pub(super) fn start(parts: BelongingParts) -> Self {
        let ended = CancellationToken::new();
        let running = tokio::spawn(run(parts, ended.clone()));
        Self { ended, running }
    }

    /// Leaves the gossip, in a little time at most.
    pub(super) async fn leave(mut self) {
        self.ended.cancel();
        // Each of its waits ends with the token or has a timeout of its own.
        let _ = (&mut self.running).await;
    }
}

async fn run(mut parts: BelongingParts, ended: CancellationToken) {
    loop {
        let life = tokio::select! {
            life = parts.life.wait_for(Option::is_some) => life.ok().and_then(|life| *life),
            () = ended.cancelled() => return,
        };
        // Without a keeper there is no life to come.
        let Some(life) = life else { return };
        match join(&mut parts, life).await {
            Ok(members) => {
                belong(&mut parts, &members, life, &ended).await;
                members.leave().await;
            }
            Err(error) => {
                tracing::error!(%error, "this node cannot tell others of itself; it tries again");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE.mul_f64(0.5 + SystemEntropy.fraction())) => {}
                    () = ended.cancelled() => return,
                }
            }
        }
        if ended.is_cancelled() {
            return;
        }
    }
}

async fn join(parts: &mut BelongingParts, life: Incarnation) -> Result<Members, MemberError> {
    parts.profile.draining = *parts.draining.borrow();
    parts.profile.load = load(&parts.router);
    parts.profile.replicas = parts.models.borrow_and_update().clone();
    let identity = Identity { name: parts.name.clone(), incarnation: life, address: parts.address };
    let (datagrams, store) = (Arc::clone(&parts.datagrams), Arc::clone(&parts.store));
    Members::join(parts.settings.clone(), identity, parts.profile.clone(), datagrams, store).await
}

/// One life among the others. It goes on while this node has none, for as long as the next one has not begun.
async fn belong(parts: &mut BelongingParts, members: &Members, life: Incarnation, ended: &CancellationToken) {
    let mut seen = members.watch();
    seen.mark_changed();
    let mut looks = interval(LOOK_AT_LOAD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = parts.profile.load;
    loop {
        let told_now = tokio::select! {
            changed = seen.changed() => {
                if changed.is_err() {
                    return;
                }
                parts.roster.show(&seen.borrow_and_update());
                continue;
            }
            changed = parts.life.changed() => {
                let now = *parts.life.borrow_and_update();
                if changed.is_err() || now.is_some_and(|now| now != life) {
                    return;
                }
                continue;
            }
            changed = parts.draining.changed() => {
                if changed.is_err() {
                    return;
                }
                let draining = *parts.draining.borrow_and_update();
                members.tell(|profile| profile.draining = draining).await
            }
            changed = parts.models.changed() => {
                if changed.is_err() {
                    return;
                }
                let models = parts.models.borrow_and_update().clone();
                members.tell(|profile| profile.replicas = models).await
            }
            _ = looks.tick() => {
                let now = load(&parts.router);
                if now == told {
                    continue;
                }
                told = now;
                members.tell(|profile| profile.load = now).await
            }
            () = ended.cancelled() => return,
        };
        if let Err(error) = told_now {
            tracing::error!(%error, "others are not told what has changed here");
        }
    }
}

fn load(router: &Router) -> Load {
    Load { live_runs: router.runs().live() as u64, queue_depth: router.census().waiting(&CALLED) }
}
