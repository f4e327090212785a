//! Payloads with a kind and a version, in the disposable form of the store's one codec file.
//!
//! A program writes its newest version and reads that and the one before, so that nodes of two neighbouring releases
//! understand each other while a cluster is upgraded. Used by whoever fills and reads envelopes.

use motet_store::codec::{CodecError, decode_disposable, encode_disposable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Kind, MAX_PAYLOAD_BYTES, Parcel, Route};

/// A type that travels in envelopes.
pub trait Payload: Serialize + DeserializeOwned {
    /// What it is. Never given to another type.
    const KIND: Kind;

    /// The form that this program writes. Any change of the type's fields is a new version: the codec has no names.
    const VERSION: u32;

    /// Reads the form of the version before. A type at its first version has none.
    ///
    /// # Errors
    /// When the bytes are no such value.
    fn previous(_bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        None
    }
}

/// Why a payload was not made or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Another kind is in the envelope.
    #[error("kind {found} is not understood here, {known} is expected")]
    Kind {
        /// The kind that was found.
        found: u32,
        /// The kind that was expected.
        known: u32,
    },
    /// The sender's version is newer, or older than the one before.
    #[error("version {found} of kind {kind} is not understood, this program reads {known} and the one before")]
    Version {
        /// The kind.
        kind: u32,
        /// The version that was found.
        found: u32,
        /// The newest version that is read.
        known: u32,
    },
    /// Too large for an envelope.
    #[error("{0} bytes are more than the {MAX_PAYLOAD_BYTES} that an envelope carries: send a reference instead")]
    TooLarge(usize),
    /// The bytes are no such value, or the value has no bytes.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<PayloadError> for Answer {
    fn from(error: PayloadError) -> Self {
        Self::Undecodable(error.to_string())
    }
}

/// Puts a value into a parcel, in the newest version.
///
/// # Errors
/// When it has no bytes or too many.
pub fn seal<P: Payload>(value: &P, route: Route) -> Result<Parcel, PayloadError> {
    let payload = encode_disposable(value)?;
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(PayloadError::TooLarge(payload.len()));
    }
    Ok(Parcel { route, correlation: None, trace: None, kind: P::KIND, version: P::VERSION, payload })
}

/// Takes the value out of a parcel of this version or the one before.
///
/// # Errors
/// When it is of another kind or version, or the bytes are no such value.
pub fn open<P: Payload>(parcel: &Parcel) -> Result<P, PayloadError> {
    if parcel.kind != P::KIND {
        return Err(PayloadError::Kind { found: parcel.kind.0, known: P::KIND.0 });
    }
    if parcel.version == P::VERSION {
        return Ok(decode_disposable(&parcel.payload)?);
    }
    let older = if parcel.version.checked_add(1) == Some(P::VERSION) { P::previous(&parcel.payload) } else { None };
    match older {
        Some(read) => Ok(read?),
        None => Err(PayloadError::Version { kind: parcel.kind.0, found: parcel.version, known: P::VERSION }),
    }
}

/// Whether [`open`] knows the kind and the version.
#[must_use]
pub fn reads<P: Payload>(kind: Kind, version: u32) -> bool {
    kind == P::KIND && (version == P::VERSION || version.checked_add(1) == Some(P::VERSION))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Third {
        sizes: Vec<u64>,
    }

    impl Payload for Third {
        const KIND: Kind = Kind(40);
        const VERSION: u32 = 3;

        fn previous(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
            Some(decode_disposable::<u64>(bytes).map(|size| Self { sizes: vec![size] }))
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct First;

    impl Payload for First {
        const KIND: Kind = Kind(41);
        const VERSION: u32 = 0;
    }

    #[test]
    fn this_version_and_the_one_before_are_read() {
        let sealed = seal(&Third { sizes: vec![1, 2] }, Route::default()).unwrap();
        assert_eq!(open(&sealed), Ok(Third { sizes: vec![1, 2] }));
        let with = |version, payload: &Bytes| Parcel { version, payload: payload.clone(), ..sealed.clone() };
        let before = encode_disposable(&9u64).unwrap();
        assert_eq!(open(&with(2, &before)), Ok(Third { sizes: vec![9] }));
        for version in [0, 1, 4, u32::MAX] {
            let refused = PayloadError::Version { kind: 40, found: version, known: 3 };
            assert_eq!(open::<Third>(&with(version, &before)), Err(refused), "{version}");
            assert!(!reads::<Third>(Kind(40), version));
        }
        assert!(matches!(open::<Third>(&with(3, &Bytes::new())), Err(PayloadError::Codec(CodecError::Empty))));
        assert_eq!(open::<First>(&sealed), Err(PayloadError::Kind { found: 40, known: 41 }));
        let first = seal(&First, Route::default()).unwrap();
        assert_eq!(open(&first), Ok(First));
        let older = Parcel { version: u32::MAX, ..first };
        assert!(matches!(open::<First>(&older), Err(PayloadError::Version { .. })));
    }

    #[test]
    fn what_is_too_large_is_not_sealed() {
        let sizes = vec![u64::MAX; MAX_PAYLOAD_BYTES / 8];
        assert!(matches!(seal(&Third { sizes }, Route::default()), Err(PayloadError::TooLarge(_))));
    }
}
