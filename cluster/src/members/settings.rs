//! How membership is kept.
//!
//! Plain values with their defaults. Used by whoever joins a cluster.

use std::time::Duration;

use super::MemberError;

/// How membership is kept. All nodes should have the same values, apart from the seeds.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberSettings {
    /// Name of the cluster: nodes that say another one are refused. `motet`.
    pub cluster: String,
    /// Where other nodes may be found: `host:port`, or `host` alone for the port of this node. Names are resolved again
    /// and again, each to all of its addresses, so that the name of a headless service suffices. Nodes that the store
    /// knows are found without any.
    pub seeds: Vec<String>,
    /// How often this node gossips with some others: 500 ms.
    pub gossip_interval: Duration,
    /// How unlikely a silence must be before gossip holds a node for dead: 8. The mean time between signs of life of a
    /// node times this is how long it may be silent: 2.5 to 3.5 s were measured with 2 to 9 nodes.
    pub phi_threshold: f64,
    /// What is thought of the time between signs of life before there are any: 500 ms.
    pub first_interval: Duration,
    /// How long gossip remembers what a dead node told: 10 min. Half of it is the longest partition that heals without
    /// everything being told again.
    pub forget_gossip_after: Duration,
    /// How often the leases are read in the store: 1 s, with jitter.
    pub lease_interval: Duration,
    /// Longest wait for the store or for a name to be resolved: 2 s.
    pub request_timeout: Duration,
    /// How long what was read in the store is taken for the truth: 5 s. Without news after that nobody is declared gone.
    pub leases_last: Duration,
    /// How often nodes that are not heard of are greeted at the addresses of seeds and store: 5 s; ten times as often
    /// while this node hears of nobody.
    pub seed_interval: Duration,
    /// How long a node that is gone is shown: 1 min.
    pub show_gone_for: Duration,
}

impl Default for MemberSettings {
    fn default() -> Self {
        Self {
            cluster: "motet".to_owned(),
            seeds: vec![],
            gossip_interval: Duration::from_millis(500),
            phi_threshold: 8.0,
            first_interval: Duration::from_millis(500),
            forget_gossip_after: Duration::from_secs(600),
            lease_interval: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            leases_last: Duration::from_secs(5),
            seed_interval: Duration::from_secs(5),
            show_gone_for: Duration::from_secs(60),
        }
    }
}

impl MemberSettings {
    /// Refuses values that cannot work.
    ///
    /// # Errors
    /// [`MemberError::Settings`] with what is wrong and what would do.
    pub fn check(&self) -> Result<(), MemberError> {
        let wrong = |text: String| Err(MemberError::Settings(text));
        if self.cluster.is_empty() || self.cluster.len() > 63 || self.cluster.chars().any(char::is_control) {
            return wrong("the name of the cluster must have 1 to 63 characters".to_owned());
        }
        for (what, time) in [
            ("gossip_interval", self.gossip_interval),
            ("first_interval", self.first_interval),
            ("lease_interval", self.lease_interval),
            ("request_timeout", self.request_timeout),
            ("seed_interval", self.seed_interval),
        ] {
            if time < Duration::from_millis(10) || time > Duration::from_secs(60) {
                return wrong(format!("{what} must be 10 ms to 60 s, not {time:?}"));
            }
        }
        if self.leases_last < self.lease_interval {
            return wrong(format!("leases_last must be at least the lease_interval of {:?}", self.lease_interval));
        }
        if !(self.phi_threshold >= 1.0 && self.phi_threshold <= 100.0) {
            return wrong(format!("phi_threshold must be 1 to 100, not {}", self.phi_threshold));
        }
        if let Some(seed) = self.seeds.iter().find(|seed| seed.is_empty() || seed.contains(['/', '@', ' '])) {
            return wrong(format!("a seed is host:port or host, without scheme or path, not '{seed}'"));
        }
        Ok(())
    }
}
