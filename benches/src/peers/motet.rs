//! Motet's side: the release binary with its default settings on a fresh folder, on SQLite or on PostgreSQL.
//!
//! Changes no setting but the store's and what is logged.

use std::path::Path;

use anyhow::Result;
use motet_tests::node::{Node, NodeSettings};

use super::Running;
use super::postgres::Postgres;
use crate::three_steps;

pub(super) async fn start_on_sqlite(folder: &Path, echo: Option<&str>) -> Result<Running> {
    let node = Node::start(settings(folder)).await?;
    define(node, echo).await
}

pub(super) async fn start_on_postgres(folder: &Path, echo: Option<&str>) -> Result<Running> {
    let postgres = Postgres::start(folder).await?;
    let node = Node::start(settings(folder).with("MOTET__STORE__URL", &postgres.url("postgres"))).await?;
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
