//! What the comparison needs besides Motet, installed into `peers` in the build folder: once per version.
//!
//! Versions are pinned by the lock files below `benches/peers`; scripts of packages are not run. Installs nothing
//! outside the build folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use motet_tests::place::{build_folder, workspace};

use super::{Engine, postgres};

/// The oldest Node that DBOS runs on.
const NODE_MAJOR: u32 = 20;

/// Installs what these engines need.
///
/// # Errors
/// When something is missing or cannot be installed; with advice.
pub fn prepare(engines: &[Engine]) -> Result<()> {
    let restate = engines.iter().any(|engine| matches!(engine, Engine::Restate | Engine::RestateTuned));
    let dbos = engines.contains(&Engine::Dbos);
    if engines.iter().any(|engine| engine.needs_postgres()) {
        postgres::check()?;
    }
    if restate || dbos {
        check_node()?;
    }
    if restate {
        npm("restate")?;
        build_restate_service()?;
    }
    if dbos {
        npm("dbos")?;
        fs::copy(sources("dbos").join("app.mjs"), dbos_app())?;
    }
    Ok(())
}

/// The service that is built with Restate's SDK.
#[must_use]
pub fn restate_service() -> PathBuf {
    installed("restate").join("build/release/motet-bench-restate")
}

/// Restate's server, out of the package for this machine.
///
/// # Errors
/// When the package has no server for this machine.
pub fn restate_server() -> Result<PathBuf> {
    let machine = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (system, processor) => bail!("there is no Restate server for {system} on {processor}"),
    };
    let package = format!("node_modules/@restatedev/restate-server-{machine}");
    Ok(installed("restate").join(package).join("bin/restate-server"))
}

/// The program of the DBOS side.
#[must_use]
pub fn dbos_app() -> PathBuf {
    installed("dbos").join("app.mjs")
}

fn installed(peer: &str) -> PathBuf {
    let build = build_folder();
    build.parent().unwrap_or(&build).join("peers").join(peer)
}

fn sources(peer: &str) -> PathBuf {
    workspace().join("benches/peers").join(peer)
}

fn check_node() -> Result<()> {
    let advice =
        || format!("Node {NODE_MAJOR} or newer and npm are needed: install them, or leave out what needs them");
    let output = Command::new("node").arg("--version").output().with_context(advice)?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    ensure!(major.is_some_and(|major| major >= NODE_MAJOR), "{}; this is {version}", advice());
    ensure!(Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success()), "{}", advice());
    Ok(())
}

/// Installs the packages of a lock file unless they are there already.
fn npm(peer: &str) -> Result<()> {
    let (from, to) = (sources(peer), installed(peer));
    fs::create_dir_all(&to)?;
    let lock = "package-lock.json";
    let current = to.join("node_modules").is_dir() && same(&from.join(lock), &to.join(lock));
    if current {
        return Ok(());
    }
    for file in ["package.json", lock] {
        fs::copy(from.join(file), to.join(file))?;
    }
    println!("installing the npm packages of {peer}");
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&to)
        .status()
        .context("npm cannot be started")?;
    if !status.success() {
        // What is half installed must not count as installed the next time.
        let _ = fs::remove_file(to.join(lock));
        bail!("npm could not install the packages of {peer}: see above; it needs the npm registry");
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).is_ok_and(|one| fs::read(other).is_ok_and(|other| one == other))
}

/// Cargo itself finds out whether anything is to be built.
fn build_restate_service() -> Result<()> {
    println!("building the service with Restate's SDK");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(sources("restate").join("Cargo.toml"))
        .arg("--target-dir")
        .arg(installed("restate").join("build"))
        .current_dir(workspace())
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "cargo could not build the service with Restate's SDK: see above");
    Ok(())
}
