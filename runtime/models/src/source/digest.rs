//! SHA-256 of files, copying that counts and hashes on the way, and moving what was found right to its name.
//!
//! Blocks: never call it on the async executor. Used by `source`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use motet_engine::failure::Failure;
use sha2::{Digest, Sha256};

use crate::failure::{internal, invalid};

/// Bytes moved at once.
const BLOCK_BYTES: usize = 1 << 16;

/// A digest in lower-case hexadecimal.
pub(super) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of a text.
pub(super) fn of_text(text: &str) -> String {
    hex(Sha256::digest(text))
}

/// The SHA-256 of a file.
pub(super) fn of_file(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| internal(format!("{} cannot be read: {error}", path.display())))?;
    copy(file, std::io::sink(), &mut u64::MAX.clone())
}

/// Copies everything and gives its SHA-256. Takes the bytes off `allowed` and fails when that would go below 0.
pub(super) fn copy(mut from: impl Read, mut to: impl Write, allowed: &mut u64) -> Result<String, Failure> {
    let failed = |error: std::io::Error| internal(format!("copying failed: {error}"));
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = from.read(&mut block).map_err(failed)?;
        if read == 0 {
            to.flush().map_err(failed)?;
            return Ok(hex(hasher.finalize()));
        }
        *allowed = allowed.checked_sub(read as u64).ok_or_else(|| invalid("the artefact is larger than allowed"))?;
        hasher.update(&block[..read]);
        to.write_all(&block[..read]).map_err(failed)?;
    }
}

/// Moves a file to its name, making the folders on the way.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| internal(format!("{} cannot be written: {error}", to.display()));
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::rename(from, to).map_err(failed)
}
