//! Rows about what is promised while nothing breaks: content, answers, order, versions, sizes, lanes, the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use motet_cluster::envelope::payload::seal;
use motet_cluster::envelope::{Answer, Lane, MAX_PAYLOAD_BYTES, MessageId, Parcel, Route};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{ErrorClass, LaneState, Link, LinkError, LinkSettings};
use motet_engine::failure::FailureClass;
use motet_engine::id::{Epoch, Name, ShardId};
use motet_engine::trace::TraceContext;
use motet_store::codec::encode_disposable;

use crate::peer::{ECHO, GATE, GREETING, Greeting, GreetingBefore, LARGE, Peer, TYPED, answers, parcel};
use crate::waiting::{let_pass, until};
use crate::world::{PATIENCE, World, answer, error, id, lane_is, settings, up};

/// Two nodes: the link of the one that asks, the handler of the other one, and its link, which must live.
pub(crate) async fn pair(world: &dyn World) -> (Arc<NodeLink>, Arc<Peer>, Arc<NodeLink>) {
    pair_with(world, settings("asks", 1), settings("answers", 2)).await
}

pub(crate) async fn pair_with(
    world: &dyn World,
    asking: LinkSettings,
    answering: LinkSettings,
) -> (Arc<NodeLink>, Arc<Peer>, Arc<NodeLink>) {
    let peer = Peer::new();
    let other = world.start(answering, peer.clone()).await;
    (world.start(asking, Peer::new()).await, peer, other)
}

pub(crate) async fn an_envelope_tells_what_its_sender_said(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let sent = Parcel {
        route: Route { shard: Some(ShardId(77)), table_version: 5, epoch: Some(Epoch(3)) },
        correlation: Some(MessageId(12)),
        trace: Some(TraceContext { trace_id: u128::MAX - 5, span_id: 9, sampled: true }),
        ..parcel(ECHO, "hello")
    };
    let within = Duration::from_secs(9);
    let echoed = answer(link.request(&id("answers"), Lane::Bulk, sent.clone(), within)).await;
    assert_eq!(echoed, Answer::Ack(Bytes::from("hello")));
    let one_way = answer(link.send(&id("answers"), Lane::Control, parcel(ECHO, "on the way"), within)).await;
    assert_eq!(one_way, Answer::taken());
    let seen = peer.seen.lock().unwrap().clone();
    let (first, second) = (&seen[0], &seen[1]);
    assert_eq!((&first.parcel, first.lane, first.one_way), (&sent, Lane::Bulk, false));
    assert_eq!((second.lane, second.one_way, second.parcel.trace), (Lane::Control, true, None));
    assert!(second.id > first.id);
    assert_eq!(first.sender.node, id("asks"));
    assert_eq!((first.sender.incarnation.0, first.sender.cluster.as_str()), (1, "test"));
    let left = first.deadline.saturating_duration_since(tokio::time::Instant::now());
    assert!(left <= within && left > within - PATIENCE.min(within), "{left:?} are left");
}

pub(crate) async fn answers_are_typed(world: &dyn World) {
    let (link, _peer, _other) = pair(world).await;
    for (number, expected) in answers().into_iter().enumerate() {
        let asked = parcel(TYPED, vec![u8::try_from(number).unwrap()]);
        let found = answer(link.request(&id("answers"), Lane::Control, asked, PATIENCE)).await;
        assert_eq!(found, expected);
    }
}

pub(crate) async fn sending_keeps_the_order(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let count = 5_000_u32;
    let mut receipts = vec![];
    for number in 0..count {
        // Some of them wait in their handlers; that holds no later one up.
        let kind = if number % 7 == 0 { GATE } else { ECHO };
        receipts.push(link.send(&id("answers"), Lane::Bulk, parcel(kind, number.to_be_bytes().to_vec()), PATIENCE));
    }
    peer.gate.add_permits(count as usize);
    for receipt in receipts {
        assert_eq!(answer(receipt).await, Answer::taken());
    }
    let seen = peer.seen.lock().unwrap();
    let numbers: Vec<_> = seen.iter().map(|envelope| envelope.parcel.payload.clone()).collect();
    let expected: Vec<_> = (0..count).map(|number| Bytes::from(number.to_be_bytes().to_vec())).collect();
    assert_eq!(numbers, expected);
}

pub(crate) async fn an_unknown_peer_is_an_error_at_once(world: &dyn World) {
    let (link, _peer, _other) = pair(world).await;
    let receipt = link.request(&id("nobody"), Lane::Control, parcel(ECHO, ""), PATIENCE);
    let expected = LinkError::Unknown { peer: id("nobody"), sent: false };
    assert_eq!(receipt.refusal(), Some(&expected));
    assert_eq!((error(receipt).await.class(), expected.may_have_arrived()), (ErrorClass::Retryable, false));
}

