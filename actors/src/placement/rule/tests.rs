//! Tests of the rule: what it decides in certain situations, and what it never does.

use std::collections::{BTreeMap, BTreeSet};

use motet_cluster::members::{Capacity, Doubt, End, Profile, Roles};
use motet_engine::id::{Name, Namespace};
use motet_store::port::Incarnation;
use proptest::prelude::*;

use super::*;

const UNHEARD: MemberState = MemberState::Suspect(Doubt::Unheard);
const GONE: MemberState = MemberState::Gone(End::Expired);

fn model() -> ModelName {
    ModelName { namespace: Namespace::default(), name: Name::new("e5").unwrap() }
}

fn ready(spare_queue: u32) -> Option<Replica> {
    Some(Replica { spare_queue, ready: true, memory_bytes: 100, ..Replica::default() })
}

fn loading() -> Option<Replica> {
    Some(Replica::default())
}

fn failed() -> Option<Replica> {
    Some(Replica { failed: true, ..Replica::default() })
}

/// A node that has everything, with the model as told.
fn node(name: &str, replica: Option<Replica>) -> Member {
    let replicas = replica.map(|replica| (model(), replica)).into_iter().collect();
    Member {
        name: name.to_owned(),
        incarnation: Incarnation(1),
        address: None,
        state: MemberState::Alive,
        profile: Profile { roles: Roles::all(), replicas, ..Profile::default() },
        flaws: vec![],
        is_self: false,
    }
}

fn with(mut member: Member, change: impl FnOnce(&mut Member)) -> Member {
    change(&mut member);
    member
}

fn own(member: Member) -> Member {
    with(member, |it| it.is_self = true)
}

fn placement(min: u32, max: Option<u32>, labels: &[(&str, &str)]) -> ModelPlacement {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ModelPlacement { labels, min, max }
}

