//! Peers that send nonsense, lie, or belong elsewhere: they are refused or shown as what they are, and nothing ends.

use bytes::Bytes;
use motet_store::memory::MemoryStore;
use proptest::prelude::*;

use super::super::transport::{decoded, framed};
use super::*;

/// Bytes that are almost messages: cut, lengthened, with flipped bytes, glued together.
fn spoiled(bytes: &Bytes, number: usize) -> Bytes {
    let mut changed = bytes.to_vec();
    let place = (number * 7_919) % changed.len();
    match number % 5 {
        0 => changed.truncate(place),
        1 => changed.push(0),
        2 => changed[place] ^= 1 << (number % 8),
        3 => changed[place..].iter_mut().for_each(|byte| *byte = 0xff),
        _ => changed.extend_from_slice(bytes),
    }
    changed.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_and_the_cluster_goes_on() {
    let mut cluster = Cluster::converged(3).await;
    let overheard = cluster.network.overheard();
    assert!(overheard.len() > 20);
    assert!(overheard.iter().all(|bytes| decoded(bytes).is_ok()));
    let (from, to) = (cluster.nodes[1].identity.address, cluster.nodes[0].identity.address);
    let mut refused = 0;
    for number in 0..4_000 {
        let bytes = match number % 4 {
            0 => Bytes::from(vec![number as u8; number % 300]),
            _ => spoiled(&overheard[number % overheard.len()], number),
        };
        refused += usize::from(decoded(&bytes).is_err());
        // The line of a receiver is bounded: what does not fit is lost, as on any network.
        while !cluster.network.forge(from, to, bytes.clone()) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(refused, 4_000);
    cluster.join("n3", profile("n3")).await;
    for node in &cluster.nodes {
        seen(&node.members, "all to be well after it", |it| all_alive(it, 4) && told_all(it)).await;
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decoded(&bytes).is_err());
    }
}

/// Messages that are well made and lie: numbers from the future, nodes that are not there. They may make nodes unheard;
/// they make nobody gone and let nobody in, and who begins its gossip anew is heard again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_evict_nobody() {
    let cluster = Cluster::converged(3).await;
    let overheard = cluster.network.overheard();
    let (from, to) = (cluster.nodes[1].identity.address, cluster.nodes[0].identity.address);
    let mut believed = 0;
    for number in 0..3_000 {
        let message = overheard[number % overheard.len()].slice(5..);
        let bytes = framed(&spoiled(&message, 5 * number + 2));
        believed += usize::from(decoded(&bytes).is_ok());
        while !cluster.network.forge(from, to, bytes.clone()) {
            tokio::task::yield_now().await;
        }
    }
    assert!(believed > 500, "{believed} could be read");
    let_pass(Duration::from_millis(500)).await;
    for node in &cluster.nodes {
        let members = node.members.list();
        let real = |member: &&Member| ["n0", "n1", "n2"].contains(&member.name.as_str());
        let (ours, others): (Vec<_>, Vec<_>) = members.iter().partition(real);
        assert_eq!(ours.len(), 3, "{:?}", states(&members));
        assert!(others.iter().all(|it| it.state != MemberState::Alive), "{:?}", states(&members));
        assert!(ours.iter().all(|it| !matches!(it.state, MemberState::Gone(_))), "{:?}", states(&members));
        assert!(ours.iter().any(|it| it.is_self && it.state == MemberState::Alive), "{:?}", states(&members));
    }
    for node in &cluster.nodes {
        node.members.gossip.stop().await;
        node.members.tell(|profile| profile.load.live_runs = 4_711).await.unwrap();
    }
    for node in &cluster.nodes {
        seen(&node.members, "everything to be well again", |members| {
            let well = |it: &Member| it.state == MemberState::Alive && it.profile.load.live_runs == 4_711;
            members.iter().filter(|member| well(member)).count() == 3
        })
        .await;
    }
}

/// Should chitchat end, whatever the reason, it is begun anew with everything that the node tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_that_ended_is_begun_anew() {
    let cluster = Cluster::converged(3).await;
    let (one, others) = cluster.nodes.split_first().unwrap();
    for _ in 0..2 {
        one.members.gossip.stop().await;
        one.members.tell(|profile| profile.load.live_runs += 1).await.unwrap();
        let told = one.members.profile.lock().await.clone();
        for other in others {
            seen(&other.members, "what it told after that", |members| {
                members[0].state == MemberState::Alive && members[0].profile == told
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_tells_nonsense_is_shown_as_such() {
    let mut cluster = Cluster::converged(2).await;
    cluster.join("odd", profile("odd")).await;
    let odd = cluster.nodes.last().unwrap();
    let mut told = keys::written(&profile("odd")).unwrap();
    for (key, value) in [("capacity", "{\"cores\":-1}"), ("load", "\u{1b}[2J"), ("labels", "[]"), ("model/x", "y")] {
        told.insert(key.to_owned(), value.to_owned());
    }
    odd.members.gossip.tell(told).await;
    let members = seen(&cluster.nodes[0].members, "the flaws", |members| {
        let odd = members.iter().find(|member| member.name == "odd" && member.flaws.len() == 4);
        odd.is_some_and(|member| member.state == MemberState::Alive)
    })
    .await;
    let member = members.iter().find(|member| member.name == "odd").unwrap();
    assert!(!member.takes(Role::Api) && !member.takes(Role::Runs), "it lives, but is given no work");
    assert!(member.flaws.iter().all(|flaw| !flaw.contains('\u{1b}')), "{:?}", member.flaws);
}

/// Nobody but the store says that a node has a newer life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_takes_nobodys_place() {
    let cluster = Cluster::converged(3).await;
    let address = SocketAddr::from(([127, 0, 0, 1], 6_666));
    let liar = Identity { name: "n1".to_owned(), incarnation: Incarnation(1 << 40), address };
    let datagrams = Arc::new(cluster.network.open(address));
    let store = Arc::new(MemoryStore::new());
    let mut settings = cluster.settings.clone();
    settings.seeds = vec![cluster.nodes[0].identity.address.to_string()];
    let _members = Members::join(settings, liar, profile("liar"), datagrams, store).await.unwrap();
    let heard =
        async || cluster.nodes[0].members.gossip.heard().await.iter().any(|heard| heard.incarnation.0 == 1 << 40);
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while !heard().await {
        looks.tick().await;
    }
    let_pass(Duration::from_millis(500)).await;
    let member = cluster.nodes[0].members.by_name("n1").unwrap();
    assert_eq!((member.incarnation, member.state), (cluster.nodes[1].identity.incarnation, MemberState::Alive));
    assert_eq!(member.profile, profile("n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_no_member() {
    let mut cluster = Cluster::converged(2).await;
    let mut other = Cluster::new();
    other.network = cluster.network.clone();
    other.settings.cluster = "another".to_owned();
    other.settings.seeds = cluster.nodes.iter().map(|node| node.identity.address.to_string()).collect();
    cluster.settings.seeds = vec!["127.0.0.1:7050".to_owned()];
    // Beside those of the first one.
    for name in ["x", "y"] {
        other.join_at(name, 7_050).await;
    }
    cluster.join_at("n2", 7_020).await;
    for (nodes, count) in [(&cluster.nodes, 3), (&other.nodes, 2)] {
        for node in nodes {
            seen(&node.members, "its own cluster", |members| all_alive(members, count) && told_all(members)).await;
        }
    }
    let_pass(Duration::from_millis(500)).await;
    assert!(cluster.nodes.iter().all(|node| node.members.list().len() == 3));
    assert!(other.nodes.iter().all(|node| node.members.list().len() == 2));
}
