//! Who belongs to the cluster, from what gossip hears and what the store knows: one picture of both.
//!
//! One peer's opinion never evicts, and neither does gossip alone: a node is gone only when the store says so, or when
//! its lease has run out and nobody hears of it either. Pure: time and news come in, members come out. Used by
//! `members`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use motet_store::port::{Incarnation, LiveNode};

use super::gossip::Heard;
use super::keys;
use super::member::{Doubt, End, Member, MemberState, Profile};

/// Longest name, in characters; longer ones are nobody's.
const NAME_CHARS: usize = 253;

/// The lives that the store knew at a moment.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Before it was read.
    pub(super) asked: Instant,
    pub(super) lives: Vec<LiveNode>,
}

/// The picture, and what must be remembered for the next one.
#[derive(Debug)]
pub(super) struct View {
    /// This node, by name and boot.
    own: (String, Incarnation),
    /// How long a table is taken for the truth.
    leases_last: Duration,
    show_gone_for: Duration,
    table: Option<Table>,
    seen: BTreeMap<(String, Incarnation), Seen>,
}

/// What is remembered of one life.
#[derive(Clone, Debug)]
struct Seen {
    /// When it was first heard of or found in the store.
    first: Instant,
    /// Since when it is gone.
    gone: Option<Instant>,
    /// Whether it is shown. One that was gone before this node heard of it is not, nor one that was shown long enough.
    shown: bool,
    /// Where it was found last, so that one that vanished can still be shown.
    member: Member,
}

/// What the store says about a life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lease {
    Lives,
    Expired,
    /// Its life is over, or never began.
    Absent,
    /// It is younger than what was read.
    NotReadYet,
    /// The store could not be read lately.
    Unknown,
}

/// Whether a node is there, by what gossip and the store say.
pub(super) fn verdict(heard: bool, lease: Lease) -> MemberState {
    match (lease, heard) {
        (Lease::Lives | Lease::Unknown, true) => MemberState::Alive,
        (Lease::Lives, false) => MemberState::Suspect(Doubt::Unheard),
        (Lease::Expired, true) => MemberState::Suspect(Doubt::LeaseExpired),
        (Lease::Expired, false) => MemberState::Gone(End::Expired),
        (Lease::NotReadYet, true) => MemberState::Suspect(Doubt::Unregistered),
        (Lease::NotReadYet | Lease::Unknown, false) => MemberState::Suspect(Doubt::StoreSilent),
        (Lease::Absent, _) => MemberState::Gone(End::Fenced),
    }
}

impl View {
    pub(super) fn new(own: (String, Incarnation), leases_last: Duration, show_gone_for: Duration) -> Self {
        Self { own, leases_last, show_gone_for, table: None, seen: BTreeMap::new() }
    }

    /// Takes in what the store knew.
    pub(super) fn read(&mut self, table: Table) {
        self.table = Some(table);
    }

    /// Where the store says that nodes are.
    pub(super) fn places(&self) -> Vec<String> {
        let lives = self.table.iter().flat_map(|table| &table.lives);
        lives.filter(|life| life.incarnation != self.own.1).map(|life| life.address.clone()).collect()
    }

    /// What the store says about a life at a moment.
    fn lease(&self, name: &str, life: Incarnation, first: Instant, now: Instant) -> Lease {
        let Some(table) = &self.table else { return Lease::Unknown };
        let age = now.saturating_duration_since(table.asked);
        match table.lives.iter().find(|there| there.incarnation == life && there.node == name) {
            Some(_) if age > self.leases_last => Lease::Unknown,
            // What was left of it may be over by now, but then it may also have been renewed.
            Some(there) if there.left.is_zero() => Lease::Expired,
            Some(_) => Lease::Lives,
            None if first >= table.asked => Lease::NotReadYet,
            None if age > self.leases_last => Lease::Unknown,
            None => Lease::Absent,
        }
    }

