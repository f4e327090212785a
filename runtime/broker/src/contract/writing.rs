//! Promises of sinks: order, content, and an answer for each record.

use std::sync::Arc;

use bytes::Bytes;

use super::{Grounds, PATIENCE, Reader, numbers, outgoing, sink};
use crate::port::{Outgoing, Place};
use crate::{BrokerError, ErrorClass};

pub(super) async fn order_and_content_are_kept(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("order");
    grounds.create(&topic, 2).await;
    let broker = grounds.broker();
    let sink = sink(&broker).await;
    // Two calls at once do not mix up what each of them sends.
    let (one, two) = tokio::join!(sink.send(numbers(&topic, 0, 0..500)), sink.send(numbers(&topic, 1, 0..500)));
    for (partition, answers) in [(0, one), (1, two)] {
        let places: Vec<(i32, i64)> =
            answers.into_iter().map(|answer| answer.unwrap()).map(|at| (at.partition, at.offset)).collect();
        let wanted: Vec<(i32, i64)> = (0..500).map(|offset| (partition, offset)).collect();
        assert_eq!(places, wanted);
    }
    assert!(sink.send(vec![]).await.is_empty());
    let mut reader = Reader::of(&broker, &topic, &topic, 2).await;
    let place = Place::new(&topic, 0);
    reader.until("the records", |reader| reader.count(&place) == 500).await;
    let wanted: Vec<String> = (0..500).map(|number: u32| number.to_string()).collect();
    assert_eq!(reader.values(&place), wanted);
    reader.close().await;
    sink.close(PATIENCE).await;
}

pub(super) async fn the_same_key_goes_to_the_same_partition(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("keys");
    grounds.create(&topic, 8).await;
    let broker = grounds.broker();
    let record = |key: Option<u32>| Outgoing {
        partition: None,
        key: key.map(|key| Bytes::from(format!("key {key}"))),
        ..outgoing(&topic, 0, "value")
    };
    let sink = sink(&broker).await;
    let keyed: Vec<Outgoing> = (0..40).map(|key| record(Some(key))).collect();
    let partitions = |answers: Vec<Result<crate::port::Delivered, BrokerError>>| -> Vec<i32> {
        answers.into_iter().map(|answer| answer.unwrap().partition).collect()
    };
    let (first, second) = (partitions(sink.send(keyed.clone()).await), partitions(sink.send(keyed).await));
    assert_eq!(first, second);
    let mut different = first;
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 2, "keys are spread: {different:?}");
    assert!(sink.send(vec![record(None)]).await[0].is_ok(), "a record needs no key");
    sink.close(PATIENCE).await;
}

pub(super) async fn refused_records_hurt_no_others(grounds: Arc<dyn Grounds>) {
    let (topic, missing) = (grounds.fresh("refused"), grounds.fresh("missing"));
    grounds.create(&topic, 1).await;
    let sink = sink(&grounds.broker()).await;
    let large = Outgoing { value: Some(Bytes::from(vec![1; 3 << 20])), ..outgoing(&topic, 0, "") };
    let records = vec![
        outgoing(&topic, 0, "one"),
        large,
        outgoing(&missing, 0, "lost"),
        outgoing(&topic, 5, "beyond"),
        outgoing(&topic, 0, "two"),
    ];
    let answers = sink.send(records).await;
    assert!(answers[0].is_ok() && answers[4].is_ok(), "{answers:?}");
    assert_eq!(answers[1], Err(BrokerError::TooLarge { topic: topic.clone(), bytes: 3 << 20 }));
    assert!(
        matches!(&answers[2], Err(BrokerError::UnknownTopic { topic } | BrokerError::UnknownPartition { topic, .. }) if *topic == missing),
        "{answers:?}"
    );
    assert_eq!(answers[3], Err(BrokerError::UnknownPartition { topic, partition: 5 }));
    assert!(answers[1..4].iter().all(|answer| answer.as_ref().unwrap_err().class() == ErrorClass::Permanent));
    sink.close(PATIENCE).await;
}

pub(super) async fn a_closed_sink_refuses(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("closed");
    grounds.create(&topic, 1).await;
    let sink = sink(&grounds.broker()).await;
    assert!(sink.send(numbers(&topic, 0, 0..1)).await[0].is_ok());
    sink.close(PATIENCE).await;
    sink.close(PATIENCE).await;
    assert_eq!(sink.send(numbers(&topic, 0, 0..2)).await, [Err(BrokerError::Closed), Err(BrokerError::Closed)]);
}
