//! How the databases keep the headers of an outbox record: as one value, in the journal's form.
//!
//! Never looks into a header. Used by `sqlite` and `postgres`.

use bytes::Bytes;

use crate::StoreError;
use crate::codec::{decode_journal, encode_journal};

/// Headers as both databases keep them.
pub(crate) fn encode_headers(headers: &[(String, Bytes)]) -> Result<Bytes, StoreError> {
    encode_journal(headers).map_err(|error| StoreError::Refused(format!("headers of an outbox record: {error}")))
}

/// Headers that [`encode_headers`] wrote.
pub(crate) fn decode_headers(bytes: &[u8]) -> Result<Vec<(String, Bytes)>, StoreError> {
    decode_journal(bytes).map_err(|error| StoreError::Corrupt(format!("headers of an outbox record: {error}")))
}
