//! How a Kafka cluster is reached: addresses, security, and what goes to librdkafka as it is.
//!
//! Never shows a secret, and reads neither files nor the environment: values come from the configuration. Used by
//! every client of this adapter.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::properties::{self, Scope};
use crate::BrokerError;

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How connections are kept safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Security {
    /// Not at all.
    #[default]
    Plaintext,
    /// Encrypted; the broker proves who it is, and this end too when it has a certificate.
    Tls,
    /// This end says who it is, over a connection that everybody can read.
    SaslPlaintext,
    /// This end says who it is, over an encrypted connection.
    SaslTls,
}

impl Security {
    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslTls => "sasl_ssl",
        }
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }
}

/// How this end says who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// Name and password as they are.
    Plain,
    /// A proof that the password is known, with SHA-256.
    ScramSha256,
    /// A proof that the password is known, with SHA-512.
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Who this end is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sasl {
    /// How it is said.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Certificates, all of them as PEM texts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// Who vouches for the brokers; none trusts whom the system trusts.
    pub authority: Option<String>,
    /// This end's certificate.
    pub certificate: Option<String>,
    /// The key to it.
    pub key: Option<Secret>,
    /// The password of the key.
    pub key_password: Option<Secret>,
}

/// How a cluster is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, by which the others are found.
    pub brokers: Vec<String>,
    /// How connections are kept safe.
    pub security: Security,
    /// Who this end is; with the two `sasl` kinds of security and only then.
    pub sasl: Option<Sasl>,
    /// Certificates; with the two `tls` kinds of security only.
    pub tls: Tls,
    /// How the brokers see this end in their logs and quotas; empty is `motet`.
    pub client_id: String,
    /// What goes to librdkafka as it is: names and values of its documentation.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// Settings for brokers that ask for no security.
    #[must_use]
    pub fn plaintext(brokers: &str) -> Self {
        Self { brokers: brokers.split(',').map(|broker| broker.trim().to_owned()).collect(), ..Self::default() }
    }

    /// Whether they can be used.
    ///
    /// # Errors
    /// Tells what is wrong and what to do about it; of several things the first one.
    pub fn check(&self) -> Result<(), BrokerError> {
        self.check_brokers()?;
        self.check_security()?;
        for (name, value) in &self.properties {
            properties::check(name)?;
            let mut config = ClientConfig::new();
            config.set(name, value);
            config.create_native_config().map_err(|error| explain(&error))?;
        }
        Ok(())
    }

    fn check_brokers(&self) -> Result<(), BrokerError> {
        if self.brokers.is_empty() {
            return setting("kafka.brokers is empty; name at least one broker as host:port");
        }
        for broker in &self.brokers {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            let plain = !broker.contains(['/', ',', '@', ' ']);
            if !plain || !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return setting(&format!(
                    "kafka.brokers has '{}'; a broker is written as host:port, such as broker.example.org:9092",
                    broker.escape_debug()
                ));
            }
        }
        Ok(())
    }

    fn check_security(&self) -> Result<(), BrokerError> {
        let (kind, tls) = (self.security.name().replace("ssl", "tls").replace('_', "-"), &self.tls);
        match &self.sasl {
            None if self.security.has_sasl() => {
                return setting(&format!("kafka.security is {kind}; set kafka.user and kafka.password as well"));
            }
            Some(_) if !self.security.has_sasl() => {
                return setting(&format!(
                    "kafka.user is set but kafka.security is {kind}; set it to sasl-tls or sasl-plaintext"
                ));
            }
            Some(sasl) if sasl.username.is_empty() || sasl.password.reveal().is_empty() => {
                return setting("kafka.user and kafka.password must both be set");
            }
            _ => {}
        }
        if !self.security.has_tls() && *tls != Tls::default() {
            return setting(&format!(
                "certificates are set (kafka.authority, kafka.certificate, kafka.key) but kafka.security is {kind}; set it to tls or sasl-tls"
            ));
        }
        if tls.certificate.is_some() != tls.key.is_some() {
            return setting("kafka.certificate and kafka.key belong together; set both or none");
        }
        if tls.key_password.is_some() && tls.key.is_none() {
            return setting("kafka.key_password is set but kafka.key is not");
        }
        for (what, text) in [
            ("authority", tls.authority.as_deref()),
            ("certificate", tls.certificate.as_deref()),
            ("key", tls.key.as_ref().map(Secret::reveal)),
        ] {
            if text.is_some_and(|text| !text.contains("-----BEGIN")) {
                return setting(&format!("kafka.{what} is no PEM text: it has no line that begins with -----BEGIN"));
            }
        }
        Ok(())
    }

    /// What every client has, and of the properties those that clients of this scope know.
    pub(super) fn client(&self, scope: Scope) -> ClientConfig {
        let mut config = ClientConfig::new();
        self.settle(&mut config, scope);
        config
    }

    /// The same over what is set already. Not by way of another configuration: the crate gives none of its secrets out.
    pub(super) fn settle(&self, config: &mut ClientConfig, scope: Scope) {
        let client_id = if self.client_id.is_empty() { "motet" } else { &self.client_id };
        config.set("bootstrap.servers", self.brokers.join(",")).set("client.id", client_id);
        config.set("security.protocol", self.security.name());
        // What the log says is told as an event besides.
        config.set("log.connection.close", "false").set_log_level(RDKafkaLogLevel::Info);
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanisms", sasl.mechanism.name());
            config.set("sasl.username", &sasl.username).set("sasl.password", sasl.password.reveal());
        }
        if self.security.has_tls() {
            match &self.tls.authority {
                Some(authority) => config.set("ssl.ca.pem", authority),
                None => config.set("ssl.ca.location", "probe"),
            };
            let secrets = [("ssl.key.pem", &self.tls.key), ("ssl.key.password", &self.tls.key_password)];
            for (name, secret) in secrets {
                if let Some(secret) = secret {
                    config.set(name, secret.reveal());
                }
            }
            if let Some(certificate) = &self.tls.certificate {
                config.set("ssl.certificate.pem", certificate);
            }
        }
        for (name, value) in self.properties.iter().filter(|(name, _)| properties::fits(name, scope)) {
            config.set(name, value);
        }
    }
}

fn setting<T>(text: &str) -> Result<T, BrokerError> {
    Err(BrokerError::Setting(text.to_owned()))
}

/// Why librdkafka cannot use settings. Values are shown only of what is passed through, which holds no secret.
pub(super) fn explain(error: &KafkaError) -> BrokerError {
    let text = match error {
        KafkaError::ClientConfig(_, why, name, value) if properties::check(name).is_ok() => {
            format!("kafka.properties: '{name}' cannot be '{}': {why}", value.escape_debug())
        }
        KafkaError::ClientConfig(_, why, name, _) => format!("Kafka's '{name}' cannot be used: {why}"),
        KafkaError::ClientCreation(why) => format!("Kafka cannot be used with these settings: {why}"),
        other => format!("Kafka cannot be used with these settings: {other}"),
    };
    BrokerError::Setting(text)
}
