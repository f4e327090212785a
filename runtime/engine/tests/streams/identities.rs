//! Ids of runs, orders, traces and records: the same for the same record, others for every other one.

use std::collections::BTreeSet;

use bytes::Bytes;
use motet_engine::id::{Name, Namespace, ShardId};
use motet_engine::stream::{Coordinates, Incoming, StartRun, run_id};
use motet_engine::time::Timestamp;
use proptest::prelude::*;

use crate::{NOW, SINCE, incoming, look, look_in, started, stream};

fn start(ordering: &str, change: impl Fn(&mut Incoming)) -> StartRun {
    let mut record = incoming(b"{\"customer\": \"c\"}", &[]);
    change(&mut record);
    started(look(&stream(&format!("ordering: {ordering}")), &record, None))
}

#[test]
fn an_id_carries_the_record_s_time_within_bounds() {
    const DAY: i64 = 86_400_000;
    let since = SINCE.as_millis();
    for (timestamp, expected) in [
        (None, since),
        (Some(-1), since),
        (Some(i64::MIN), since),
        (Some(since + 5), since + 5),
        (Some(since - DAY), since - DAY),
        (Some(since - 31 * DAY), since - 30 * DAY),
        (Some(0), since - 30 * DAY),
        (Some(since + 400 * DAY), since + 400 * DAY),
        (Some(since * 1_000), since),
        (Some(i64::MAX), since),
    ] {
        let found = start("none", |record| record.timestamp = timestamp).id.created_at().as_millis();
        assert_eq!(found, expected, "{timestamp:?}");
    }
    let near = run_id(&coordinates("t", 0, 0), Timestamp::default(), Some(5), ShardId(1));
    assert_eq!(near.created_at().as_millis(), 5, "a beginning at 1970 is none that underflows");
}

fn coordinates(topic: &str, partition: i32, offset: i64) -> Coordinates<'_> {
    static NAMES: std::sync::LazyLock<(Namespace, Name)> =
        std::sync::LazyLock::new(|| (Namespace::default(), Name::new("s").unwrap()));
    let (namespace, stream) = &*NAMES;
    Coordinates { namespace, stream, generation: 0, cluster: "c", topic, partition, offset }
}

#[test]
fn every_record_has_a_run_of_its_own_and_the_same_one_again() {
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for topic in ["a", "ab", "b"] {
        for partition in 0..32 {
            for offset in (0..1_000).chain([i64::MAX, -1, 1 << 40]) {
                let id = run_id(&coordinates(topic, partition, offset), SINCE, None, ShardId(0));
                assert_eq!(id, run_id(&coordinates(topic, partition, offset), SINCE, None, ShardId(0)));
                ids.insert(id);
                count += 1;
            }
        }
    }
    let (namespace, stream) = (Namespace(Name::new("n").unwrap()), Name::new("t").unwrap());
    let base = coordinates("a", 0, 0);
    for other in [
        Coordinates { namespace: &namespace, ..base },
        Coordinates { stream: &stream, ..base },
        Coordinates { generation: 1, ..base },
        Coordinates { cluster: "d", ..base },
        Coordinates { cluster: "ca", topic: "", ..base },
    ] {
        ids.insert(run_id(&other, SINCE, None, ShardId(0)));
        count += 1;
    }
    assert_eq!(ids.len(), count);
}

#[test]
fn orders_are_those_of_keys_and_partitions() {
    let same = |ordering: &str, change: fn(&mut Incoming)| {
        let (one, two) = (start(ordering, |_| {}), start(ordering, change));
        (one.order == two.order, one.id.shard() == two.id.shard())
    };
    let next: fn(&mut Incoming) = |record| record.offset += 1;
    let other_key: fn(&mut Incoming) = |record| record.key = Some(Bytes::from_static(b"bob"));
    let other_partition: fn(&mut Incoming) = |record| record.partition += 1;
    let other_value: fn(&mut Incoming) = |record| record.value = Some(Bytes::from_static(b"{\"customer\": \"d\"}"));
    for (ordering, change, order) in [
        ("key", next, true),
        ("key", other_value, true),
        ("key", other_key, false),
        ("key", other_partition, false),
        ("partition", next, true),
        ("partition", other_key, true),
        ("partition", other_partition, false),
        ("'${ value.customer }'", next, true),
        ("'${ value.customer }'", other_key, true),
        ("'${ value.customer }'", other_value, false),
    ] {
        let (found, shard) = same(ordering, change);
        assert_eq!(found, order, "{ordering}");
        assert!(shard || !order, "{ordering}: one order, one shard");
    }
    assert!(start("none", |_| {}).order.is_none() && start("key", |record| record.key = None).order.is_none());
    let none =
        start("'${ value.customer }'", |record| record.value = Some(Bytes::from_static(b"{\"customer\": null}")));
    assert!(none.order.is_none());
    let shards: BTreeSet<_> = (0..200).map(|n| start("none", |record| record.offset = n).id.shard()).collect();
    assert!(shards.len() > 40, "records without an order are spread: {}", shards.len());
    let keyed = |n: i64| start("key", |record| record.key = Some(format!("order-{n}").into())).id.shard();
    assert!((0..200).map(keyed).collect::<BTreeSet<_>>().len() > 40, "so are keys that are nearly the same");
}

#[test]
fn a_generation_has_its_own_runs_and_orders_on_the_same_shards() {
    let record = incoming(b"1", &[("idempotency-key", "k")]);
    let definition = stream("ordering: key");
    let [one, two] = [1, 2].map(|generation| started(look_in(&definition, &record, None, generation)));
    assert!(one.id != two.id && one.order != two.order && one.identity != two.identity && one.trace != two.trace);
    assert_eq!(one.id.shard(), two.id.shard());
    assert_eq!(one, started(look_in(&definition, &record, None, 1)), "what is read again is the same");
}

#[test]
fn a_record_that_was_produced_twice_has_one_identity() {
    let identity = |offset: i64, pairs: &[(&str, &str)]| {
        let mut record = incoming(b"1", pairs);
        record.offset = offset;
        started(look(&stream(""), &record, None)).identity
    };
    let event = [("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_source", "/s"), ("ce_type", "t")];
    let keyed = [("idempotency-key", "k")];
    assert_eq!((identity(1, &keyed), identity(1, &event)), (identity(2, &keyed), identity(2, &event)));
    assert_ne!(identity(1, &keyed), identity(1, &[("idempotency-key", "l")]));
    assert_eq!(identity(1, &[&event[..], &keyed[..]].concat()), identity(2, &keyed), "the key goes first");
    assert_eq!((identity(1, &[]), identity(1, &[("idempotency-key", "")])), (None, None));
    assert!(identity(1, &[("idempotency-key", &"k".repeat(256))]).is_none());
}

proptest! {
    #[test]
    fn different_coordinates_have_different_runs(
        one in (".{0,8}", any::<i32>(), any::<i64>()), two in (".{0,8}", any::<i32>(), any::<i64>()), shard in 0u16..4096,
    ) {
        let id = |(topic, partition, offset): &(String, i32, i64)| {
            run_id(&coordinates(topic, *partition, *offset), SINCE, Some(NOW.as_millis()), ShardId(shard))
        };
        prop_assert_eq!(id(&one) == id(&two), one == two);
        prop_assert_eq!((id(&one).shard(), id(&one).created_at()), (ShardId(shard), NOW));
    }
}
