//! Promises of questions about topics: what there is, since when, and whether it is still the same.

use std::sync::Arc;

use motet_engine::time::Timestamp;

use super::{Grounds, numbers, outgoing, write};
use crate::port::{Bounds, Outgoing, Place, Start};
use crate::{BrokerError, ErrorClass};

pub(super) async fn starts_become_offsets(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("starts");
    grounds.create(&topic, 2).await;
    let (broker, place) = (grounds.broker(), Place::new(&topic, 1));
    assert_eq!(broker.kind(), if broker.kind() == "kafka" { "kafka" } else { "memory" });
    assert_eq!(broker.partitions(&topic).await, Ok(2));
    assert_eq!(broker.bounds(&place).await, Ok(Bounds { low: 0, high: 0 }));
    let timed = |number: i64| Outgoing {
        timestamp: Some(1_700_000_000_000 + number * 1000),
        ..outgoing(&topic, 1, &number.to_string())
    };
    write(&broker, (0..10).map(timed).collect()).await;
    grounds.trim(&place, 2).await;
    let at = |millis: i64| Start::At(Timestamp::from_millis(1_700_000_000_000 + millis));
    for (start, offset) in [
        (Start::Earliest, 2),
        (Start::Latest, 10),
        (at(-5_000_000), 2),
        (at(2_000), 2),
        (at(4_001), 5),
        (at(9_000), 9),
        (at(9_001), 10),
        (Start::At(Timestamp::from_millis(-1)), 2),
    ] {
        assert_eq!(broker.offset_for(&place, start).await, Ok(offset), "{start:?}");
    }
    let bounds = broker.bounds(&place).await.unwrap();
    assert_eq!(bounds, Bounds { low: 2, high: 10 });
    assert!(bounds.contain(2) && bounds.contain(10) && !bounds.contain(1) && !bounds.contain(11));
    assert_eq!(broker.bounds(&Place::new(&topic, 0)).await, Ok(Bounds { low: 0, high: 0 }));
}

pub(super) async fn what_is_not_there_is_told(grounds: Arc<dyn Grounds>) {
    let (topic, missing) = (grounds.fresh("there"), grounds.fresh("missing"));
    grounds.create(&topic, 1).await;
    let broker = grounds.broker();
    let unknown = BrokerError::UnknownTopic { topic: missing.clone() };
    assert_eq!(unknown.class(), ErrorClass::Permanent);
    assert_eq!(broker.partitions(&missing).await, Err(unknown.clone()));
    assert_eq!(broker.origin(&missing).await, Err(unknown.clone()));
    let nowhere = Place::new(&missing, 0);
    assert_eq!(broker.bounds(&nowhere).await, Err(unknown.clone()));
    for start in [Start::Earliest, Start::Latest, Start::At(Timestamp::from_millis(0))] {
        assert_eq!(broker.offset_for(&nowhere, start).await, Err(unknown.clone()), "{start:?}");
    }
    let beyond = Place::new(&topic, 7);
    let unknown = BrokerError::UnknownPartition { topic, partition: 7 };
    assert_eq!(broker.bounds(&beyond).await, Err(unknown.clone()));
    assert_eq!(broker.offset_for(&beyond, Start::Latest).await, Err(unknown));
}

pub(super) async fn a_topic_that_comes_again_is_another_one(grounds: Arc<dyn Grounds>) {
    let (topic, other) = (grounds.fresh("again"), grounds.fresh("other"));
    let broker = grounds.broker();
    grounds.create(&topic, 1).await;
    grounds.create(&other, 1).await;
    let first = broker.origin(&topic).await.unwrap();
    let (cluster, id) = first.split_once('/').unwrap();
    assert!(!cluster.is_empty() && !id.is_empty(), "{first}");
    write(&broker, numbers(&topic, 0, 0..5)).await;
    assert_eq!(broker.origin(&topic).await.unwrap(), first, "it stays");
    let elsewhere = broker.origin(&other).await.unwrap();
    assert!(elsewhere != first && elsewhere.starts_with(&format!("{cluster}/")), "{elsewhere}");
    grounds.delete(&topic).await;
    grounds.create(&topic, 1).await;
    let second = broker.origin(&topic).await.unwrap();
    assert!(second != first && second.starts_with(&format!("{cluster}/")), "{first} {second}");
    assert_eq!(broker.bounds(&Place::new(&topic, 0)).await, Ok(Bounds { low: 0, high: 0 }));
}
