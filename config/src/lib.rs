//! Settings of a node: typed, validated whole, every key explained in the shipped default file.
//!
//! Four layers, the later ones winning: built-in defaults, a YAML file, the environment (`MOTET__STORE__URL` for
//! `store.url`), the command line. Never reads the process's environment itself and knows no other room. Used by the
//! server alone, which hands each room the part that it needs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

mod effective;
mod file;
mod keys;
mod load;
mod notation;
mod problem;
mod secret;
mod settings;
mod store_url;

pub use effective::{Effective, EffectiveRow};
pub use load::Overrides;
pub use problem::{Origin, Origins, Problem};
pub use secret::Secret;
pub use settings::{
    AdminSettings, ClusterSettings, DataSettings, EgressSettings, HttpSettings, KafkaSettings, LogFormat, LogSettings,
    ModelsSettings, NodeSettings, RedisSettings, RegistrySettings, ResourcesSettings, RunsSettings, Settings,
    ShutdownSettings, StoreSettings,
};
pub use store_url::StoreUrl;

/// The shipped file: every key with its explanation and its default.
pub const DEFAULT_FILE: &str = include_str!("../motet.default.yaml");

#[cfg(test)]
mod tests;
