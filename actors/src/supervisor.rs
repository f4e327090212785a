//! One supervisor for every kind of child: backoff with jitter, an intensity window, and quarantine.
//!
//! Does no work of its own. A child that fails is revived from what is durable, after a wait that grows; one that
//! fails too often within the window stays down, with the reason in the census. Used by `node` for runs, models and
//! indexes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dashmap::DashMap;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::address::Address;
use crate::census::Census;
use crate::ports::Entropy;

/// How often a child may fail, and how long it stays down each time.
#[derive(Debug, Clone, Copy)]
pub struct RestartPolicy {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Largest bound of a wait.
    pub max: Duration,
    /// Failures within the window after which the child is quarantined.
    pub intensity: usize,
    /// The window.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            intensity: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Revive after this wait.
    ReviveAfter(Duration),
    /// Leave it down.
    Quarantine,
}

/// The failures of one child within the window.
#[derive(Debug, Default)]
pub struct FailureLedger(VecDeque<Instant>);

impl FailureLedger {
    /// Records a failure and says what to do; `fraction` in `0.0..1.0` is the jitter.
    pub fn failed(&mut self, policy: &RestartPolicy, now: Instant, fraction: f64) -> Verdict {
        while self.0.front().is_some_and(|at| now.saturating_duration_since(*at) > policy.window) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() > policy.intensity {
            return Verdict::Quarantine;
        }
        let doublings = u32::try_from(self.0.len() - 1).unwrap_or(31).min(31);
        let bound = policy.initial.saturating_mul(1 << doublings).min(policy.max);
        Verdict::ReviveAfter(bound.mul_f64(0.5 + fraction / 2.0))
    }
}

/// What a supervisor needs to know about its kind of children.
#[async_trait]
pub trait Nursery: Send + Sync + 'static {
    /// Starts a child again from what is durable; a failure counts like one of the child.
    async fn revive(&self, child: &Address) -> Result<(), String>;

    /// The child has ended, well or not: forget its address.
    fn ended(&self, child: &Address);

    /// The child stays down.
    fn quarantined(&self, child: &Address, reason: &str);
}

/// The children of a supervisor by actor id. Entered by whoever spawns a child.
#[derive(Debug, Default)]
pub struct Children(DashMap<ActorId, Address>);

impl Children {
    /// Enters a child.
    pub fn enter(&self, cell: &ActorCell, address: Address) {
        self.0.insert(cell.get_id(), address);
    }

    fn remove(&self, cell: &ActorCell) -> Option<Address> {
        self.0.remove(&cell.get_id()).map(|(_, address)| address)
    }
}

/// The supervisor's fixed parts.
pub struct Supervisor {
    /// What the children are.
    pub nursery: Arc<dyn Nursery>,
    /// Who the children are.
    pub children: Arc<Children>,
    /// Where restarts and quarantines are noted.
    pub census: Arc<Census>,
    /// How often children may fail.
    pub policy: RestartPolicy,
    /// Source of jitter.
    pub entropy: Arc<dyn Entropy>,
}

/// What a supervisor tells itself.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// A child could not be revived.
    ReviveFailed(Address, String),
}

impl Supervisor {
    fn child_failed(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        ledgers: &mut std::collections::BTreeMap<Address, FailureLedger>,
        child: Address,
        reason: &str,
    ) {
        let verdict =
            ledgers.entry(child.clone()).or_default().failed(&self.policy, Instant::now(), self.entropy.fraction());
        metrics::counter!("motet_actor_failures_total", "kind" => child.kind()).increment(1);
        match verdict {
            Verdict::Quarantine => {
                tracing::error!(actor = %child, reason, "actor failed too often and stays down");
                self.census.quarantine(&child, reason);
                self.nursery.quarantined(&child, reason);
                ledgers.remove(&child);
            }
            Verdict::ReviveAfter(wait) => {
                tracing::warn!(actor = %child, reason, wait_ms = wait.as_millis(), "actor failed and is revived");
                self.census.restarted(&child);
                let (nursery, myself) = (Arc::clone(&self.nursery), myself.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    if let Err(reason) = nursery.revive(&child).await {
                        // The supervisor ends before its children only when the node ends.
                        let _ = myself.cast(SupervisorMessage::ReviveFailed(child, reason));
                    }
                });
            }
        }
    }
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = std::collections::BTreeMap<Address, FailureLedger>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Self::State::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        ledgers: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMessage::ReviveFailed(child, reason) = message;
        self.child_failed(&myself, ledgers, child, &reason);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        ledgers: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                if let Some(child) = self.children.remove(&cell) {
                    self.nursery.ended(&child);
                    ledgers.remove(&child);
                }
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(child) = self.children.remove(&cell) {
                    self.nursery.ended(&child);
                    self.child_failed(&myself, ledgers, child, &error.to_string());
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_the_window_is_full_and_a_calm_child_is_forgiven() {
        let policy = RestartPolicy { intensity: 3, ..RestartPolicy::default() };
        let mut ledger = FailureLedger::default();
        let start = Instant::now();
        for (failure, bound_ms) in [(0u64, 100u64), (1, 200), (2, 400)] {
            let verdict = ledger.failed(&policy, start + Duration::from_secs(failure), 0.999);
            let Verdict::ReviveAfter(wait) = verdict else { panic!("{verdict:?}") };
            assert!(wait <= Duration::from_millis(bound_ms) && wait >= Duration::from_millis(bound_ms / 2));
        }
        assert_eq!(ledger.failed(&policy, start + Duration::from_secs(3), 0.0), Verdict::Quarantine);
        let later = start + policy.window + Duration::from_secs(10);
        assert!(matches!(ledger.failed(&policy, later, 0.0), Verdict::ReviveAfter(_)));
    }
}