pub(crate) async fn an_envelope_that_is_late_already_is_not_sent(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let late = error(link.request(&id("answers"), Lane::Control, parcel(ECHO, "late"), Duration::ZERO)).await;
    assert_eq!(late, LinkError::Expired { peer: id("answers"), sent: false });
    answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, "in time"), PATIENCE)).await;
    assert_eq!(peer.begun(), 1);
}

pub(crate) async fn kinds_and_versions_that_differ_are_told(world: &dyn World) {
    let (link, _peer, _other) = pair(world).await;
    let ask = |sent| answer(link.request(&id("answers"), Lane::Control, sent, PATIENCE));
    let two = Greeting { name: "ho".to_owned(), times: 3 };
    let now = seal(&two, Route::default()).unwrap();
    let before = encode_disposable(&GreetingBefore { name: "hi".to_owned() }).unwrap();
    let of_version = |version, payload: &Bytes| Parcel { version, ..parcel(GREETING, payload.clone()) };
    assert_eq!(ask(now.clone()).await, Answer::Ack(Bytes::from("hohoho")));
    assert_eq!(ask(of_version(1, &before)).await, Answer::Ack(Bytes::from("hi")));
    for (what, sent) in [
        ("a newer version", of_version(3, &now.payload)),
        ("one that is too old", of_version(0, &before)),
        ("an unknown kind", parcel(motet_cluster::envelope::Kind(999), "")),
        ("bytes of another type", of_version(2, &Bytes::from_static(&[1, 200, 200]))),
    ] {
        let found = ask(sent).await;
        assert!(matches!(&found, Answer::Undecodable(why) if !why.is_empty()), "{what}: {found:?}");
    }
}

/// Both nodes are told that they do not fit, with these words in the reason, and neither knocks again and again.
async fn refused(world: &dyn World, one: LinkSettings, other: LinkSettings, words: &str) {
    let (here, there) = (one.node.to_string(), other.node.to_string());
    let (link, _peer, other_link) = pair_with(world, one, other).await;
    for (link, to) in [(&link, &there), (&other_link, &here)] {
        let refused = error(link.request(&id(to), Lane::Control, parcel(ECHO, ""), PATIENCE)).await;
        lane_is(link, to, Lane::Control, "a refusal", |view| view.state == LaneState::Refused).await;
        let again = error(link.request(&id(to), Lane::Control, parcel(ECHO, ""), PATIENCE)).await;
        for error in [refused, again] {
            assert_eq!((error.class(), error.may_have_arrived()), (ErrorClass::Permanent, false), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
    let_pass(Duration::from_millis(500)).await;
    for node in [&here, &there] {
        assert!(world.connections(node).is_none_or(|made| made <= 2), "{node}: {:?}", world.connections(node));
    }
}

pub(crate) async fn protocols_that_do_not_meet_are_refused_on_both_sides(world: &dyn World) {
    let speaking = |node: &str, oldest, newest| {
        let mut settings = settings(node, 1);
        settings.protocols = oldest..=newest;
        settings
    };
    refused(world, speaking("old", 1, 2), speaking("new", 3, 4), "upgrade one release at a time").await;
    let (link, peer, _other) = pair_with(world, speaking("asks", 1, 2), speaking("answers", 2, 3)).await;
    answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), PATIENCE)).await;
    assert_eq!(peer.seen.lock().unwrap()[0].protocol, 2);
}

pub(crate) async fn another_cluster_is_refused(world: &dyn World) {
    let mut stranger = settings("stranger", 1);
    stranger.cluster = Name::new("elsewhere").unwrap();
    refused(world, stranger, settings("answers", 2), "check the cluster's name").await;
}

pub(crate) async fn too_large_is_an_error_and_nothing_else_is_harmed(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let unrelated = link.request(&id("answers"), Lane::Bulk, parcel(GATE, "unrelated"), PATIENCE);
    until(PATIENCE, "the unrelated call", async || (peer.begun() == 1).then_some(())).await.unwrap();
    let large = link.request(&id("answers"), Lane::Bulk, parcel(ECHO, vec![0; MAX_PAYLOAD_BYTES + 1]), PATIENCE);
    assert_eq!(large.refusal(), Some(&LinkError::TooLarge(MAX_PAYLOAD_BYTES + 1)));
    let largest = parcel(ECHO, vec![7; MAX_PAYLOAD_BYTES]);
    let echoed = answer(link.request(&id("answers"), Lane::Bulk, largest.clone(), PATIENCE)).await;
    assert_eq!(echoed, Answer::Ack(largest.payload));
    let too_much = (MAX_PAYLOAD_BYTES + 1).to_string();
    let found = answer(link.request(&id("answers"), Lane::Bulk, parcel(LARGE, too_much), PATIENCE)).await;
    assert!(matches!(&found, Answer::Failed(failure) if failure.class == FailureClass::Invalid), "{found:?}");
    peer.gate.add_permits(1);
    assert_eq!(answer(unrelated).await, Answer::Ack(Bytes::from("unrelated")));
    assert_eq!(link.peers()[0].resent, 0, "the stream was not harmed");
}

