//! Forgets runs whose time is over, a bounded number at a time.
//!
//! Never touches a run that has not ended. Started by `bootstrap`.

use std::sync::Arc;
use std::time::Duration;

use motet_actors::ports::{Clock, SystemClock};
use motet_engine::time::Timestamp;
use motet_store::port::Store;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(60);

/// Runs forgotten in one write, so that other writes get their turn.
const BATCH: u32 = 256;

/// Forgets ended runs older than `retention` until stopped; a `retention` of zero keeps runs for ever, and only
/// idempotency keys are forgotten.
pub(super) async fn run(store: Arc<dyn Store>, retention: Duration, stop: CancellationToken) {
    let clock = SystemClock::default();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = clock.now();
        let ended_before = if retention.is_zero() { Timestamp::from_millis(i64::MIN) } else { before(now, retention) };
        loop {
            match store.retain(ended_before, now, BATCH).await {
                Ok(gone) => {
                    metrics::counter!("motet_runs_forgotten_total").increment(gone);
                    if gone < u64::from(BATCH) || stop.is_cancelled() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "old runs could not be forgotten; they are tried again in a minute");
                    break;
                }
            }
        }
    }
}

fn before(now: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(span))
}
