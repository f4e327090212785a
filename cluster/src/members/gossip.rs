//! Chitchat, kept alive: what this node tells, what others tell, and whom it hears.
//!
//! Should chitchat end, by bytes that make it panic for example, it is begun anew with everything that this node tells;
//! it decides nothing about who belongs to the cluster. Used by `members`.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use motet_store::port::Incarnation;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::datagrams::Datagrams;
use super::settings::MemberSettings;
use super::transport::GossipTransport;
use super::{Identity, MemberError};

/// Bits of chitchat's generation below the incarnation: how often gossip was begun anew in this life.
const TURN_BITS: u32 = 16;

/// Wait before gossip is begun anew; doubles up to `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Longest wait for chitchat to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Lives that are looked at; a cluster has far fewer.
const LIVES: usize = 4096;

/// What is heard of one life of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) name: Arc<str>,
    pub(super) incarnation: Incarnation,
    pub(super) address: SocketAddr,
    /// Whether there were signs of life lately.
    pub(super) lives: bool,
    pub(super) pairs: BTreeMap<String, String>,
}

/// Gossip as this node.
pub(super) struct Gossip {
    identity: Identity,
    settings: MemberSettings,
    transport: GossipTransport,
    state: Mutex<State>,
    /// Counts what may have changed.
    changes: watch::Sender<u64>,
}

struct State {
    handle: ChitchatHandle,
    /// How often it was begun.
    turn: u64,
    /// What this node tells.
    told: BTreeMap<String, String>,
}

impl Gossip {
    /// Begins to gossip.
    pub(super) async fn start(
        settings: &MemberSettings,
        identity: &Identity,
        told: BTreeMap<String, String>,
        datagrams: Arc<dyn Datagrams>,
    ) -> Result<Self, MemberError> {
        let transport = GossipTransport { datagrams, cluster: settings.cluster.clone() };
        let handle = begin(settings, identity, 0, &told, &transport).await?;
        let state = Mutex::new(State { handle, turn: 0, told });
        let changes = watch::channel(0).0;
        Ok(Self { identity: identity.clone(), settings: settings.clone(), transport, state, changes })
    }

    /// Tells when something may have changed. Not of signs of life.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Watches over chitchat until it is dropped, and begins it anew when it ends.
    pub(super) async fn keep(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let (ended, mut live) = {
                let state = self.state.lock().await;
                let live = state.handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
                (state.handle.termination_watcher(), live)
            };
            tokio::pin!(ended);
            self.changes.send_modify(|count| *count += 1);
            let begun = Instant::now();
            let why = loop {
                tokio::select! {
                    why = &mut ended => break why,
                    changed = live.changed() => {
                        self.changes.send_modify(|count| *count += 1);
                        if changed.is_err() {
                            break (&mut ended).await;
                        }
                    }
                }
            };
            let why = why.err().map(|error| error.to_string()).unwrap_or_default();
            wait = if begun.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            metrics::counter!("motet_gossip_restarts_total").increment(1);
            tracing::error!(why, wait_ms = wait.as_millis(), "gossip has ended and is begun anew");
            tokio::time::sleep(wait).await;
            self.begin_anew().await;
        }
    }

    async fn begin_anew(&self) {
        let mut state = self.state.lock().await;
        let turn = state.turn + 1;
        match begin(&self.settings, &self.identity, turn, &state.told, &self.transport).await {
            Ok(handle) => (state.handle, state.turn) = (handle, turn),
            Err(error) => tracing::error!(%error, "gossip cannot be begun anew"),
        }
    }

    /// Tells what changed.
    pub(super) async fn tell(&self, told: BTreeMap<String, String>) {
        let mut state = self.state.lock().await;
        let before = std::mem::replace(&mut state.told, told);
        let told = &state.told;
        state
            .handle
            .with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                for key in before.keys().filter(|key| !told.contains_key(*key)) {
                    own.delete(key);
                }
                for (key, value) in told.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
                    own.set(key, value);
                }
            })
            .await;
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Everything that is heard, this node included.
    pub(super) async fn heard(&self) -> Vec<Heard> {
        let state = self.state.lock().await;
        state
            .handle
            .with_chitchat(|chitchat| {
                let live: HashSet<_> = chitchat.live_nodes().collect();
                let mut lives: BTreeMap<(Arc<str>, u64), (bool, &ChitchatId, &NodeState)> = BTreeMap::new();
                for (id, state) in chitchat.node_states().iter().take(LIVES) {
                    // Later turns come later. One that lives is rather the real one than one that does not.
                    let life = (Arc::clone(&id.node_id), id.generation_id >> TURN_BITS);
                    let lively = live.contains(id);
                    let there = lives.entry(life).or_insert((lively, id, state));
                    if lively >= there.0 {
                        *there = (lively, id, state);
                    }
                }
                let heard = lives.into_iter().map(|((name, incarnation), (lives, id, state))| Heard {
                    name,
                    incarnation: Incarnation(incarnation),
                    address: id.gossip_advertise_addr,
                    lives,
                    pairs: state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                });
                heard.collect()
            })
            .await
    }

    /// Gossips with whoever is at an address.
    pub(super) async fn greet(&self, address: SocketAddr) {
        // It can only fail when chitchat has ended; then it is about to be begun anew.
        let _ = self.state.lock().await.handle.gossip(address);
    }

    /// Ends it.
    pub(super) async fn stop(&self) {
        let state = self.state.lock().await;
        let _ = state.handle.initiate_shutdown();
        if timeout(GOODBYE, state.handle.termination_watcher()).await.is_err() {
            state.handle.abort();
        }
    }
}

async fn begin(
    settings: &MemberSettings,
    identity: &Identity,
    turn: u64,
    told: &BTreeMap<String, String>,
    transport: &GossipTransport,
) -> Result<ChitchatHandle, MemberError> {
    let generation = (identity.incarnation.0 << TURN_BITS) | (turn & ((1 << TURN_BITS) - 1));
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(identity.name.as_str(), generation, identity.address),
        cluster_id: settings.cluster.clone(),
        gossip_interval: settings.gossip_interval,
        listen_addr: identity.address,
        // Found by `seeds`, which asks more often and knows the store.
        seed_nodes: vec![],
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: settings.phi_threshold,
            initial_interval: settings.first_interval,
            max_interval: settings.gossip_interval * 10,
            dead_node_grace_period: settings.forget_gossip_after,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: settings.forget_gossip_after,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let pairs = told.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    spawn_chitchat(config, pairs, transport).await.map_err(|error| MemberError::Gossip(error.to_string()))
}
