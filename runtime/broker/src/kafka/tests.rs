//! What Kafka promises beside the contract, against a real broker; and how its settings are read.

mod group;
mod security;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;
use crate::ErrorClass;
use crate::contract::{CHECKS, Grounds, KafkaGrounds, PATIENCE, Reader, numbers, outgoing, service, until, write};
use crate::port::{Broker, CreditLimit, Outgoing, SourceEvent, SourceSettings, Topics};

/// Names the broker that all tests share.
const BROKERS: &str = "MOTET_TEST_KAFKA";

/// How tests reach it: what takes long by itself is made quick.
fn settings(brokers: &str) -> KafkaSettings {
    let mut settings = KafkaSettings::plaintext(brokers);
    for (name, value) in [("topic.metadata.propagation.max.ms", "1500"), ("topic.metadata.refresh.interval.ms", "500")]
    {
        settings.properties.insert(name.to_owned(), value.to_owned());
    }
    settings
}

fn grounds(test: &str) -> Option<Arc<dyn Grounds>> {
    let brokers = service(test, BROKERS)?;
    Some(KafkaGrounds::around(&brokers, settings(&brokers)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise() {
    let Some(grounds) = grounds("kafka contract") else { return };
    for (name, check) in CHECKS {
        let begun = Instant::now();
        check(Arc::clone(&grounds)).await;
        eprintln!("kafka: {name} took {} ms", begun.elapsed().as_millis());
    }
}

/// Anybody may write such a header, and librdkafka's crate panics at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_need_not_be_text() {
    let Some(grounds) = grounds("kafka headers") else { return };
    let topic = grounds.fresh("headers");
    grounds.create(&topic, 1).await;
    let (brokers, name) = (service("kafka headers", BROKERS).unwrap(), topic.clone());
    tokio::task::spawn_blocking(move || write_odd_header(&brokers, &name)).await.unwrap();
    let (broker, place) = (grounds.broker(), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..1)).await;
    let mut reader = Reader::of(&broker, &topic, &topic, 1).await;
    reader.until("both records", |reader| reader.count(&place) == 2).await;
    let headers = &reader.records[&place][0].headers;
    assert_eq!(headers[..], [("a\u{fffd}b".to_owned(), Some(Bytes::from_static(b"value")))]);
    reader.close().await;
}

#[allow(unsafe_code, reason = "the crate takes only text as the name of a header")]
fn write_odd_header(brokers: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let headers = rdkafka::message::OwnedHeaders::new();
    // SAFETY: the headers live until they are handed over, and name and value are copied by the call.
    unsafe {
        let raw = std::ptr::from_ref(rdkafka::message::OwnedHeaders::as_borrowed(&headers));
        let (name, value) = (b"a\xffb", b"value");
        native::rd_kafka_header_add(raw.cast_mut().cast(), name.as_ptr().cast(), 3, value.as_ptr().cast(), 5);
    }
    producer.send(BaseRecord::<[u8], [u8]>::to(topic).payload(b"value").headers(headers)).map_err(drop).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// Whoever compressed records, they can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_is_read() {
    let Some(grounds) = grounds("kafka compression") else { return };
    let brokers = service("kafka compression", BROKERS).unwrap();
    let topic = grounds.fresh("compressed");
    grounds.create(&topic, 1).await;
    let place = Place::new(&topic, 0);
    let kinds = ["none", "gzip", "snappy", "lz4", "zstd"];
    for kind in kinds {
        let mut settings = settings(&brokers);
        settings.properties.insert("compression.codec".to_owned(), kind.to_owned());
        let broker: Arc<dyn Broker> = Arc::new(KafkaBroker::new(settings).unwrap());
        let value = Bytes::from(kind.repeat(1000));
        write(&broker, vec![Outgoing { value: Some(value), ..outgoing(&topic, 0, "") }]).await;
    }
    let mut reader = Reader::of(&grounds.broker(), &topic, &topic, 1).await;
    reader.until("all records", |reader| reader.count(&place) == kinds.len()).await;
    assert_eq!(reader.values(&place), kinds.map(|kind| kind.repeat(1000)));
    reader.close().await;
}

/// A partition that rested is read on at once when its credit comes back, also when every other one of its broker rests:
/// librdkafka by itself lets up to a second pass each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_ends_when_the_credit_comes_back() {
    let Some(brokers) = service("kafka rests", BROKERS) else { return };
    // A question at the end of the log holds up every other one on its connection for as long as it may wait: here that
    // is no part of a rest.
    let impatient = ("fetch.wait.max.ms".to_owned(), "5".to_owned());
    let settings = settings(&brokers);
    let settings =
        KafkaSettings { properties: [impatient].into_iter().chain(settings.properties).collect(), ..settings };
    let grounds = KafkaGrounds::around(&brokers, settings);
    let topic = grounds.fresh("rests");
    grounds.create(&topic, 1).await;
    let (broker, place, records) = (grounds.broker(), Place::new(&topic, 0), 4_000);
    write(&broker, numbers(&topic, 0, 0..records)).await;
    let settings = SourceSettings {
        credit: CreditLimit { records: 40, bytes: 1 << 20 },
        ..SourceSettings::new(&topic, Topics::Named(vec![topic.clone()]))
    };
    let mut reader = Reader::join(&broker, settings).await;
    reader.begins.insert(place.clone(), 0);
    let first = |reader: &Reader| reader.count(&place) > 0;
    reader.until("the first records", first).await;
    let begun = Instant::now();
    reader.until("all records", |reader| reader.count(&place) == records as usize).await;
    // At least a hundred rests, which took half a second each on average.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let in_order = reader.records[&place].iter().enumerate().all(|(number, record)| record.offset == number as i64);
    assert!(in_order, "nothing twice, nothing left out");
    reader.close().await;
}

