//! How settings are read: what is refused, with which words, and that secrets stay out of them.

use super::*;

/// A certificate as far as its first line tells.
const PEM: &str = "-----BEGIN CERTIFICATE-----\n";

fn sasl() -> Sasl {
    Sasl { mechanism: Mechanism::Plain, username: "motet".to_owned(), password: Secret::new("hunter2") }
}

fn with(change: impl FnOnce(&mut KafkaSettings)) -> KafkaSettings {
    let mut settings = KafkaSettings::plaintext("one:9092, two:9093");
    change(&mut settings);
    settings
}

fn property(name: &str, value: &str) -> KafkaSettings {
    with(|settings| drop(settings.properties.insert(name.to_owned(), value.to_owned())))
}

#[test]
fn wrong_settings_are_refused_with_advice() {
    let pem = || Some(PEM.to_owned());
    let cases: Vec<(KafkaSettings, &str)> = vec![
        (KafkaSettings::default(), "at least one broker"),
        (with(|settings| settings.brokers = vec!["one".to_owned()]), "host:port"),
        (with(|settings| settings.brokers = vec![":9092".to_owned()]), "host:port"),
        (with(|settings| settings.brokers = vec!["one:0".to_owned()]), "host:port"),
        (with(|settings| settings.brokers = vec!["kafka://one:9092".to_owned()]), "host:port"),
        (with(|settings| settings.security = Security::SaslTls), "kafka.security is sasl-tls; set kafka.user"),
        (with(|settings| settings.sasl = Some(sasl())), "kafka.security is plaintext; set it to sasl-tls"),
        (
            with(|settings| {
                settings.security = Security::SaslPlaintext;
                settings.sasl = Some(Sasl { password: Secret::default(), ..sasl() });
            }),
            "kafka.user and kafka.password must both be set",
        ),
        (with(|settings| settings.tls.authority = pem()), "set it to tls"),
        (
            with(|settings| {
                settings.security = Security::Tls;
                settings.tls.certificate = pem();
            }),
            "kafka.certificate and kafka.key belong together",
        ),
        (
            with(|settings| {
                settings.security = Security::Tls;
                settings.tls.key_password = Some(Secret::new("hunter2"));
            }),
            "kafka.key is not",
        ),
        (
            with(|settings| {
                settings.security = Security::Tls;
                settings.tls.authority = Some("ca.pem".to_owned());
            }),
            "kafka.authority is no PEM text",
        ),
        (property("enable.auto.commit", "true"), "positions are kept in the store"),
        (property("fetch.min.bites", "1"), "did you mean 'fetch.min.bytes'?"),
        (property("fetch.min.bytes", "many"), "'fetch.min.bytes' cannot be 'many'"),
        (property("compression.codec", "zip"), "'compression.codec' cannot be 'zip'"),
    ];
    for (settings, part) in cases {
        let refused = settings.check().unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Permanent);
        let text = refused.to_string();
        assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        assert!(KafkaBroker::new(settings).is_err());
    }
    assert_eq!(with(|_| {}).check(), Ok(()));
    assert_eq!(property("client.rack", "a").check(), Ok(()));
}

#[test]
fn secrets_are_not_shown() {
    let settings = with(|settings| {
        settings.security = Security::SaslTls;
        settings.sasl = Some(sasl());
        settings.tls.key = Some(Secret::new(format!("{PEM}hunter2")));
        settings.tls.certificate = Some(PEM.to_owned());
        settings.tls.key_password = Some(Secret::new("hunter2"));
    });
    assert_eq!(settings.check(), Ok(()));
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    // What is no certificate behind its first line is told by librdkafka, whose words may hold values.
    let refused = KafkaBroker::new(settings).unwrap_err();
    assert!(!refused.to_string().contains("hunter2") && !format!("{refused:?}").contains("hunter2"), "{refused}");
}