    /// The members now, by name; one that was gone before this node looked is not shown.
    pub(super) fn members(&mut self, heard: &[Heard], now: Instant) -> Vec<Member> {
        let mut found: BTreeMap<(String, Incarnation), (Member, bool)> = BTreeMap::new();
        for heard in heard {
            let (name, strange) = readable(&heard.name);
            let (profile, mut flaws) = keys::read(heard.pairs.iter().map(|(key, value)| (&**key, &**value)));
            flaws.extend(strange.then(|| "its name is no name".to_owned()));
            let member = self.member(name, heard.incarnation, Some(heard.address), profile, flaws);
            found.insert((member.name.clone(), member.incarnation), (member, heard.lives));
        }
        for life in self.table.iter().flat_map(|table| &table.lives) {
            let (name, _) = readable(&life.node);
            let address = life.address.parse().ok();
            // It has told nothing yet: no flaw, but no role either.
            let member = self.member(name, life.incarnation, address, Profile::default(), vec![]);
            found.entry((member.name.clone(), member.incarnation)).or_insert((member, false));
        }
        self.remember(found, now);
        self.newest()
    }

    fn member(
        &self,
        name: String,
        incarnation: Incarnation,
        address: Option<std::net::SocketAddr>,
        profile: Profile,
        flaws: Vec<String>,
    ) -> Member {
        let is_self = (&name, incarnation) == (&self.own.0, self.own.1);
        Member { name, incarnation, address, state: MemberState::Alive, profile, flaws, is_self }
    }

    fn remember(&mut self, mut found: BTreeMap<(String, Incarnation), (Member, bool)>, now: Instant) {
        // Who vanished from both is judged as one who is not heard of, as long as it is shown.
        self.seen.retain(|key, seen| seen.shown || found.contains_key(key));
        for (key, seen) in &self.seen {
            found.entry(key.clone()).or_insert_with(|| (seen.member.clone(), false));
        }
        for (key, (mut member, lives)) in found {
            let before = self.seen.get(&key);
            let first = before.map_or(now, |seen| seen.first);
            let lease = self.lease(&key.0, key.1, first, now);
            member.state = verdict(lives, lease);
            let was_shown = before.is_some_and(|seen| seen.shown);
            let is_gone = matches!(member.state, MemberState::Gone(_));
            let gone = is_gone.then(|| before.and_then(|seen| seen.gone).unwrap_or(now));
            let long_gone = gone.is_some_and(|since| now.saturating_duration_since(since) > self.show_gone_for);
            let shown = if is_gone { was_shown && !long_gone } else { was_shown || lives || lease == Lease::Lives };
            self.seen.insert(key, Seen { first, gone, shown, member });
        }
    }

    /// Of every name the life that counts: the newest that is not gone, or the newest of those that are. What only
    /// gossip says of a newer life does not hide one whose lease lives.
    fn newest(&self) -> Vec<Member> {
        let rank = |member: &Member| match member.state {
            MemberState::Alive => 3,
            MemberState::Suspect(Doubt::Unheard | Doubt::LeaseExpired) => 2,
            MemberState::Suspect(_) => 1,
            MemberState::Gone(_) => 0,
        };
        let mut best: BTreeMap<&str, &Member> = BTreeMap::new();
        for seen in self.seen.values().filter(|seen| seen.shown) {
            let member = &seen.member;
            let there = best.entry(&member.name).or_insert(member);
            if (rank(member), member.incarnation) > (rank(there), there.incarnation) {
                *there = member;
            }
        }
        best.into_values().cloned().collect()
    }
}

