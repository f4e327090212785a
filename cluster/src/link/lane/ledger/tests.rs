//! Whatever happens in whatever order: every envelope ends once, ids rise, and the window holds.

use std::time::Duration;

use metrics::{Counter, Histogram};
use motet_engine::failure::{Failure, FailureClass};
use proptest::prelude::*;

use super::*;
use crate::envelope::{Kind, Route};
use crate::link::room::Room;

const WINDOW: Capacity = Capacity { envelopes: 4, bytes: 100 };

fn ledger() -> Ledger {
    let figures = Figures { seconds: Histogram::noop(), resent: Counter::noop(), failed: Counter::noop() };
    let peer = NodeId::new("peer").unwrap();
    let mut ledger = Ledger::new(peer, Arc::new(AtomicU64::new(1)), (figures, Arc::default()));
    ledger.send_again(WINDOW, 1);
    ledger
}

type Ending = oneshot::Receiver<Result<Answer, LinkError>>;

fn post(ledger: &mut Ledger, room: &Arc<Room>, bytes: usize, deadline: Instant) -> Ending {
    let (reply, ending) = oneshot::channel();
    let parcel = Parcel {
        route: Route::default(),
        correlation: None,
        trace: None,
        kind: Kind(1),
        version: 1,
        payload: Bytes::from(vec![7; bytes]),
    };
    let held = room.take(bytes).unwrap();
    ledger.wait(Outgoing { parcel, one_way: false, posted: Instant::now(), deadline, reply, held });
    ending
}

fn room() -> Arc<Room> {
    Room::new(Capacity { envelopes: 10_000, bytes: 1 << 20 })
}

fn ids(frame: &Frame) -> Vec<u64> {
    frame.envelopes.iter().map(|envelope| envelope.id).collect()
}

#[test]
fn the_window_holds_and_opens_again() {
    let (mut ledger, room, now) = (ledger(), room(), Instant::now());
    let later = now + Duration::from_secs(60);
    let mut endings: Vec<_> = [60, 30, 30, 1, 1, 1].map(|bytes| post(&mut ledger, &room, bytes, later)).into();
    assert_eq!(ids(&ledger.frame(now)), [1, 2]);
    assert!(!ledger.has_output());
    ledger.settle(vec![1], vec![], now);
    let next = ledger.frame(now);
    assert_eq!((ids(&next), next.settled_below), (vec![3, 4, 5], 2));
    assert!(!ledger.has_output(), "four are under way");
    assert_eq!(endings.remove(0).try_recv().unwrap(), Ok(Answer::taken()));
    assert_eq!(room.taken().envelopes, 5);
}

#[test]
fn one_that_is_larger_than_the_window_goes_alone() {
    let (mut ledger, room, now) = (ledger(), room(), Instant::now());
    let later = now + Duration::from_secs(60);
    let _endings = [post(&mut ledger, &room, 5_000, later), post(&mut ledger, &room, 1, later)];
    assert_eq!(ids(&ledger.frame(now)), [1]);
    assert!(ids(&ledger.frame(now)).is_empty());
}

#[test]
fn what_has_no_answer_goes_again_in_its_order() {
    let (mut ledger, room, now) = (ledger(), room(), Instant::now());
    let later = now + Duration::from_secs(60);
    let _endings: Vec<_> = (0..6).map(|_| post(&mut ledger, &room, 1, later)).collect();
    assert_eq!(ids(&ledger.frame(now)), [1, 2, 3, 4]);
    let failed = Answer::Failed(Failure::new(FailureClass::Internal, "no"));
    ledger.settle(vec![2], vec![wire::answer(3, &failed)], now);
    ledger.send_again(WINDOW, 1);
    let again = ledger.frame(now);
    assert_eq!((ids(&again), again.settled_below), (vec![1, 4, 5, 6], 1));
    assert_eq!(ledger.resent.load(Ordering::Relaxed), 2);
}

proptest! {
    #[test]
    fn every_envelope_ends_once(steps in proptest::collection::vec((0u8..8, 0u64..50, 0usize..80), 1..300)) {
        let (mut ledger, room, begun) = (ledger(), room(), Instant::now());
        let mut now = begun;
        let mut endings: Vec<Ending> = vec![];
        let (mut last, mut sent) = (0, vec![]);
        for (what, number, bytes) in steps {
            match what {
                0..=2 => endings.push(post(&mut ledger, &room, bytes, now + Duration::from_millis(number))),
                3 | 4 => {
                    for id in ids(&ledger.frame(now)) {
                        prop_assert!(id > last || sent.contains(&id), "{} after {}", id, last);
                        last = last.max(id);
                        sent.push(id);
                    }
                }
                5 => ledger.settle(sent.get(number as usize).copied().into_iter().collect(), vec![], now),
                6 => {
                    now += Duration::from_millis(number / 4);
                    ledger.expire(now);
                }
                _ => ledger.send_again(WINDOW, 1),
            }
            prop_assert!(ledger.pending.len() <= WINDOW.envelopes);
            prop_assert!(ledger.pending_bytes <= WINDOW.bytes.max(80));
            prop_assert_eq!(ledger.pending_bytes, ledger.pending.values().map(Outgoing::bytes).sum::<usize>());
            prop_assert_eq!(room.taken().envelopes, ledger.pending.len() + ledger.waiting.len());
            let overdue = ledger.pending.values().chain(&ledger.waiting).filter(|outgoing| outgoing.deadline < begun);
            prop_assert_eq!(overdue.count(), 0);
        }
        ledger.fail_all(|sent| LinkError::Closed { sent });
        prop_assert!(ledger.is_empty());
        prop_assert_eq!(room.taken(), Capacity::default());
        for ending in &mut endings {
            prop_assert!(ending.try_recv().is_ok(), "an envelope has no ending");
        }
    }
}
