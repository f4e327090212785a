//! What a bench must reach, and whether it did.
//!
//! Used at the end of every bench.

use std::process::ExitCode;

/// The goals of one bench.
#[derive(Debug, Default)]
pub struct Verdict {
    missed: Vec<String>,
}

impl Verdict {
    /// No goal yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a goal and tells whether it was reached.
    pub fn must(&mut self, reached: bool, goal: impl Into<String>) {
        let goal = goal.into();
        println!("{}  {goal}", if reached { "reached" } else { "MISSED " });
        if !reached {
            self.missed.push(goal);
        }
    }

    /// Tells whether something was reached that is wished for, but not demanded.
    pub fn aim(&mut self, reached: bool, wish: impl Into<String>) {
        println!("{}  {}", if reached { "reached" } else { "not yet" }, wish.into());
    }

    /// Success when nothing was missed.
    #[must_use]
    pub fn end(self) -> ExitCode {
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
