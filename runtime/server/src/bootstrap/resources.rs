//! Puts every definition of a folder at start; all mistakes of all files are told together.
//!
//! Never watches the folder. Used by `bootstrap`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use motet_actors::router::{Router, system_caller};
use motet_engine::definition::document::parse_definitions;
use motet_engine::definition::{Definition, Diagnostic};
use motet_engine::id::Namespace;
use motet_store::port::PutOutcome;

/// Names of files that hold definitions end like this.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Folders inside one another that are looked into.
const MAX_DEPTH: usize = 16;

/// Reads and puts everything under `folder`.
pub(super) async fn load(router: &Arc<Router>, folder: &Path) -> anyhow::Result<()> {
    let root = folder.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&root)).await.context("the resources folder")?;
    let found = read.with_context(|| format!("the resources folder {} cannot be read", folder.display()))?;
    let (definitions, mistakes) = parse(found);
    if !mistakes.is_empty() {
        let words: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        bail!("{} in {}:\n{}", counted(words.len(), "mistake"), folder.display(), words.join("\n"));
    }
    let caller = system_caller(Namespace::default());
    let mut refused = vec![];
    for (file, definition) in &definitions {
        match router.put(&caller, definition).await {
            Ok(PutOutcome::Created | PutOutcome::Unchanged) => {}
            Ok(PutOutcome::Conflict) => refused.push(format!(
                "{file}: the store holds {} with other content under the same version; raise 'version'",
                called(definition)
            )),
            Err(error) => refused.push(format!("{file}: {}: {error}", called(definition))),
        }
    }
    if !refused.is_empty() {
        bail!("{} cannot be put:\n{}", counted(refused.len(), "definition"), refused.join("\n"));
    }
    tracing::info!(definitions = definitions.len(), folder = %folder.display(), "definitions loaded");
    Ok(())
}

fn parse(files: Vec<(String, String)>) -> (Vec<(String, Definition)>, Vec<Diagnostic>) {
    let (mut definitions, mut mistakes) = (vec![], vec![]);
    for (file, text) in files {
        match parse_definitions(&file, &text) {
            Ok(found) => definitions.extend(found.into_iter().map(|definition| (file.clone(), definition))),
            Err(found) => mistakes.extend(found),
        }
    }
    // What others refer to goes first, so that a run which comes up early finds its models.
    definitions.sort_by_key(|(_, definition)| match definition {
        Definition::Model(_) => 0,
        Definition::Index(_) => 1,
        Definition::Workflow(_) => 2,
        Definition::Schedule(_) => 3,
        Definition::Stream(_) => 4,
    });
    (definitions, mistakes)
}

/// The texts of all files by path, in the order of their paths.
fn read(root: &Path) -> std::io::Result<Vec<(String, String)>> {
    let mut paths = vec![];
    collect(root, 0, &mut paths)?;
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let told =
                |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            std::fs::read_to_string(&path).map(|text| (path.display().to_string(), text)).map_err(told)
        })
        .collect()
}

fn collect(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(std::io::Error::other(format!("{} lies too deep", folder.display())));
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // Mounted configuration holds its files behind links in folders whose names begin with dots.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth + 1, paths)?;
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
        {
            paths.push(path);
        }
    }
    Ok(())
}

/// Kind and name of a definition for people.
fn called(definition: &Definition) -> String {
    match definition {
        Definition::Workflow(workflow) => format!("workflow '{}' version {}", workflow.name, workflow.version),
        Definition::Model(model) => format!("model '{}' version {}", model.name, model.version),
        Definition::Index(index) => format!("index '{}'", index.name),
        Definition::Schedule(schedule) => format!("schedule '{}'", schedule.name),
        Definition::Stream(stream) => format!("stream '{}'", stream.name),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
