//! The models of the demo: put on the server and waited for, with progress; without network the small one that the
//! binary carries.
//!
//! Used by the demo.

use std::time::{Duration, Instant};

use motet_engine::definition::Definition;
use serde_json::Value;

use super::definitions::{self, CLASSIFIER, Embedder};
use crate::cli::client::Client;
use crate::cli::definitions::path;
use crate::cli::failure::{CliError, CliResult};
use crate::cli::output::Output;

/// How often the server is asked how far a load has come.
const POLL: Duration = Duration::from_millis(100);
/// How long a model may take to come, its download included.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The models as they were loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Which model makes vectors.
    pub(crate) embedder: Embedder,
    /// Length of its vectors.
    pub(crate) dimension: u64,
    /// How long the embedding model took to come.
    pub(crate) took: Duration,
    /// Why it is not the one that was wanted.
    pub(crate) why_offline: Option<String>,
}

/// Loads the classifier and an embedding model.
pub(crate) async fn load(client: &Client, output: &Output, offline: bool) -> CliResult<Loaded> {
    put(client, CLASSIFIER).await?;
    let mut why_offline = offline.then(|| "--offline".to_owned());
    let began = Instant::now();
    let mut found = None;
    if !offline {
        put(client, Embedder::MiniLm.model()).await?;
        match ready(client, output, Embedder::MiniLm.model()).await? {
            Ok(model) => found = Some((Embedder::MiniLm, model)),
            Err(why) => why_offline = Some(why),
        }
    }
    let (embedder, model) = match found {
        Some(found) => found,
        None => {
            put(client, Embedder::Offline.model()).await?;
            let model = ready(client, output, Embedder::Offline.model()).await?;
            (Embedder::Offline, model.map_err(|why| CliError::failed(format!("the embedding model fails: {why}")))?)
        }
    };
    let took = began.elapsed();
    ready(client, output, CLASSIFIER).await?.map_err(|why| CliError::failed(format!("the classifier fails: {why}")))?;
    let dimension = dimension(&model)
        .ok_or_else(|| CliError::failed("the embedding model does not say how long its vectors are"))?;
    Ok(Loaded { embedder, dimension, took, why_offline })
}

async fn put(client: &Client, name: &str) -> CliResult {
    let model = Definition::Model(definitions::model(name)?);
    client.put(&path(&model), model.document()).await.map(drop)
}

/// Waits until a model can answer; the inner error says why it cannot.
async fn ready(client: &Client, output: &Output, name: &str) -> CliResult<Result<Value, String>> {
    let progress = output.progress(&format!("loading {name}"), 0, true);
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(POLL);
    let mut said = String::new();
    while Instant::now() < deadline {
        ticks.tick().await;
        let model = client.get(&format!("/api/v1/models/{name}")).await?;
        match model["state"].as_str() {
            Some("ready") => return Ok(Ok(model)),
            Some("failed") => {
                let why = model["error"]["message"].as_str().map_or_else(|| model["error"].to_string(), str::to_owned);
                return Ok(Err(why));
            }
            _ => {}
        }
        let loading = &model["loading"];
        let what = loading["what"].as_str().unwrap_or("loading");
        if what != said {
            said = what.to_owned();
            progress.rename(&crate::cli::output::shorten(what, 24));
        }
        progress.set(loading["bytes"].as_u64().unwrap_or(0), loading["total"].as_u64());
    }
    Ok(Err(format!("it is not loaded after {} minutes", PATIENCE.as_secs() / 60)))
}

fn dimension(model: &Value) -> Option<u64> {
    let outputs = model["signature"]["outputs"].as_array()?;
    let vector = outputs.iter().find(|output| output["name"] == "vector")?;
    vector["shape"].as_array()?.last()?.as_u64()
}