/// A topic that is deleted and made again under a reader does not go unnoticed, even when it has grown past the
/// position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_under_a_reader_stops_it() {
    let Some(grounds) = grounds("kafka made anew") else { return };
    let topic = grounds.fresh("anew");
    grounds.create(&topic, 1).await;
    let (broker, place) = (grounds.broker(), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..3)).await;
    let mut reader = Reader::of(&broker, &topic, &topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 3).await;
    // The first look after the beginning remembers which topic it was.
    tokio::time::timeout(Duration::from_secs(3), std::future::pending::<()>()).await.unwrap_err();
    grounds.delete(&topic).await;
    grounds.create(&topic, 1).await;
    write(&broker, numbers(&topic, 0, 100..110)).await;
    let begun = Instant::now();
    // Either the group takes the partition while the topic is away, or reading stops with a reason.
    let stopped = loop {
        assert!(begun.elapsed() < PATIENCE * 2, "{reader:?}");
        match reader.step().await {
            Some(event @ (SourceEvent::Gone { .. } | SourceEvent::OutOfRange { .. })) => break Some(event),
            Some(other) => panic!("{other:?}"),
            None if reader.places.is_empty() && reader.count(&place) > 0 => break None,
            None => {}
        }
    };
    eprintln!("the end of the old topic was told as {stopped:?}");
    reader.close().await;
}

/// Nobody waits for brokers that are not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_hold_nobody_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let broker: Arc<dyn Broker> = Arc::new(KafkaBroker::new(settings(&address.to_string())).unwrap());
    let begun = Instant::now();
    let error = broker.partitions("topic").await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let sink =
        broker.sink(SinkSettings { deliver_within: Duration::from_secs(2), ..SinkSettings::default() }).await.unwrap();
    let answers = sink.send(numbers("topic", 0, 0..2)).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    }
    sink.close(Duration::from_secs(1)).await;
    let mut source =
        broker.subscribe(SourceSettings::new("group", Topics::Named(vec!["topic".to_owned()]))).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, source.next()).await.unwrap();
    assert!(matches!(&event, SourceEvent::Trouble(_)), "{event:?}");
    let begun = Instant::now();
    source.close().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

/// The queue towards the brokers is bounded, and what follows a refused record is not taken either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_so() {
    let Some(grounds) = grounds("kafka full") else { return };
    let topic = grounds.fresh("full");
    grounds.create(&topic, 1).await;
    let settings = SinkSettings { queue_records: 10, linger: Duration::from_millis(500), ..SinkSettings::default() };
    let sink = grounds.broker().sink(settings).await.unwrap();
    let answers = sink.send(numbers(&topic, 0, 0..100)).await;
    let taken = answers.iter().take_while(|answer| answer.is_ok()).count();
    assert!((10..100).contains(&taken), "{taken}");
    assert!(answers[taken..].iter().all(|answer| *answer == Err(BrokerError::Busy)), "{answers:?}");
    sink.close(PATIENCE).await;
}
