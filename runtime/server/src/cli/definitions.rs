//! Definition files on disk: found, read and checked by the engine's reader, all of them before anything is done.
//!
//! Never asks a server. Used by `check`, `apply` and `models fetch`.

use std::fs;
use std::path::{Path, PathBuf};

use motet_engine::definition::{Definition, Diagnostic, parse_definitions};

use super::failure::{CliError, CliResult};

/// Files that one command reads.
const MAX_FILES: usize = 10_000;
/// Folders inside folders.
const MAX_DEPTH: usize = 32;
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A file with what it says.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The path as the user wrote it, or below it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// Its definitions; empty where it has mistakes.
    pub(crate) definitions: Vec<Definition>,
    /// Its mistakes.
    pub(crate) mistakes: Vec<Diagnostic>,
}

/// Reads files and, recursively, folders in the order of their names.
pub(crate) fn read(paths: &[PathBuf]) -> CliResult<Vec<SourceFile>> {
    let mut found = Vec::new();
    for path in paths {
        let kind = fs::metadata(path).map_err(|error| {
            CliError::failed(format!("cannot read {}: {error}", path.display())).advise("check the path")
        })?;
        if kind.is_dir() {
            let before = found.len();
            collect(path, 0, &mut found)?;
            if found.len() == before {
                return Err(CliError::failed(format!("{} holds no definitions", path.display()))
                    .advise("definitions are files that end in .yaml, .yml or .json"));
            }
        } else {
            found.push(path.clone());
        }
    }
    let mut files: Vec<SourceFile> = found.iter().map(|path| read_file(path)).collect::<CliResult<_>>()?;
    report_twins(&mut files);
    Ok(files)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> CliResult {
    let fail = |error| CliError::failed(format!("cannot read {}: {error}", folder.display()));
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(fail)?
        .map(|entry| entry.map(|it| it.path()))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if hidden {
            continue;
        } else if path.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, found)?;
        } else if ENDINGS.contains(&ending) {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(CliError::failed(format!("more than {MAX_FILES} files")).advise("name a smaller folder"));
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> CliResult<SourceFile> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| CliError::failed(format!("cannot read {name}: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::failed(format!("{name} is no text in UTF-8")).advise("save the file as UTF-8"))?;
    let (definitions, mistakes) = match parse_definitions(&name, &text) {
        Ok(definitions) => (definitions, vec![]),
        Err(mistakes) => (vec![], mistakes),
    };
    Ok(SourceFile { name, text, definitions, mistakes })
}

/// The same definition in two files with different content is a mistake of the later file.
fn report_twins(files: &mut [SourceFile]) {
    let mut seen: Vec<(String, Definition)> = Vec::new();
    for file in files {
        for definition in &file.definitions {
            let twin = seen.iter().find(|(_, known)| known.identity() == definition.identity());
            match twin {
                Some((first, known)) if known.document() != definition.document() => {
                    let (kind, name, _) = definition.identity();
                    file.mistakes.push(Diagnostic {
                        file: file.name.clone(),
                        line: 1,
                        column: 1,
                        message: format!("the {kind} '{name}' is defined differently in {first}"),
                        advice: Some("give one of them another name or version".to_owned()),
                        code: "duplicate-definition",
                    });
                }
                Some(_) => {}
                None => seen.push((file.name.clone(), definition.clone())),
            }
        }
    }
}

/// Where definitions of a kind live on a server.
pub(crate) fn path(definition: &Definition) -> String {
    let (_, name, _) = definition.identity();
    let kinds = match definition {
        Definition::Workflow(_) => "workflows",
        Definition::Model(_) => "models",
        Definition::Index(_) => "indexes",
        Definition::Schedule(_) => "schedules",
        Definition::Stream(_) => "streams",
    };
    format!("/api/v1/{kinds}/{name}")
}

/// The order in which a server takes definitions: what is called before what calls.
pub(crate) fn rank(definition: &Definition) -> u8 {
    match definition {
        Definition::Model(_) => 0,
        Definition::Index(_) => 1,
        Definition::Workflow(_) => 2,
        Definition::Schedule(_) => 3,
        Definition::Stream(_) => 4,
    }
}
