//! Which room may know which, and which room is the home of an outside crate.
//!
//! The table is the design's: arrows point down only. Reads what `cargo metadata` tells.

use std::process::Command;

use serde::Deserialize;

use super::Breach;

/// A room and the rooms that it may depend on.
const ROOMS: [(&str, &[&str]); 13] = [
    ("engine", &[]),
    ("config", &[]),
    ("store", &["engine"]),
    ("broker", &["engine"]),
    ("schemas", &["engine"]),
    ("models", &["engine"]),
    ("vectors", &["engine"]),
    ("worker", &["engine", "models"]),
    ("cluster", &["engine", "store"]),
    ("actors", &["broker", "cluster", "engine", "models", "schemas", "store", "vectors"]),
    ("server", &["actors", "broker", "cluster", "config", "engine", "models", "schemas", "store", "vectors", "worker"]),
    ("tests", &["actors", "broker", "cluster", "config", "engine", "models", "server", "store", "vectors"]),
    ("benches", &["actors", "broker", "cluster", "config", "engine", "models", "server", "store", "tests", "vectors"]),
];

/// An outside crate and its homes. What is not listed may be used anywhere but in the engine's tables below.
const HOMES: [(&str, &[&str]); 29] = [
    ("ractor", &["actors"]),
    ("dashmap", &["actors"]),
    // The benches measure the floor below the store with bare commits.
    ("sqlx", &["benches", "store"]),
    ("fred", &["store"]),
    // And the floor beside the broker with a bare consumer.
    ("rdkafka", &["benches", "broker"]),
    ("apache-avro", &["schemas"]),
    ("prost-reflect", &["schemas"]),
    ("bincode", &["store"]),
    ("chitchat", &["cluster"]),
    ("burn", &["models"]),
    // What holds the processes of models, and opens libraries, lives where those processes do.
    ("landlock", &["worker"]),
    ("seccompiler", &["worker"]),
    ("libloading", &["worker"]),
    ("tokenizers", &["models"]),
    ("safetensors", &["models"]),
    ("reqwest", &["models", "schemas", "server", "tests"]),
    ("axum", &["server"]),
    ("tower", &["cluster", "server"]),
    // The benches measure the floor below the link with bare streams.
    ("tonic", &["benches", "cluster", "models", "server"]),
    ("prost", &["benches", "cluster", "models", "server", "worker"]),
    ("rustls", &["cluster", "store"]),
    ("rcgen", &["cluster", "schemas", "store", "tests"]),
    ("tower-http", &["server"]),
    ("utoipa", &["server"]),
    ("clap", &["server"]),
    ("cel", &["engine"]),
    ("croner", &["engine"]),
    ("minijinja", &["engine"]),
    ("jsonschema", &["engine"]),
];

/// Crates that would make the rules impure.
const BANNED_IN_ENGINE: [&str; 8] =
    ["tokio", "tracing", "log", "rand", "getrandom", "async-trait", "futures", "metrics"];

/// Crates that nobody may use, and why.
const BANNED: [(&str, &str); 4] = [
    ("ractor_cluster", "measured and refused: no flow control, no liveness, no reconnect"),
    ("async-std", "tokio is the executor"),
    ("serde_yaml", "archived; definitions are read with serde-saphyr"),
    ("lazy_static", "the standard library has LazyLock"),
];

/// A package as `cargo metadata` tells it.
#[derive(Deserialize, Debug)]
pub struct Package {
    /// Name, such as `motet-engine`.
    pub name: String,
    /// What it depends on, for whatever reason.
    pub dependencies: Vec<Dependency>,
}

/// One dependency of a package.
#[derive(Deserialize, Debug)]
pub struct Dependency {
    /// Name of the other package.
    pub name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The packages of the workspace.
///
/// # Panics
/// When cargo does not tell them.
#[must_use]
pub fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(crate::place::workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Metadata>(&output.stdout).unwrap().packages
}

/// Every edge that the tables do not allow.
#[must_use]
pub fn breaches(packages: &[Package]) -> Vec<Breach> {
    packages.iter().flat_map(|package| package.dependencies.iter().filter_map(|edge| refuse(package, edge))).collect()
}

fn refuse(package: &Package, edge: &Dependency) -> Option<Breach> {
    let breach = |rule: String| Some(Breach::new(package.name.clone(), rule));
    let Some(room) = package.name.strip_prefix("motet-") else {
        return breach("packages are named motet- and the folder's name".to_owned());
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return breach(format!("'{room}' is no room of the design"));
    };
    if let Some(other) = edge.name.strip_prefix("motet-") {
        // A package may name itself to switch on its own features for its tests.
        return if allowed.contains(&other) || other == room {
            None
        } else {
            breach(format!("may not depend on '{other}': arrows point down only"))
        };
    }
    if let Some((_, why)) = BANNED.iter().find(|(name, _)| *name == edge.name) {
        return breach(format!("'{}' is not used here: {why}", edge.name));
    }
    if room == "engine" && BANNED_IN_ENGINE.contains(&&*edge.name) {
        return breach(format!("the engine is pure: no '{}'", edge.name));
    }
    match HOMES.iter().find(|(name, _)| *name == edge.name) {
        Some((name, homes)) if !homes.contains(&room) => {
            breach(format!("'{name}' has its home in {}", homes.join(", ")))
        }
        _ => None,
    }
}
