//! DBOS for TypeScript: one Node process behind its own HTTP server, on PostgreSQL as `initdb` makes it.
//!
//! The pool keeps its default size: a larger one was measured and does not help.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use motet_tests::client::Client;
use motet_tests::ports::free_address;
use rustix::process::Signal;
use serde_json::json;

use super::postgres::Postgres;
use super::process::Process;
use super::{Running, install};
use crate::echo;
use crate::load::Work;

pub(super) async fn start(folder: &Path, echo: Option<&str>) -> Result<Running> {
    let postgres = Postgres::start(folder).await?;
    let listen = free_address();
    let mut command = Command::new("node");
    command.arg(install::dbos_app()).env("LISTEN_PORT", listen.port().to_string());
    command.env("DATABASE_URL", postgres.url("dbos")).env_remove("STEP_URL").envs(echo.map(|url| ("STEP_URL", url)));
    let mut app = Process::start("dbos", &mut command, folder, Signal::TERM)?;
    app.listens(listen).await?;
    let first = Client::new(listen, listen).post("/", &json!({ "text": "a" })).await?;
    first.expect(200).context("no first run")?;
    let work = Work {
        to: listen,
        path: "/".to_owned(),
        body: r#"{"text":"what the first step is asked"}"#.to_owned(),
        good: good(),
    };
    Ok(Running::of_processes(work, vec![app, postgres.process]))
}

/// What a run's output holds, whether its last step answered in process or was the echo server's JSON text.
pub(super) fn good() -> String {
    "x".repeat(echo::BODY_BYTES - 2)
}
