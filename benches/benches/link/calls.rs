//! Callers that ask, wait for the answer and ask again; the same for every way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Something that answers with what it is sent.
pub(crate) trait Caller: Send + Sync + 'static {
    fn call(&self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;
}

/// What some callers reached.
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    times: Histogram<u64>,
}

impl Figures {
    /// A quantile of the times, in milliseconds.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Keeps `callers` calls under way for `warm_up` and then for `time`, which counts.
pub(crate) async fn closed_loop<C: Caller>(
    caller: &Arc<C>,
    callers: usize,
    payload: &Bytes,
    warm_up: Duration,
    time: Duration,
) -> Result<Figures> {
    let counted_from = Instant::now() + warm_up;
    let end = counted_from + time;
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        let (caller, payload) = (Arc::clone(caller), payload.clone());
        calling.spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            while Instant::now() < end {
                let begun = Instant::now();
                let answer = caller.call(payload.clone()).await?;
                ensure!(answer.len() == payload.len(), "another payload came back");
                if (counted_from..end).contains(&Instant::now()) {
                    times.record(u64::try_from(begun.elapsed().as_micros())?)?;
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Histogram::<u64>::new(3)?;
    while let Some(caller) = calling.join_next().await {
        times.add(caller??)?;
    }
    Ok(Figures { per_second: times.len() as f64 / time.as_secs_f64(), times })
}
