//! A seeded simulation of many runs, drivers and nodes over a store that fails in every way that a store may.
//!
//! The drivers, the rules, the codec and the memory store are the real ones; time, the order of events, the answers of
//! models and the fate of every write come from one seed. No thread, no executor, no clock: the same seed gives the
//! same history, byte for byte. Used by the suite `simulation` and by `make sim`.

mod actions;
mod clock;
mod disk;
mod node;
mod shapes;
mod store;
mod submissions;
mod verdict;
mod world;

use sha2::{Digest, Sha256};

use world::World;

/// Lines of the log that a failure shows.
const TAIL: usize = 60;

/// What one simulated world came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the log and of every journal, as text.
    pub digest: String,
    /// Runs that were admitted.
    pub runs: u64,
    /// Events that were recorded.
    pub events: u64,
    /// Different calls that were sent.
    pub calls: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Writes that were refused for their epoch.
    pub fenced: u64,
    /// Writes that were refused for their event number.
    pub collisions: u64,
    /// What was broken; empty when all is well.
    pub broken: Vec<String>,
    /// Everything that happened, in order.
    pub log: Vec<String>,
}

/// Lives one world from its beginning to its end.
///
/// # Panics
/// When the harness itself is wrong.
#[must_use]
pub fn simulate(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.make_noise();
    world.calm_down();
    world.compare();
    let mut broken = verdict::at_the_end(&world.disk, &world.submissions);
    broken.dedup();
    let mut digest = Sha256::new();
    world.log.iter().for_each(|line| digest.update(format!("{line}\n")));
    let (mut runs, mut events) = (0, 0);
    for head in verdict::heads(&world.disk) {
        let journal = verdict::journal(&world.disk, head.run).unwrap_or_default();
        digest.update(format!("{} {:?} {journal:?}\n", head.run, head.state));
        runs += 1;
        events += journal.len() as u64;
    }
    let digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let (fenced, collisions) = world.disk.refusals();
    world.nodes.clear();
    world.disk.clear();
    let (calls, crashes) = (world.sent.len() as u64, world.crashes);
    Outcome { seed, digest, runs, events, calls, crashes, fenced, collisions, broken, log: world.log }
}

/// Lives the world of a seed twice and checks both that nothing is broken in it and that both lives are the same.
///
/// # Errors
/// With what is broken, the end of the log and the command that shows it again.
pub fn check(seed: u64) -> Result<Outcome, String> {
    let (outcome, again) = (simulate(seed), simulate(seed));
    let mut broken = outcome.broken.clone();
    if outcome.digest != again.digest {
        let differs = outcome.log.iter().zip(&again.log).position(|(one, other)| one != other);
        broken.push(format!("the same seed gave two histories, which differ from line {differs:?} on"));
    }
    if broken.is_empty() {
        return Ok(outcome);
    }
    let tail = outcome.log[outcome.log.len().saturating_sub(TAIL)..].join("\n");
    Err(format!(
        "seed {seed}: {} things are broken:\n  {}\nthe log ends:\n{tail}\nagain: make sim SEED={seed}",
        broken.len(),
        broken.join("\n  ")
    ))
}
