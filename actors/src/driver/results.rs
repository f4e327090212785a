//! What a run owes to the outside when it has ended: its result, where a record of a stream began it.
//!
//! Never sends anything: the record is written with the end itself, and the relay of its shard sends it. Used by the
//! driver.

use motet_engine::definition::Delivery;
use motet_engine::run::Run;
use motet_engine::stream::{ResultRecord, result_record};
use motet_store::port::OutboxRow;

use super::{DriverError, DriverParts};
use crate::catalog::CatalogError;

/// The records that an end owes, of a run that was not ended before.
pub(super) async fn owed(
    parts: &DriverParts,
    before: Option<&Run>,
    after: &Run,
) -> Result<Vec<OutboxRow>, DriverError> {
    let Some(source) = &after.submission().source else { return Ok(vec![]) };
    if !after.phase().is_end() || before.is_some_and(|run| run.phase().is_end()) {
        return Ok(vec![]);
    }
    let namespace = &after.submission().namespace;
    let stream = match parts.catalog.stream(namespace, &source.stream, &source.revision).await {
        Ok(stream) => stream,
        // The run is worth more than its result: it ends, and the log says what is missing.
        Err(error @ (CatalogError::Unknown { .. } | CatalogError::Unreadable { .. })) => {
            tracing::error!(run = %after.id(), %error, "the result of a run cannot be sent");
            return Ok(vec![]);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(result_record(&stream, after).into_iter().map(row).collect())
}

fn row(record: ResultRecord) -> OutboxRow {
    let ResultRecord { event, topic, key, headers, value, delivery } = record;
    // A header without a value is kept as an empty one, which readers take alike.
    let headers = headers.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect();
    let transactional = delivery == Delivery::Transactional;
    OutboxRow { event, topic, key, headers, payload: value.unwrap_or_default(), transactional }
}
