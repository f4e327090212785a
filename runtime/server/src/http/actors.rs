//! The actors of this node and how they do.
//!
//! Only shows; never starts or stops an actor. Used by the routes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use motet_actors::census::CensusLine;
use motet_engine::access::Action;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::context::Context;
use super::problem::Problem;
use super::query::{self, Query};
use super::{App, body};

/// How many actors to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Most {
    /// 1 to 1,000; 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Actors, the ones with the fullest mailboxes first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Actors {
    /// Number of actors by kind.
    counts: std::collections::BTreeMap<&'static str, usize>,
    /// The first of them.
    #[schema(value_type = Vec<ActorView>)]
    actors: Vec<CensusLine>,
}

/// One actor, for the API's description of what the census shows.
#[derive(Debug, ToSchema)]
#[schema(as = Actor)]
#[expect(dead_code, reason = "describes the census line, whose crate knows nothing of HTTP")]
pub(crate) struct ActorView {
    /// Who it is.
    actor: String,
    /// Kind of actor.
    kind: String,
    /// Messages that wait.
    depth: u64,
    /// Places in the mailbox.
    capacity: u64,
    /// How long the oldest message has waited, at most, in milliseconds.
    age_ms: u64,
    /// Messages handled.
    handled: u64,
    /// Restarts.
    restarts: u64,
    /// Why it is not restarted any more.
    quarantined: Option<String>,
}

/// Kinds of actors that are counted.
const KINDS: [&str; 7] = ["run", "model", "index", "egress", "timers", "recovery", "scheduler"];

/// List the actors of this node
#[utoipa::path(get, path = "/api/v1/actors", operation_id = "listActors", tag = "node", params(Most),
    responses((status = 200, description = "The actors with the fullest mailboxes first.", body = Actors)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    Query(most): Query<Most>,
) -> Result<Response, Problem> {
    context.caller.may(Action::ReadNode)?;
    let limit = most.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(query::refused("limit", "write a number from 1 to 1000"));
    }
    let census = app.router.census();
    let counts = KINDS.into_iter().map(|kind| (kind, census.count(kind))).collect();
    body::answer(200, &Actors { counts, actors: census.lines(limit) })
}