/// A foreign name as it may stand in lists and logs, and whether it had to be changed for that.
fn readable(name: &str) -> (String, bool) {
    let fits = (1..=NAME_CHARS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fits { (name.to_owned(), false) } else { (keys::shown(name), true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Duration = Duration::from_secs(5);

    fn heard(name: &str, incarnation: u64, lives: bool) -> Heard {
        let pairs = keys::written(&Profile::default()).unwrap();
        let address = "10.0.0.9:7946".parse().unwrap();
        Heard { name: name.into(), incarnation: Incarnation(incarnation), address, lives, pairs }
    }

    fn life(name: &str, incarnation: u64, left_ms: u64) -> LiveNode {
        let (incarnation, left) = (Incarnation(incarnation), Duration::from_millis(left_ms));
        LiveNode { incarnation, node: name.to_owned(), address: "10.0.0.9:7946".to_owned(), left }
    }

    #[test]
    fn gossip_and_lease_decide_together() {
        use MemberState::{Alive, Gone, Suspect};
        for (lease, heard, expected) in [
            (Lease::Lives, true, Alive),
            (Lease::Lives, false, Suspect(Doubt::Unheard)),
            (Lease::Expired, true, Suspect(Doubt::LeaseExpired)),
            (Lease::Expired, false, Gone(End::Expired)),
            (Lease::Absent, true, Gone(End::Fenced)),
            (Lease::Absent, false, Gone(End::Fenced)),
            (Lease::NotReadYet, true, Suspect(Doubt::Unregistered)),
            (Lease::NotReadYet, false, Suspect(Doubt::StoreSilent)),
            (Lease::Unknown, true, Alive),
            (Lease::Unknown, false, Suspect(Doubt::StoreSilent)),
        ] {
            assert_eq!(verdict(heard, lease), expected, "{lease:?} {heard}");
        }
    }

    /// What happens to a view: time in milliseconds, and what is heard and read then.
    struct Scene {
        view: View,
        begun: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let own = ("one".to_owned(), Incarnation(1));
            Self { view: View::new(own, LAST, Duration::from_secs(60)), begun: Instant::now() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.begun + Duration::from_millis(millis)
        }

        fn read(&mut self, millis: u64, lives: &[LiveNode]) {
            let asked = self.at(millis);
            self.view.read(Table { asked, lives: lives.to_vec() });
        }

        fn see(&mut self, millis: u64, heard: &[Heard]) -> Vec<(String, u64, MemberState)> {
            let now = self.at(millis);
            let members = self.view.members(heard, now);
            members.into_iter().map(|member| (member.name, member.incarnation.0, member.state)).collect()
        }
    }

    fn two(state: MemberState) -> Vec<(String, u64, MemberState)> {
        vec![("two".to_owned(), 2, state)]
    }

    #[test]
    fn a_node_comes_dies_and_is_forgotten() {
        let mut scene = Scene::new();
        assert_eq!(scene.see(0, &[heard("two", 2, true)]), two(MemberState::Alive), "the store was not asked yet");
        scene.read(0, &[]);
        assert_eq!(scene.see(1, &[heard("two", 2, true)]), two(MemberState::Suspect(Doubt::Unregistered)));
        scene.read(10, &[life("two", 2, 3_000)]);
        assert_eq!(scene.see(20, &[heard("two", 2, true)]), two(MemberState::Alive));
        assert_eq!(scene.see(2_000, &[heard("two", 2, false)]), two(MemberState::Suspect(Doubt::Unheard)));
        scene.read(3_100, &[life("two", 2, 0)]);
        assert_eq!(scene.see(3_200, &[heard("two", 2, true)]), two(MemberState::Suspect(Doubt::LeaseExpired)));
        assert_eq!(scene.see(3_300, &[heard("two", 2, false)]), two(MemberState::Gone(End::Expired)));
        scene.read(4_000, &[]);
        assert_eq!(scene.see(4_100, &[]), two(MemberState::Gone(End::Fenced)));
        scene.read(63_000, &[]);
        assert_eq!(scene.see(63_200, &[]), two(MemberState::Gone(End::Fenced)));
        assert_eq!(scene.see(63_400, &[heard("two", 2, false)]), [], "it was shown for a minute");
        assert_eq!(scene.see(63_500, &[heard("two", 2, false)]), [], "gossip remembers it longer");
    }

    #[test]
    fn without_the_store_nobody_is_gone() {
        let mut scene = Scene::new();
        scene.read(0, &[life("two", 2, 3_000)]);
        assert_eq!(scene.see(10, &[heard("two", 2, true)]), two(MemberState::Alive));
        for late in [5_100, 50_000, 500_000] {
            assert_eq!(scene.see(late, &[heard("two", 2, true)]), two(MemberState::Alive));
            assert_eq!(scene.see(late + 1, &[heard("two", 2, false)]), two(MemberState::Suspect(Doubt::StoreSilent)));
            assert_eq!(scene.see(late + 2, &[]), two(MemberState::Suspect(Doubt::StoreSilent)));
        }
    }

    #[test]
    fn a_new_life_takes_the_place_of_the_old_one_when_the_store_knows_it() {
        let mut scene = Scene::new();
        scene.read(0, &[life("two", 2, 3_000)]);
        scene.see(10, &[heard("two", 2, true)]);
        let both = [heard("two", 2, false), heard("two", 9, true)];
        let seen = scene.see(500, &both);
        assert_eq!(seen, two(MemberState::Suspect(Doubt::Unheard)), "anybody may say that there is a newer life");
        scene.read(1_000, &[life("two", 9, 3_000)]);
        let seen = scene.see(1_100, &both);
        assert_eq!(seen, [("two".to_owned(), 9, MemberState::Alive)]);
    }

    #[test]
    fn who_only_gossip_knows_is_no_member() {
        let mut scene = Scene::new();
        scene.see(0, &[heard("liar", 1 << 40, true)]);
        scene.read(10, &[life("two", 2, 3_000)]);
        let seen = scene.see(20, &[heard("liar", 1 << 40, true), heard("two", 1 << 41, true), heard("two", 2, true)]);
        assert_eq!(seen[0], ("liar".to_owned(), 1 << 40, MemberState::Gone(End::Fenced)));
        assert_eq!(seen[1], ("two".to_owned(), 2, MemberState::Alive));
    }

    #[test]
    fn who_was_gone_before_is_not_shown() {
        let mut scene = Scene::new();
        scene.read(0, &[life("old", 2, 0), life("two", 3, 3_000)]);
        for millis in [10, 30, 500] {
            let seen = scene.see(millis, &[heard("older", 4, false)]);
            assert_eq!(seen, [("two".to_owned(), 3, MemberState::Suspect(Doubt::Unheard))]);
            scene.read(millis + 1, &[life("old", 2, 0), life("two", 3, 3_000)]);
        }
    }

    /// Gossip goes on about a node that was fenced; that is shown for a while, and not again and again.
    #[test]
    fn a_zombie_is_shown_once() {
        let mut scene = Scene::new();
        scene.read(0, &[life("two", 2, 3_000)]);
        scene.see(10, &[heard("two", 2, true)]);
        for second in 1..=300 {
            scene.read(second * 1_000, &[]);
            let seen = scene.see(second * 1_000 + 10, &[heard("two", 2, true)]);
            let expected = if second <= 61 { two(MemberState::Gone(End::Fenced)) } else { vec![] };
            assert_eq!(seen, expected, "{second} s");
        }
    }

    /// A life belongs to a name: another name with the same number is nobody.
    #[test]
    fn the_lease_of_another_name_is_not_ones_own() {
        let mut scene = Scene::new();
        scene.read(0, &[life("two", 2, 3_000)]);
        scene.see(10, &[heard("two", 2, true), heard("TWO", 2, true), heard("other", 1, true)]);
        scene.read(20, &[life("two", 2, 3_000)]);
        let seen = scene.see(30, &[heard("two", 2, true), heard("TWO", 2, true), heard("other", 1, true)]);
        let states: Vec<_> = seen.iter().map(|(name, _, state)| (name.as_str(), *state)).collect();
        let fenced = MemberState::Gone(End::Fenced);
        assert_eq!(states, [("TWO", fenced), ("other", fenced), ("two", MemberState::Alive)]);
    }

    #[test]
    fn strange_names_are_shown_as_such() {
        let mut scene = Scene::new();
        for name in ["", "a b", "evil\n2026 INFO all is well", &"x".repeat(300)] {
            let members = scene.view.members(&[heard(name, 5, true)], scene.at(1));
            let member = members.iter().find(|member| member.incarnation.0 == 5).unwrap();
            assert!(!member.flaws.is_empty() && !member.name.contains('\n') && member.name.len() < 100, "{member:?}");
            scene = Scene::new();
        }
    }
}
