//! The one codec file: how events, snapshots and messages become bytes and come back.
//!
//! Two forms. The journal's is MessagePack with field names behind a version byte: it evolves, since fields may be
//! added with a default. The disposable one is bincode behind a version byte: small and fast, but only for bytes that
//! may be thrown away when their version is not this one's (snapshots, messages between nodes of one version).
//! Never trusts a length that it reads. Used by the drivers of runs and by the link between nodes.

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// First byte of journal payloads that this program writes.
pub const JOURNAL_VERSION: u8 = 1;

/// First byte of disposable bytes that this program writes.
pub const DISPOSABLE_VERSION: u8 = 1;

/// Largest encoded value in bytes, version byte included.
pub const MAX_BYTES: usize = 16 << 20;

/// Deepest nesting of a journal payload, counted as lists and maps of its encoding: twice what JSON input may have,
/// and far before a thread's stack ends.
const MAX_DEPTH: usize = 512;

/// How serde says that an enum has no such variant.
const UNKNOWN_KIND: &str = "unknown variant";

const DISPOSABLE: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_BYTES>,
> = bincode::config::standard().with_limit::<MAX_BYTES>();

/// Why bytes were not made or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is not even a version byte.
    #[error("the bytes are empty")]
    Empty,
    /// Another version of the program wrote the bytes.
    #[error("encoding version {found} is unknown, this program reads version {known}")]
    UnknownVersion {
        /// The version byte that was found.
        found: u8,
        /// The version that this program reads.
        known: u8,
    },
    /// The value is larger than [`MAX_BYTES`].
    #[error("{0} bytes are more than the {MAX_BYTES} that one value may take")]
    TooLarge(usize),
    /// The value cannot be written in this form.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),
    /// The value has a kind that this program does not know.
    #[error("{0}: a newer version of the program may have written it; upgrade this node")]
    UnknownKind(String),
    /// The bytes are no such value.
    #[error("the bytes cannot be decoded: {0}")]
    Decode(String),
}

/// Encodes what the journal keeps: a version byte and MessagePack with field names.
///
/// # Errors
/// When the value has no MessagePack form, is too large, or is nested too deeply to be read again.
pub fn encode_journal<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut bytes = vec![JOURNAL_VERSION];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(|error| CodecError::Encode(error.to_string()))?;
    // A run whose journal cannot be read is lost, so what would be refused later is refused now.
    let mut decoder = rmp_serde::Deserializer::from_read_ref(&bytes[1..]);
    decoder.set_max_depth(MAX_DEPTH);
    IgnoredAny::deserialize(&mut decoder).map_err(|error| CodecError::Encode(error.to_string()))?;
    within_limit(bytes)
}

/// Decodes what [`encode_journal`] wrote.
///
/// # Errors
/// When the version is unknown, the bytes are no such value, or something follows the value.
pub fn decode_journal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = versioned(bytes, JOURNAL_VERSION)?;
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut decoder).map_err(|error| match error {
        // Serde's own words for a kind that an enum does not have; whatever lists those that it has is left out.
        rmp_serde::decode::Error::Syntax(words) if words.starts_with(UNKNOWN_KIND) => {
            CodecError::UnknownKind(words.split(',').next().unwrap_or_default().to_owned())
        }
        error => CodecError::Decode(error.to_string()),
    })?;
    // Bytes that nothing reads mean that this is a payload of another shape.
    if !rest.is_empty() {
        return Err(CodecError::Decode(format!("{} bytes follow the value", rest.len())));
    }
    Ok(value)
}

/// Encodes what may be thrown away: a version byte and bincode.
///
/// # Errors
/// When the value has no such form or is too large.
pub fn encode_disposable<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut bytes = vec![DISPOSABLE_VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, DISPOSABLE)
        .map_err(|error| CodecError::Encode(error.to_string()))?;
    within_limit(bytes)
}

/// Decodes what [`encode_disposable`] wrote. Nesting is bounded only by the bytes, so this is for bytes that this
/// program or an authenticated peer wrote.
///
/// # Errors
/// When the version is unknown, the bytes are no such value, or something follows the value.
pub fn decode_disposable<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let body = versioned(bytes, DISPOSABLE_VERSION)?;
    let (value, read) =
        bincode::serde::decode_from_slice(body, DISPOSABLE).map_err(|error| CodecError::Decode(error.to_string()))?;
    if read < body.len() {
        return Err(CodecError::Decode(format!("{} bytes follow the value", body.len() - read)));
    }
    Ok(value)
}

fn within_limit(bytes: Vec<u8>) -> Result<Bytes, CodecError> {
    if bytes.len() > MAX_BYTES { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes.into()) }
}

