//! Motet's side: the release binary with its default settings on a fresh folder, on SQLite or on PostgreSQL.
//!
//! Tells what the binary does not know yet instead of failing over it.

use std::path::Path;

use anyhow::{Result, bail};
use motet_tests::node::{Node, NodeSettings};

use super::postgres::Postgres;
use super::{Running, Started};
use crate::three_steps;

/// What a node says about a `store.url` that it cannot serve.
const UNKNOWN_STORE: [&str; 2] = ["is no store", "knows no store"];

/// The code of a mistake: a definition with a call that there is not.
const UNKNOWN_CALL: &str = "unknown-call";

pub(super) async fn start_on_sqlite(folder: &Path, echo: Option<&str>) -> Result<Started> {
    let node = Node::start(settings(folder)).await?;
    define(node, echo).await
}

pub(super) async fn start_on_postgres(folder: &Path, echo: Option<&str>) -> Result<Started> {
    let postgres = Postgres::start(folder).await?;
    let mut node = Node::prepare(settings(folder).with("MOTET__STORE__URL", &postgres.url("postgres")));
    if let Err(error) = node.restart().await {
        let log = node.log();
        let refusal = log.lines().find(|line| UNKNOWN_STORE.iter().any(|words| line.contains(words)));
        postgres.process.stop()?;
        return match refusal {
            Some(line) => Ok(Started::NotInThisBuild(line.trim().to_owned())),
            None => Err(error),
        };
    }
    let mut started = define(node, echo).await?;
    if let Started::Running(running) = &mut started {
        running.processes.push(postgres.process);
    }
    Ok(started)
}

fn settings(folder: &Path) -> NodeSettings {
    NodeSettings::new(folder.join("motet")).with("MOTET__LOG__FILTER", "warn")
}

async fn define(node: Node, echo: Option<&str>) -> Result<Started> {
    let client = node.client();
    match echo {
        None => three_steps::define(&client).await?,
        Some(url) => {
            if let Err(error) = client.put_definition("workflows", "three", &three_steps::calling(url)).await {
                let refusal = error.to_string();
                if refusal.contains(UNKNOWN_CALL) {
                    return Ok(Started::NotInThisBuild("there is no call 'http'".to_owned()));
                }
                bail!("{refusal}");
            }
        }
    }
    Ok(Started::Running(Box::new(Running::of_node(three_steps::submit(node.http()), node))))
}
