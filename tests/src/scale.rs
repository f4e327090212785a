//! How much a suite does: the short form of `make test`, the counts of the fault matrix for a change, or a night's.
//!
//! Used by the suites that repeat random faults.

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Some of everything, in minutes: `make test`.
    Short,
    /// What a change must pass: `make test-full`, `MOTET_TEST_FULL=1`.
    Full,
    /// What a night is for: `make chaos`, `MOTET_CHAOS=1`.
    Night,
}

impl Scale {
    /// What the environment asks for.
    #[must_use]
    pub fn from_environment() -> Self {
        let is_set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
        match (is_set("MOTET_CHAOS"), is_set("MOTET_TEST_FULL")) {
            (true, _) => Self::Night,
            (false, true) => Self::Full,
            (false, false) => Self::Short,
        }
    }

    /// One of three, by the scale.
    pub fn pick<T>(self, short: T, full: T, night: T) -> T {
        match self {
            Self::Short => short,
            Self::Full => full,
            Self::Night => night,
        }
    }
}
