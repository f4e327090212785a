//! What people hear of the election: lines in the log, and metrics.
//!
//! Decides nothing. Used by the loop in `leader`.

use motet_engine::id::Name;

use super::election::{Answer, News};

/// Counts an answer of one side.
pub(super) fn count(side: &'static str, answer: &Answer) {
    let outcome = match answer {
        Answer::Ours | Answer::Taken(_) => "ours",
        Answer::Theirs(..) => "theirs",
        Answer::NotOurs => "not_ours",
        Answer::Failed => "failed",
    };
    metrics::counter!("motet_election_requests_total", "side" => side, "outcome" => outcome).increment(1);
}

/// Says what happened.
pub(super) fn tell(role: &Name, news: &News) {
    match news {
        News::Won { term, by_redis } => {
            leads(role, true, "won");
            metrics::gauge!("motet_leader_term", "role" => role.to_string()).set(term.0 as f64);
            let elected_by = if *by_redis { "redis" } else { "store" };
            tracing::info!(%role, term = term.0, elected_by, "this node leads from now on");
        }
        News::Restored(term) => {
            leads(role, true, "restored");
            tracing::info!(%role, term = term.0, "this node leads again: the store answered, and nobody took the term");
        }
        News::Lapsed(term) => {
            leads(role, false, "lapsed");
            tracing::warn!(%role, term = term.0, "this node leads no more: the store did not renew its lease in time");
        }
        News::Deposed(term) => {
            leads(role, false, "deposed");
            tracing::warn!(%role, term = term.0, "this node leads no more: another one has taken a newer term");
        }
        News::Resigned(term) => {
            leads(role, false, "resigned");
            tracing::info!(%role, term = term.0, "this node leads no more: it was told to stand down");
        }
        News::Seen(holder) => tracing::info!(%role, holder, "another node leads"),
        News::Yielded => tracing::info!(%role, "Redis gave this node the lease, but the leader is well: given back"),
        News::WithoutRedis => tracing::warn!(%role, "Redis does not answer: the election goes on in the store"),
        News::RedisReturned => tracing::info!(%role, "Redis answers again: it will decide the election after a while"),
    }
}

fn leads(role: &Name, leads: bool, why: &'static str) {
    metrics::gauge!("motet_leader", "role" => role.to_string()).set(if leads { 1.0 } else { 0.0 });
    metrics::counter!("motet_leader_changes_total", "role" => role.to_string(), "why" => why).increment(1);
}
