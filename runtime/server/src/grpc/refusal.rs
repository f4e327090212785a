//! Refusals as statuses of gRPC.
//!
//! The one table from problems to codes. Used by the service and by the door.

use tonic::{Code, Status};

use crate::http::problem::Problem;

/// The status that a client gets.
pub(crate) fn status(problem: &Problem) -> Status {
    Status::new(code(problem), problem.detail())
}

fn code(problem: &Problem) -> Code {
    match (problem.status().as_u16(), problem.code()) {
        (429, _) | (503, "overloaded") => Code::ResourceExhausted,
        (503, _) => Code::Unavailable,
        (504, _) => Code::DeadlineExceeded,
        (501, _) => Code::Unimplemented,
        (500, _) => Code::Internal,
        (404, _) => Code::NotFound,
        (403, _) => Code::PermissionDenied,
        (401, _) => Code::Unauthenticated,
        (409, _) => Code::FailedPrecondition,
        (400 | 405 | 413 | 415 | 422, _) => Code::InvalidArgument,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use motet_actors::message::RouteError;
    use motet_engine::failure::{Failure, FailureClass};

    use super::*;

    #[test]
    fn every_refusal_has_its_code() {
        let failure = |class| Problem::from(RouteError::Failed(Failure::new(class, "words")));
        for (problem, expected) in [
            (failure(FailureClass::Unavailable), Code::Unavailable),
            (failure(FailureClass::Overloaded), Code::ResourceExhausted),
            (failure(FailureClass::RateLimited), Code::ResourceExhausted),
            (failure(FailureClass::Timeout), Code::DeadlineExceeded),
            (failure(FailureClass::Internal), Code::Internal),
            (failure(FailureClass::Invalid), Code::InvalidArgument),
            (failure(FailureClass::Denied), Code::PermissionDenied),
            (failure(FailureClass::NotFound), Code::NotFound),
            (RouteError::Overloaded("full".into()).into(), Code::ResourceExhausted),
            (RouteError::Expired.into(), Code::DeadlineExceeded),
            (RouteError::Unknown("x".into()).into(), Code::NotFound),
            (Problem::new(400, "invalid", "x"), Code::InvalidArgument),
            (Problem::new(501, "unknown_service", "x"), Code::Unimplemented),
        ] {
            assert_eq!(status(&problem).code(), expected, "{problem:?}");
        }
    }
}
