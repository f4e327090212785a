//! Rows about what breaks: slow, frozen and killed peers, lost answers, connections that break, new incarnations.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use motet_cluster::envelope::{Answer, Lane, MAX_PAYLOAD_BYTES};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{Capacity, ErrorClass, LaneState, Link, LinkError};
use motet_engine::failure::FailureClass;
use motet_store::port::Incarnation;

use crate::peer::{ECHO, ENDLESS, GATE, PANIC, Peer, parcel};
use crate::rows::{pair, pair_with};
use crate::waiting::{let_pass, until};
use crate::world::{PATIENCE, World, answer, error, id, lane_is, settings, up};

/// Longer than any link waits for a silent peer here.
const LONG: Duration = Duration::from_secs(3_600);

pub(crate) async fn a_slow_receiver_makes_the_sender_full(world: &dyn World) {
    let (mut asking, mut answering) = (settings("asks", 1), settings("answers", 2));
    asking.capacity.envelopes = 64;
    answering.window.envelopes = 16;
    answering.concurrency = 4;
    let (link, peer, other) = pair_with(world, asking, answering).await;
    let post = || link.send(&id("answers"), Lane::Bulk, parcel(GATE, vec![7; 1_024]), PATIENCE);
    let (taken, refused): (Vec<_>, Vec<_>) = (0..500).map(|_| post()).partition(|receipt| receipt.refusal().is_none());
    assert_eq!((taken.len(), refused.len()), (64, 436));
    for receipt in refused {
        let full = error(receipt).await;
        assert_eq!((full.class(), full.may_have_arrived()), (ErrorClass::Busy, false));
        assert_eq!(full, LinkError::Full { peer: id("answers"), lane: Lane::Bulk });
    }
    let inbound = async || other.inbound().into_iter().find(|view| view.queued.envelopes == 12 && view.running == 4);
    let view = until(PATIENCE, "a full window", inbound).await.unwrap();
    assert_eq!(view.queued.bytes, 12 * 1_024);
    assert_eq!(link.peers()[0].unanswered, Capacity { envelopes: 64, bytes: 64 * 1_024 });
    // The other lane has room of its own, and a busy peer is no dead one.
    answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), PATIENCE)).await;
    let_pass(Duration::from_millis(1_500)).await;
    let view = &other.inbound().into_iter().find(|view| view.lane == Lane::Bulk).unwrap();
    assert_eq!((view.queued.envelopes, view.running), (12, 4));
    peer.gate.add_permits(64);
    for receipt in taken {
        assert_eq!(answer(receipt).await, Answer::taken());
    }
    assert!(post().refusal().is_none(), "there is room again");
    assert_eq!(link.peers().iter().map(|view| view.resent).sum::<u64>(), 0);
}

pub(crate) async fn bytes_are_bounded_too(world: &dyn World) {
    let (mut asking, mut answering) = (settings("asks", 1), settings("answers", 2));
    asking.capacity.bytes = 4 << 20;
    answering.window.bytes = 2 << 20;
    answering.concurrency = 1;
    let (link, peer, other) = pair_with(world, asking, answering).await;
    let post = || link.send(&id("answers"), Lane::Bulk, parcel(GATE, vec![7; MAX_PAYLOAD_BYTES]), PATIENCE);
    let (taken, refused): (Vec<_>, Vec<_>) = (0..8).map(|_| post()).partition(|receipt| receipt.refusal().is_none());
    assert_eq!((taken.len(), refused.len()), (4, 4));
    let look = async || (other.inbound().first()?.queued.bytes == MAX_PAYLOAD_BYTES).then_some(());
    until(PATIENCE, "one that waits behind one that runs", look).await.unwrap();
    peer.gate.add_permits(4);
    for receipt in taken {
        answer(receipt).await;
    }
}

pub(crate) async fn a_frozen_peer_is_suspected_and_dropped(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG)).await;
    up(&link, "answers").await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, "pending"), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 2).then_some(())).await.unwrap();
    world.freeze("answers", true);
    let begun = Instant::now();
    lane_is(&link, "answers", Lane::Control, "a suspicion", |view| view.state == LaneState::Suspect).await;
    let later = link.request(&id("answers"), Lane::Control, parcel(ECHO, "later"), LONG);
    assert!(later.refusal().is_none(), "a suspicion refuses nothing");
    // What was sent may have arrived; whether the later one was sent depends on how much the network itself holds.
    let (down, later) = (error(pending).await, error(later).await);
    assert!(matches!(down, LinkError::Down { sent: true, .. }), "{down}");
    assert!(matches!(later, LinkError::Down { .. }), "{later}");
    assert_eq!((down.class(), down.may_have_arrived()), (ErrorClass::Retryable, true), "{down}");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "noticed after {took:?}");
    let refused = link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG);
    assert!(matches!(refused.refusal(), Some(LinkError::Down { sent: false, .. })), "{refused:?}");
    world.freeze("answers", false);
    up(&link, "answers").await;
    assert_eq!(
        answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, "back"), LONG)).await,
        Answer::Ack(Bytes::from("back"))
    );
}

pub(crate) async fn a_stream_that_the_frozen_side_gave_up_ends_too(world: &dyn World) {
    let mut answering = settings("answers", 2);
    (answering.suspect_after, answering.drop_after) = (Duration::from_millis(200), Duration::from_millis(300));
    let (link, peer, _other) = pair_with(world, settings("asks", 1), answering).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    world.freeze("answers", true);
    let down = error(pending).await;
    assert!(matches!(down, LinkError::Down { sent: true, .. }), "{down}");
    world.freeze("answers", false);
    up(&link, "answers").await;
}

