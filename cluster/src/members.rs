//! Who belongs to the cluster: which nodes there are, whether they live, what they can do and what they have to do.
//!
//! Decides nothing about who owns what, and evicts nobody: it shows what gossip hears beside what the store knows. What
//! nodes tell travels by gossip (chitchat) over the datagrams of the link; leases and identities are the store's. Used
//! by the planner, by routers that look for a model, and by lists for people.

pub mod datagrams;
mod gossip;
mod keys;
pub mod local;
mod member;
mod seeds;
mod settings;
#[cfg(test)]
mod tests;
mod transport;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_store::port::{Incarnation, LeaseStore};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use datagrams::Datagrams;
use gossip::Gossip;
pub use member::{
    Capacity, Doubt, End, Load, MAX_REPLICAS, Member, MemberState, ModelName, Profile, Replica, Role, Roles,
    UnknownRole, Version,
};
use seeds::Seeds;
pub use settings::MemberSettings;
use view::{Table, View};

/// Nodes that are greeted in one round, beside those that gossip chooses itself.
const GREETED: usize = 3;

/// Who this node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its name; no two nodes have the same. Letters, digits, `-`, `_` and `.`, up to 253.
    pub name: String,
    /// Its boot, as the store gave it when the node was registered.
    pub incarnation: Incarnation,
    /// Where other nodes reach it.
    pub address: SocketAddr,
}

/// Why membership cannot begin, or something cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The settings cannot work.
    #[error("the settings of the cluster cannot be used: {0}")]
    Settings(String),
    /// Others would not believe it.
    #[error("this node cannot tell that of itself: {0}")]
    Profile(String),
    /// Gossip could not be begun.
    #[error("gossip cannot be begun: {0}")]
    Gossip(String),
}

/// This node's membership. Ends when it is dropped, without telling anybody.
pub struct Members {
    own: Incarnation,
    gossip: Arc<Gossip>,
    /// What this node tells.
    profile: Mutex<Profile>,
    view: watch::Receiver<Arc<Vec<Member>>>,
    work: Vec<JoinHandle<()>>,
}

impl Members {
    /// Joins the cluster as a node that the store has registered, and begins to tell its profile.
    ///
    /// # Errors
    /// [`MemberError::Settings`], [`MemberError::Profile`], [`MemberError::Gossip`].
    pub async fn join(
        settings: MemberSettings,
        identity: Identity,
        profile: Profile,
        datagrams: Arc<dyn Datagrams>,
        store: Arc<dyn LeaseStore>,
    ) -> Result<Self, MemberError> {
        settings.check()?;
        let told = keys::written(&profile)?;
        let gossip = Arc::new(Gossip::start(&settings, &identity, told, datagrams).await?);
        let (sender, view) = watch::channel(Arc::new(vec![]));
        let own = identity.incarnation;
        let watching = Watching {
            gossip: Arc::clone(&gossip),
            store,
            seeds: Seeds::new(&settings.seeds, identity.address.port(), settings.request_timeout),
            view: View::new((identity.name.clone(), own), settings.leases_last, settings.show_gone_for),
            shown: sender,
            version: profile.version.clone(),
            identity,
            settings,
        };
        let keeping = Arc::clone(&gossip);
        let work = vec![tokio::spawn(async move { keeping.keep().await }), tokio::spawn(watching.run())];
        Ok(Self { own, gossip, profile: Mutex::new(profile), view, work })
    }

    /// The members, by name, and every change of them.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.view.clone()
    }

    /// The members now, by name.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<Member>> {
        self.view.borrow().clone()
    }

    /// The member of a name: of its lives the one that counts.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Member> {
        self.view.borrow().iter().find(|member| member.name == name).cloned()
    }

    /// The boot of this node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.own
    }

    /// Changes what this node tells. What did not change is not told again; others hear of the rest within seconds.
    ///
    /// # Errors
    /// [`MemberError::Profile`] when others would not believe it; then nothing is changed.
    pub async fn tell(&self, change: impl FnOnce(&mut Profile)) -> Result<(), MemberError> {
        let mut profile = self.profile.lock().await;
        let mut changed = profile.clone();
        change(&mut changed);
        let told = keys::written(&changed)?;
        *profile = changed;
        self.gossip.tell(told).await;
        Ok(())
    }

    /// Ends the membership. Others hold this node for dead when they miss its signs of life, unless its life is
    /// declared over in the store first.
    pub async fn leave(&self) {
        for work in &self.work {
            work.abort();
        }
        self.gossip.stop().await;
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for work in &self.work {
            work.abort();
        }
    }
}

