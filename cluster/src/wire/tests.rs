//! What becomes a frame comes back the same, and what another version wrote is read as far as it is known.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;

use super::*;
use motet_store::port::Incarnation;

fn sender() -> Arc<Sender> {
    Arc::new(Sender {
        cluster: Name::new("test").unwrap(),
        node: NodeId::new("asks").unwrap(),
        incarnation: Incarnation(3),
    })
}

fn parcels() -> impl Strategy<Value = Parcel> {
    let route = (proptest::option::of(0u16..4_096), any::<u64>(), proptest::option::of(1u64..));
    let trace = proptest::option::of((1u128.., 1u64.., any::<bool>()));
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (route, proptest::option::of(1u64..), trace, any::<u32>(), any::<u32>(), payload).prop_map(
        |((shard, table_version, epoch), correlation, trace, kind, version, payload)| Parcel {
            route: Route { shard: shard.map(ShardId), table_version, epoch: epoch.map(Epoch) },
            correlation: correlation.map(MessageId),
            trace: trace.map(|(trace_id, span_id, sampled)| TraceContext { trace_id, span_id, sampled }),
            kind: Kind(kind),
            version,
            payload: payload.into(),
        },
    )
}

proptest! {
    #[test]
    fn envelopes_come_back(
        parcel in parcels(),
        id in 1u64..,
        protocol in any::<u32>(),
        one_way in any::<bool>(),
        remaining in 0u64..86_400_000_000,
    ) {
        let written = envelope(&parcel, id, protocol, one_way, Duration::from_micros(remaining));
        prop_assert!(written.encoded_len() <= parcel.payload.len() + ENVELOPE_OVERHEAD);
        let read = Envelope::decode(Bytes::from(written.encode_to_vec())).unwrap();
        let now = Instant::now();
        let found = received(read, &sender(), envelope::Lane::Bulk, now).unwrap();
        prop_assert_eq!(found.parcel, parcel);
        prop_assert_eq!((found.id, found.protocol, found.one_way), (MessageId(id), protocol, one_way));
        prop_assert_eq!(found.deadline - now, Duration::from_micros(remaining));
    }

    #[test]
    fn failures_come_back(class in 0..FailureClass::ALL.len(), message in ".{0,50}", retry in proptest::option::of(any::<u64>())) {
        let class = FailureClass::ALL[class];
        let failed = envelope::Answer::Failed(Failure { class, message, retry_after_ms: retry });
        let read = Answer::decode(Bytes::from(answer(7, &failed).encode_to_vec())).unwrap();
        prop_assert_eq!(answer_bytes(&read), failed.bytes());
        prop_assert_eq!((read.id, answered(read)), (7, failed));
    }
}

#[test]
fn a_deadline_is_at_most_a_day_away() {
    let parcel = Parcel {
        route: Route::default(),
        correlation: None,
        trace: None,
        kind: Kind(1),
        version: 1,
        payload: Bytes::new(),
    };
    let mut forged = envelope(&parcel, 1, 1, false, Duration::ZERO);
    forged.remaining_micros = u64::MAX;
    let now = Instant::now();
    let found = received(forged.clone(), &sender(), envelope::Lane::Control, now).unwrap();
    assert_eq!(found.deadline, now + envelope::MAX_PATIENCE);
    forged.shard = Some(70_000);
    assert!(received(forged, &sender(), envelope::Lane::Control, now).unwrap_err().contains("no shard"));
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let mut later = BytesMut::from(&Envelope { id: 5, kind: 9, ..Envelope::default() }.encode_to_vec()[..]);
    // Field 99 as a number and field 100 as bytes.
    later.put_slice(&[0x98, 0x06, 0x2a, 0xa2, 0x06, 0x03, 1, 2, 3]);
    let read = Envelope::decode(later.freeze()).unwrap();
    assert_eq!((read.id, read.kind), (5, 9));
    let mut later = BytesMut::from(&Answer { id: 5, outcome: None }.encode_to_vec()[..]);
    later.put_slice(&[0x98, 0x06, 0x2a]);
    let read = Answer::decode(later.freeze()).unwrap();
    let envelope::Answer::Failed(failure) = answered(read) else { panic!("an outcome out of nothing") };
    assert!(failure.message.contains("does not know"), "{failure}");
}

#[test]
fn a_payload_is_not_copied() {
    let payload = Bytes::from(vec![7; 10_000]);
    let written = Envelope { id: 1, payload, ..Envelope::default() }.encode_to_vec();
    let bytes = Bytes::from(written);
    let range = bytes.as_ptr_range();
    let read = Envelope::decode(bytes).unwrap();
    assert!(range.contains(&read.payload.as_ptr()));
}
