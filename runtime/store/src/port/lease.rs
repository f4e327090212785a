//! Who leads, and which nodes live: leases by the clock of the store.
//!
//! A lease only tells when somebody else may try; what keeps a late holder from harm is its term or its incarnation,
//! which writes carry. Never compares clocks of nodes. Implemented by every store; used by the cluster.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use motet_engine::id::Name;

use crate::StoreError;

/// Number of a leadership: rises with every new leader of a role, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term(pub u64);

/// Number of one boot of a node: rises with every boot of any node, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incarnation {}", self.0)
    }
}

/// Who leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// As it called itself.
    pub holder: String,
    /// Its term.
    pub term: Term,
    /// What is left of its lease, more than zero.
    pub left: Duration,
}

/// A node that was not fenced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveNode {
    /// Its boot.
    pub incarnation: Incarnation,
    /// Its name.
    pub node: String,
    /// Where other nodes reach it; empty when it did not say.
    pub address: String,
    /// What is left of its lease; zero when it may be fenced.
    pub left: Duration,
}

/// Leadership by role and the lives of nodes. Durations are whole milliseconds; less is dropped.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Takes the lead when nobody has an unexpired lease of the role. None for everyone else, the leader included:
    /// it renews.
    async fn lead(&self, role: &Name, holder: &str, lease: Duration) -> Result<Option<Term>, StoreError>;

    /// Takes the lead although a lease may still run: when at most `left` remains of it, or when `holder` has it, under
    /// a term that it does not know. With [`Duration::MAX`] nothing stands in the way. None otherwise.
    async fn usurp(
        &self,
        role: &Name,
        holder: &str,
        lease: Duration,
        left: Duration,
    ) -> Result<Option<Term>, StoreError>;

    /// Prolongs a lease from now. False when the term is over, because somebody else leads or the leader resigned;
    /// an expired lease that nobody took is prolonged.
    async fn renew_lead(&self, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError>;

    /// Ends a lease early; nothing happens when the term is over.
    async fn resign(&self, role: &Name, term: Term) -> Result<(), StoreError>;

    /// Who leads; none when the lease has expired.
    async fn leader(&self, role: &Name) -> Result<Option<Leader>, StoreError>;

    /// Begins a life of a node that others reach at `address`, and fences its earlier ones.
    async fn register(&self, node: &str, address: &str, lease: Duration) -> Result<Incarnation, StoreError>;

    /// Prolongs a node's lease from now. False when it was fenced: the node must stop.
    async fn renew(&self, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError>;

    /// Declares a life over: its writes are refused from now on. Doing so again changes nothing.
    async fn fence(&self, incarnation: Incarnation) -> Result<(), StoreError>;

    /// Declares a life over when its lease has run out by the store's clock. True when it is over now, whoever ended
    /// it, or never was; false while its lease lasts.
    async fn fence_expired(&self, incarnation: Incarnation) -> Result<bool, StoreError>;

    /// The lives that are not fenced, by number.
    async fn live(&self) -> Result<Vec<LiveNode>, StoreError>;
}