/// Runs `f` in a situation in which this node tells of itself what it knows.
fn situation<T>(
    members: &[Member],
    placement: &ModelPlacement,
    passed: &Passed,
    draw: f64,
    f: impl FnOnce(&Situation<'_>) -> T,
) -> T {
    let model = model();
    let own = members.iter().find(|member| member.is_self);
    let here = own.and_then(|member| member.profile.replicas.get(&model).copied());
    f(&Situation { members, model: &model, placement, here, passed, draw })
}

/// Where a call goes, and who is to load the model besides: `far a + c`.
fn check(members: &[Member], placement: &ModelPlacement, passed: &Passed) -> String {
    situation(members, placement, passed, 0.0, |it| {
        let Some(pick) = it.pick() else { return "nowhere".to_owned() };
        let wanted = if pick.wants_more { it.wanted(Some(pick.member)) } else { vec![] };
        let wanted: String = wanted.iter().map(|member| format!(" + {}", member.name)).collect();
        format!("{} {}{wanted}", pick.place.as_str(), pick.member.name)
    })
}

/// Nodes in short: `*` is this node; then its name; `=9`, `=loading` or `=failed` for what it has; `@x` for its zone,
/// `#h100` for its label gpu, `$99` for its memory for models; and what is wrong with it.
fn read(text: &str) -> Vec<Member> {
    text.split(' ').map(read_node).collect()
}

fn read_node(text: &str) -> Member {
    let mut rest = text.trim_start_matches('*');
    let mut member = node(&rest[..1], None);
    member.is_self = text.starts_with('*');
    rest = &rest[1..];
    while let Some(sign) = rest.chars().next() {
        let end = rest[1..].find(['=', '@', '#', '$', '!']).map_or(rest.len(), |end| end + 1);
        let word = &rest[1..end];
        rest = &rest[end..];
        let profile = &mut member.profile;
        match (sign, word) {
            ('=', "loading") => drop(profile.replicas.insert(model(), loading().unwrap())),
            ('=', "failed") => drop(profile.replicas.insert(model(), failed().unwrap())),
            ('=', spare) => drop(profile.replicas.insert(model(), ready(spare.parse().unwrap()).unwrap())),
            ('@', zone) => drop(profile.labels.insert(ZONE.to_owned(), zone.to_owned())),
            ('#', gpu) => drop(profile.labels.insert("gpu".to_owned(), gpu.to_owned())),
            ('$', bytes) => profile.capacity.model_memory_bytes = bytes.parse().unwrap(),
            ('!', "drains") => profile.draining = true,
            ('!', "roleless") => profile.roles = [Role::Api].into_iter().collect(),
            ('!', "nonsense") => member.flaws.push("nonsense".to_owned()),
            ('!', "gone") => member.state = GONE,
            ('!', "suspect") => member.state = UNHEARD,
            _ => panic!("{text}"),
        }
    }
    member
}

/// What it is about, the nodes, least and most nodes with the model, and where a call goes.
type Row = (&'static str, &'static str, (u32, Option<u32>), &'static str);

/// In rank for the model: a, c, b, d.
const TABLE: [Row; 25] = [
    ("this node has room", "*b=1 a=9", (1, None), "here b"),
    ("this node is full", "*b=0 a=9", (1, None), "near a"),
    ("the same zone before more room", "*d@x a@y=9 b@x=1", (1, None), "near b"),
    ("another zone when the own is full", "*d@x a@y=9 b@x=0", (1, None), "far a"),
    ("no zone is another zone", "*d@x a=9", (1, None), "far a"),
    ("the most room, then the rank", "*d b=9 c=9 a=8", (1, None), "near c"),
    ("nobody has it: its home", "*b c a", (1, None), "near a"),
    ("this node is a home", "*c a", (2, None), "here c + a"),
    ("two homes, and one is enough to begin", "*d a b c", (2, None), "near a + c"),
    ("a home is missing", "*d=5 a c", (2, None), "here d + a"),
    ("the home loads it", "*d a=loading", (1, None), "near a"),
    ("another loads it, but the home may too", "*d a b=loading", (1, None), "near a"),
    ("another loads it, and one is the most", "*d a b=loading", (1, Some(1)), "near b"),
    ("the home could not load it", "*d a=failed b c", (1, None), "near c"),
    ("nobody could load it", "*d=failed a=failed", (1, None), "near a"),
    ("all full: it grows", "*d=0 a b=0", (1, None), "here d + a"),
    ("all full, and another is on its way", "*d=0 a b=loading", (1, None), "here d"),
    ("all full, as many as may be", "*d a=0 b=0", (1, Some(2)), "near a"),
    ("the home is gone", "*d a=9!gone b", (1, None), "near b"),
    ("the home is suspect", "*d a=9!suspect b", (1, None), "near b"),
    ("this node lives, whatever others hear", "*d=9!suspect a=9!suspect", (1, None), "here d"),
    ("a node drains, and this one too", "*d=9!drains a=9!drains b=1", (1, None), "near b"),
    ("nonsense, and no role", "*d=9!roleless a=9!nonsense", (1, None), "nowhere"),
    ("too little memory", "*d=0 a$99 c$100", (1, None), "here d + c"),
    ("no bound on memory", "*d a$0 b", (1, None), "near a"),
];

#[test]
fn calls_go_where_the_table_says() {
    for (what, nodes, (min, max), expected) in TABLE {
        assert_eq!(check(&read(nodes), &placement(min, max, &[]), &Passed::default()), expected, "{what}: {nodes}");
    }
    let gpu = placement(1, None, &[("gpu", "h100")]);
    for (nodes, expected) in [("*d a=9 b#h100", "near b"), ("*d a=9 b#a100", "nowhere"), ("*d#h100 a=9", "here d")] {
        assert_eq!(check(&read(nodes), &gpu, &Passed::default()), expected, "{nodes}");
    }
}

#[test]
fn memory_that_other_models_take_is_taken() {
    let mut members = read("*d=0 a$150 b");
    let other = ModelName { name: Name::new("chat").unwrap(), ..model() };
    for (taken, expected) in [(50, "here d + a"), (51, "here d + b")] {
        members[1].profile.replicas.insert(other.clone(), Replica { memory_bytes: taken, ..Replica::default() });
        assert_eq!(check(&members, &placement(1, None, &[]), &Passed::default()), expected, "{taken} bytes");
    }
}

#[test]
fn who_does_not_take_a_call_is_passed_over() {
    let members = read("*d a b c=3");
    let passes = |placement: ModelPlacement, passes: &[(&str, bool)]| {
        let mut passed = Passed::default();
        for (node, full) in passes {
            if *full { passed.full(node) } else { passed.away(node) }
        }
        check(&members, &placement, &passed)
    };
    let any = || placement(1, None, &[]);
    for (placement, passed, expected) in [
        (any(), &[][..], "near c"),
        (any(), &[("c", true)], "near a"),
        (any(), &[("c", true), ("a", false)], "near b"),
        // One after the other begins to load it, but homes do not wait for each other.
        (any(), &[("c", true), ("a", true)], "nowhere"),
        (placement(3, None, &[]), &[("c", true), ("a", true)], "near b"),
        (any(), &[("c", true), ("a", false), ("b", false)], "here d"),
        (any(), &[("c", true), ("a", false), ("b", false), ("d", false)], "nowhere"),
        // One that has it and is full still counts; one that is away does not.
        (placement(1, Some(1), &[]), &[("c", true)], "nowhere"),
        (placement(1, Some(1), &[]), &[("c", false)], "near a"),
        // A home that loads and has no room for more keeps its place.
        (placement(1, Some(1), &[]), &[("c", false), ("a", true)], "nowhere"),
    ] {
        assert_eq!(passes(placement, passed), expected, "{passed:?}");
    }
}

#[test]
fn why_no_node_will_do_is_said() {
    let members = [
        own(with(node("a", None), |it| it.profile.roles = [Role::Runs].into_iter().collect())),
        with(node("b", None), |it| it.state = UNHEARD),
        with(node("c", None), |it| it.profile.draining = true),
        node("d", None),
        with(node("e", None), |it| it.flaws.push("nonsense".to_owned())),
    ];
    let said = situation(&members, &placement(1, None, &[("gpu", "h100")]), &Passed::default(), 0.0, |it| {
        assert!(it.pick().is_none());
        it.why_none()
    });
    assert_eq!(
        said,
        "no node takes calls of model 'e5': it wants the role models and the labels gpu=h100; 'a' has not that role, \
         'b' is suspect, 'c' gives its work away, 'd' is not gpu=h100, 'e' tells nonsense of itself"
    );
    let many: Vec<_> = (0..20).map(|number| with(node(&format!("n{number}"), None), |it| it.state = GONE)).collect();
    let said = situation(&many, &placement(1, None, &[]), &Passed::default(), 0.0, |it| it.why_none());
    assert!(said.ends_with("'n7' is gone, and 12 more"), "{said}");
}

#[test]
fn callers_spread_over_copies_by_the_room_that_they_have() {
    let members = [own(node("d", None)), node("a", ready(300)), node("b", ready(100)), node("c", ready(0))];
    let mut counts = BTreeMap::new();
    for draw in 0..400 {
        let chosen = situation(&members, &placement(1, None, &[]), &Passed::default(), f64::from(draw) / 400.0, |it| {
            it.pick().unwrap().member.name.clone()
        });
        *counts.entry(chosen).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 300), ("b".to_owned(), 100)]));
}

