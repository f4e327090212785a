//! Tests that need what a machine may not have: loud on a laptop, a failure in CI.
//!
//! Used by suites that need root or the network.

use std::io::Write;

/// Tells that a test cannot run here; the test returns after it. The runner of the suites counts the line.
///
/// # Panics
/// With `CI=true`: what runs there must be able to run everything.
pub fn skip(test: &str, reason: &str) {
    // Written past the harness's capture, so that a plain `cargo test` shows it too.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{test} was skipped in CI: {reason}");
}
