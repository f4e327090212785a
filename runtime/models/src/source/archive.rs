//! Takes named files out of zip archives and wheels, also out of a zip inside one.
//!
//! Nothing is written but the files that were asked for, under the names under which they were asked for, and only
//! when their digest is right: an archive cannot choose a path. Blocks. Used by `source`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use motet_engine::failure::Failure;
use zip::ZipArchive;

use super::digest;
use super::place::is_archive;
use crate::failure::{internal, invalid};

/// Archives inside archives that are looked into.
const MAX_NESTING: u32 = 1;

/// Entries that an archive may have.
const MAX_ENTRIES: usize = 100_000;

/// Puts the files of `wanted` (digest by name) into `folder`. A file is found under its name in any folder of the
/// archive. What is not yet known to be right lies in `scratch`, on the same file system. `allowed` bounds the bytes
/// that are unpacked.
pub(super) fn unpack(
    archive: &Path,
    wanted: &BTreeMap<String, String>,
    folder: &Path,
    scratch: &Path,
    allowed: u64,
) -> Result<(), Failure> {
    let mut unpacker = Unpacker { wanted: wanted.clone(), folder, scratch, allowed, mismatched: vec![] };
    unpacker.search(archive, 0)?;
    let Some(missing) = unpacker.wanted.keys().next() else { return Ok(()) };
    match unpacker.mismatched.iter().find(|(name, _)| name == missing) {
        Some((name, digest)) => {
            Err(invalid(format!("'{name}' in the archive has the SHA-256 {digest}, not the stated one")))
        }
        None => Err(invalid(format!("the archive holds no file '{missing}'"))),
    }
}

struct Unpacker<'a> {
    /// What is still to be found.
    wanted: BTreeMap<String, String>,
    folder: &'a Path,
    scratch: &'a Path,
    allowed: u64,
    /// Files that had the name but not the digest.
    mismatched: Vec<(String, String)>,
}

impl Unpacker<'_> {
    fn search(&mut self, path: &Path, nesting: u32) -> Result<(), Failure> {
        let file = File::open(path).map_err(|error| internal(format!("{} cannot be read: {error}", path.display())))?;
        let broken = |error: zip::result::ZipError| invalid(format!("the archive cannot be read: {error}"));
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        if archive.len() > MAX_ENTRIES {
            return Err(invalid(format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        let mut inner = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index(index).map_err(broken)?;
            let Some(name) = entry.enclosed_name() else {
                return Err(invalid("the archive has an entry that points out of its folder"));
            };
            if !entry.is_file() {
                continue;
            }
            let entry_name = name.to_string_lossy().replace('\\', "/");
            if is_archive(&entry_name) {
                inner.push(index);
            }
            let matching = |wanted: &&String| entry_name == **wanted || entry_name.ends_with(&format!("/{wanted}"));
            if let Some(wanted) = self.wanted.keys().find(matching).cloned() {
                self.extract(&wanted, entry)?;
            }
        }
        for index in inner {
            if self.wanted.is_empty() || nesting == MAX_NESTING {
                break;
            }
            let inside = self.scratch.join(format!("inner-{nesting}"));
            let target = create(&inside)?;
            digest::copy(archive.by_index(index).map_err(broken)?, target, &mut self.allowed)?;
            self.search(&inside, nesting + 1)?;
        }
        Ok(())
    }

    fn extract(&mut self, wanted: &str, entry: impl std::io::Read) -> Result<(), Failure> {
        let unproven = self.scratch.join("unproven");
        let found = digest::copy(entry, create(&unproven)?, &mut self.allowed)?;
        if self.wanted.get(wanted) == Some(&found) {
            digest::rename(&unproven, &self.folder.join(wanted))?;
            self.wanted.remove(wanted);
        } else {
            self.mismatched.push((wanted.to_owned(), found));
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file =
        File::create(path).map_err(|error| internal(format!("{} cannot be written: {error}", path.display())))?;
    Ok(BufWriter::new(file))
}
