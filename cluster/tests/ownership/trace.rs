//! What happened in a world: as a digest always, as text when somebody wants to read it.
//!
//! Used by the world.

use std::fmt::{self, Write};
use std::time::Duration;

pub(crate) struct Trace {
    digest: u64,
    line: String,
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, line: String::new(), lines: verbose.then(Vec::new) }
    }

    pub(crate) fn note(&mut self, now: Duration, line: fmt::Arguments<'_>) {
        self.line.clear();
        let _ = write!(self.line, "{:>10} {line}", now.as_micros());
        // FNV-1a over words: telling two histories apart is all that it must do.
        for word in self.line.as_bytes().chunks(8) {
            let word = word.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}
