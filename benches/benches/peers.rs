//! Durable runs per second beside other durable engines: the same three steps, over HTTP, on the same machine, in one
//! sitting, with the same load generator, everything synced to the disk.
//!
//! Arguments name the engines to measure, whole or in part; none means all. Installs the other engines into the build
//! folder. Not among the benches that run by default: `make bench-peers`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use motet_benches::echo::Echo;
use motet_benches::load::{Reached, closed_loop};
use motet_benches::machine;
use motet_benches::peers::comparison::{CLIENTS, Comparison, Series};
use motet_benches::peers::{self, Engine, Running, Steps, install};
use tokio::signal::unix::{Signal, SignalKind, signal};

const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(6);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    compare().await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn compare() -> Result<ExitCode> {
    let engines = chosen()?;
    machine::print_facts();
    println!("data on    {}", machine::file_system(&peers::ground()));
    install::prepare(&engines)?;
    let comparison = measure_all(&engines).await?;
    comparison.print();
    Ok(comparison.judge())
}

/// Ctrl-C, noted from the moment on at which this was made.
struct Interruption(Signal);

impl Interruption {
    /// Waits for `work`, but not past the interruption, so that what was started is stopped and its folder removed.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            done = work => Ok(done),
            _ = self.0.recv() => bail!("interrupted"),
        }
    }
}

/// The engines that the arguments name.
fn chosen() -> Result<Vec<Engine>> {
    // Cargo adds `--bench`.
    let names: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for name in &names {
        let known = Engine::ALL.map(|engine| engine.to_string());
        ensure!(known.iter().any(|engine| engine.contains(name)), "'{name}' is none of {}", known.join(", "));
    }
    let wanted = |engine: &Engine| names.is_empty() || names.iter().any(|name| engine.to_string().contains(name));
    Ok(Engine::ALL.into_iter().filter(wanted).collect())
}

async fn measure_all(engines: &[Engine]) -> Result<Comparison> {
    let echo = Echo::start()?;
    let mut interruption = Interruption(signal(SignalKind::interrupt())?);
    let mut comparison = Comparison::default();
    for steps in [Steps::InProcess, Steps::Http] {
        let url = echo.url();
        let called = (steps == Steps::Http).then_some(&*url);
        for &engine in engines {
            comparison.add(measure(engine, steps, called, &mut interruption).await?);
        }
    }
    Ok(comparison)
}

/// Measures an engine on a fresh folder. What it cannot do is told in the result, so that the others are measured.
async fn measure(engine: Engine, steps: Steps, echo: Option<&str>, interruption: &mut Interruption) -> Result<Series> {
    println!("measuring  {engine}, steps {steps}");
    interruption.or(machine::wait_until_quiet()).await?;
    let others_cores = interruption.or(machine::busy_cores(Duration::from_secs(1))).await?;
    let mut series = Series { engine, steps, others_cores, points: vec![], missing: None };
    let folder = tempfile::Builder::new().prefix("motet-peers-").tempdir_in(peers::ground())?;
    // Others may pass through to what is theirs below, and see nothing.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    match interruption.or(engine.start(folder.path(), echo)).await? {
        Err(error) => series.missing = Some(format!("{error:#}")),
        Ok(running) => {
            let measured = interruption.or(points(&running, &mut series.points)).await;
            let log_tails = running.log_tails();
            let stopped = running.stop().await;
            if let Err(error) = measured? {
                series.missing = Some(format!("{error:#}\n{log_tails}"));
            } else if let Err(error) = stopped {
                series.missing = Some(format!("{error:#}"));
            }
        }
    }
    Ok(series)
}

async fn points(running: &Running, points: &mut Vec<Reached>) -> Result<()> {
    for clients in CLIENTS {
        let reached = closed_loop(&running.work, clients, WARM_UP, TIME).await?;
        ensure!(!reached.times.is_empty(), "no run ended within {TIME:?} with {clients} clients");
        points.push(reached);
    }
    Ok(())
}
