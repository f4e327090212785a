//! Random choices of a test from one printed seed, so that a failure can be looked for again.
//!
//! `MOTET_TEST_SEED` sets it. Not for secrets. Used by the suites that draw faults.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// The seed of the environment, else one of this moment; prints it.
    #[must_use]
    pub fn from_environment() -> Self {
        let given = std::env::var("MOTET_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 % 1_000_000_007)
        });
        println!("seed {seed} (MOTET_TEST_SEED={seed} draws the same faults)");
        Self(seed)
    }

    /// The generator of a known seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from `from` up to but without `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.draw() % (to - from).max(1)
    }
}
