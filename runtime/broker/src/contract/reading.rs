//! Promises of reading: where it begins, what comes, when it rests, what it says when something is not there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::grounds::until;
use super::{Grounds, Reader, numbers, outgoing, write};
use crate::port::{BatchLimit, CreditLimit, Outgoing, Place, SourceEvent, SourceSettings, Topics};

/// Long enough that what is not to come would have come.
const MOMENT: Duration = Duration::from_millis(400);

/// A topic of one partition, and that partition.
async fn topic(grounds: &Arc<dyn Grounds>, name: &str) -> (String, Place) {
    let topic = grounds.fresh(name);
    grounds.create(&topic, 1).await;
    let place = Place::new(&topic, 0);
    (topic, place)
}

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(super) async fn nothing_is_read_before_it_is_begun(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "unbegun").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..3)).await;
    let mut reader = Reader::of(&broker, &name, &name, 0).await;
    reader.until("the partition", |reader| reader.places == [place.clone()]).await;
    reader.drain(MOMENT).await;
    assert_eq!(reader.count(&place), 0);
    assert_eq!(reader.handle.lag()[0].position, None);
    reader.handle.begin(&place, 0);
    reader.until("the records", |reader| reader.count(&place) == 3).await;
    reader.close().await;
}

pub(super) async fn records_come_as_they_were_written(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "content").await;
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let headers = vec![
        ("content-type".to_owned(), bytes("text/plain")),
        ("twice".to_owned(), bytes("1")),
        ("null".to_owned(), None),
        ("empty".to_owned(), bytes("")),
        ("twice".to_owned(), Some(Bytes::from_static(&[0, 255, 128]))),
    ];
    let plain = outgoing(&name, 0, "value");
    let records = vec![
        Outgoing { key: bytes("key"), headers, timestamp: Some(1_700_000_000_123), ..plain.clone() },
        Outgoing { key: bytes("key"), value: None, ..plain.clone() },
        Outgoing { value: bytes(""), ..plain.clone() },
        Outgoing { value: Some(Bytes::from(vec![7; 900_000])), ..plain },
    ];
    write(&grounds.broker(), records.clone()).await;
    let mut reader = Reader::of(&grounds.broker(), &name, &name, 1).await;
    reader.until("the records", |reader| reader.count(&place) == records.len()).await;
    for (number, (read, wrote)) in reader.records[&place].iter().zip(&records).enumerate() {
        assert_eq!(read.offset, number as i64);
        assert_eq!((&read.key, &read.value, &read.headers), (&wrote.key, &wrote.value, &wrote.headers));
        assert!(read.timestamp.is_some() && wrote.timestamp.is_none_or(|time| Some(time) == read.timestamp));
    }
    reader.close().await;
}

pub(super) async fn reading_begins_where_it_is_told(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "begin").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..10)).await;
    let mut reader = Reader::join(&broker, SourceSettings::new(&name, Topics::Named(vec![name.clone()]))).await;
    reader.begins.insert(place.clone(), 7);
    reader.until("the last records", |reader| reader.count(&place) == 3).await;
    assert_eq!(reader.values(&place), texts(7..10));
    // The end of what there is is a place to begin at as well.
    reader.handle.begin(&place, 10);
    write(&broker, numbers(&name, 0, 10..12)).await;
    reader.until("new records", |reader| reader.count(&place) == 5).await;
    assert_eq!(reader.values(&place), texts(7..12));
    // Back to the start while it is being read.
    reader.records.clear();
    reader.handle.begin(&place, 0);
    reader.until("all records", |reader| reader.count(&place) >= 12).await;
    assert_eq!(reader.values(&place), texts(0..12));
    let lag = || reader.handle.lag();
    until("the lag", async || lag()[0].high == Some(12) && lag()[0].position == Some(12)).await;
    reader.close().await;
}

pub(super) async fn credit_stops_and_starts_reading(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "credit").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..100)).await;
    let settings = SourceSettings {
        credit: CreditLimit { records: 20, bytes: 1 << 20 },
        batch: BatchLimit { records: 5, bytes: 1 << 20 },
        ..SourceSettings::new(&name, Topics::Named(vec![name.clone()]))
    };
    let mut reader = Reader::join(&broker, settings).await;
    reader.begins.insert(place.clone(), 0);
    reader.holds = true;
    reader.until("the credit to be used up", |reader| reader.count(&place) == 20).await;
    reader.drain(MOMENT).await;
    assert_eq!(reader.count(&place), 20, "no record comes beyond the credit");
    let lag = reader.handle.lag().remove(0);
    assert!(lag.paused && lag.credit_used.0 == 20, "{lag:?}");
    // Batches hold five records at most. As long as less than half has come back, reading rests.
    while reader.held.iter().map(|batch| batch.next).min().is_some_and(|next| next < 9) {
        reader.held.remove(0);
    }
    reader.drain(MOMENT).await;
    assert_eq!(reader.count(&place), 20, "{:?}", reader.handle.lag());
    reader.holds = false;
    reader.held.clear();
    reader.until("the rest", |reader| reader.count(&place) == 100).await;
    assert_eq!(reader.values(&place), texts(0..100), "nothing twice, nothing left out");
    until("all credit to be back", async || reader.handle.lag()[0].credit_used == (0, 0)).await;
    reader.close().await;
}

