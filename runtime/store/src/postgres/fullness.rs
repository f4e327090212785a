//! When a second writer helps the first: while nearly every batch is full, until there is room to spare.
//!
//! Counts batches only; the shares at which it changes its mind lie apart, so that a steady load changes nothing. Used
//! by the writers.

/// Share of full batches above which a second writer helps.
const BEGIN: f64 = 0.8;

/// Share of full batches below which it goes again: with half of the work each, together they would be one writer with
/// room to spare.
const END: f64 = 0.2;

/// Weight of one batch in the share.
const WEIGHT: f64 = 0.02;

/// The share of full batches of a writer.
#[derive(Debug, Default)]
pub(super) struct Fullness(f64);

impl Fullness {
    /// Notes a batch.
    pub(super) fn note(&mut self, full: bool) {
        self.0 += (f64::from(u8::from(full)) - self.0) * WEIGHT;
    }

    /// The share.
    pub(super) fn ratio(&self) -> f64 {
        self.0
    }

    /// Whether a second writer should help, if it does or does not now.
    pub(super) fn wants_help(&self, helped: bool) -> bool {
        self.0 > if helped { END } else { BEGIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_comes_late_and_goes_late() {
        let mut fullness = Fullness::default();
        let mut helped = false;
        let mut batches = |full: bool, count: usize| {
            for _ in 0..count {
                fullness.note(full);
                helped = fullness.wants_help(helped);
            }
            helped
        };
        assert!(!batches(true, 70));
        assert!(batches(true, 20));
        // Half of them full is neither a reason to come nor one to go.
        for _ in 0..500 {
            assert!(batches(true, 1) && batches(false, 1));
        }
        assert!(!batches(false, 70));
        for _ in 0..500 {
            assert!(!batches(true, 1) && !batches(false, 1));
        }
    }
}
