//! The settings in effect, with where each value comes from.
//!
//! Never shows secrets: there the type of the value sees to it. Used by `motet config check`.

use std::fmt;

use crate::keys::KEYS;
use crate::problem::Origin;
use crate::settings::Settings;

/// What is in effect, one row for each key, in the order of the default file. Prints as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The rows.
    pub rows: Vec<EffectiveRow>,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveRow {
    /// Its path, such as `http.address`.
    pub key: &'static str,
    /// Its name in the environment.
    pub environment_name: String,
    /// Its value as it would be written; empty where there is none.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Settings {
    /// What is in effect and where it comes from.
    #[must_use]
    pub fn effective(&self) -> Effective {
        let mut copy = self.clone();
        let rows = KEYS.iter().map(|key| EffectiveRow {
            key: key.path,
            environment_name: key.environment_name(),
            value: key.show(&mut copy),
            origin: self.origins.get(key.path).clone(),
        });
        Effective { rows: rows.collect() }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&EffectiveRow) -> usize| self.rows.iter().map(of).max().unwrap_or_default();
        let key_width = width(|row| row.key.len());
        let value_width = width(|row| shown(row).chars().count());
        for row in &self.rows {
            writeln!(f, "{:key_width$}  {:value_width$}  {}", row.key, shown(row), row.origin)?;
        }
        Ok(())
    }
}

fn shown(row: &EffectiveRow) -> &str {
    if row.value.is_empty() { "(none)" } else { &row.value }
}
