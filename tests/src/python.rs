//! Python with somebody else's client in it, in an environment of its own below the build folder.
//!
//! Installed once and kept; never the system's packages. Used by suites that call a node with real clients.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::place::workspace;

/// One installs at a time.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The Python of an environment that holds these packages, of which `module` can be imported; installed where it is not
/// there yet.
///
/// # Errors
/// Why it cannot be installed.
///
/// # Panics
/// When a test panicked while it installed.
pub fn environment(name: &str, module: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let _alone = INSTALLING.lock().unwrap();
    let folder = workspace().join("target/services").join(name);
    let python = folder.join("bin/python");
    let runs = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if runs(Command::new(&python).args(["-c", &format!("import {module}")])).is_err() {
        runs(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        runs(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--timeout", "20"]).args(packages))?;
    }
    Ok(python)
}
