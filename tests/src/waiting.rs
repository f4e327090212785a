//! Waiting for a condition, up to a deadline.
//!
//! Used wherever the harness or a test waits for the process under test.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Looks again and again until `look` gives a value.
///
/// # Errors
/// After `limit`, with what was waited for.
pub async fn until<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    let mut looks = looks();
    loop {
        looks.tick().await;
        if let Some(found) = look().await {
            return Ok(found);
        }
        anyhow::ensure!(begun.elapsed() < limit, "waited {} s in vain for {what}", limit.as_secs_f64());
    }
}

/// The moments at which to look at a condition.
#[must_use]
pub fn looks() -> Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Lets time pass before a fault is made. Never a way to wait for the process under test.
pub async fn let_pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
