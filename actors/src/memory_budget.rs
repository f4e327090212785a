//! How much memory the loaded models of a node may take together.
//!
//! Counts what models say they take; never measures and never frees by itself. Used by `models` when it loads one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Name;

/// The budget, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget {
    /// 0 for no bound.
    bound: u64,
    taken: Arc<AtomicU64>,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    bytes: u64,
    taken: Arc<AtomicU64>,
}

impl MemoryBudget {
    /// A budget of so many bytes; 0 for no bound.
    pub(crate) fn new(bound: u64) -> Self {
        Self { bound, taken: Arc::default() }
    }

    /// Takes a share for one model.
    ///
    /// # Errors
    /// When the models that are loaded leave too little.
    pub(crate) fn take(&self, model: &Name, bytes: u64) -> Result<MemoryShare, Failure> {
        let fits = |taken: u64| {
            let sum = taken.saturating_add(bytes);
            (self.bound == 0 || sum <= self.bound).then_some(sum)
        };
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(MemoryShare { bytes, taken: Arc::clone(&self.taken) }),
            Err(taken) => Err(Failure::new(
                FailureClass::Unavailable,
                format!(
                    "model '{model}' takes {bytes} bytes, and loaded models take {taken} of the {} that \
                     models.memory_bytes allows; raise it or use fewer replicas",
                    self.bound
                ),
            )),
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryBudget;
    use motet_engine::id::Name;

    #[test]
    fn shares_end_at_the_bound_and_come_back() {
        let model = Name::new("e5").unwrap();
        let budget = MemoryBudget::new(100);
        let first = budget.take(&model, 60).unwrap();
        let second = budget.take(&model, 40).unwrap();
        let refused = budget.take(&model, 1).unwrap_err();
        assert!(refused.message.contains("100 of the 100"), "{refused}");
        drop(first);
        let third = budget.take(&model, 60).unwrap();
        drop((second, third));
        assert!(MemoryBudget::new(0).take(&model, u64::MAX).is_ok());
    }
}