fn any_member() -> impl Strategy<Value = Member> {
    let replica =
        prop_oneof![Just(None), Just(loading()), Just(failed()), prop_oneof![Just(0u32), 1u32..2_000].prop_map(ready),];
    let state = prop_oneof![4 => Just(MemberState::Alive), 1 => Just(UNHEARD), 1 => Just(GONE)];
    let labels = proptest::collection::btree_map("gpu|zone", "x|y", 0..3);
    let flags = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1), proptest::bool::weighted(0.8));
    let memory = prop_oneof![Just(0u64), 50u64..200];
    (replica, state, labels, flags, 0.1f64..8.0, memory).prop_map(
        |(replica, state, labels, (draining, flawed, models), weight, model_memory_bytes)| {
            with(node("", replica), |it| {
                it.state = state;
                it.flaws = if flawed { vec!["nonsense".to_owned()] } else { vec![] };
                it.profile.labels = labels;
                it.profile.draining = draining;
                it.profile.roles = if models { Roles::all() } else { [Role::Api].into_iter().collect() };
                it.profile.capacity = Capacity { weight, model_memory_bytes, ..Capacity::default() };
            })
        },
    )
}

fn any_members() -> impl Strategy<Value = Vec<Member>> {
    (proptest::collection::vec(any_member(), 1..12), any::<prop::sample::Index>()).prop_map(|(mut members, which)| {
        for (number, member) in members.iter_mut().enumerate() {
            member.name = format!("node-{number}");
        }
        let own = which.index(members.len());
        members[own].is_self = true;
        members
    })
}

fn any_placement() -> impl Strategy<Value = ModelPlacement> {
    let labels = proptest::option::of(Just(("gpu".to_owned(), "x".to_owned())));
    (1u32..4, proptest::option::of(0u32..4), labels).prop_map(|(min, more, label)| ModelPlacement {
        labels: label.into_iter().collect(),
        min,
        max: more.map(|more| min + more),
    })
}

