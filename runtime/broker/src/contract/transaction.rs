//! Promises of transactional sinks: records and position come together or not at all, and one writes at a time.

use std::sync::Arc;

use bytes::Bytes;

use super::{Grounds, Reader, numbers, outgoing, write};
use crate::port::{Broker, Outgoing, Place, TransactionSettings, TransactionalSink};
use crate::{BrokerError, ErrorClass};

/// Settings for a topic of one partition.
async fn settings(grounds: &Arc<dyn Grounds>, name: &str) -> (TransactionSettings, Place) {
    let topic = grounds.fresh(name);
    grounds.create(&topic, 1).await;
    let place = Place::new(&topic, 0);
    (TransactionSettings::new(&topic, &format!("{topic}-position"), place.clone()), place)
}

async fn open(broker: &Arc<dyn Broker>, settings: &TransactionSettings) -> Box<dyn TransactionalSink> {
    broker.transactional_sink(settings.clone()).await.unwrap()
}

pub(super) async fn a_position_comes_with_its_records(grounds: Arc<dyn Grounds>) {
    let (settings, place) = settings(&grounds, "position").await;
    let broker = grounds.broker();
    let mut sink = open(&broker, &settings).await;
    assert_eq!(sink.position(), None);
    let delivered = sink.send(numbers(&place.topic, 0, 0..3), 3).await.unwrap();
    assert_eq!(delivered.iter().map(|at| at.offset).collect::<Vec<_>>(), [0, 1, 2]);
    sink.send(numbers(&place.topic, 0, 3..5), 5).await.unwrap();
    // A position may move without a record.
    sink.send(vec![], 6).await.unwrap();
    assert_eq!(sink.position(), Some(6));
    sink.close().await;
    let again = open(&broker, &settings).await;
    assert_eq!(again.position(), Some(6), "it is there after a restart");
    again.close().await;
    let elsewhere = TransactionSettings { group: format!("{}-other", settings.group), ..settings };
    let other = open(&broker, &elsewhere).await;
    assert_eq!(other.position(), None, "positions of groups are apart");
    other.close().await;
    let mut reader = Reader::of(&broker, &place.topic, &place.topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 5).await;
    assert_eq!(reader.values(&place), ["0", "1", "2", "3", "4"]);
    reader.close().await;
}

pub(super) async fn a_newer_one_fences_an_older_one(grounds: Arc<dyn Grounds>) {
    let (settings, place) = settings(&grounds, "fence").await;
    let broker = grounds.broker();
    let mut old = open(&broker, &settings).await;
    old.send(numbers(&place.topic, 0, 0..1), 1).await.unwrap();
    let mut new = open(&broker, &settings).await;
    assert_eq!(new.position(), Some(1));
    let refused = old.send(numbers(&place.topic, 0, 100..101), 2).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Fenced, "{refused}");
    assert!(!old.is_usable());
    assert_eq!(old.send(vec![], 2).await, Err(BrokerError::Closed));
    old.close().await;
    new.send(numbers(&place.topic, 0, 1..2), 2).await.unwrap();
    new.close().await;
    assert_eq!(open(&broker, &settings).await.position(), Some(2));
    let mut reader = Reader::of(&broker, &place.topic, &place.topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 2).await;
    assert_eq!(reader.values(&place), ["0", "1"], "nothing of the fenced one is read");
    reader.close().await;
}

pub(super) async fn a_refused_record_leaves_nothing(grounds: Arc<dyn Grounds>) {
    let (settings, place) = settings(&grounds, "atomic").await;
    let broker = grounds.broker();
    let mut sink = open(&broker, &settings).await;
    sink.send(numbers(&place.topic, 0, 0..1), 1).await.unwrap();
    let large = Outgoing { value: Some(Bytes::from(vec![1; 3 << 20])), ..outgoing(&place.topic, 0, "") };
    let records = [numbers(&place.topic, 0, 100..103), vec![large]].concat();
    let refused = sink.send(records, 9).await.unwrap_err();
    assert!(matches!(refused, BrokerError::TooLarge { .. }), "{refused}");
    if !sink.is_usable() {
        sink = open(&broker, &settings).await;
    }
    assert_eq!(sink.position(), Some(1));
    sink.send(numbers(&place.topic, 0, 1..2), 2).await.unwrap();
    sink.close().await;
    write(&broker, numbers(&place.topic, 0, 2..3)).await;
    let mut reader = Reader::of(&broker, &place.topic, &place.topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 3).await;
    assert_eq!(reader.values(&place), ["0", "1", "2"]);
    reader.close().await;
}