pub(crate) async fn control_does_not_wait_for_bulk(world: &dyn World) {
    let (link, _peer, _other) = pair(world).await;
    let bulk = Bytes::from(vec![7; 900_000]);
    let (done, is_done) = tokio::sync::watch::channel(false);
    let bulky = {
        let link = Arc::clone(&link);
        tokio::spawn(async move {
            let mut times = vec![];
            while !*is_done.borrow() {
                let begun = Instant::now();
                let sent: Vec<_> = (0..8)
                    .map(|_| link.send(&id("answers"), Lane::Bulk, parcel(ECHO, bulk.clone()), PATIENCE))
                    .collect();
                for receipt in sent {
                    answer(receipt).await;
                }
                times.push(begun.elapsed());
            }
            times
        })
    };
    let mut times = vec![];
    for _ in 0..300 {
        let begun = Instant::now();
        answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, vec![1; 64]), PATIENCE)).await;
        times.push(begun.elapsed());
    }
    done.send(true).unwrap();
    let bulk = bulky.await.unwrap();
    times.sort();
    let (half, most) = (times[150], times[297]);
    println!("control beside {} times 7.2 MB: p50 {half:?}, p99 {most:?}", bulk.len());
    assert!(!bulk.is_empty());
    assert!(most < Duration::from_millis(250), "p99 of control calls is {most:?}");
}

pub(crate) async fn closing_finishes_what_is_under_way(world: &dyn World) {
    let (link, peer, other) = pair(world).await;
    let under_way = link.request(&id("answers"), Lane::Control, parcel(GATE, "under way"), PATIENCE);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    let closing = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.close(PATIENCE).await }
    });
    lane_is(&link, "answers", Lane::Control, "the farewell", |view| view.state == LaneState::Leaving).await;
    let late = link.request(&id("answers"), Lane::Control, parcel(ECHO, "too late"), PATIENCE);
    assert_eq!(late.refusal(), Some(&LinkError::Leaving(id("answers"))));
    let own = other.request(&id("asks"), Lane::Control, parcel(ECHO, ""), PATIENCE);
    assert_eq!(own.refusal(), Some(&LinkError::Closed { sent: false }));
    peer.gate.add_permits(1);
    assert_eq!(answer(under_way).await, Answer::Ack(Bytes::from("under way")));
    tokio::time::timeout(PATIENCE / 2, closing).await.expect("closing ends with what was under way").unwrap();
    assert_eq!(peer.begun(), 1);
}

pub(crate) async fn gossip_arrives_or_is_dropped(world: &dyn World) {
    let mut small = settings("answers", 2);
    small.gossip_queue = 8;
    let (link, _peer, other) = pair_with(world, settings("asks", 1), small).await;
    let (here, there) = (link.address().unwrap(), other.address().unwrap());
    assert!(link.gossip().send(there, Bytes::from("hello")));
    assert_eq!(other.gossip().receive().await, Some((here, Bytes::from("hello"))));
    assert!(other.gossip().send(here, Bytes::from("hello yourself")));
    assert_eq!(link.gossip().receive().await, Some((there, Bytes::from("hello yourself"))));
    // Nobody listens to these any more: most are dropped, here or there, and nothing waits.
    let many = Bytes::from(vec![7; 60_000]);
    let begun = Instant::now();
    for _ in 0..2_000 {
        link.gossip().send(there, many.clone());
    }
    assert!(begun.elapsed() < PATIENCE);
    assert!(!link.gossip().send(there, Bytes::from(vec![0; 70_000])), "larger than any datagram");
    let mut arrived = 0;
    while let Ok(Some((from, datagram))) =
        tokio::time::timeout(Duration::from_millis(500), other.gossip().receive()).await
    {
        assert_eq!((from, datagram), (here, many.clone()));
        arrived += 1;
    }
    assert!((1..2_000).contains(&arrived), "{arrived} datagrams arrived");
    up_after_gossip(&link).await;
}

async fn up_after_gossip(link: &NodeLink) {
    answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), PATIENCE)).await;
    up(link, "answers").await;
}