fn versioned(bytes: &[u8], known: u8) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&found, _)) if found != known => Err(CodecError::UnknownVersion { found, known }),
        Some(_) if bytes.len() > MAX_BYTES => Err(CodecError::TooLarge(bytes.len())),
        Some((_, body)) => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use motet_engine::id::RunId;
    use motet_engine::value::Value;
    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
    enum Fact {
        Started { run: RunId, input: Value },
        Ended(Option<String>),
        Nothing,
    }

    #[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
    struct Picture {
        names: Vec<String>,
        counts: BTreeMap<String, u64>,
        bytes: Bytes,
    }

    fn facts() -> Vec<Fact> {
        let run = RunId::from_bytes([7; 16]);
        let input = Value::from(serde_json::json!({"text": "ä", "list": [1, 2.5, null, true]}));
        vec![Fact::Started { run, input }, Fact::Ended(Some("x".to_owned())), Fact::Ended(None), Fact::Nothing]
    }

    #[test]
    fn what_was_encoded_comes_back() {
        let journal = encode_journal(&facts()).unwrap();
        assert_eq!(journal[0], JOURNAL_VERSION);
        assert_eq!(decode_journal::<Vec<Fact>>(&journal).unwrap(), facts());
        let disposable = encode_disposable(&facts()).unwrap();
        assert_eq!(decode_disposable::<Vec<Fact>>(&disposable).unwrap(), facts());
        assert!(disposable.len() < journal.len());
    }

    #[test]
    fn a_kind_that_only_a_newer_version_knows_is_told_as_such() {
        let newer = encode_journal(&serde_json::json!([{"Vanished": {"to": 1}}])).unwrap();
        let told = decode_journal::<Vec<Fact>>(&newer).unwrap_err();
        assert!(matches!(&told, CodecError::UnknownKind(what) if what.contains("Vanished")), "{told}");
    }

    #[test]
    fn a_field_that_was_added_later_may_be_missing() {
        #[derive(Serialize)]
        struct Old {
            a: u8,
        }
        #[derive(Deserialize)]
        struct New {
            a: u8,
            #[serde(default)]
            b: u8,
        }
        let new: New = decode_journal(&encode_journal(&Old { a: 3 }).unwrap()).unwrap();
        assert_eq!((new.a, new.b), (3, 0));
    }

    #[test]
    fn wrong_bytes_are_typed_errors() {
        assert_eq!(decode_journal::<u8>(&[]), Err(CodecError::Empty));
        assert_eq!(decode_journal::<u8>(&[9, 1]), Err(CodecError::UnknownVersion { found: 9, known: 1 }));
        assert_eq!(decode_disposable::<u8>(&[0, 1]), Err(CodecError::UnknownVersion { found: 0, known: 1 }));
        assert!(matches!(decode_journal::<u8>(&[1, 1, 1]), Err(CodecError::Decode(_))));
        assert!(matches!(decode_disposable::<u8>(&[1, 1, 1]), Err(CodecError::Decode(_))));
        assert!(matches!(decode_journal::<Vec<Fact>>(&[1]), Err(CodecError::Decode(_))));
        assert!(matches!(encode_journal(&Bytes::from(vec![0; MAX_BYTES])), Err(CodecError::TooLarge(_))));
        assert!(matches!(encode_disposable(&Bytes::from(vec![0; MAX_BYTES])), Err(CodecError::TooLarge(_))));
    }

    #[test]
    fn a_forged_length_is_refused_before_memory_is_taken() {
        // Four thousand million of everything that has a length, with nothing behind it.
        for marker in [0xdb, 0xc6, 0xdd, 0xdf] {
            let forged = [JOURNAL_VERSION, marker, 0xff, 0xff, 0xff, 0xff];
            assert!(decode_journal::<Value>(&forged).is_err());
            assert!(decode_journal::<Vec<u64>>(&forged).is_err());
            assert!(decode_journal::<BTreeMap<String, u64>>(&forged).is_err());
            assert!(decode_journal::<Bytes>(&forged).is_err());
        }
        let forged = [DISPOSABLE_VERSION, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode_disposable::<String>(&forged).is_err());
        assert!(decode_disposable::<Bytes>(&forged).is_err());
        assert!(decode_disposable::<Vec<u64>>(&forged).is_err());
        assert!(decode_disposable::<Picture>(&forged).is_err());
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let nested = |levels: usize| (0..levels).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        let deep = nested(200);
        assert_eq!(decode_journal::<Value>(&encode_journal(&deep).unwrap()).unwrap(), deep);
        assert!(matches!(encode_journal(&nested(600)), Err(CodecError::Encode(_))));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let lists = [vec![JOURNAL_VERSION], [0x81, 0xa1, b'l', 0x91].repeat(100_000)].concat();
        assert!(matches!(decode_journal::<Value>(&lists), Err(CodecError::Decode(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = decode_journal::<Vec<Fact>>(&bytes);
            let _ = decode_disposable::<Picture>(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = JOURNAL_VERSION;
            }
            let _ = decode_journal::<Vec<Fact>>(&bytes);
            let _ = decode_journal::<Picture>(&bytes);
            let _ = decode_disposable::<Picture>(&bytes);
        }

        #[test]
        fn flipped_bytes_never_panic(place in any::<proptest::sample::Index>(), flip in 1u8..) {
            let mut bytes = encode_journal(&facts()).unwrap().to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            let _ = decode_journal::<Vec<Fact>>(&bytes);
            let mut bytes = encode_disposable(&facts()).unwrap().to_vec();
            let place = place.min(bytes.len() - 1);
            bytes[place] ^= flip;
            let _ = decode_disposable::<Vec<Fact>>(&bytes);
        }

        #[test]
        fn pictures_come_back(names in proptest::collection::vec(".*", 0..8), bytes in any::<Vec<u8>>()) {
            let counts = names.iter().map(|name| (name.clone(), name.len() as u64)).collect();
            let picture = Picture { names, counts, bytes: bytes.into() };
            prop_assert_eq!(&decode_journal::<Picture>(&encode_journal(&picture).unwrap()).unwrap(), &picture);
            prop_assert_eq!(&decode_disposable::<Picture>(&encode_disposable(&picture).unwrap()).unwrap(), &picture);
        }
    }
}
