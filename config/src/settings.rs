//! The settings as the server reads them, and their defaults.
//!
//! Never parses. Used by the loader, which fills them, and by the server.

mod cluster;
mod kafka;
mod registry;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::Origins;
use crate::store_url::StoreUrl;
pub use cluster::{ClusterSettings, RedisSettings};
pub(crate) use cluster::{check_labels, check_roles, check_seeds};
pub use kafka::KafkaSettings;
pub(crate) use kafka::{check_mechanism, check_properties, check_security};
pub use registry::RegistrySettings;
pub(crate) use registry::check_registry;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// This process.
    pub node: NodeSettings,
    /// The API's listener.
    pub http: HttpSettings,
    /// The listener for gRPC.
    pub grpc: GrpcSettings,
    /// The listener for operators.
    pub admin: AdminSettings,
    /// Where files lie.
    pub data: DataSettings,
    /// Definitions that are loaded at start.
    pub resources: ResourcesSettings,
    /// Where runs are remembered.
    pub store: StoreSettings,
    /// Bounds of runs.
    pub runs: RunsSettings,
    /// Bounds of models.
    pub models: ModelsSettings,
    /// This node among others.
    pub cluster: ClusterSettings,
    /// The store of short-lived things that nodes share.
    pub redis: RedisSettings,
    /// Where the records of streams come from and results go.
    pub kafka: KafkaSettings,
    /// Where the schemas of records are.
    pub registry: RegistrySettings,
    /// Calls to other services.
    pub egress: EgressSettings,
    /// What is written to standard error.
    pub log: LogSettings,
    /// How the process ends.
    pub shutdown: ShutdownSettings,
    /// Where each value comes from.
    pub origins: Origins,
}

/// This process.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// Name, written beside the shards that it owns.
    pub name: String,
}

/// The API's listener.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// Requests that are worked on at one time.
    pub max_in_flight: u32,
    /// Requests taken per second; 0 for no bound.
    pub requests_per_second: u32,
    /// Longest `?wait=`.
    pub max_wait: Duration,
    /// Longest time for a request, beside its wait.
    pub request_timeout: Duration,
}

/// The listener for gRPC. Sizes and times of its calls are bounded like those of HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcSettings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
}

/// The listener for operators.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminSettings {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
}

/// Where files lie.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSettings {
    /// The folder of everything that is durable.
    pub folder: PathBuf,
}

/// Definitions that are loaded at start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResourcesSettings {
    /// The folder that holds them.
    pub folder: Option<PathBuf>,
}

/// Where runs are remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// `sqlite:` in the data folder, `sqlite:PATH` elsewhere, `postgres://` for a database that nodes share, `memory:` for
    /// nothing that lasts.
    pub url: StoreUrl,
}

/// Bounds of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunsSettings {
    /// Run actors at one time.
    pub max_live: u64,
    /// Unfinished runs past which no more are taken.
    pub max_unfinished: u64,
    /// Results that may wait to be sent, for each node that serves runs; past that no records are read.
    pub max_outbox: u64,
    /// Number of shards, fixed for the life of a store.
    pub shards: u16,
    /// How long ended runs are kept; zero keeps them for ever.
    pub retention: Duration,
    /// Unfinished runs brought up per second after a start.
    pub recovery_per_second: u32,
}

/// Bounds of models.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelsSettings {
    /// Threads that compute; 0 for as many as there are processors.
    pub threads: u32,
    /// Where model files are brought to. Once loaded, none only where the environment names no home either.
    pub cache_folder: Option<PathBuf>,
    /// Folder with the libraries of TensorFlow; fetched where there is none.
    pub tensorflow: Option<PathBuf>,
    /// Memory that models may take; 0 for no bound.
    pub memory_bytes: u64,
}

/// Calls to other services.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressSettings {
    /// Where they may go: hosts, addresses and blocks with commas between; `!` before what is refused.
    pub allow: String,
    /// Calls under way at one time.
    pub max_in_flight: u32,
    /// Calls under way at one time to one host and port.
    pub max_in_flight_per_host: u32,
    /// Largest body of an answer.
    pub max_answer_bytes: u64,
}

/// What is written to standard error.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Directives such as `info,motet_actors=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Json];

    /// The name in files and variables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq)]
pub struct ShutdownSettings {
    /// How long live runs may take to end.
    pub grace: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: "motet".to_owned() }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 8080).into(),
            max_body_bytes: 8 << 20,
            max_in_flight: 1024,
            requests_per_second: 0,
            max_wait: Duration::from_secs(60),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 8081).into() }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 9090).into() }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self { folder: "./motet-data".into() }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: "sqlite:".into() }
    }
}

impl Default for RunsSettings {
    fn default() -> Self {
        Self {
            max_live: 10_000,
            max_unfinished: 100_000,
            max_outbox: 100_000,
            shards: 64,
            retention: Duration::from_secs(7 * 24 * 3600),
            recovery_per_second: 2000,
        }
    }
}

impl Default for ModelsSettings {
    fn default() -> Self {
        Self { threads: 0, cache_folder: None, tensorflow: None, memory_bytes: 4 << 30 }
    }
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self { allow: "*".to_owned(), max_in_flight: 1024, max_in_flight_per_host: 256, max_answer_bytes: 8 << 20 }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30) }
    }
}
