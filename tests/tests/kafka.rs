//! Kafka brokers that die and stand still, under sources and sinks: nothing that was acknowledged is lost, nothing is
//! read twice without a reason, no position is reset.
//!
//! Each test has a broker of its own. Needs Kafka (`tests/services/services install kafka`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::sync::Arc;
use std::time::Duration;

use motet_broker::ErrorClass;
use motet_broker::contract::{Grounds, KafkaGrounds, Reader};
use motet_broker::kafka::KafkaSettings;
use motet_broker::port::{Outgoing, Place, SinkSettings};
use motet_tests::faults::kafka::KafkaServer;
use motet_tests::skip::skip;

async fn server(test: &str) -> Option<(KafkaServer, tempfile::TempDir)> {
    if !KafkaServer::is_installed() {
        skip(test, "Kafka is not installed: tests/services/services install kafka");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = KafkaServer::start(folder.path()).await.unwrap();
    Some((server, folder))
}

fn grounds(server: &KafkaServer) -> Arc<dyn Grounds> {
    let brokers = server.address().to_string();
    KafkaGrounds::around(&brokers, KafkaSettings::plaintext(&brokers))
}

fn records(topic: &str, range: std::ops::Range<usize>) -> Vec<Outgoing> {
    let value = |number: usize| Some(number.to_string().into());
    range
        .map(|number| Outgoing {
            topic: topic.to_owned(),
            partition: Some(0),
            value: value(number),
            ..Outgoing::default()
        })
        .collect()
}

/// F6 in small: the broker is killed under a sink and a source, three times; both go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_a_broker_that_dies_and_comes_back_loses_nothing() {
    let Some((mut server, _folder)) = server("f6").await else { return };
    let grounds = grounds(&server);
    grounds.create("f6", 1).await;
    let (broker, place) = (grounds.broker(), Place::new("f6", 0));
    let mut reader = Reader::of(&broker, "f6", "f6", 1).await;
    let settings = SinkSettings { deliver_within: Duration::from_secs(60), ..SinkSettings::default() };
    let sink = broker.sink(settings).await.unwrap();
    let (mut sent, mut total) = (0, 0);
    for _ in 0..3 {
        let answers = sink.send(records("f6", sent..sent + 200)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        sent += 200;
        total += 200;
        reader.until("what was written", |reader| reader.count(&place) >= total).await;
        server.kill();
        let (under_way, came_back) = tokio::join!(sink.send(records("f6", sent..sent + 200)), server.restart());
        came_back.unwrap();
        assert!(under_way.iter().all(Result::is_ok), "what waited for the broker was written: {under_way:?}");
        sent += 200;
        total += 200;
        reader.until("what waited", |reader| reader.count(&place) >= total).await;
    }
    let wanted: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(reader.values(&place), wanted, "in order, nothing twice, nothing lost, nothing reset");
    reader.close().await;
    sink.close(Duration::from_secs(10)).await;
}

/// A broker that stands still holds up nobody for longer than the settings say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_waited_for_within_bounds() {
    let Some((server, _folder)) = server("frozen").await else { return };
    let grounds = grounds(&server);
    grounds.create("frozen", 1).await;
    let (broker, place) = (grounds.broker(), Place::new("frozen", 0));
    let settings = SinkSettings { deliver_within: Duration::from_secs(3), ..SinkSettings::default() };
    let sink = broker.sink(settings).await.unwrap();
    let mut reader = Reader::of(&broker, "frozen", "frozen", 1).await;
    assert!(sink.send(records("frozen", 0..1)).await[0].is_ok());
    reader.until("the record", |reader| reader.count(&place) == 1).await;
    server.freeze();
    let begun = std::time::Instant::now();
    let (answers, bounds) = tokio::join!(sink.send(records("frozen", 1..2)), broker.bounds(&place));
    let failed = [answers[0].as_ref().unwrap_err().class(), bounds.unwrap_err().class()];
    assert_eq!(failed, [ErrorClass::Retryable; 2]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    server.thaw();
    // The record whose fate nobody knew may be there, once: the next one comes after it.
    let end = records("frozen", 2..3);
    let mut answer = sink.send(end.clone()).await;
    for _ in 0..20 {
        if answer[0].is_ok() {
            break;
        }
        answer = sink.send(end.clone()).await;
    }
    assert!(answer[0].is_ok(), "{answer:?}");
    reader.until("the end", |reader| reader.values(&place).last().is_some_and(|value| value == "2")).await;
    let values = reader.values(&place);
    let whole: [&[&str]; 2] = [&["0", "1", "2"], &["0", "2"]];
    let mut seen = values.clone();
    seen.dedup();
    assert!(whole.iter().any(|whole| seen == *whole), "{values:?}");
    let begun = std::time::Instant::now();
    server.freeze();
    reader.close().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "leaving is bounded: {:?}", begun.elapsed());
    server.thaw();
}
