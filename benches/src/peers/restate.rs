//! Restate: its server as one durable node, and a service with its Rust SDK in a process of its own.
//!
//! The server's disk settings stay as they come (the write-ahead log is synced). Telemetry is off in every case: a
//! measurement calls nobody.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use motet_tests::client::Client;
use motet_tests::ports::free_address;
use rustix::process::Signal;
use serde_json::json;

use super::process::Process;
use super::{Running, dbos, install};
use crate::load::{KEY, Work};

/// What is tuned.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    partitions: Option<u32>,
    nodelay: bool,
}

impl Settings {
    /// 24 partitions, and sockets that may hold back small packets.
    pub const AS_IT_COMES: Self = Self { partitions: None, nodelay: false };
    /// What was best on two cores of 1, 2, 4 and 24 partitions, and what an SDK's server should set by itself.
    pub const TUNED: Self = Self { partitions: Some(2), nodelay: true };
}

pub(super) async fn start(folder: &Path, settings: Settings, echo: Option<&str>) -> Result<Running> {
    let [ingress, admin, between_nodes, listen] = std::array::from_fn(|_| free_address());
    let mut service = Command::new(install::restate_service());
    service.env("LISTEN", listen.to_string()).env("NODELAY", if settings.nodelay { "1" } else { "0" });
    service.env_remove("STEP_URL").envs(echo.map(|url| ("STEP_URL", url)));
    let mut service = Process::start("restate-service", &mut service, folder, Signal::INT)?;
    service.listens(listen).await?;

    let mut server = server(folder, settings, [ingress, admin, between_nodes])?;
    server.listens(ingress).await?;
    register(&mut server, admin, listen).await?;
    let path = |key: &str| format!("/Three/{key}/run");
    let client = Client::new(ingress, ingress);
    let first = server.until_some(async || {
        let reply = client.post(&path("first"), &json!("a")).await.ok()?;
        (reply.status == 200).then_some(())
    });
    first.await.context("no first run")?;
    let work =
        Work { to: ingress, path: path(KEY), body: "\"what the first step is asked\"".to_owned(), good: dbos::good() };
    Ok(Running::of_processes(work, vec![server, service]))
}

fn server(folder: &Path, settings: Settings, [ingress, admin, between_nodes]: [SocketAddr; 3]) -> Result<Process> {
    let mut command = Command::new(install::restate_server()?);
    command
        .args(["--no-logo", "--listen-mode", "tcp"])
        .env("RESTATE_BASE_DIR", folder.join("restate"))
        .env("RESTATE_NODE_NAME", "bench")
        .env("RESTATE_DISABLE_TELEMETRY", "true")
        .env("RESTATE_LOG_FILTER", "warn")
        // Restate listens on every interface unless told otherwise.
        .env("RESTATE_BIND_ADDRESS", between_nodes.to_string())
        .env("RESTATE_ADVERTISED_ADDRESS", format!("http://{between_nodes}/"))
        .env("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string())
        .env("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string());
    if let Some(partitions) = settings.partitions {
        command.env("RESTATE_DEFAULT_NUM_PARTITIONS", partitions.to_string());
    }
    Process::start("restate-server", &mut command, folder, Signal::TERM)
}

async fn register(server: &mut Process, admin: SocketAddr, service: SocketAddr) -> Result<()> {
    let client = Client::new(admin, admin);
    let deployment = json!({ "uri": format!("http://{service}/") });
    let registered = server.until_some(async || {
        let reply = client.post("/deployments", &deployment).await.ok()?;
        reply.status.is_success().then_some(())
    });
    registered.await.context("the service is not registered")
}
