//! Path arguments as checked types: names, run ids and signals.
//!
//! Used by handlers as arguments.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use motet_engine::id::{Name, RunId};

use super::problem::Problem;

/// The `{name}` of a path.
pub(crate) struct NameEntry(pub(crate) Name);

/// The `{id}` of a path.
pub(crate) struct RunEntry(pub(crate) RunId);

/// The `{id}` and `{name}` of a path to a signal.
pub(crate) struct SignalEntry {
    /// The run.
    pub(crate) run: RunId,
    /// Name of the signal; the run knows which there are.
    pub(crate) name: Arc<str>,
}

impl<S: Send + Sync> FromRequestParts<S> for SignalEntry {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let RunEntry(run) = RunEntry::from_request_parts(parts, state).await?;
        let arguments = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(400, "invalid_path", "the path is not valid UTF-8"))?;
        let name = arguments.iter().nth(1).map(|(_, text)| text.into());
        name.map(|name| Self { run, name }).ok_or_else(|| Problem::new(500, "internal", "the route has no name"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NameEntry {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        argument(parts, state, |text| {
            Name::new(text).map(Self).map_err(|error| Problem::new(400, "invalid_name", error.to_string()))
        })
        .await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RunEntry {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        argument(parts, state, |text| {
            text.parse().map(Self).map_err(|_| Problem::new(404, "not_found", "there is no run of this id"))
        })
        .await
    }
}

/// Reads the one argument of a path.
async fn argument<S: Send + Sync, T>(
    parts: &mut Parts,
    state: &S,
    read: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let arguments = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::new(400, "invalid_path", "the path is not valid UTF-8"))?;
    match arguments.iter().next() {
        Some((_, text)) => read(text),
        None => Err(Problem::new(500, "internal", "the route has no argument")),
    }
}
