//! What a node tells of itself, and what others think of it.
//!
//! Plain values; nothing here reads or sends anything. Used by everyone who asks which nodes there are.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use motet_engine::id::{Name, Namespace};
use motet_store::port::Incarnation;
use serde::{Deserialize, Serialize};

/// What a node does for others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Answers clients.
    Api,
    /// Takes records from streams.
    Ingest,
    /// Owns shards and drives their runs.
    Runs,
    /// Has models.
    Models,
    /// Has vector indexes.
    Vectors,
}

impl Role {
    /// Every role with the name that users see.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Api, "api"),
        (Self::Ingest, "ingest"),
        (Self::Runs, "runs"),
        (Self::Models, "models"),
        (Self::Vectors, "vectors"),
    ];

    /// The name that users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no role; there are api, ingest, runs, models and vectors")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role);
        found.ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

/// Some of the roles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(u8);

impl Roles {
    /// Every role: what a node has unless it is told otherwise.
    #[must_use]
    pub fn all() -> Self {
        Role::ALL.iter().map(|(role, _)| *role).collect()
    }

    /// Whether the role is among them.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// The roles, in order.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.iter().map(|(role, _)| *role).filter(move |role| self.has(*role))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | 1 << role as u8))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Role::as_str)).finish()
    }
}

/// What a node has to work with.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Capacity {
    /// Processors that it may use.
    pub cores: u32,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// Share of the shards that it wants, relative to others: more than 0, at most 1,000; 1 unless configured.
    pub weight: f64,
    /// Memory that its models may take together, in bytes; 0 where nothing bounds it.
    #[serde(default)]
    pub model_memory_bytes: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 0, weight: 1.0, model_memory_bytes: 0 }
    }
}

/// What a node has to do at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Runs with an actor.
    pub live_runs: u64,
    /// Calls that wait for a model or an index.
    pub queue_depth: u64,
}

/// Which program a node runs, and what it understands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Version of the program.
    pub binary: String,
    /// The oldest and the newest version of the protocol between nodes that it speaks.
    pub protocol: (u32, u32),
    /// The highest kind of event in journals that it understands.
    pub events: u32,
}

impl Default for Version {
    fn default() -> Self {
        Self { binary: String::new(), protocol: (1, 1), events: 0 }
    }
}

impl Version {
    /// The newest version of the protocol that both speak.
    #[must_use]
    pub fn common_protocol(&self, other: &Self) -> Option<u32> {
        let (oldest, newest) = (self.protocol.0.max(other.protocol.0), self.protocol.1.min(other.protocol.1));
        (oldest <= newest).then_some(newest)
    }
}

/// A model as others name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModelName {
    /// Tenant.
    pub namespace: Namespace,
    /// Name.
    pub name: Name,
}

/// A model as a node has it: loaded, on its way, or not to be had there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replica {
    /// Calls that it would still take.
    pub spare_queue: u32,
    /// Whether it can be called.
    pub ready: bool,
    /// Whether it could not be loaded there a moment ago.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// What it takes of the node's memory for models, in bytes; 0 until it is loaded.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// Models that a node may tell of.
pub const MAX_REPLICAS: usize = 1_000;

/// Everything that a node tells of itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Profile {
    /// What it does for others.
    pub roles: Roles,
    /// What it is called by whoever runs it; at most 64, keys and values up to 63 and 255 characters.
    pub labels: BTreeMap<String, String>,
    /// What it has.
    pub capacity: Capacity,
    /// What it does at the moment.
    pub load: Load,
    /// What it understands.
    pub version: Version,
    /// Where its HTTP interface is, as others reach it.
    pub http: Option<String>,
    /// Whether it gives its work away, and takes no more.
    pub draining: bool,
    /// The models that it has; at most [`MAX_REPLICAS`].
    pub replicas: BTreeMap<ModelName, Replica>,
}

/// Whether a node is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberState {
    /// It is heard of, and its lease lives.
    Alive,
    /// Gossip and lease disagree, or one of them cannot be asked. It keeps what it owns.
    Suspect(Doubt),
    /// Its life is over.
    Gone(End),
}

/// Why a node is suspect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Doubt {
    /// Nobody hears of it, but its lease lives.
    Unheard,
    /// It is heard of, but its lease has run out.
    LeaseExpired,
    /// It is heard of, but the store was not seen to know it.
    Unregistered,
    /// Nobody hears of it, and the store cannot be asked.
    StoreSilent,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Somebody declared it over, or the node began another one.
    Fenced,
    /// Nobody hears of it, and its lease has run out.
    Expired,
}

impl MemberState {
    /// The name that users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect(_) => "suspect",
            Self::Gone(_) => "gone",
        }
    }

    /// Why, in words; nothing when it is alive.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Alive => "",
            Self::Suspect(Doubt::Unheard) => "nobody hears of it, but its lease lives",
            Self::Suspect(Doubt::LeaseExpired) => "it is heard of, but its lease has run out",
            Self::Suspect(Doubt::Unregistered) => "it is heard of, but the store does not know it yet",
            Self::Suspect(Doubt::StoreSilent) => "nobody hears of it, and the store cannot be asked",
            Self::Gone(End::Fenced) => "it was declared dead, or began another life",
            Self::Gone(End::Expired) => "nobody hears of it, and its lease has run out",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One life of a node, as this node sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its boot.
    pub incarnation: Incarnation,
    /// Where other nodes reach it; none when what it said is no address.
    pub address: Option<SocketAddr>,
    /// Whether it is there.
    pub state: MemberState,
    /// What it tells of itself; as if it had told nothing where it told nonsense.
    pub profile: Profile,
    /// What it told that makes no sense, in words. A node with flaws is given no work.
    pub flaws: Vec<String>,
    /// Whether it is this node.
    pub is_self: bool,
}

impl Member {
    /// Whether it may be given new work of a role: it is alive, makes sense, does not drain, and has the role.
    #[must_use]
    pub fn takes(&self, role: Role) -> bool {
        let willing = !self.profile.draining && self.profile.roles.has(role);
        self.state == MemberState::Alive && self.flaws.is_empty() && willing
    }
}
