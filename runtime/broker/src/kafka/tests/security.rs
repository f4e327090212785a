//! Security against listeners that really want it: who may connect, and what is said when somebody may not.

use super::*;

/// Settings for one of the shared broker's safe listeners; none when the service is missing.
fn listener(
    test: &str,
    variable: &str,
    change: impl FnOnce(&mut KafkaSettings, &str, String),
) -> Option<KafkaSettings> {
    let brokers = service(test, variable)?;
    let secret = service(test, "MOTET_TEST_KAFKA_SECRET")?;
    let authority = std::fs::read_to_string(service(test, "MOTET_TEST_KAFKA_AUTHORITY")?).unwrap();
    let mut settings = settings(&brokers);
    change(&mut settings, &secret, authority);
    Some(settings)
}

fn user(mechanism: Mechanism, password: &str) -> Option<Sasl> {
    Some(Sasl { mechanism, username: "motet".to_owned(), password: Secret::new(password) })
}

/// Writes, asks and reads over this listener.
async fn works(settings: KafkaSettings, grounds: &Arc<dyn Grounds>) {
    let topic = grounds.fresh("secure");
    grounds.create(&topic, 1).await;
    let (broker, place): (Arc<dyn Broker>, _) = (Arc::new(KafkaBroker::new(settings).unwrap()), Place::new(&topic, 0));
    write(&broker, numbers(&topic, 0, 0..3)).await;
    assert_eq!(broker.bounds(&place).await.unwrap().high, 3);
    let mut reader = Reader::of(&broker, &topic, &topic, 1).await;
    reader.until("the records", |reader| reader.count(&place) == 3).await;
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_security_works() {
    let test = "kafka security";
    let Some(grounds) = grounds(test) else { return };
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let plain = listener(test, "MOTET_TEST_KAFKA_SASL", |settings, secret, _| {
            settings.security = Security::SaslPlaintext;
            settings.sasl = user(mechanism, secret);
        });
        let tls = listener(test, "MOTET_TEST_KAFKA_SASL_TLS", |settings, secret, authority| {
            settings.security = Security::SaslTls;
            settings.sasl = user(mechanism, secret);
            settings.tls.authority = Some(authority);
        });
        for settings in [plain, tls].into_iter().flatten() {
            works(settings, &grounds).await;
        }
    }
    let tls = listener(test, "MOTET_TEST_KAFKA_TLS", |settings, _, authority| {
        settings.security = Security::Tls;
        settings.tls.authority = Some(authority);
    });
    works(tls.unwrap(), &grounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_connect_is_told_why() {
    let test = "kafka refusals";
    let Some(_) = grounds(test) else { return };
    let wrong_password = listener(test, "MOTET_TEST_KAFKA_SASL", |settings, _, _| {
        settings.security = Security::SaslPlaintext;
        settings.sasl = user(Mechanism::ScramSha256, "hunter2");
    });
    let unknown_authority = listener(test, "MOTET_TEST_KAFKA_TLS", |settings, _, _| {
        settings.security = Security::Tls;
    });
    for settings in [wrong_password, unknown_authority].into_iter().flatten() {
        let broker = KafkaBroker::new(settings).unwrap();
        let error = broker.partitions("topic").await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        let text = error.to_string();
        assert!(text.contains("compare kafka.security") && !text.contains("hunter2"), "{text}");
        let mut source =
            broker.subscribe(SourceSettings::new("group", Topics::Named(vec!["topic".to_owned()]))).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, source.next()).await.unwrap();
        assert!(matches!(&event, SourceEvent::Trouble(text) if !text.contains("hunter2")), "{event:?}");
        source.close().await;
    }
}
