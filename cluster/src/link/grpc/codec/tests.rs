//! Frames of peers that err or lie: never a panic, never more memory than a frame of that size may take.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::wire::{Answer, Envelope, answer};

/// What a frame may take beyond its bytes: its elements, at twice their number since vectors grow by doubling.
const MOST_BESIDES: usize =
    2 * (MAX_FRAME_ELEMENTS + FRAME_FIELDS) * (size_of::<Envelope>() + size_of::<Answer>() + size_of::<Bytes>())
        + 2 * MAX_PACKED_BYTES * size_of::<u64>();

fn takes(frame: &Frame) -> usize {
    frame.envelopes.capacity() * size_of::<Envelope>()
        + frame.answers.capacity() * size_of::<Answer>()
        + frame.acknowledged.capacity() * size_of::<u64>()
        + frame.datagrams.capacity() * size_of::<Bytes>()
}

fn some_frame() -> Frame {
    let envelope = |id| Envelope { id, kind: 7, payload: Bytes::from_static(b"payload"), ..Envelope::default() };
    let outcome = Some(answer::Outcome::Undecodable("no".to_owned()));
    Frame {
        envelopes: (1..20).map(envelope).collect(),
        answers: vec![Answer { id: 9, outcome }],
        acknowledged: (1..300).collect(),
        settled_below: 4,
        datagrams: vec![Bytes::from_static(b"gossip")],
        ..Frame::default()
    }
}

#[test]
fn forged_counts_are_refused() {
    for (what, element, count) in [
        ("empty envelopes", &[0x12, 0x00][..], 500_000),
        ("empty answers", &[0x1a, 0x00], 500_000),
        ("empty datagrams", &[0x4a, 0x00], 500_000),
        ("single acknowledgements", &[0x20, 0x01], 500_000),
        ("numbers that nobody knows", &[0x98, 0x06, 0x01], 300_000),
    ] {
        let found = decode(Bytes::from(element.repeat(count)));
        assert!(found.is_err_and(|error| error.contains("too many elements")), "{what}");
    }
    let packed = [&[0x22, 0x80, 0x80, 0x40][..], &vec![1; 1 << 20]].concat();
    assert!(decode(Bytes::from(packed)).is_err_and(|error| error.contains("too many elements")));
    let forged_length = Bytes::from_static(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(decode(forged_length).is_err_and(|error| error.contains("too early")));
    assert!(decode(Bytes::from(vec![0; MAX_FRAME_BYTES + 1])).is_err_and(|error| error.contains("longer than")));
}

#[test]
fn the_fullest_frames_keep_the_bounds() {
    let largest = Envelope { payload: Bytes::from(vec![7; MAX_PAYLOAD_BYTES]), id: u64::MAX, ..Envelope::default() };
    let small = Envelope { payload: Bytes::from(vec![7; 64]), id: u64::MAX, ..Envelope::default() };
    let mut envelopes = vec![small; FRAME_ENVELOPES - 1];
    envelopes.push(largest);
    let most =
        |payload: usize| Answer { id: u64::MAX, outcome: Some(answer::Outcome::Ack(Bytes::from(vec![7; payload]))) };
    let mut answers = vec![most(128); FRAME_ANSWERS - 1];
    answers.push(most(MAX_PAYLOAD_BYTES));
    for frame in [
        Frame { envelopes, settled_below: u64::MAX, beat: u64::MAX, ..Frame::default() },
        Frame { answers, acknowledged: vec![u64::MAX; FRAME_ANSWERS], beat_back: u64::MAX, ..Frame::default() },
        Frame { datagrams: vec![Bytes::from(vec![7; MAX_DATAGRAM_BYTES]); FRAME_DATAGRAMS], ..Frame::default() },
    ] {
        assert_eq!(decode(Bytes::from(frame.encode_to_vec())).unwrap(), frame);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4_096)) {
        let length = bytes.len();
        if let Ok(frame) = decode(Bytes::from(bytes)) {
            prop_assert!(takes(&frame) <= MOST_BESIDES, "{} bytes take {}", length, takes(&frame));
        }
    }

    #[test]
    fn changed_frames_never_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = some_frame().encode_to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let whole = decode(Bytes::from(bytes.clone()));
        bytes.truncate(cut.index(bytes.len()));
        for frame in [whole, decode(Bytes::from(bytes))].into_iter().flatten() {
            prop_assert!(takes(&frame) <= MOST_BESIDES);
        }
    }
}
