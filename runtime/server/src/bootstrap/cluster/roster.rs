//! The other nodes, as each who asks wants to see them: the link their addresses, keeper and planner what they weigh,
//! the routers and people everything.
//!
//! A projection of the members, a little old at any time, which harms nobody: the store decides who owns what. Written
//! by `belonging`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use motet_cluster::envelope::NodeId;
use motet_cluster::link::{PeerBook, Place};
use motet_cluster::members::{Member, MemberState, Role};
use motet_cluster::shards;
use motet_store::port::Incarnation;
use tokio::sync::watch;

/// The nodes that are known.
pub(super) struct Roster {
    book: Arc<Book>,
    list: watch::Sender<Arc<Vec<Member>>>,
    contenders: watch::Sender<Arc<shards::Members>>,
    /// What a node counts for until it has told what it is.
    weight: u32,
}

/// Where each node is reached.
#[derive(Default)]
struct Book(RwLock<HashMap<NodeId, SocketAddr>>);

impl PeerBook for Book {
    fn find(&self, node: &NodeId) -> Option<Place> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // A node keeps its link over lives that it lost and began anew, so any life of it will do.
        places.get(node).map(|address| Place { incarnation: Incarnation(0), address: *address })
    }
}

impl Roster {
    pub(super) fn new(weight: u32) -> Self {
        let (list, contenders) = (watch::Sender::default(), watch::Sender::default());
        Self { book: Arc::default(), list, contenders, weight }
    }

    pub(super) fn book(&self) -> Arc<dyn PeerBook> {
        Arc::clone(&self.book) as Arc<_>
    }

    pub(super) fn list(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.list.subscribe()
    }

    pub(super) fn contenders(&self) -> watch::Receiver<Arc<shards::Members>> {
        self.contenders.subscribe()
    }

    /// Shows the members as they are now.
    pub(super) fn show(&self, members: &Arc<Vec<Member>>) {
        let there = || members.iter().filter(|member| !matches!(member.state, MemberState::Gone(_)));
        let place = |member: &Member| Some((NodeId::new(&member.name).ok()?, member.address?));
        *self.book.0.write().unwrap_or_else(PoisonError::into_inner) = there().filter_map(place).collect();
        let contenders: shards::Members = there().map(|member| contender(member, self.weight)).collect();
        self.contenders.send_if_modified(|before| {
            let changed = **before != contenders;
            if changed {
                *before = Arc::new(contenders);
            }
            changed
        });
        self.list.send_replace(Arc::clone(members));
    }
}

/// A node as one that may own shards. Of one that lives and has told nothing it is only known that it may: a partition of
/// the gossip must not move shards.
fn contender(member: &Member, weight: u32) -> shards::Member {
    let Member { profile, flaws, .. } = member;
    let untold = profile.roles.is_empty() && flaws.is_empty();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "told weights are 0 to 1,000")]
    let told = profile.capacity.weight.round() as u32;
    shards::Member {
        node: member.name.clone(),
        incarnation: member.incarnation,
        weight: if untold { weight } else { told.max(1) },
        serves_runs: untold || (flaws.is_empty() && profile.roles.has(Role::Runs)),
        draining: profile.draining,
        heard: !untold,
    }
}

#[cfg(test)]
mod tests {
    use motet_cluster::members::{Capacity, Doubt, End, Profile, Roles};

    use super::*;

    fn member(state: MemberState, profile: Profile, flaws: &[&str]) -> Member {
        Member {
            name: "a".to_owned(),
            incarnation: Incarnation(7),
            address: Some(([127, 0, 0, 1], 7946).into()),
            state,
            profile,
            flaws: flaws.iter().map(|flaw| (*flaw).to_owned()).collect(),
            is_self: false,
        }
    }

    #[test]
    fn who_may_own_shards_follows_from_what_is_told() {
        let told = |roles: &[Role], weight: f64, draining: bool| Profile {
            roles: roles.iter().copied().collect(),
            capacity: Capacity { weight, ..Capacity::default() },
            draining,
            ..Profile::default()
        };
        let unheard = MemberState::Suspect(Doubt::Unheard);
        for (member, expected) in [
            (member(MemberState::Alive, told(&[Role::Runs], 4.0, false), &[]), (4, true, false)),
            (member(MemberState::Alive, told(&[Role::Runs], 0.2, true), &[]), (1, true, true)),
            (member(MemberState::Alive, told(&[Role::Models], 4.0, false), &[]), (4, false, false)),
            (member(MemberState::Alive, told(&[Role::Runs], 4.0, false), &["nonsense"]), (4, false, false)),
            (member(unheard, Profile::default(), &[]), (3, true, false)),
            (member(unheard, Profile::default(), &["nonsense"]), (1, false, false)),
        ] {
            let shown = contender(&member, 3);
            assert_eq!((shown.weight, shown.serves_runs, shown.draining), expected, "{member:?}");
        }
    }

    #[test]
    fn who_is_gone_is_shown_to_people_only() {
        let roster = Roster::new(1);
        let everything = Profile { roles: Roles::all(), ..Profile::default() };
        let node = NodeId::new("a").unwrap();
        for (state, there) in [(MemberState::Alive, true), (MemberState::Gone(End::Expired), false)] {
            roster.show(&Arc::new(vec![member(state, everything.clone(), &[])]));
            assert_eq!(roster.book().find(&node).is_some(), there);
            assert_eq!(roster.contenders().borrow().get(Incarnation(7)).is_some(), there);
            assert_eq!(roster.list().borrow().len(), 1);
        }
    }
}
