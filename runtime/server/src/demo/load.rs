//! The work of the demo as a user would bring it: many requests at one time, over HTTP, each a durable run.
//!
//! Never retries a run and never looks into the server. Used by the demo.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::corpus::{Corpus, Document, Question};
use super::definitions::Embedder;
use crate::cli::client::{Client, segment};
use crate::cli::failure::{CliError, CliResult};
use crate::cli::output::{Output, text};

/// Requests that wait for their answers at one time.
const CONCURRENCY: usize = 64;
/// Documents of one indexing run: few, so that batches are made of many runs.
const DOCUMENTS_PER_RUN: usize = 4;
/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run that ended, as the server shows it.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The run.
    pub(crate) run: Value,
    /// From sending the request to its answer.
    pub(crate) took: Duration,
}

/// Many runs that were brought at one time.
#[derive(Debug)]
pub(crate) struct Load {
    /// In the order in which they were brought.
    pub(crate) runs: Vec<Ended>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

/// Stores every document of the corpus.
pub(crate) async fn index(client: &Client, output: &Output, embedder: Embedder, corpus: &Corpus) -> CliResult<Load> {
    let inputs = corpus
        .documents
        .chunks(DOCUMENTS_PER_RUN)
        .map(|documents: &[Document]| json!({"collection": corpus.collection, "documents": documents}));
    bring(client, output, "indexing", "index-articles", embedder, inputs.collect()).await
}

/// Asks every question.
pub(crate) async fn answer<'q>(
    client: &Client,
    output: &Output,
    embedder: Embedder,
    corpus: &Corpus,
    questions: impl Iterator<Item = &'q Question>,
) -> CliResult<Load> {
    let inputs = questions.map(|question| json!({"question": question.text, "collection": corpus.collection}));
    bring(client, output, "answering", "answer", embedder, inputs.collect()).await
}

async fn bring(
    client: &Client,
    output: &Output,
    what: &str,
    workflow: &str,
    embedder: Embedder,
    inputs: Vec<Value>,
) -> CliResult<Load> {
    let progress = output.progress(what, inputs.len() as u64, false);
    let progress = &progress;
    let began = Instant::now();
    let requests = inputs.into_iter().map(|input| async move {
        let ended = one(client, workflow, embedder, input).await;
        progress.advance();
        ended
    });
    let runs = futures::stream::iter(requests).buffered(CONCURRENCY).try_collect().await?;
    Ok(Load { runs, took: began.elapsed() })
}

async fn one(client: &Client, workflow: &str, embedder: Embedder, input: Value) -> CliResult<Ended> {
    let path = format!("/api/v1/workflows/{workflow}/runs?wait={}s", PATIENCE.as_secs());
    let body = json!({"input": input, "version": embedder.version(), "tags": ["demo"]});
    let began = Instant::now();
    let run = client.post(&path, &body, PATIENCE).await?.body;
    let run = if crate::cli::is_end(&run) { run } else { wait(client, &text(&run, "id")).await? };
    if run["state"] != "succeeded" {
        let why = run["error"]["message"].as_str().map_or_else(|| run["error"].to_string(), str::to_owned);
        return Err(CliError::failed(format!("a run of '{workflow}' {}: {why}", text(&run, "state")))
            .advise("look into server.log in the data folder; --keep keeps the folder"));
    }
    Ok(Ended { run, took: began.elapsed() })
}

/// Submits runs without waiting for any; gives their ids.
pub(crate) async fn submit<'q>(
    client: &Client,
    embedder: Embedder,
    corpus: &Corpus,
    questions: impl Iterator<Item = &'q Question>,
) -> CliResult<Vec<String>> {
    let requests = questions.map(|question| {
        let input = json!({"question": question.text, "collection": corpus.collection});
        let body = json!({"input": input, "version": embedder.version(), "tags": ["demo", "restart"]});
        async move {
            let answer = client.post("/api/v1/workflows/answer/runs", &body, Duration::ZERO).await?;
            Ok::<_, CliError>(text(&answer.body, "id"))
        }
    });
    futures::stream::iter(requests.collect::<Vec<_>>()).buffered(CONCURRENCY).try_collect().await
}

/// Waits for the end of runs that were submitted.
pub(crate) async fn wait_all(client: &Client, ids: &[String]) -> CliResult<Vec<Value>> {
    futures::stream::iter(ids).map(|id| wait(client, id)).buffered(CONCURRENCY).try_collect().await
}

/// Waits for the end of one run by its events.
async fn wait(client: &Client, id: &str) -> CliResult<Value> {
    let followed = tokio::time::timeout(PATIENCE, crate::cli::follow(client, id)).await;
    followed.map_err(|_| CliError::failed(format!("the run {id} takes longer than {} s", PATIENCE.as_secs())))??;
    read(client, id).await
}

/// A run as the server shows it.
pub(crate) async fn read(client: &Client, id: &str) -> CliResult<Value> {
    client.get(&format!("/api/v1/runs/{}", segment(id))).await
}