pub(super) async fn a_halted_partition_can_be_begun_again(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "halt").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..5)).await;
    let mut reader = Reader::of(&broker, &name, &name, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 5).await;
    reader.handle.halt(&place);
    until("the halt", async || reader.handle.lag()[0].position.is_none()).await;
    write(&broker, numbers(&name, 0, 5..8)).await;
    reader.drain(MOMENT).await;
    assert_eq!(reader.count(&place), 5, "a halted partition is not read");
    assert_eq!(reader.places, std::slice::from_ref(&place), "it is kept");
    reader.handle.begin(&place, 3);
    reader.until("the rest", |reader| reader.count(&place) == 10).await;
    assert_eq!(reader.values(&place), [texts(0..5), texts(3..8)].concat());
    reader.close().await;
}

pub(super) async fn a_paused_partition_rests(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "pause").await;
    let broker = grounds.broker();
    let mut reader = Reader::of(&broker, &name, &name, 1).await;
    write(&broker, numbers(&name, 0, 0..5)).await;
    reader.until("the records", |reader| reader.count(&place) == 5).await;
    reader.handle.pause(&place, true);
    until("the pause", async || reader.handle.lag()[0].paused).await;
    write(&broker, numbers(&name, 0, 5..8)).await;
    reader.drain(MOMENT).await;
    assert_eq!(reader.count(&place), 5);
    reader.handle.pause(&place, false);
    reader.until("the rest", |reader| reader.count(&place) == 8).await;
    assert_eq!(reader.values(&place), texts(0..8), "nothing twice, nothing left out");
    reader.close().await;
}

pub(super) async fn what_nobody_sees_is_passed_over(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "gaps").await;
    let broker = grounds.broker();
    let mut reader = Reader::of(&broker, &name, &name, 1).await;
    write(&broker, numbers(&name, 0, 0..2)).await;
    grounds.write_aborted(numbers(&name, 0, 100..103)).await;
    // Two records, three that were aborted, and the mark that says so.
    reader.until("the gap", |reader| reader.next.get(&place) == Some(&6)).await;
    assert_eq!(reader.values(&place), texts(0..2));
    assert_eq!(broker.bounds(&place).await.unwrap().high, 6, "nothing looks as if it were left to read");
    write(&broker, numbers(&name, 0, 2..3)).await;
    reader.until("what follows", |reader| reader.count(&place) == 3).await;
    assert_eq!(reader.records[&place][2].offset, 6);
    // Begun within the gap.
    reader.records.clear();
    reader.handle.begin(&place, 3);
    reader.until("what follows", |reader| reader.count(&place) == 1).await;
    assert_eq!(reader.values(&place), texts(2..3));
    reader.close().await;
}

pub(super) async fn what_retention_took_is_told(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "retention").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..10)).await;
    grounds.trim(&place, 4).await;
    assert_eq!(broker.bounds(&place).await.unwrap().low, 4);
    let mut reader = Reader::of(&broker, &name, &name, 1).await;
    match reader.stop().await {
        SourceEvent::OutOfRange { place: told, position, low, high } => {
            assert_eq!((told, position, low, high), (place.clone(), 0, 4, 10));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.count(&place), 0, "nothing was skipped silently");
    reader.handle.begin(&place, 4);
    reader.until("what is left", |reader| reader.count(&place) == 6).await;
    assert_eq!(reader.values(&place), texts(4..10));
    reader.close().await;
}

pub(super) async fn a_position_beyond_the_end_is_told(grounds: Arc<dyn Grounds>) {
    let (name, place) = topic(&grounds, "beyond").await;
    let broker = grounds.broker();
    write(&broker, numbers(&name, 0, 0..3)).await;
    let mut reader = Reader::join(&broker, SourceSettings::new(&name, Topics::Named(vec![name.clone()]))).await;
    reader.begins.insert(place.clone(), 50);
    let event = reader.stop().await;
    assert!(matches!(event, SourceEvent::OutOfRange { position: 50, low: 0, high: 3, .. }), "{event:?}");
    reader.close().await;
}
