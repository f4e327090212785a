//! How the databases keep the headers of a record: as one value, in the journal's form.
//!
//! Never looks into a header. Used by `sqlite` and `postgres`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::codec::{decode_journal, encode_journal};

/// Headers as both databases keep them; the values of some are bytes, and of others bytes or nothing.
pub(crate) fn encode_headers<V: Serialize>(headers: &[(String, V)]) -> Result<Bytes, StoreError> {
    encode_journal(headers).map_err(|error| StoreError::Refused(format!("headers of a record: {error}")))
}

/// Headers that [`encode_headers`] wrote.
pub(crate) fn decode_headers<V: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<(String, V)>, StoreError> {
    decode_journal(bytes).map_err(|error| StoreError::Corrupt(format!("headers of a record: {error}")))
}
