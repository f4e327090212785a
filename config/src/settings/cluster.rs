//! The settings of a node among others: where it is reached, whom it asks first, what it does, how it proves itself.
//!
//! Lists are texts with commas here, as they are written; the accessors read them. Never resolves a name. Used by the
//! server's bootstrap.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store_url::StoreUrl;

/// What a node may do in a cluster, in the order in which it is shown.
pub(crate) const ROLES: [&str; 5] = ["api", "ingest", "runs", "models", "vectors"];

/// This node among others.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// Where the link to other nodes listens; none for a node that runs alone.
    pub address: Option<SocketAddr>,
    /// Where other nodes reach it; the address that it listens on where none is given.
    pub advertise: Option<SocketAddr>,
    /// Name of the cluster; nodes of others are refused.
    pub name: String,
    /// Nodes that are asked first, `host:port` with commas; the store's table of nodes where none is given.
    pub seeds: String,
    /// What this node does, with commas.
    pub roles: String,
    /// Labels for placing models, `name=value` with commas.
    pub labels: String,
    /// Share of the shards beside other nodes; 0 for the number of processors.
    pub weight: u32,
    /// Certificate of this node (PEM), whose subject names hold the node's name.
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// The authority that signed the certificates of all nodes (PEM).
    pub authority: Option<PathBuf>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            address: None,
            advertise: None,
            name: "motet".to_owned(),
            seeds: String::new(),
            roles: ROLES.join(","),
            labels: String::new(),
            weight: 0,
            certificate: None,
            key: None,
            authority: None,
        }
    }
}

impl ClusterSettings {
    /// Nodes that are asked first.
    #[must_use]
    pub fn seeds(&self) -> Vec<String> {
        parts(&self.seeds).map(str::to_owned).collect()
    }

    /// What this node does.
    #[must_use]
    pub fn roles(&self) -> Vec<&'static str> {
        let wanted: Vec<_> = parts(&self.roles).collect();
        ROLES.into_iter().filter(|role| wanted.contains(role)).collect()
    }

    /// Labels for placing models.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let pairs = parts(&self.labels).filter_map(|part| part.split_once('='));
        pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
    }
}

/// The store of short-lived things that nodes share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`; none where it is empty.
    pub url: Option<StoreUrl>,
}

/// Finds slips in a list of nodes.
pub(crate) fn check_seeds(text: &str) -> Result<(), String> {
    for seed in parts(text) {
        let fine = seed.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !fine {
            return Err(format!("'{seed}' is no place; write host:port, such as motet-0.motet:7946"));
        }
    }
    Ok(())
}

/// Finds slips in a list of roles.
pub(crate) fn check_roles(text: &str) -> Result<(), String> {
    for role in parts(text) {
        if !ROLES.contains(&role) {
            let meant = crate::problem::nearest(role, ROLES);
            let meant = meant.map(|meant| format!("; did you mean '{meant}'?")).unwrap_or_default();
            return Err(format!("'{role}' is no role; roles are {}{meant}", ROLES.join(", ")));
        }
    }
    if parts(text).next().is_none() {
        return Err(format!("a node without a role does nothing; roles are {}", ROLES.join(", ")));
    }
    Ok(())
}

/// Finds slips in a list of labels.
pub(crate) fn check_labels(text: &str) -> Result<(), String> {
    for label in parts(text) {
        let fine =
            label.split_once('=').is_some_and(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty());
        if !fine {
            return Err(format!("'{label}' is no label; write name=value, such as gpu=h100"));
        }
        let (name, value) = label.split_once('=').unwrap_or_default();
        if name.trim().chars().count() > 63 || value.trim().chars().count() > 255 {
            return Err(format!("the label '{}' is too long: names have up to 63 characters, values 255", name.trim()));
        }
    }
    if parts(text).count() > 64 {
        return Err("a node has up to 64 labels".to_owned());
    }
    Ok(())
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_slips_are_named() {
        let settings = ClusterSettings {
            seeds: "a:7946, b.c:1".to_owned(),
            roles: "runs, api".to_owned(),
            labels: "gpu = h100,zone=a".to_owned(),
            ..ClusterSettings::default()
        };
        assert_eq!(settings.seeds(), ["a:7946", "b.c:1"]);
        assert_eq!(settings.roles(), ["api", "runs"]);
        let labels = [("gpu", "h100"), ("zone", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(settings.labels(), BTreeMap::from(labels));
        for (check, text, word) in [
            (check_seeds as fn(&str) -> Result<(), String>, "a", "host:port"),
            (check_seeds, ":1", "host:port"),
            (check_roles, "api,run", "did you mean 'runs'"),
            (check_roles, " , ", "without a role"),
            (check_labels, "gpu", "name=value"),
            (check_labels, "=h100", "name=value"),
        ] {
            let words = check(text).unwrap_err();
            assert!(words.contains(word), "{text}: {words}");
        }
        assert!(check_seeds("").is_ok() && check_labels("").is_ok() && check_roles("vectors").is_ok());
    }
}
