//! Motet's side: the release binary with its default settings on a fresh folder, on SQLite or on PostgreSQL.
//!
//! Changes no setting but the store's and what is logged.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place::motet;

use super::Running;
use super::postgres::Postgres;
use crate::three_steps;

/// Where the store's place is set.
const STORE_URL: &str = "MOTET__STORE__URL";

pub(super) async fn start_on_sqlite(folder: &Path, echo: Option<&str>) -> Result<Running> {
    let node = Node::start(settings(folder)).await?;
    define(node, echo).await
}

pub(super) async fn start_on_postgres(folder: &Path, echo: Option<&str>) -> Result<Running> {
    let postgres = Postgres::start(folder).await?;
    let url = postgres.url("postgres");
    let migrated = Command::new(motet()).arg("migrate").env(STORE_URL, &url).output()?;
    ensure!(migrated.status.success(), "motet migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    let node = Node::start(settings(folder).with(STORE_URL, &url)).await?;
    let mut running = define(node, echo).await?;
    running.processes.push(postgres.process);
    Ok(running)
}

fn settings(folder: &Path) -> NodeSettings {
    NodeSettings::new(folder.join("motet")).with("MOTET__LOG__FILTER", "warn")
}

async fn define(node: Node, echo: Option<&str>) -> Result<Running> {
    let client = node.client();
    match echo {
        None => three_steps::define(&client).await?,
        Some(url) => drop(client.put_definition("workflows", "three", &three_steps::calling(url)).await?),
    }
    Ok(Running::of_node(three_steps::submit(node.http()), node))
}
