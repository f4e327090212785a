//! Replaces this process, once it is held, with an interpreter that has the same socket.
//!
//! Used by `lib`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use motet_engine::failure::{Failure, FailureClass};
use motet_models::child::wire::Layer;

/// Comes back only when the interpreter cannot be run. The script is told the settings and what holds it, as JSON.
pub(crate) fn turn_into(
    interpreter: &Path,
    script: &str,
    settings: &serde_json::Value,
    threads: usize,
    scratch: &Path,
    layers: &[Layer],
) -> Failure {
    let told = serde_json::json!({"settings": settings, "isolation": layers}).to_string();
    let threads =
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, threads.to_string()));
    let mut command = Command::new(interpreter);
    command.args(["-I", "-B", "-u", "-c", script, &told]).envs(threads).env("TMPDIR", scratch).env("HOME", scratch);
    let error = command.current_dir(scratch).exec();
    let words = format!("{} cannot be run: {error}; name another one in parameters.interpreter", interpreter.display());
    Failure::new(FailureClass::Invalid, words)
}
