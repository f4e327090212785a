//! How much one value of a record may become: few bytes can stand for many values.
//!
//! Counts and never decodes. Used by the decoders of all formats that are not text.

use motet_engine::stream::MAX_INPUT_NESTING;

use crate::compiled::Mistake;

/// Values that one key or value of a record may consist of.
pub(crate) const MAX_VALUES: usize = 1 << 20;

/// What is left.
#[derive(Debug)]
pub(crate) struct Budget {
    values: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { values: MAX_VALUES }
    }

    /// Takes so many values, `depth` levels deep.
    pub(crate) fn take(&mut self, values: usize, depth: usize) -> Result<(), Mistake> {
        if depth > MAX_INPUT_NESTING {
            return Err(Mistake::new("too_deep", format!("it is more than {MAX_INPUT_NESTING} levels deep")));
        }
        match self.values.checked_sub(values) {
            Some(left) => {
                self.values = left;
                Ok(())
            }
            None => Err(Mistake::new("too_large", format!("it consists of more than {MAX_VALUES} values"))),
        }
    }

    /// Values that may still come.
    pub(crate) fn left(&self) -> usize {
        self.values
    }
}
