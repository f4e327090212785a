//! Lets the user's pip download one wheel, so that its configuration, mirrors and credentials are honoured.
//!
//! Never installs anything and never runs code of the package: wheels only. Used by `source`.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use motet_engine::failure::{Failure, FailureClass};
use tokio::process::Command;
use tokio::time::timeout;

use super::Limits;
use crate::failure::{internal, invalid, timeout as timed_out, unavailable};

/// Characters of pip's complaint that are shown.
const SHOWN_CHARACTERS: usize = 400;

/// Which wheel.
pub(super) struct Wheel<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// The Python that it must be for, when it is not the one that fetches.
    pub(super) python: Option<&'a str>,
}

/// Downloads the wheel into `folder`, which must be empty, and gives its path.
pub(super) async fn download(
    python: &OsStr,
    wheel: Wheel<'_>,
    folder: &Path,
    limits: &Limits,
) -> Result<PathBuf, Failure> {
    let requirement = format!("{}=={}", wheel.name, wheel.version);
    let foreign = wheel.python.map(|version| ["--implementation", "cp", "--python-version", version]);
    let child = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"])
        .args(foreign.iter().flatten())
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(folder)
        .arg(&requirement)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| start_failure(python, &error))?;
    let ended = timeout(limits.total, child.wait_with_output()).await;
    let output = ended
        .map_err(|_| timed_out(format!("pip did not download {requirement} within {:?}", limits.total)))?
        .map_err(|error| internal(format!("pip could not be awaited: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let skipped = complaint.chars().count().saturating_sub(SHOWN_CHARACTERS);
        let end: String = complaint.trim_end().chars().skip(skipped).collect();
        return Err(unavailable(format!("pip cannot download {requirement} ({}): {end}", output.status)));
    }
    found(folder).await?.ok_or_else(|| invalid(format!("pip left no wheel for {requirement}")))
}

fn start_failure(python: &OsStr, error: &std::io::Error) -> Failure {
    let class = if error.kind() == ErrorKind::NotFound { FailureClass::NotFound } else { FailureClass::Unavailable };
    let python = python.to_string_lossy();
    Failure::new(
        class,
        format!("pip cannot be started with '{python}' ({error}); give the model as file:FOLDER instead"),
    )
}

async fn found(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let failed = |error: std::io::Error| internal(format!("{} cannot be listed: {error}", folder.display()));
    let mut entries = tokio::fs::read_dir(folder).await.map_err(failed)?;
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        if entry.path().extension() == Some(OsStr::new("whl")) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
