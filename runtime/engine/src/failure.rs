//! How an attempt fails: a class that decides about retries, and words for people.
//!
//! Never decides itself: `retry` reads the class. Used by the run, by every port's errors and by the HTTP table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it was. The first five may be named under `retry.on`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The other side could not be reached or is going away.
    Unavailable,
    /// No answer within the time allowed.
    Timeout,
    /// The other side asks for fewer calls.
    RateLimited,
    /// A queue is full.
    Overloaded,
    /// Something broke inside.
    Internal,
    /// The request itself is wrong; trying again cannot help.
    Invalid,
    /// Not allowed.
    Denied,
    /// The thing named does not exist.
    NotFound,
    /// The process that computed it died of it, as often as it was tried alone; trying again cannot help.
    Crashed,
}

impl FailureClass {
    /// The classes that `retry.on` may name, in the order in which they are documented.
    pub const RETRYABLE: [Self; 5] =
        [Self::Unavailable, Self::Timeout, Self::RateLimited, Self::Overloaded, Self::Internal];

    /// Every class.
    pub const ALL: [Self; 9] = [
        Self::Unavailable,
        Self::Timeout,
        Self::RateLimited,
        Self::Overloaded,
        Self::Internal,
        Self::Invalid,
        Self::Denied,
        Self::NotFound,
        Self::Crashed,
    ];

    /// The name used in definitions, events and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Crashed => "crashed",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed attempt, step or run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// What happened and what to do about it, for people.
    pub message: String,
    /// The other side's wish for the earliest next try, in milliseconds from now.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure of the given class with words for people.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after_ms: None }
    }
}
