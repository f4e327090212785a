//! Calls that leave the node: the HTTP requests of steps, what becomes of their answers, and where they may go.
//!
//! Never retries, follows no redirect, keeps no cookie and asks no proxy: what comes back is the answer to the one
//! request that was sent. Used by the egress actor through [`HttpCaller`]; the server chooses what is allowed.

mod allow;
mod answer;
mod client;
mod request;
#[cfg(test)]
mod tests;

use std::time::Instant;

use async_trait::async_trait;
use motet_engine::failure::Failure;
use motet_engine::value::Value;

pub use allow::{AllowList, AllowListError};
pub use client::ReqwestCaller;
pub use request::{HttpRequest, Terms, target};

/// Sends requests.
#[async_trait]
pub trait HttpCaller: Send + Sync + 'static {
    /// Sends one request and gives its answer as `{status, headers, body}`, also when it is a redirect. Header names
    /// are in lower case. The body is a value where it says that it is JSON, a text where it says that it is one, and
    /// a `UINT8` tensor of its bytes otherwise; null where there is none.
    ///
    /// # Errors
    /// * `Timeout` when the answer is not whole at the deadline, or the other side says 408;
    /// * `Unavailable` when it cannot be reached, breaks off, or says 5xx;
    /// * `RateLimited` for 429, with what it asks for in `retry_after_ms`;
    /// * `Denied` for 401, 403 and for a place that is not allowed, `NotFound` for 404 and 410;
    /// * `Invalid` for any other 4xx, an answer that is too large, and JSON that is none.
    async fn call(&self, request: HttpRequest, deadline: Instant) -> Result<Value, Failure>;
}
