//! What nodes tell of themselves: roles, capacity, whether they drain.
//!
//! May be old or incomplete at any time: it decides who is asked first, never who may write. Filled from the gossip
//! between nodes; used by the keeper and the planner.

use std::collections::BTreeMap;

use motet_store::port::Incarnation;

/// What a node tells of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// The boot that tells it.
    pub incarnation: Incarnation,
    /// Its capacity in a unit that all nodes share; at least 1 counts.
    pub weight: u32,
    /// Whether it has the role `runs`.
    pub serves_runs: bool,
    /// Whether it gives its shards away and takes no more.
    pub draining: bool,
    /// Whether the rest was told by itself. Of one that lives and was not heard of nothing is known: it keeps what it
    /// has and is given nothing new.
    pub heard: bool,
}

/// The nodes that are known, by boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members(BTreeMap<Incarnation, Member>);

impl Members {
    /// What a boot of a node tells of itself; none when nothing of it was heard.
    #[must_use]
    pub fn get(&self, incarnation: Incarnation) -> Option<&Member> {
        self.0.get(&incarnation)
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<T: IntoIterator<Item = Member>>(members: T) -> Self {
        Self(members.into_iter().map(|member| (member.incarnation, member)).collect())
    }
}