/// The loop that looks: reads leases, greets seeds, shows what it sees.
struct Watching {
    identity: Identity,
    settings: MemberSettings,
    gossip: Arc<Gossip>,
    store: Arc<dyn LeaseStore>,
    seeds: Seeds,
    view: View,
    shown: watch::Sender<Arc<Vec<Member>>>,
    /// What this node understands.
    version: Version,
}

impl Watching {
    async fn run(mut self) {
        let mut changes = self.gossip.changes();
        let (mut read_at, mut greet_at) = (Instant::now(), Instant::now());
        loop {
            if read_at <= Instant::now() {
                self.read().await;
                read_at = Instant::now() + jittered(self.settings.lease_interval);
            }
            self.show().await;
            if greet_at <= Instant::now() {
                let alone = self.greet().await;
                let pause = self.settings.seed_interval / if alone { 10 } else { 1 };
                greet_at = Instant::now() + jittered(pause);
            }
            let pause = read_at.min(greet_at).saturating_duration_since(Instant::now());
            // Whoever ends the gossip ends this task too.
            let _ = timeout(pause, changes.changed()).await;
        }
    }

    async fn read(&mut self) {
        let asked = Instant::now();
        match timeout(self.settings.request_timeout, self.store.live()).await {
            Ok(Ok(lives)) => self.view.read(Table { asked, lives }),
            Ok(Err(error)) => tracing::debug!(%error, "the leases of nodes cannot be read"),
            Err(_) => tracing::debug!("the leases of nodes are not read in time"),
        }
    }

    /// Greets some of those who may be there and are not heard of. True when nobody is heard of.
    async fn greet(&mut self) -> bool {
        let members = self.shown.borrow().clone();
        let others = || members.iter().filter(|member| !member.is_self);
        let heard = others().filter(|member| {
            matches!(member.state, MemberState::Alive | MemberState::Suspect(Doubt::LeaseExpired | Doubt::Unregistered))
        });
        let heard: BTreeSet<_> = heard.filter_map(|member| member.address).collect();
        let places = self.view.places();
        let mut targets: Vec<_> = self.seeds.addresses(&places).await.into_iter().collect();
        targets.retain(|address| *address != self.identity.address && !heard.contains(address));
        for _ in 0..GREETED.min(targets.len()) {
            let target = targets.swap_remove(drawn(targets.len()));
            self.gossip.greet(target).await;
        }
        heard.is_empty()
    }

    async fn show(&mut self) {
        let heard = self.gossip.heard().await;
        let members = self.view.members(&heard, Instant::now());
        self.shown.send_if_modified(|shown| {
            if **shown == members {
                return false;
            }
            tell_of_changes(&self.version, shown, &members);
            *shown = Arc::new(members);
            true
        });
    }
}

/// Writes into the log what became of whom.
fn tell_of_changes(own: &Version, before: &[Member], now: &[Member]) {
    let before: HashMap<_, _> = before.iter().map(|member| ((&member.name, member.incarnation), member)).collect();
    for member in now {
        let was = before.get(&(&member.name, member.incarnation));
        let Member { name, incarnation, state, .. } = member;
        if was.is_none_or(|was| was.state != *state) {
            metrics::counter!("motet_member_changes_total", "state" => state.as_str()).increment(1);
            let (node, incarnation) = (name, incarnation.0);
            match state {
                MemberState::Alive => tracing::info!(node, incarnation, "a node is alive"),
                _ => tracing::warn!(node, incarnation, %state, why = state.why(), "a node is not well"),
            }
        }
        if !member.flaws.is_empty() && was.is_none_or(|was| was.flaws != member.flaws) {
            let flaws = member.flaws.join("; ");
            tracing::warn!(node = name, flaws, "a node tells nonsense of itself: it is given no work");
        }
        let said = !member.profile.version.binary.is_empty();
        let version = |member: &Member| member.profile.version.clone();
        if said
            && was.is_none_or(|was| version(was) != version(member))
            && own.common_protocol(&version(member)).is_none()
        {
            let theirs = member.profile.version.protocol;
            tracing::warn!(node = name, ?theirs, ours = ?own.protocol, "a node speaks no protocol that this node speaks");
        }
    }
    for state in ["alive", "suspect", "gone"] {
        let count = now.iter().filter(|member| member.state.as_str() == state).count();
        metrics::gauge!("motet_members", "state" => state).set(count as f64);
    }
}

/// A drawn number below `bound`, which is more than 0.
fn drawn(bound: usize) -> usize {
    let draw = RandomState::new().build_hasher().finish() % bound.max(1) as u64;
    usize::try_from(draw).unwrap_or_default()
}

/// Three quarters to five quarters of a time.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + drawn(1024) as f64 / 2048.0)
}
