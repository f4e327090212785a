//! Where other nodes may be found: what is configured, what names resolve to, what the store knows.
//!
//! Asks names again and again, since who is behind them changes; a name that does not resolve is said once. Used by
//! `members`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// Names that are resolved in one round.
const NAMES: usize = 64;

/// Resolves the places at which nodes may be.
pub(super) struct Seeds {
    configured: Vec<String>,
    /// The port of places that name none.
    port: u16,
    patience: Duration,
    /// What names resolved to last; empty when they did not.
    known: BTreeMap<String, BTreeSet<SocketAddr>>,
}

impl Seeds {
    pub(super) fn new(configured: &[String], port: u16, patience: Duration) -> Self {
        Self { configured: configured.to_vec(), port, patience, known: BTreeMap::new() }
    }

    /// The addresses of everything configured and of further `places`.
    pub(super) async fn addresses(&mut self, places: &[String]) -> BTreeSet<SocketAddr> {
        let all: BTreeSet<_> = self.configured.iter().chain(places).filter(|place| !place.is_empty()).collect();
        let (mut found, mut names) = (BTreeSet::new(), vec![]);
        for place in all {
            match literal(place, self.port) {
                Some(address) => _ = found.insert(address),
                None => names.push(place.clone()),
            }
        }
        names.truncate(NAMES);
        let patience = self.patience;
        let with_port = |name: &str| if has_port(name) { name.to_owned() } else { format!("{name}:{}", self.port) };
        let asked = names.iter().map(|name| {
            let target = with_port(name);
            async move { timeout(patience, lookup_host(target)).await }
        });
        let answers = futures::future::join_all(asked).await;
        for (name, answer) in names.into_iter().zip(answers) {
            let resolved: Result<BTreeSet<_>, String> = match answer {
                Ok(Ok(addresses)) => Ok(addresses.collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            found.extend(self.remember(name, resolved));
        }
        found
    }

    /// What a name stands for now; what it stood for last while it cannot be asked.
    fn remember(&mut self, name: String, resolved: Result<BTreeSet<SocketAddr>, String>) -> BTreeSet<SocketAddr> {
        let before = self.known.get(&name);
        match resolved {
            Ok(addresses) => {
                if before.is_none_or(|before| *before != addresses) {
                    tracing::info!(name, ?addresses, "nodes may be found here");
                }
                self.known.insert(name, addresses.clone());
                addresses
            }
            Err(error) => {
                if before.is_none_or(|before| !before.is_empty()) {
                    tracing::warn!(name, error, "a name of the cluster's seeds does not resolve");
                }
                self.known.entry(name).or_default().clone()
            }
        }
    }
}

/// An address that needs no resolving.
fn literal(place: &str, port: u16) -> Option<SocketAddr> {
    let bare = place.trim_start_matches('[').trim_end_matches(']');
    let alone = || bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
    place.parse().ok().or_else(alone)
}

fn has_port(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_addresses_in_whatever_is_configured() {
        let places = ["10.0.0.1:7000", "10.0.0.2", "[::1]:7000", "::2", "[::3]", "localhost:7001", "localhost"];
        let mut seeds = Seeds::new(&places.map(str::to_owned), 7946, Duration::from_secs(5));
        let found = seeds.addresses(&["10.0.0.3:1".to_owned(), String::new()]).await;
        for expected in [
            "10.0.0.1:7000",
            "10.0.0.2:7946",
            "10.0.0.3:1",
            "[::1]:7000",
            "[::2]:7946",
            "[::3]:7946",
            "127.0.0.1:7001",
            "127.0.0.1:7946",
        ] {
            assert!(found.contains(&expected.parse().unwrap()), "{expected}: {found:?}");
        }
    }

    #[test]
    fn what_a_name_stood_for_lasts_until_it_is_known_better() {
        let mut seeds = Seeds::new(&[], 7946, Duration::from_secs(1));
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<SocketAddr>>();
        let failed = || Err("no such host".to_owned());
        let name = || "nodes.internal".to_owned();
        assert_eq!(seeds.remember(name(), failed()), set(&[]));
        assert_eq!(seeds.remember(name(), Ok(set(&["10.0.0.1:1"]))), set(&["10.0.0.1:1"]));
        assert_eq!(seeds.remember(name(), failed()), set(&["10.0.0.1:1"]));
        assert_eq!(seeds.remember(name(), Ok(set(&["10.0.0.2:1"]))), set(&["10.0.0.2:1"]));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_stops_nothing() {
        let mut seeds = Seeds::new(&["no-such-host.invalid".to_owned()], 7946, Duration::from_secs(5));
        assert_eq!(seeds.addresses(&["10.0.0.3:1".to_owned()]).await.len(), 1);
    }
}
