//! The Kafka cluster of the settings, as the adapter wants it.
//!
//! Reads the files that the settings name, and connects to nobody. Used by `bootstrap`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use motet_broker::kafka::{KafkaBroker, KafkaSettings, Mechanism, Sasl, Secret, Security, Tls};
use motet_broker::port::Broker;
use motet_config::Settings;

/// The cluster; none where no broker is set.
pub(super) fn broker(settings: &Settings) -> anyhow::Result<Option<Arc<dyn Broker>>> {
    let kafka = &settings.kafka;
    if !kafka.is_set() {
        return Ok(None);
    }
    let security = match kafka.security.as_str() {
        "tls" => Security::Tls,
        "sasl-plaintext" => Security::SaslPlaintext,
        "sasl-tls" => Security::SaslTls,
        _ => Security::Plaintext,
    };
    let mechanism = match kafka.mechanism.as_str() {
        "plain" => Mechanism::Plain,
        "scram-sha-512" => Mechanism::ScramSha512,
        _ => Mechanism::ScramSha256,
    };
    let password = kafka.password().map_err(|why| anyhow!("kafka.password_file: {why}"))?;
    let sasl = (!kafka.user.is_empty()).then(|| Sasl {
        mechanism,
        username: kafka.user.clone(),
        password: Secret::new(password.as_ref().map_or("", |password| password.expose())),
    });
    let tls = Tls {
        authority: pem("kafka.authority", kafka.authority.as_deref())?,
        certificate: pem("kafka.certificate", kafka.certificate.as_deref())?,
        key: pem("kafka.key", kafka.key.as_deref())?.map(Secret::new),
        key_password: kafka.key_password.as_ref().map(|password| Secret::new(password.expose())),
    };
    let client_id = if kafka.client_id.is_empty() { settings.node.name.clone() } else { kafka.client_id.clone() };
    let brokers = kafka.brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
    let cluster = KafkaSettings { brokers, security, sasl, tls, client_id, properties: kafka.properties() };
    Ok(Some(Arc::new(KafkaBroker::new(cluster)?)))
}

/// What a file of the settings holds.
pub(super) fn pem(setting: &'static str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path);
    text.map(Some).with_context(|| format!("{setting}: {} cannot be read", path.display()))
}
