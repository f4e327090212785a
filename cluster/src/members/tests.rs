//! Whole clusters in one process: nodes come and die, are cut off and start again, tell much and tell nonsense.

mod cluster;
mod hostile;

use std::collections::BTreeMap;

use cluster::{Cluster, PATIENCE, let_pass, profile, seen};
use motet_engine::id::{Name, Namespace};

use super::*;

fn states(members: &[Member]) -> Vec<(String, MemberState)> {
    members.iter().map(|member| (member.name.clone(), member.state)).collect()
}

fn all_alive(members: &[Member], nodes: usize) -> bool {
    members.len() == nodes && members.iter().all(|member| member.state == MemberState::Alive)
}

fn told_all(members: &[Member]) -> bool {
    members.iter().all(|member| !member.profile.version.binary.is_empty() && !member.profile.roles.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_find_each_other_and_what_they_tell() {
    let mut cluster = Cluster::new();
    let begun = Instant::now();
    for name in ["a", "b", "c", "d", "e"] {
        cluster.join(name, profile(name)).await;
    }
    for node in &cluster.nodes {
        let what = format!("{} to see all", node.identity.name);
        let members = seen(&node.members, &what, |it| all_alive(it, 5) && told_all(it)).await;
        for member in members.iter() {
            let expected = profile(&member.name);
            assert_eq!(member.profile, expected, "{} of {}", node.identity.name, member.name);
            assert_eq!(member.is_self, member.name == node.identity.name);
            let other = cluster.nodes.iter().find(|other| other.identity.name == member.name).unwrap();
            assert_eq!(member.incarnation, other.identity.incarnation);
            assert_eq!(member.address, Some(other.identity.address));
        }
        assert_eq!(node.members.by_name("c").unwrap().profile, profile("c"));
        assert_eq!(node.members.by_name("nobody"), None);
    }
    println!("five nodes found each other within {} ms", begun.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_suspect_and_then_gone() {
    let mut cluster = Cluster::converged(5).await;
    let history = cluster.nodes[0].history("n3");
    cluster.kill("n3");
    let begun = Instant::now();
    for node in &cluster.nodes {
        seen(&node.members, "the dead node to be gone", |members| {
            members.iter().any(|member| member.name == "n3" && matches!(member.state, MemberState::Gone(_)))
        })
        .await;
    }
    println!("a killed node was gone for all after {} ms", begun.elapsed().as_millis());
    let states = history.until(|states| matches!(states.last(), Some(MemberState::Gone(_)))).await;
    let mut states: Vec<_> = states.into_iter().map(MemberState::as_str).collect();
    states.dedup();
    assert_eq!(states, ["alive", "suspect", "gone"]);
    let others = states_of(&cluster.nodes[0].members, "n3");
    assert!(others.iter().all(|state| *state == MemberState::Alive), "{others:?}");
}

fn states_of(members: &Members, all_but: &str) -> Vec<MemberState> {
    members.list().iter().filter(|member| member.name != all_but).map(|member| member.state).collect()
}

/// Its peers do not hear of it, but the store does: it keeps what it owns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_stays_suspect_while_its_lease_lives() {
    let cluster = Cluster::converged(4).await;
    let (cut, rest) = cluster.nodes.split_last().unwrap();
    let suspect = MemberState::Suspect(Doubt::Unheard);
    cluster.network.isolate(cut.identity.address);
    for node in rest {
        seen(&node.members, "the cut off node to be suspect", |members| {
            members.iter().any(|member| member.name == "n3" && member.state == suspect)
        })
        .await;
    }
    let history = rest[0].history("n3");
    seen(&cut.members, "it to hear of nobody", |members| {
        members.iter().all(|member| member.is_self || member.state == suspect)
    })
    .await;
    let_pass(Duration::from_millis(1_500)).await;
    assert_eq!(history.take(), [suspect], "nobody was evicted");
    cluster.network.heal();
    for node in &cluster.nodes {
        seen(&node.members, "all to hear of all again", |members| all_alive(members, 4)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_is_another_life() {
    let mut cluster = Cluster::converged(3).await;
    let old = cluster.nodes[2].identity.incarnation;
    let model = ModelName { namespace: Namespace::default(), name: Name::new("e5").unwrap() };
    cluster.nodes[2]
        .members
        .tell(|profile| {
            profile.labels = BTreeMap::from([("old".to_owned(), "life".to_owned())]);
            profile.replicas = BTreeMap::from([(model, Replica { spare_queue: 1, ready: true, ..Replica::default() })]);
        })
        .await
        .unwrap();
    seen(&cluster.nodes[0].members, "the replica", |members| members[2].profile.replicas.len() == 1).await;
    cluster.kill("n2");
    cluster.join("n2", profile("n2")).await;
    let new = cluster.nodes.last().unwrap().identity.incarnation;
    assert!(new > old);
    for node in &cluster.nodes {
        let members = seen(&node.members, "the new life", |members| {
            let newest = members.iter().map(|member| member.incarnation).max();
            all_alive(members, 3) && told_all(members) && newest == Some(new)
        })
        .await;
        let member = members.iter().find(|member| member.name == "n2").unwrap();
        assert_eq!(member.incarnation, new);
        assert_eq!(member.profile, profile("n2"), "nothing of the old life is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_tells_changes_for_all() {
    let cluster = Cluster::converged(3).await;
    let (teller, others) = cluster.nodes.split_first().unwrap();
    let model = |name| ModelName { namespace: Namespace::default(), name: Name::new(name).unwrap() };
    let replica = |spare_queue| Replica { spare_queue, ready: spare_queue > 0, ..Replica::default() };
    type Change = Box<dyn Fn(&mut Profile)>;
    let changes: Vec<(&str, Change)> = vec![
        ("load", Box::new(|it| it.load = Load { live_runs: 70_000, queue_depth: 12 })),
        ("draining", Box::new(|it| it.draining = true)),
        ("roles", Box::new(|it| it.roles = [Role::Models].into_iter().collect())),
        ("labels", Box::new(|it| it.labels.insert("zone".to_owned(), "eu-2".to_owned()).map_or((), drop))),
        ("http", Box::new(|it| it.http = None)),
        ("first replica", Box::new(move |it| _ = it.replicas.insert(model("e5"), replica(0)))),
        ("second replica", Box::new(move |it| _ = it.replicas.insert(model("bge"), replica(3)))),
        ("ready", Box::new(move |it| _ = it.replicas.insert(model("e5"), replica(8)))),
        ("gone replica", Box::new(move |it| _ = it.replicas.remove(&model("bge")))),
        ("same again", Box::new(|_| {})),
    ];
    let mut expected = profile("n0");
    for (what, change) in changes {
        change(&mut expected);
        teller.members.tell(&change).await.unwrap();
        for other in others {
            seen(&other.members, what, |members| members[0].profile == expected).await;
        }
    }
    let refused = teller.members.tell(|profile| profile.capacity.weight = f64::INFINITY).await;
    assert!(matches!(refused, Err(MemberError::Profile(_))), "{refused:?}");
    teller.members.tell(|profile| profile.draining = false).await.unwrap();
    expected.draining = false;
    seen(&others[0].members, "the refused change to be nowhere", |members| members[0].profile == expected).await;
    let member = others[0].members.by_name("n0").unwrap();
    assert!(member.takes(Role::Models) && !member.takes(Role::Api));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_versions_can_be_told_apart() {
    let mut cluster = Cluster::new();
    for (name, protocol, events) in [("old", (1, 2), 30), ("new", (2, 4), 44), ("newest", (3, 5), 45)] {
        let version = Version { binary: name.to_owned(), protocol, events };
        cluster.join(name, Profile { version, ..profile(name) }).await;
    }
    let members = seen(&cluster.nodes[0].members, "all", |it| all_alive(it, 3) && told_all(it)).await;
    let version = |name| &members.iter().find(|member| member.name == name).unwrap().profile.version;
    assert_eq!(version("old").common_protocol(version("new")), Some(2));
    assert_eq!(version("new").common_protocol(version("newest")), Some(4));
    assert_eq!(version("old").common_protocol(version("newest")), None);
    assert_eq!(members.iter().map(|member| member.profile.version.events).min(), Some(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_is_slow_but_loses_nothing() {
    let mut cluster = Cluster::new();
    cluster.network.lose(0.3);
    cluster.network.delay(Duration::from_millis(60));
    for name in ["a", "b", "c", "d"] {
        cluster.join(name, profile(name)).await;
    }
    for node in &cluster.nodes {
        seen(&node.members, "all in spite of it", |members| all_alive(members, 4) && told_all(members)).await;
    }
}

/// More than one datagram holds: it comes in parts, and every part fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_a_thousand_models_fit_into_datagrams() {
    let mut cluster = Cluster::new();
    for node in 0..4u32 {
        let name = format!("n{node}");
        let replicas = (0..1_000u32).map(|model| {
            let text = format!("model-{:08x}", model.wrapping_mul(2_654_435_761) ^ node);
            let model_name = ModelName { namespace: Namespace::default(), name: Name::new(&text).unwrap() };
            let (spare_queue, memory_bytes) = (model.wrapping_mul(40_503) ^ node, u64::from(model) << 20);
            (model_name, Replica { spare_queue, ready: model % 2 == 0, failed: false, memory_bytes })
        });
        cluster.join(&name, Profile { replicas: replicas.collect(), ..profile(&name) }).await;
    }
    for node in &cluster.nodes {
        seen(&node.members, "all models", |members| {
            all_alive(members, 4) && members.iter().all(|member| member.profile.replicas.len() == 1_000)
        })
        .await;
    }
    let more = (0..1_001).map(|number| {
        let name = Name::new(&format!("m{number}")).unwrap();
        (ModelName { namespace: Namespace::default(), name }, Replica::default())
    });
    let refused = cluster.nodes[0].members.tell(|profile| profile.replicas = more.collect()).await;
    assert!(matches!(refused, Err(MemberError::Profile(_))), "{refused:?}");
}

/// Nodes are found by the store alone, by addresses, and by names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_of_finding_others_suffices() {
    for way in ["store", "address", "name"] {
        let mut cluster = Cluster::new();
        cluster.tells_store_addresses = way == "store";
        for name in ["a", "b", "c"] {
            cluster.join(name, profile(name)).await;
            let port = cluster.nodes[0].identity.address.port();
            match way {
                "address" => cluster.settings.seeds = vec![format!("127.0.0.1:{port}")],
                "name" => cluster.settings.seeds = vec!["no-such-host.invalid".to_owned(), format!("localhost:{port}")],
                _ => {}
            }
        }
        for node in &cluster.nodes {
            seen(&node.members, way, |members| all_alive(members, 3) && told_all(members)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_and_is_fenced_is_gone_at_once() {
    let mut cluster = Cluster::converged(3).await;
    let node = cluster.nodes.remove(2);
    cluster.store.fence(node.identity.incarnation).await.unwrap();
    node.members.leave().await;
    seen(&cluster.nodes[0].members, "it to be gone", |members| {
        states(members).contains(&("n2".to_owned(), MemberState::Gone(End::Fenced)))
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    assert_eq!(MemberSettings::default().check(), Ok(()));
    type Change = fn(&mut MemberSettings);
    let changes: [(&str, Change); 6] = [
        ("1 to 63", |it| it.cluster = String::new()),
        ("gossip_interval", |it| it.gossip_interval = Duration::ZERO),
        ("leases_last", |it| it.leases_last = Duration::from_millis(1)),
        ("phi_threshold", |it| it.phi_threshold = f64::NAN),
        ("a seed is", |it| it.seeds = vec!["http://node:1".to_owned()]),
        ("seed_interval", |it| it.seed_interval = Duration::from_secs(3_600)),
    ];
    for (what, change) in changes {
        let mut settings = MemberSettings::default();
        change(&mut settings);
        let Err(MemberError::Settings(text)) = settings.check() else { panic!("{what} was not refused") };
        assert!(text.contains(what), "{text}");
    }
    assert!(PATIENCE > MemberSettings::default().leases_last);
}
