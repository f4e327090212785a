//! How much a suite does: the short form of `make test`, or the long one of `make test-full`.
//!
//! Used by the suites that repeat random faults.

/// Whether the long form is wanted (`MOTET_TEST_FULL=1`).
#[must_use]
pub fn is_full() -> bool {
    std::env::var("MOTET_TEST_FULL").is_ok_and(|value| value == "1")
}
