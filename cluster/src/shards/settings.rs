//! The numbers by which shards are placed and kept.
//!
//! Checked once, when a keeper or a planner starts. Filled by the server from its settings.

use std::time::Duration;

/// The numbers by which shards are placed and kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardSettings {
    /// Number of shards, fixed for the life of a store: 1 to 4,096.
    pub shards: u16,
    /// A node that has not renewed for this long counts as dead. 3 s.
    pub lease: Duration,
    /// Pause between the beginnings of two renewals. 1 s.
    pub renew_every: Duration,
    /// A node that began its last successful renewal this long ago stops by itself. 0.8 of the lease: 2.4 s.
    pub stop_after: Duration,
    /// Longest wait for an answer of the store; at most what lies between `stop_after` and `lease`. 0.5 s.
    pub call_timeout: Duration,
    /// Pause between two looks at the table and at the leases of others. 0.3 s.
    pub look_every: Duration,
    /// How much longer than the one before it each next node in line waits with shards that nobody serves. 0.5 s.
    pub next_in_line_after: Duration,
    /// How long a shard may take to come to rest when it is handed over, and to begin when it is taken over. 10 s.
    pub hand_over_patience: Duration,
    /// How long a node that drains waits for the leader to name targets, before it gives shards away by itself. 5 s.
    pub drain_alone_after: Duration,
    /// Pause before something that the store refused or did not answer is tried again; jittered. 0.1 s.
    pub retry_after: Duration,
    /// Shards that are taken or given up in one statement. 512.
    pub shards_at_once: usize,
    /// Pause between two plans of the leader. 1 s.
    pub plan_every: Duration,
    /// How long the leader leaves everything where it is after a node came or went; the shards of dead owners are
    /// planned at once. 5 s.
    pub settle: Duration,
    /// Moves between live nodes that may be under way at once. 32.
    pub max_moves_at_once: usize,
    /// Most shards of a node, in percent of its fair share, rounded up. 110.
    pub load_percent: u32,
}

impl ShardSettings {
    /// The defaults for a number of shards.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self {
            shards,
            lease: Duration::from_secs(3),
            renew_every: Duration::from_secs(1),
            stop_after: Duration::from_millis(2_400),
            call_timeout: Duration::from_millis(500),
            look_every: Duration::from_millis(300),
            next_in_line_after: Duration::from_millis(500),
            hand_over_patience: Duration::from_secs(10),
            drain_alone_after: Duration::from_secs(5),
            retry_after: Duration::from_millis(100),
            shards_at_once: 512,
            plan_every: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            max_moves_at_once: 32,
            load_percent: 110,
        }
    }

    /// Refuses numbers that do not go together.
    ///
    /// # Errors
    /// The first rule that is broken, with what to change.
    pub fn check(&self) -> Result<(), SettingsError> {
        let rules = [
            (self.shards > 0 && self.shards <= motet_engine::id::MAX_SHARDS, "shards must be 1 to 4096"),
            (
                self.renew_every + self.call_timeout <= self.stop_after,
                "a renewal and one timeout must fit before stop_after: renew more often, or lengthen the lease",
            ),
            (
                self.stop_after + self.call_timeout <= self.lease,
                "a call that begins just before stop_after must end before the lease does: shorten call_timeout",
            ),
            (
                !self.call_timeout.is_zero() && !self.look_every.is_zero() && !self.plan_every.is_zero(),
                "pauses and timeouts must be longer than nothing",
            ),
            (self.shards_at_once > 0, "at least one shard must be taken at once"),
            (self.max_moves_at_once > 0, "at least one move must be allowed at once"),
            (self.load_percent >= 100, "a node must be allowed its fair share: load_percent is at least 100"),
        ];
        rules.iter().find(|(kept, _)| !kept).map_or(Ok(()), |(_, why)| Err(SettingsError(why)))
    }
}

/// Why settings do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError(&'static str);

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let good = ShardSettings::new(64);
        assert_eq!(good.check(), Ok(()));
        let cases: [(ShardSettings, &str); 6] = [
            (ShardSettings { shards: 0, ..good.clone() }, "1 to 4096"),
            (ShardSettings { shards: 4097, ..good.clone() }, "1 to 4096"),
            (ShardSettings { renew_every: Duration::from_secs(2), ..good.clone() }, "renew more often"),
            (ShardSettings { lease: Duration::from_millis(2_800), ..good.clone() }, "shorten call_timeout"),
            (ShardSettings { load_percent: 99, ..good.clone() }, "fair share"),
            (ShardSettings { look_every: Duration::ZERO, ..good }, "longer than nothing"),
        ];
        for (settings, words) in cases {
            let refused = settings.check().unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
