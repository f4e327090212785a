//! The one table from errors to statuses and codes.
//!
//! Never renders; `problem` does. Used by every handler through `?`.

use motet_actors::catalog::CatalogError;
use motet_actors::driver::DriverError;
use motet_actors::message::RouteError;
use motet_actors::router::SubmitError;
use motet_engine::access::Denied;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::run::ForkError;
use motet_store::StoreError;

use super::problem::{Mistake, Problem};

/// Seconds after which a queue that was full is worth another try.
const SOON: u64 = 1;

/// Seconds after which a part that is being restarted is worth another try.
const LATER: u64 = 5;

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        let (status, pause) = match failure.class {
            FailureClass::Unavailable => (503, Some(LATER)),
            FailureClass::Overloaded => (503, Some(SOON)),
            FailureClass::RateLimited => (429, Some(SOON)),
            FailureClass::Timeout => (504, None),
            FailureClass::Internal => (500, None),
            FailureClass::Invalid => (422, None),
            FailureClass::Denied => (403, None),
            FailureClass::NotFound => (404, None),
            FailureClass::Crashed => (500, None),
        };
        let problem = Self::new(status, failure.class.as_str(), failure.message.clone());
        let wished = failure.retry_after_ms.map(|millis| millis.div_ceil(1000));
        match wished.or(pause) {
            Some(seconds) => problem.retry_after(seconds),
            None => problem,
        }
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        let words = error.to_string();
        match error {
            RouteError::Moved(_) => Self::new(503, "moved", words).retry_after(SOON),
            RouteError::NotOwner => Self::new(503, "not_owner", words).retry_after(LATER),
            RouteError::Overloaded(_) => Self::new(503, "overloaded", words).retry_after(SOON),
            RouteError::Undecodable(_) => Self::new(500, "internal", words),
            RouteError::Expired => Self::new(504, "timeout", words),
            RouteError::Unknown(_) => Self::new(404, "not_found", words),
            RouteError::Failed(failure) | RouteError::Absent(failure) => Self::from(&failure),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let words = error.to_string();
        match error {
            StoreError::Busy => Self::new(503, "overloaded", words).retry_after(SOON),
            StoreError::Storage(_) => Self::new(503, "storage_failed", words).retry_after(LATER),
            StoreError::Closed => Self::new(503, "stopping", words).retry_after(LATER),
            StoreError::Fenced { .. } | StoreError::IncarnationFenced(_) | StoreError::PartitionFenced { .. } => {
                Self::new(503, "not_owner", words).retry_after(SOON)
            }
            StoreError::SeqTaken { .. } | StoreError::OffsetGap { .. } => {
                Self::new(503, "unavailable", words).retry_after(SOON)
            }
            StoreError::UnknownRun(_) => Self::new(404, "not_found", words),
            StoreError::InUse { .. } | StoreError::Corrupt(_) => Self::new(500, "internal", words),
            StoreError::Refused(_) => Self::new(422, "invalid", words),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Unknown { .. } => Self::new(404, "not_found", error.to_string()),
            CatalogError::Unreadable { .. } => Self::new(500, "internal", error.to_string()),
            CatalogError::Store(error) => error.into(),
        }
    }
}

impl From<DriverError> for Problem {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Rejected(rejection) => Self::new(409, "rejected", rejection.to_string()),
            DriverError::Store(error) => error.into(),
            DriverError::Catalog(error) => error.into(),
            DriverError::Unknown(_) => Self::new(404, "not_found", error.to_string()),
            DriverError::Codec(_) | DriverError::Replay(_) => Self::new(500, "internal", error.to_string()),
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::new(403, "denied", denied.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        let words = error.to_string();
        match error {
            SubmitError::Denied(denied) => denied.into(),
            SubmitError::Catalog(error) => error.into(),
            SubmitError::Unfit(errors) => {
                Self::new(422, "unfit_input", words).with_errors(errors.into_iter().map(Mistake::in_input).collect())
            }
            SubmitError::KeyReused(run) => Self::new(422, "idempotency_key_reused", words).about_run(run),
            SubmitError::Full(_) => Self::new(503, "overloaded", words).retry_after(LATER),
            SubmitError::Stopping => Self::new(503, "stopping", words).retry_after(LATER),
            SubmitError::Source(error) => error.into(),
            SubmitError::Unforkable(ForkError::UnknownStep(_)) => Self::new(422, "unknown_step", words),
            SubmitError::Unforkable(ForkError::NotEnded(_)) => Self::new(409, "step_not_ended", words),
            SubmitError::Unforkable(_) => Self::new(422, "invalid", words),
            SubmitError::Driver(error) => error.into(),
            SubmitError::Broken(failure) => (&failure).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use motet_engine::id::{Epoch, Seq, ShardId};

    use super::*;

    #[test]
    fn every_error_has_its_status_and_code() {
        let run = "run_00000000000000000000000000".parse().unwrap();
        let failure = |class| Problem::from(RouteError::Failed(Failure::new(class, "words")));
        let cases = [
            (failure(FailureClass::Unavailable), 503, "unavailable"),
            (failure(FailureClass::Timeout), 504, "timeout"),
            (failure(FailureClass::RateLimited), 429, "rate_limited"),
            (failure(FailureClass::Overloaded), 503, "overloaded"),
            (failure(FailureClass::Internal), 500, "internal"),
            (failure(FailureClass::Invalid), 422, "invalid"),
            (failure(FailureClass::Denied), 403, "denied"),
            (failure(FailureClass::NotFound), 404, "not_found"),
            (RouteError::Moved("b".into()).into(), 503, "moved"),
            (RouteError::NotOwner.into(), 503, "not_owner"),
            (RouteError::Overloaded("full".into()).into(), 503, "overloaded"),
            (RouteError::Undecodable("x".into()).into(), 500, "internal"),
            (RouteError::Expired.into(), 504, "timeout"),
            (RouteError::Unknown("x".into()).into(), 404, "not_found"),
            (RouteError::Absent(Failure::new(FailureClass::Unavailable, "x")).into(), 503, "unavailable"),
            (StoreError::Busy.into(), 503, "overloaded"),
            (StoreError::Storage("disk".into()).into(), 503, "storage_failed"),
            (StoreError::Closed.into(), 503, "stopping"),
            (StoreError::Fenced { shard: ShardId(1), carried: Epoch(1), current: Epoch(2) }.into(), 503, "not_owner"),
            (StoreError::SeqTaken { run, seq: Seq(1) }.into(), 503, "unavailable"),
            (StoreError::UnknownRun(run).into(), 404, "not_found"),
            (StoreError::Corrupt("x".into()).into(), 500, "internal"),
            (StoreError::Refused("x".into()).into(), 422, "invalid"),
            (SubmitError::Unfit(vec![]).into(), 422, "unfit_input"),
            (SubmitError::KeyReused(run).into(), 422, "idempotency_key_reused"),
            (SubmitError::Unforkable(ForkError::UnknownStep("a".into())).into(), 422, "unknown_step"),
            (SubmitError::Unforkable(ForkError::NotEnded("a".into())).into(), 409, "step_not_ended"),
            (SubmitError::Unforkable(ForkError::RunsAgain("a".into())).into(), 422, "invalid"),
            (SubmitError::Source(RouteError::Unknown("x".into())).into(), 404, "not_found"),
            (SubmitError::Full(9).into(), 503, "overloaded"),
            (SubmitError::Stopping.into(), 503, "stopping"),
            (DriverError::Unknown(run).into(), 404, "not_found"),
        ];
        for (problem, status, code) in cases {
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{problem:?}");
        }
    }
}
