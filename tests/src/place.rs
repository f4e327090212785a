//! Where things are: the workspace, the build folder, the binary under test.
//!
//! Used by the harness and by the test of the house rules.

use std::path::{Path, PathBuf};

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folder that holds the binaries of the same build as the running executable: two above `deps/<test>`.
#[must_use]
pub fn build_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.parent().unwrap();
    if folder.ends_with("deps") { folder.parent().unwrap().to_owned() } else { folder.to_owned() }
}

/// The `motet` binary of the same build; `MOTET_BINARY` names another one.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn motet() -> PathBuf {
    let binary = std::env::var_os("MOTET_BINARY").map_or_else(|| build_folder().join("motet"), PathBuf::from);
    assert!(binary.is_file(), "{} is missing: build it with `cargo build --workspace`", binary.display());
    binary
}
