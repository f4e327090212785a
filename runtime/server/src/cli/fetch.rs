//! `motet models fetch`: brings what models need into the cache ahead of the first call, and checks it.
//!
//! Asks no server. Used by `models`.

use std::path::PathBuf;
use std::sync::Arc;

use motet_engine::definition::{Definition, ModelDefinition};
use motet_models::source::{ArtefactCache, Progress, needs_fetch};
use serde_json::{Value, json};

use super::failure::{CliError, CliResult, Exit};
use super::output::{shorten, text};
use super::{Context, check, config, definitions};

/// The model that the binary knows by name.
const KNOWN: &str = "minilm";

/// Fetches what every named model needs.
pub(crate) async fn execute(context: &Context, what: &[PathBuf], cache: Option<PathBuf>) -> CliResult {
    let output = &context.output;
    let models = models(context, what)?;
    let folder = match cache {
        Some(folder) => folder,
        None => default_folder()?,
    };
    let cache = ArtefactCache::new(&folder);
    let mut rows: Vec<Value> = Vec::new();
    for model in &models {
        let row = |state: &str, place: &str| json!({"model": model.name.to_string(), "version": model.version, "state": state, "place": place});
        let Some(source) = model.source.as_ref().filter(|source| needs_fetch(source)) else {
            rows.push(row("not needed", ""));
            continue;
        };
        let state = if cache.cached(source).is_some() { "in the cache" } else { "fetched" };
        let progress = output.progress(&format!("fetching {}", model.name), 0, true);
        let report = |now: Progress| {
            progress.rename(&shorten(&now.what, 24));
            progress.set(now.bytes, now.total);
        };
        let place = cache.fetch(source, &report).await.map_err(|failure| {
            CliError::failed(format!("cannot fetch model '{}': {}", model.name, failure.message))
                .advise("check the network and pip's settings, or point source.uri at a folder: file:PATH")
        })?;
        rows.push(row(state, &place.display().to_string()));
    }
    if output.is_json() {
        return output.json(&json!({"cache": folder.display().to_string(), "models": rows}));
    }
    let rows = rows.iter().map(|row| ["model", "version", "state", "place"].map(|key| text(row, key))).collect();
    output.table(["model", "version", "state", "place"], &[], rows)
}

/// Where a server with this user's settings keeps artefacts.
fn default_folder() -> CliResult<PathBuf> {
    let settings = config::settings(&super::serve::ServeArgs::default())?;
    Ok(settings.models.cache_folder.unwrap_or_else(|| settings.data.folder.join("models")))
}

fn models(context: &Context, what: &[PathBuf]) -> CliResult<Vec<Arc<ModelDefinition>>> {
    // A folder of the same name is written ./minilm.
    let (known, paths): (Vec<&PathBuf>, Vec<&PathBuf>) = what.iter().partition(|path| path.as_os_str() == KNOWN);
    let mut models = Vec::new();
    if !known.is_empty() {
        models.push(crate::demo::embedding_model()?);
    }
    let paths: Vec<PathBuf> = paths.into_iter().cloned().collect();
    let files = definitions::read(&paths)?;
    if files.iter().any(|file| !file.mistakes.is_empty()) {
        check::report(&context.output, &files)?;
        return Err(CliError::Silent(Exit::Failed));
    }
    models.extend(files.into_iter().flat_map(|file| file.definitions).filter_map(|definition| match definition {
        Definition::Model(model) => Some(model),
        _ => None,
    }));
    Ok(models)
}
