//! The settings of the Kafka cluster that streams read from and results go to.
//!
//! Lists are texts here, as they are written; the accessors read them. Never connects and never reads a password's file
//! before it is asked for. Used by the server's bootstrap.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::problem::nearest;
use crate::secret::Secret;

/// How connections are secured, as it is written.
const SECURITY: [&str; 4] = ["plaintext", "tls", "sasl-plaintext", "sasl-tls"];

/// How a user proves itself, as it is written.
const MECHANISMS: [&str; 3] = ["plain", "scram-sha-256", "scram-sha-512"];

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaSettings {
    /// Brokers that are asked first, `host:port` with commas; no streams are read where it is empty.
    pub brokers: String,
    /// How this node names itself to brokers; by its own name where it is empty.
    pub client_id: String,
    /// `plaintext`, `tls`, `sasl-plaintext` or `sasl-tls`.
    pub security: String,
    /// `plain`, `scram-sha-256` or `scram-sha-512`.
    pub mechanism: String,
    /// User, where the security names SASL.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// A file that holds it instead.
    pub password_file: Option<PathBuf>,
    /// The authority that signed the brokers' certificates (PEM); the system's where none is given.
    pub authority: Option<PathBuf>,
    /// Certificate of this client (PEM).
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// Password of that key.
    pub key_password: Option<Secret>,
    /// Further properties of librdkafka, `name=value` with commas.
    pub properties: String,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            client_id: String::new(),
            security: SECURITY[0].to_owned(),
            mechanism: MECHANISMS[1].to_owned(),
            user: String::new(),
            password: None,
            password_file: None,
            authority: None,
            certificate: None,
            key: None,
            key_password: None,
            properties: String::new(),
        }
    }
}

impl KafkaSettings {
    /// Whether there is a cluster to talk to.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// The password, wherever it stands.
    ///
    /// # Errors
    /// When both are given, or the file cannot be read.
    pub fn password(&self) -> Result<Option<Secret>, String> {
        Secret::resolve(self.password.clone(), self.password_file.as_deref())
    }

    /// Further properties of librdkafka.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<String, String> {
        let pairs = self.properties.split(',').filter_map(|part| part.split_once('='));
        pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
    }
}

/// Finds slips in the name of a security.
pub(crate) fn check_security(text: &str) -> Result<(), String> {
    one_of(text, "security", &SECURITY)
}

/// Finds slips in the name of a mechanism.
pub(crate) fn check_mechanism(text: &str) -> Result<(), String> {
    one_of(text, "mechanism", &MECHANISMS)
}

fn one_of(text: &str, what: &str, known: &[&'static str]) -> Result<(), String> {
    if known.contains(&text) {
        return Ok(());
    }
    let meant = nearest(text, known.iter().copied()).map(|meant| format!("; did you mean '{meant}'?"));
    Err(format!("'{text}' is no {what}; it is one of {}{}", known.join(", "), meant.unwrap_or_default()))
}

/// Finds slips in the form of properties. Which there are is the client's to say, which has the last word.
pub(crate) fn check_properties(text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let fine =
            part.split_once('=').is_some_and(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty());
        if !fine {
            return Err(format!("'{part}' is no property; write name=value, such as socket.keepalive.enable=true"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked_and_slips_are_named() {
        for (check, text, word) in [
            (check_security as fn(&str) -> Result<(), String>, "ssl", "sasl-tls"),
            (check_security, "plain-text", "did you mean 'plaintext'"),
            (check_mechanism, "scram", "scram-sha-256"),
            (check_properties, "a", "name=value"),
            (check_properties, "a=1, =2", "name=value"),
        ] {
            let words = check(text).unwrap_err();
            assert!(words.contains(word), "{text}: {words}");
        }
        assert!(check_security("sasl-tls").is_ok() && check_properties("").is_ok());
        let settings = KafkaSettings { properties: "a.b = 1,c=2".to_owned(), ..KafkaSettings::default() };
        let pairs = [("a.b", "1"), ("c", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(settings.properties(), BTreeMap::from(pairs));
    }
}
