//! What keeping a model loaded is worth: pure.
//!
//! Used by `residency`.

use std::time::{Duration, Instant};

use super::History;

/// A run that is going to call a model counts as if it called within this time.
const SOON: Duration = Duration::from_secs(2);

/// The least that a load is thought to cost.
const LEAST_LOAD: Duration = Duration::from_millis(1);

/// Seconds of loading that a byte of the model saves per second: calls that are to be expected, times what each would
/// wait if it were gone, for its size.
pub(super) fn value(history: &History, bytes: u64, now: Instant) -> f64 {
    let expected = history.per_second(now) + history.foreseen() as f64 / SOON.as_secs_f64();
    expected * history.load_time().max(LEAST_LOAD).as_secs_f64() / bytes.max(1) as f64
}
