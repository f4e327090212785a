//! Groups as only Kafka has them: the brokers' protocol, names that stay over restarts, members of another kind.

use super::*;
use crate::port::GroupProtocol;

fn named(topic: &str) -> SourceSettings {
    SourceSettings::new(topic, Topics::Named(vec![topic.to_owned()]))
}

/// A member that begins all of a topic's partitions at their start.
async fn member(broker: &Arc<dyn Broker>, settings: SourceSettings, topic: &str, partitions: i32) -> Reader {
    let mut reader = Reader::join(broker, settings).await;
    reader.begins = (0..partitions).map(|partition| (Place::new(topic, partition), 0)).collect();
    reader
}

/// The brokers deal out under KIP-848; otherwise everything is as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_protocol_shares_and_moves_partitions() {
    let Some(grounds) = grounds("kafka consumer protocol") else { return };
    let topic = grounds.fresh("kip848");
    grounds.create(&topic, 4).await;
    let broker = grounds.broker();
    let settings = SourceSettings { protocol: GroupProtocol::Consumer, ..named(&topic) };
    let mut one = member(&broker, settings.clone(), &topic, 4).await;
    one.until("all partitions", |one| one.places.len() == 4).await;
    for partition in 0..4 {
        write(&broker, numbers(&topic, partition, 0..20)).await;
    }
    one.until("all records", |one| (0..4).all(|number| one.count(&Place::new(&topic, number)) == 20)).await;
    let mut two = member(&broker, settings, &topic, 4).await;
    two.next = one.next.clone();
    let begun = Instant::now();
    while one.places.len() != 2 || two.places.len() != 2 {
        assert!(begun.elapsed() < PATIENCE, "{one:?} {two:?}");
        tokio::select! { _ = one.step() => {} _ = two.step() => {} }
    }
    two.close().await;
    one.until("all partitions again", |one| one.places.len() == 4).await;
    one.close().await;
}

/// A member that comes back under its name finds its partition where it left it, and the group does not deal anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_stays_keeps_its_partitions() {
    let Some(grounds) = grounds("kafka static") else { return };
    let topic = grounds.fresh("static");
    grounds.create(&topic, 2).await;
    let broker = grounds.broker();
    let settings = |instance: &str| SourceSettings { instance: Some(instance.to_owned()), ..named(&topic) };
    let mut one = member(&broker, settings("one"), &topic, 2).await;
    one.until("all partitions", |one| one.places.len() == 2).await;
    let mut two = member(&broker, settings("two"), &topic, 2).await;
    let begun = Instant::now();
    while one.places.len() != 1 || two.places.len() != 1 {
        assert!(begun.elapsed() < PATIENCE, "{one:?} {two:?}");
        tokio::select! { _ = one.step() => {} _ = two.step() => {} }
    }
    let seats = (one.places.clone(), two.places.clone());
    two.close().await;
    one.drain(Duration::from_secs(2)).await;
    assert_eq!(one.places, seats.0, "the seat of who is away for a moment is kept");
    let mut two = member(&broker, settings("two"), &topic, 2).await;
    two.until("its partition", |two| two.places.len() == 1).await;
    assert_eq!((&one.places, &two.places), (&seats.0, &seats.1));
    // A second one of the same name puts the first one out, and that one says so.
    let mut twin = member(&broker, settings("two"), &topic, 2).await;
    let end = two.end().await;
    assert_eq!(end.class(), ErrorClass::Fenced, "{end}");
    assert!(end.to_string().contains("instance of its own"), "{end}");
    twin.until("the partition", |twin| twin.places == seats.1).await;
    for reader in [&mut one, &mut two, &mut twin] {
        reader.close().await;
    }
}

/// A topic that is not there is told, and found when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_later_is_found() {
    let Some(grounds) = grounds("kafka later") else { return };
    let (topic, broker) = (grounds.fresh("later"), grounds.broker());
    let mut source = broker.subscribe(named(&topic)).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, source.next()).await.unwrap();
    assert!(matches!(&event, SourceEvent::Trouble(text) if text.contains("create the topic")), "{event:?}");
    grounds.create(&topic, 1).await;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE);
        if let SourceEvent::Assigned(places) = tokio::time::timeout(PATIENCE, source.next()).await.unwrap() {
            assert_eq!(places, [Place::new(&topic, 0)]);
            break;
        }
    }
    source.close().await;
}

/// What the group is told is what tools show as its lag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_told_to_the_group() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let Some(grounds) = grounds("kafka commits") else { return };
    let topic = grounds.fresh("commits");
    grounds.create(&topic, 1).await;
    let (broker, place) = (grounds.broker(), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..5)).await;
    let mut reader = member(&broker, named(&topic), &topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 5).await;
    reader.handle.commit(&place, 4);
    let brokers = service("kafka commits", BROKERS).unwrap();
    until("the position to be told", async || {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        let ask = move || {
            let mut config = ClientConfig::new();
            let consumer: BaseConsumer =
                config.set("bootstrap.servers", brokers).set("group.id", &topic).create().unwrap();
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition(&topic, 0);
            let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
            committed.find_partition(&topic, 0).unwrap().offset().to_raw()
        };
        tokio::task::spawn_blocking(ask).await.unwrap() == Some(4)
    })
    .await;
    reader.close().await;
}
