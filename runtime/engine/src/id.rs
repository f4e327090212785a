//! Names and numbers that identify things: runs, shards, epochs, steps, namespaces.
//!
//! Never reads a clock or draws randomness: callers hand in time and entropy. Used by every crate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A number of fixed slices into which all runs are divided; the placement unit of the cluster.
pub const MAX_SHARDS: u16 = 4096;

/// One fixed slice of all runs, `0..MAX_SHARDS`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard, of so many, of what these names stand for: the same in every process and every version.
    #[must_use]
    pub fn of(names: &[&[u8]], shards: u16) -> Self {
        Self(u16::try_from((spread(names) >> 32) % u64::from(shards.max(1))).unwrap_or(0))
    }
}

/// Names as one number: FNV-1a with a zero byte, which no name holds, between them.
pub(crate) fn spread(names: &[&[u8]]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for (place, name) in names.iter().enumerate() {
        let between: &[u8] = if place > 0 { &[0] } else { &[] };
        hash = between.iter().chain(*name).fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    }
    hash
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Fencing number of a shard's ownership: every claim adds one, every write carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of an event inside its run; the first event is 1, and 0 means "before any event".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run's identity: 128 bits in the layout of UUID version 8, so that ids sort by time of creation and carry
/// their shard.
///
/// From the top: 48 bits milliseconds since 1970, 4 bits version (8), 12 bits shard, 2 bits variant, 62 bits
/// entropy. The text form is `run_` and 26 characters of Crockford's base 32, lower case, which sorts alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u128);

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RUN_PREFIX: &str = "run_";

impl RunId {
    /// Builds an id from the time of creation, the shard and 62 bits of entropy (the upper two are dropped).
    #[must_use]
    pub fn new(created_at: Timestamp, shard: ShardId, entropy: u64) -> Self {
        let millis = u128::from(created_at.as_millis().max(0).unsigned_abs() & 0xFFFF_FFFF_FFFF);
        let shard = u128::from(shard.0 & (MAX_SHARDS - 1));
        let entropy = u128::from(entropy & 0x3FFF_FFFF_FFFF_FFFF);
        Self(millis << 80 | 0x8 << 76 | shard << 64 | 0b10 << 62 | entropy)
    }

    /// The shard that owns this run.
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 64) as u16 & (MAX_SHARDS - 1))
    }

    /// The same id on another shard.
    #[must_use]
    pub fn on(self, shard: ShardId) -> Self {
        let place = u128::from(MAX_SHARDS - 1) << 64;
        Self(self.0 & !place | u128::from(shard.0) << 64 & place)
    }

    /// The time of creation that the id carries; of a scheduled run, the time at which it was to begin.
    #[must_use]
    pub fn created_at(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0 >> 80).unwrap_or(i64::MAX))
    }

    /// The sixteen bytes of the id, big-endian: the form in which stores keep it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the form that [`RunId::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as one number, for hashing.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 26];
        for (place, slot) in text.iter_mut().enumerate() {
            *slot = BASE32[(self.0 >> (5 * (25 - place)) & 31) as usize];
        }
        f.write_str(RUN_PREFIX)?;
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no run id: expected 'run_' followed by 26 characters of 0-9 and a-z without i, l, o, u")]
pub struct RunIdError(String);

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RunIdError(text.chars().take(64).collect());
        let digits = text.strip_prefix(RUN_PREFIX).ok_or_else(wrong)?;
        if digits.len() != 26 || digits.as_bytes()[0] > b'7' {
            return Err(wrong());
        }
        digits
            .bytes()
            .try_fold(0u128, |id, byte| {
                let digit = BASE32.iter().position(|&b| b == byte)?;
                Some(id << 5 | digit as u128)
            })
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serde_bytes::Bytes::new(&self.to_bytes()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
            let bytes: [u8; 16] = bytes.as_slice().try_into().map_err(D::Error::custom)?;
            Ok(Self::from_bytes(bytes))
        }
    }
}

/// The name of a user's resource (workflow, model, index, namespace): what may stand in a URL path unescaped.
///
/// 1 to 63 characters of `a-z 0-9 - _ .`, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no valid name: use 1 to 63 characters of a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
)]
pub struct NameError(String);

impl Name {
    /// Checks the text and makes it a name.
    ///
    /// # Errors
    /// When the text is empty, too long, or has a character that is not allowed.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits { Ok(Self(text.into())) } else { Err(NameError(text.chars().take(80).collect())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A field of every resource, run and key; separates tenants. `default` where none is given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(pub Name);

impl Default for Namespace {
    fn default() -> Self {
        Self(Name("default".into()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of a step in its workflow's declaration order; stable because definitions are immutable per version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepIndex(pub u16);

impl StepIndex {
    /// The index as a position in a slice of steps.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

/// One call owed for a run: a step, the item of its `for_each` (0 without one) and the attempt, counted from 1.
///
/// Stable across crashes, so together with the run id it is the idempotency key of the call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallId {
    /// The step that owes the call.
    pub step: StepIndex,
    /// The item of the step's `for_each`; 0 for a step without one.
    pub item: u32,
    /// The try, counted from 1 over the life of the step (a fallback goes on counting).
    pub attempt: u32,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.step.0, self.item, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_id_round_trips_and_sorts_like_its_text() {
        let early = RunId::new(Timestamp::from_millis(1_000), ShardId(5), 7);
        let late = RunId::new(Timestamp::from_millis(2_000), ShardId(4095), u64::MAX);
        for id in [early, late] {
            assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
            assert_eq!(RunId::from_bytes(id.to_bytes()), id);
            let packed = rmp_serde::to_vec_named(&id).unwrap();
            assert_eq!(rmp_serde::from_slice::<RunId>(&packed).unwrap(), id);
        }
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!((early.shard(), late.shard()), (ShardId(5), ShardId(4095)));
        assert_eq!(late.created_at(), Timestamp::from_millis(2_000));
    }

    #[test]
    fn what_is_no_run_id_is_refused() {
        for wrong in [
            "",
            "run_",
            "run_zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "run_0000000000000000000000000i",
            "00000000000000000000000000",
        ] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_have_a_closed_alphabet() {
        for (text, fits) in
            [("a", true), ("kb-1.x_y", true), ("", false), ("-a", false), ("A", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(Name::new(text).is_ok(), fits, "{text}");
        }
        assert!(Name::new(&"a".repeat(64)).is_err());
    }
}