pub(crate) async fn a_killed_peer_ends_what_is_pending(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    world.kill("answers");
    let begun = Instant::now();
    let down = error(pending).await;
    assert!(down.may_have_arrived() && down.class() == ErrorClass::Retryable, "{down}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let refused = error(link.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG)).await;
    assert_eq!((refused.class(), refused.may_have_arrived()), (ErrorClass::Retryable, false), "{refused}");
}

pub(crate) async fn a_dropped_reply_is_an_answer(world: &dyn World) {
    let (link, _peer, _other) = pair(world).await;
    for one_way in [false, true] {
        let post = if one_way { <NodeLink as Link>::send } else { <NodeLink as Link>::request };
        let found = answer(post(&link, &id("answers"), Lane::Control, parcel(PANIC, ""), LONG)).await;
        let Answer::Failed(failure) = found else { panic!("{found:?}") };
        assert_eq!(failure.class, FailureClass::Internal);
        assert!(failure.message.contains("without an answer"), "{failure}");
    }
    let echoed = answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, "unharmed"), LONG)).await;
    assert_eq!(echoed, Answer::Ack(Bytes::from("unharmed")));
}

pub(crate) async fn a_handler_without_end_expires(world: &dyn World) {
    let (link, _peer, other) = pair(world).await;
    let within = Duration::from_millis(300);
    let begun = Instant::now();
    let receipt = link.request(&id("answers"), Lane::Control, parcel(ENDLESS, ""), within);
    // Whoever's clock is first.
    match tokio::time::timeout(PATIENCE, receipt).await.unwrap() {
        Ok(Answer::Expired) | Err(LinkError::Expired { sent: true, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() >= within - Duration::from_millis(1), "{:?}", begun.elapsed());
    let idle = async || other.inbound().iter().all(|view| view.running == 0).then_some(());
    until(PATIENCE, "the handler to be dropped", idle).await.unwrap();
}

pub(crate) async fn a_new_incarnation_ends_what_the_old_one_had(world: &dyn World) {
    let (link, peer, old) = pair(world).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    let newer = Peer::new();
    let _other = world.start(settings("answers", 9), newer.clone()).await;
    let restarted = error(pending).await;
    assert_eq!(restarted, LinkError::Restarted { peer: id("answers"), now: Incarnation(9) });
    assert!(restarted.may_have_arrived());
    let echoed = answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, "later"), LONG)).await;
    assert_eq!(echoed, Answer::Ack(Bytes::from("later")));
    assert_eq!((peer.begun(), newer.begun()), (1, 1));
    assert_eq!(link.peers()[0].incarnation, Some(Incarnation(9)));
    drop(old);
}

pub(crate) async fn an_envelope_that_comes_again_is_handled_once(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, "once"), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    world.cut("answers");
    lane_is(&link, "answers", Lane::Control, "the second sending", |view| view.resent == 1).await;
    up(&link, "answers").await;
    peer.gate.add_permits(1);
    assert_eq!(answer(pending).await, Answer::Ack(Bytes::from("once")));
    assert_eq!(peer.begun(), 1);
}

pub(crate) async fn an_answer_that_was_lost_is_remembered(world: &dyn World) {
    let (link, peer, other) = pair(world).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, "lost"), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    // The handler ends while its answer cannot pass; then the connection breaks with the answer in it.
    world.freeze("answers", true);
    peer.gate.add_permits(1);
    let ended = async || (peer.passed.load(Ordering::SeqCst) == 1).then_some(());
    until(PATIENCE, "the handler to end", ended).await.unwrap();
    world.cut("answers");
    world.freeze("answers", false);
    assert_eq!(answer(pending).await, Answer::Ack(Bytes::from("lost")));
    assert_eq!(peer.begun(), 1);
    let settled = async || other.inbound().iter().all(|view| view.remembered.envelopes == 0).then_some(());
    until(PATIENCE, "the answer to be forgotten when it has arrived", settled).await.unwrap();
}

pub(crate) async fn connections_that_break_again_and_again_lose_and_double_nothing(world: &dyn World) {
    let (link, peer, _other) = pair(world).await;
    let mut receipts = vec![];
    for round in 0..30_u32 {
        for number in 0..50_u32 {
            let kind = if number % 10 == 0 { GATE } else { ECHO };
            let payload = Bytes::from([round.to_be_bytes(), number.to_be_bytes()].concat());
            let lane = Lane::ALL[(number % 2) as usize];
            receipts.push((payload.clone(), link.request(&id("answers"), lane, parcel(kind, payload), LONG)));
        }
        let_pass(Duration::from_millis(u64::from(round % 5) * 7)).await;
        world.cut("answers");
        peer.gate.add_permits(5);
    }
    for (payload, receipt) in receipts {
        assert_eq!(answer(receipt).await, Answer::Ack(payload));
    }
    let mut begun = BTreeMap::<_, Vec<_>>::new();
    for envelope in peer.seen.lock().unwrap().iter() {
        begun.entry(envelope.lane).or_default().push(envelope.parcel.payload.clone());
    }
    for (lane, begun) in begun {
        assert_eq!(begun.len(), 750, "{lane}");
        assert!(begun.is_sorted_by(|one, next| one < next), "{lane}: handlers begin once, in the order of posting");
    }
    let resent: u64 = link.peers().iter().map(|view| view.resent).sum();
    println!("{resent} envelopes were sent again");
    assert!(resent > 0, "the test broke nothing");
}