fn is_fit(member: &Member, placement: &ModelPlacement) -> bool {
    let alive = member.is_self || member.state == MemberState::Alive;
    let labelled = placement.labels.iter().all(|(key, value)| member.profile.labels.get(key) == Some(value));
    alive && labelled && !member.profile.draining && member.flaws.is_empty() && member.profile.roles.has(Role::Models)
}

/// The homes of the model: who is asked, one after the other, as long as nobody has it.
fn homes(members: &[Member], count: u32) -> BTreeSet<String> {
    situation(members, &placement(count, None, &[]), &Passed::default(), 0.0, |it| {
        it.wanted(None).iter().map(|member| member.name.clone()).collect()
    })
}

proptest! {
    #[test]
    fn no_call_goes_to_a_node_that_may_not_have_it(
        members in any_members(), placement in any_placement(), draw in 0.0f64..1.0,
    ) {
        // As if every node that is asked were away, or full: none is asked twice, and it ends.
        for full in [false, true] {
            let mut passed = Passed::default();
            let mut asked = BTreeSet::new();
            while let Some(name) = situation(&members, &placement, &passed, draw, |it| {
                it.pick().map(|pick| pick.member.name.clone())
            }) {
                let member = members.iter().find(|member| member.name == name).unwrap();
                prop_assert!(is_fit(member, &placement), "{member:?}");
                prop_assert!(asked.insert(name.clone()), "{name} was asked twice");
                if full { passed.full(&name) } else { passed.away(&name) }
            }
            if !full {
                // Who has it, loaded or on its way, is found in the end.
                let holds = |member: &&Member| {
                    member.profile.replicas.get(&model()).is_some_and(|replica| !replica.failed)
                };
                let fit = members.iter().filter(|member| is_fit(member, &placement)).filter(holds);
                prop_assert!(fit.map(|member| &member.name).all(|name| asked.contains(name)));
            }
        }
    }

    #[test]
    fn it_grows_while_there_is_no_room_and_never_beyond_the_most(members in any_members(), placement in any_placement()) {
        let holds = |member: &&Member| member.profile.replicas.get(&model()).is_some_and(|replica| !replica.failed);
        let fit: Vec<_> = members.iter().filter(|member| is_fit(member, &placement)).collect();
        let holders = fit.iter().copied().filter(holds).count();
        let most = placement.max.map_or(usize::MAX, |max| max as usize);
        let (asked, wanted) = situation(&members, &placement, &Passed::default(), 0.0, |it| {
            let pick = it.pick();
            (pick.map(|pick| pick.member.clone()), it.wanted(pick.map(|pick| pick.member)).len())
        });
        let begins = asked.as_ref().is_some_and(|asked| !holds(&asked));
        prop_assert!(holders + wanted + usize::from(begins) <= most.max(holders), "{holders} {wanted} {begins}");
        let told = |member: &&Member| member.profile.replicas[&model()];
        let full = holders > 0 && fit.iter().copied().filter(holds).all(|it| told(&it).ready && told(&it).spare_queue == 0);
        let roomy = fit.iter().any(|it| !it.profile.replicas.contains_key(&model()) && it.profile.capacity.model_memory_bytes == 0);
        if full && roomy && holders < most {
            prop_assert!(wanted >= 1, "nobody is to load it");
        }
    }

    #[test]
    fn a_node_that_comes_or_goes_moves_as_little_as_can_be(
        weights in proptest::collection::vec(0.1f64..8.0, 2..20), count in 1u32..5, which in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = weights.iter().enumerate().map(|(number, weight)| {
            with(node(&format!("node-{number}"), None), |it| it.profile.capacity.weight = *weight)
        }).collect();
        let mut fewer = all.clone();
        let gone = fewer.remove(which.index(all.len())).name;
        let (before, after) = (homes(&all, count), homes(&fewer, count));
        prop_assert_eq!(before.len(), all.len().min(count as usize));
        prop_assert_eq!(after.len(), fewer.len().min(count as usize));
        // Whoever stays keeps what it has: one home at most is new, and only for one that has gone.
        prop_assert!(before.iter().filter(|name| **name != gone).all(|name| after.contains(name)));
        prop_assert!(after.difference(&before).count() <= usize::from(before.contains(&gone)));
    }
}
