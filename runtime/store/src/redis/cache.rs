//! How a cached value stands in Redis: with its length and a digest, so that what comes back is what was put.
//!
//! Decides nothing about where values lie or how long. Used by `redis`.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::port::CacheKey;

/// First byte of every value: the form of the rest.
const FORM: u8 = 1;

/// Form, length, digest.
const HEAD_BYTES: usize = 1 + 8 + 32;

/// The key in Redis.
pub(super) fn key(prefix: &str, key: &CacheKey) -> String {
    let digits: String = key.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}:cache:{}:{digits}", key.space)
}

/// The value with what proves it.
pub(super) fn sealed(key: &CacheKey, value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + value.len());
    bytes.put_u8(FORM);
    bytes.put_u64_le(value.len() as u64);
    bytes.put_slice(&digest(key, value));
    bytes.put_slice(value);
    bytes.freeze()
}

/// The value, if it is what was put under this key.
pub(super) fn opened(key: &CacheKey, bytes: &Bytes) -> Option<Bytes> {
    let head = bytes.get(..HEAD_BYTES)?;
    let value = bytes.slice(HEAD_BYTES..);
    let length = u64::from_le_bytes(head[1..9].try_into().ok()?);
    let whole = head[0] == FORM && length == value.len() as u64 && head[9..] == digest(key, &value);
    whole.then_some(value)
}

/// Over key and value: a value that came under another key is no value of this one.
fn digest(key: &CacheKey, value: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(key.space.as_str());
    digest.update([0]);
    digest.update(key.digest);
    digest.update(value);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use motet_engine::id::Name;
    use proptest::prelude::*;

    use super::*;

    fn place(space: &str, byte: u8) -> CacheKey {
        CacheKey { space: Name::new(space).unwrap(), digest: [byte; 32] }
    }

    proptest! {
        #[test]
        fn what_is_sealed_can_be_opened_and_nothing_else(
            value in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            flip in 1..=255u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let key = place("answers", 3);
            let bytes = sealed(&key, &value);
            prop_assert_eq!(opened(&key, &bytes), Some(Bytes::from(value)));
            let mut changed = bytes.to_vec();
            changed[at.index(bytes.len())] ^= flip;
            prop_assert_eq!(opened(&key, &changed.into()), None, "one byte differs");
            prop_assert_eq!(opened(&key, &bytes.slice(..cut.index(bytes.len()))), None, "the end is missing");
            for other in [place("vectors", 3), place("answers", 4)] {
                prop_assert_eq!(opened(&other, &bytes), None, "it was put under another key");
            }
        }

        #[test]
        fn foreign_bytes_are_no_value(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(opened(&place("answers", 3), &bytes.into()), None);
        }
    }
}
