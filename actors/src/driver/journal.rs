//! Events to bytes and back; large values go to the blob table instead of into the journal.
//!
//! Used by the driver and by whoever shows a run's history.

use bytes::Bytes;
use motet_engine::event::Event;
use motet_engine::id::RunId;
use motet_engine::value::Value;
use motet_store::StoreError;
use motet_store::codec;
use motet_store::port::Store;

use super::DriverError;

/// A value larger than this many bytes is kept in the blob table.
const INLINE_BYTES: usize = 32 << 10;

/// Encodes the events of one decision. Large values are durable in the blob table when this returns.
///
/// # Errors
/// When a value cannot be encoded or the store refuses a blob.
pub async fn encode_events(store: &dyn Store, run: RunId, mut events: Vec<Event>) -> Result<Bytes, DriverError> {
    for event in &mut events {
        if let Some(value) = event.value_mut().filter(|value| value.size() > INLINE_BYTES) {
            let blob = store.put_blob(run, codec::encode_journal(value)?).await?;
            *value = Value::Blob(blob);
        }
    }
    Ok(codec::encode_journal(&events)?)
}

/// Decodes the events of one entry and brings large values back.
///
/// # Errors
/// When the bytes cannot be read or a blob is missing.
pub async fn decode_events(store: &dyn Store, payload: &[u8]) -> Result<Vec<Event>, DriverError> {
    let mut events: Vec<Event> = codec::decode_journal(payload)?;
    for event in &mut events {
        if let Some(value) = event.value_mut()
            && let Value::Blob(blob) = value
        {
            let data =
                store.blob(*blob).await?.ok_or_else(|| StoreError::Corrupt(format!("blob {blob} is missing")))?;
            *value = codec::decode_journal(&data)?;
        }
    }
    Ok(events)
}
