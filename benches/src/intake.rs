//! Records that are to become runs: topics full of values of 1 KiB, good ones and poison, and the stream that takes
//! them.
//!
//! Measures nothing. Used by the bench `ingest`.

use std::fmt::Write as _;
use std::ops::Range;

use anyhow::Result;
use bytes::Bytes;
use motet_tests::client::Client;
use motet_tests::topics::{Topics, record};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 4;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1024;

/// Of so many records one is poison.
pub const POISON_EVERY: u64 = 100;

/// Poison that is larger than a run's input may be.
const LARGE: usize = 20 << 20;

/// Of all poison so many records are large.
const LARGE_ONES: u64 = 3;

/// Records that are made at a time.
const AT_ONCE: u64 = 10_000;

/// A step that costs nothing: such a run has ended when it is admitted.
const TRIVIAL: &str = "{call: transform, with: {length: '${ size(input.text) }'}}";

/// A step that takes its time: 16 runs at most in each fiftieth of a second.
const SLOW: &str = "{call: model, model: slow, with: {text: '${ string(size(input.text)) }'}}";

const SLOW_MODEL: &str =
    "kind: Model\nname: slow\nbackend: fake\nparameters: {latency_ms: 20}\nbatch: {max: 16, window: 0ms}\n";

/// What a stream's runs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One step that the engine carries out while the run is admitted.
    Trivial,
    /// One call of a model that is slower than records come.
    Slow,
}

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Values that every run takes.
    Good,
    /// The same, with one in [`POISON_EVERY`] that is cut off, or has the wrong type, and three of 20 MB.
    Poisoned,
}

impl Content {
    /// How many of so many records become dead letters.
    #[must_use]
    pub fn dead(self, records: u64) -> u64 {
        if self == Self::Good { 0 } else { records / POISON_EVERY }
    }

    fn value(self, number: u64, records: u64) -> Bytes {
        let place = number / POISON_EVERY;
        if self == Self::Good || number % POISON_EVERY != POISON_EVERY / 2 || place >= self.dead(records) {
            return value(number);
        }
        let large = |one: u64| (2 * one + 1) * self.dead(records) / (2 * LARGE_ONES);
        match place % 2 {
            _ if (0..LARGE_ONES).any(|one| place == large(one)) => {
                format!("{{\"text\":\"{}\"}}", "y".repeat(LARGE)).into()
            }
            0 => value(number).slice(..VALUE_BYTES - 1),
            _ => format!("{{\"text\":{number},\"rest\":\"{}\"}}", noise(number, VALUE_BYTES - 64)).into(),
        }
    }
}

/// A text that no compression makes smaller by much.
fn noise(seed: u64, bytes: usize) -> String {
    let (mut text, mut state) = (String::with_capacity(bytes + 16), seed);
    while text.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        // Writing to a text cannot fail.
        let _ = write!(text, "{:016x}", mixed ^ (mixed >> 27));
    }
    text.truncate(bytes);
    text
}

/// A good value of [`VALUE_BYTES`].
fn value(number: u64) -> Bytes {
    let frame = "{\"text\":\"\"}".len();
    format!("{{\"text\":\"{}\"}}", noise(number, VALUE_BYTES - frame)).into()
}

/// Makes a topic for records of any size.
pub async fn make(topics: &Topics, topic: &str) {
    topics.grounds().create_large(topic, PARTITIONS, LARGE + (1 << 20)).await;
}

/// Writes records from a number on, over all partitions in turn, of a topic that will have `records` in all.
///
/// # Errors
/// When the broker does not take them.
pub async fn fill(topics: &Topics, topic: &str, content: Content, numbers: Range<u64>) -> Result<()> {
    let (mut first, records) = (numbers.start, numbers.end);
    while first < records {
        let last = records.min(first + AT_ONCE);
        let some = (first..last).map(|number| {
            let partition = i32::try_from(number % u64::from(PARTITIONS.unsigned_abs())).unwrap_or_default();
            record(topic, partition, &format!("{number:08}"), content.value(number, records))
        });
        topics.produce(some.collect()).await?;
        first = last;
    }
    Ok(())
}

/// Has a node read a topic: a workflow and a stream of this name.
///
/// # Errors
/// When the node refuses.
pub async fn begin(client: &Client, name: &str, topic: &str, step: Step) -> Result<()> {
    let only = match step {
        Step::Trivial => TRIVIAL,
        Step::Slow => {
            client.put_definition("models", "slow", SLOW_MODEL).await?;
            SLOW
        }
    };
    let workflow = format!(
        "kind: Workflow\nname: {name}\ninput: {{schema: {{type: object, required: [text], properties: {{text: {{type: \
         string}}}}}}}}\nsteps: {{only: {only}}}\n"
    );
    let stream = format!(
        "kind: Stream\nname: {name}\ntopics: [{topic}]\nworkflow: {name}\ninput: {{text: '${{ value.text }}'}}\n"
    );
    client.put_definition("workflows", name, &workflow).await?;
    client.put_definition("streams", name, &stream).await.map(drop)
}

/// Has the node read it no longer.
///
/// # Errors
/// When the node refuses.
pub async fn end(client: &Client, name: &str) -> Result<()> {
    client.delete_definition("streams", name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_poison_its_share() {
        for records in [1_000, 20_000] {
            let values: Vec<_> = (0..records).map(|number| Content::Poisoned.value(number, records)).collect();
            let large = values.iter().filter(|value| value.len() > LARGE).count();
            let good = (0..records).zip(&values).filter(|(number, found)| value(*number) == **found).count();
            assert_eq!((good as u64, large as u64), (records - Content::Poisoned.dead(records), LARGE_ONES));
            assert!((0..9).all(|number| Content::Good.value(number, records).len() == VALUE_BYTES));
        }
    }
}
