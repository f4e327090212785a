//! Short ways to write the failures that this crate makes.
//!
//! Used by every backend.

use motet_engine::failure::{Failure, FailureClass};

/// The request or the artefact is wrong; trying again cannot help.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

/// Something broke inside.
pub(crate) fn internal(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Internal, message)
}

/// The other side cannot be reached or is going away.
pub(crate) fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Unavailable, message)
}

/// No answer within the time allowed.
pub(crate) fn timeout(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Timeout, message)
}
