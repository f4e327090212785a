//! Promises of groups: partitions are shared, move when members come and go, and nothing is lost meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::grounds::until;
use super::{Grounds, PATIENCE, Reader, numbers, write};
use crate::ErrorClass;
use crate::port::{Place, SourceSettings, Topics};

const PARTITIONS: i32 = 4;

pub(super) async fn members_share_partitions_and_lose_nothing(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("share");
    grounds.create(&topic, PARTITIONS).await;
    let broker = grounds.broker();
    let places: Vec<Place> = (0..PARTITIONS).map(|partition| Place::new(&topic, partition)).collect();
    let mut one = Reader::of(&broker, &topic, &topic, PARTITIONS).await;
    one.until("all partitions", |one| one.places.len() == 4).await;
    for partition in 0..PARTITIONS {
        write(&broker, numbers(&topic, partition, 0..50)).await;
    }
    one.until("all records", |one| places.iter().all(|place| one.count(place) == 50)).await;
    let mut two = Reader::of(&broker, &topic, &topic, PARTITIONS).await;
    // What is durable of a position is told by whoever had the partition before.
    two.next = one.next.clone();
    let begun = Instant::now();
    while one.places.len() != 2 || two.places.len() != 2 {
        assert!(begun.elapsed() < PATIENCE, "{one:?} {two:?}");
        tokio::select! { _ = one.step() => {} _ = two.step() => {} }
    }
    let mut all: Vec<Place> = one.places.iter().chain(&two.places).cloned().collect();
    all.sort();
    assert_eq!(all, places, "each has one member");
    for partition in 0..PARTITIONS {
        write(&broker, numbers(&topic, partition, 50..60)).await;
    }
    let (of_one, of_two) = (one.places.clone(), two.places.clone());
    one.until("its own", |one| of_one.iter().all(|place| one.count(place) == 60)).await;
    two.until("its own", |two| of_two.iter().all(|place| two.count(place) == 10)).await;
    assert!(of_two.iter().all(|place| one.count(place) == 50), "nobody reads what another one has");
    two.close().await;
    one.next.extend(two.next.clone());
    one.until("all partitions again", |one| one.places.len() == 4).await;
    for partition in 0..PARTITIONS {
        write(&broker, numbers(&topic, partition, 60..61)).await;
    }
    let last = |reader: &Reader, place: &Place| reader.values(place).last().is_some_and(|value| value == "60");
    one.until("the last ones", |one| places.iter().all(|place| last(one, place))).await;
    for place in &places {
        let seen: BTreeSet<String> = one.values(place).into_iter().chain(two.values(place)).collect();
        assert_eq!(seen.len(), 61, "{place}: every record was seen");
    }
    one.close().await;
}

pub(super) async fn whoever_leaves_gives_back_at_once(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("leave");
    grounds.create(&topic, 1).await;
    let (broker, place) = (grounds.broker(), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..1)).await;
    for _ in 0..3 {
        let mut reader = Reader::of(&broker, &topic, &topic, 1).await;
        let begun = Instant::now();
        reader.until("the record", |reader| reader.count(&place) == 1).await;
        // The session would be 45 seconds.
        assert!(begun.elapsed() < PATIENCE / 2, "the one before has left: {:?}", begun.elapsed());
        let begun = Instant::now();
        reader.close().await;
        assert!(begun.elapsed() < PATIENCE / 3, "leaving takes its time: {:?}", begun.elapsed());
    }
}

pub(super) async fn patterns_find_topics_that_come_later(grounds: Arc<dyn Grounds>) {
    let stem = grounds.fresh("pattern");
    let (first, second, other) = (format!("{stem}.a"), format!("{stem}.b"), format!("{stem}.a-dlt"));
    grounds.create(&first, 1).await;
    grounds.create(&other, 1).await;
    let broker = grounds.broker();
    let mut settings = SourceSettings::new(&stem, Topics::Pattern(format!("{stem}\\.[ab]")));
    settings.session = PATIENCE;
    let mut reader = Reader::join(&broker, settings).await;
    reader.until("the first topic", |reader| reader.places == [Place::new(&first, 0)]).await;
    grounds.create(&second, 1).await;
    reader.until("the second topic", |reader| reader.places.contains(&Place::new(&second, 0))).await;
    assert!(reader.places.iter().all(|place| *place.topic != *other), "{reader:?}");
    reader.close().await;
}

pub(super) async fn groups_do_not_know_each_other(grounds: Arc<dyn Grounds>) {
    let topic = grounds.fresh("groups");
    grounds.create(&topic, 1).await;
    let (broker, place) = (grounds.broker(), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..3)).await;
    let mut one = Reader::of(&broker, &grounds.fresh("one"), &topic, 1).await;
    let mut two = Reader::of(&broker, &grounds.fresh("two"), &topic, 1).await;
    for reader in [&mut one, &mut two] {
        reader.until("the records", |reader| reader.count(&place) == 3).await;
        reader.handle.commit(&place, 3);
        reader.close().await;
    }
    // What the group was told is looked at by others, and reads nobody's position.
    let mut again = Reader::of(&broker, &topic, &topic, 1).await;
    again.until("the records", |reader| reader.count(&place) == 3).await;
    let handle = Arc::clone(&again.handle);
    again.close().await;
    // A handle may outlive its source: its calls do nothing.
    handle.begin(&place, 0);
    handle.halt(&place);
    handle.commit(&place, 1);
    until("the partitions to be gone", async || handle.lag().is_empty()).await;
}

pub(super) async fn wrong_subscriptions_are_refused(grounds: Arc<dyn Grounds>) {
    let named = |names: &[&str]| Topics::Named(names.iter().map(|&name| name.to_owned()).collect());
    let settings = [
        SourceSettings::new("", named(&["topic"])),
        SourceSettings::new("group", named(&[])),
        SourceSettings::new("group", Topics::Pattern("a(b".to_owned())),
        SourceSettings::new("group", Topics::Pattern(r"\d+".to_owned())),
    ];
    for settings in settings {
        let refused = grounds.broker().subscribe(settings.clone()).await.err().expect("it is refused");
        assert_eq!(refused.class(), ErrorClass::Permanent, "{settings:?}: {refused}");
    }
}
