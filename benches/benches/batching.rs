//! What durability costs a model: 256 runs at a time that embed one sentence each, against the bare backend.
//!
//! The bare backend gets batches of the size that the runs formed. Runs go through the actors and the store, in
//! process; HTTP is measured by `durable_runs`. The goal holds where the model is what takes the time. The embedder that
//! the binary carries needs some 20 us for a sentence, less than any durable run on the same cores: its figures are
//! shown and not judged. `model's time` compares the time that replicas were busy instead of the whole.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use motet_actors::egress::EgressLimits;
use motet_actors::node::{Node, NodeParts};
use motet_actors::ports::{SystemClock, SystemEntropy};
use motet_actors::router::{Router, SubmitRequest, system_caller};
use motet_actors::streams::StreamParts;
use motet_benches::machine;
use motet_benches::verdict::Verdict;
use motet_engine::definition::{Definition, ModelDefinition, document};
use motet_engine::id::{Name, Namespace};
use motet_engine::run::Phase;
use motet_engine::tensor::Tensor;
use motet_engine::value::Value;
use motet_models::burn::BurnBackend;
use motet_models::egress::{AllowList, ReqwestCaller};
use motet_models::port::{InferRequest, ModelBackend, Tensors};
use motet_models::source::ArtefactCache;
use motet_store::sqlite::SqliteStore;
use motet_tests::place::build_folder;
use motet_vectors::embedded::EmbeddedBackend;

const AT_ONCE: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);
const MUST_SHARE: f64 = 0.85;
const SENTENCE: &str = "A motet is a piece of music for several voices that are heard together as one work, number ";

/// A model under test.
struct Subject {
    yaml: &'static str,
    /// How many runs give a figure worth having.
    runs: usize,
    /// Whether inference takes longer than everything else that a run needs.
    model_bound: bool,
}

const SUBJECTS: [Subject; 2] = [
    Subject { yaml: include_str!("models/offline.yaml"), runs: 16_384, model_bound: false },
    Subject { yaml: include_str!("models/minilm.yaml"), runs: 1_024, model_bound: true },
];

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let mut verdict = Verdict::new();
    println!(
        "{:<12} {:>11} {:>11} {:>12} {:>10} {:>12}",
        "model", "batch rows", "runs/s", "bare rows/s", "of bare", "model's time"
    );
    for subject in &SUBJECTS {
        let Definition::Model(model) = parse(subject.yaml)? else { anyhow::bail!("not a model") };
        let artefacts =
            Arc::new(ArtefactCache::new(build_folder().parent().context("no build folder")?.join("artefacts")));
        let fetched = model.source.as_ref().filter(|source| !source.uri.starts_with("builtin:"));
        if fetched.is_some_and(|source| artefacts.cached(source).is_none()) {
            println!("{:<12} not in the cache, not measured: run the tests once, they fetch it", model.name);
            continue;
        }
        measure(&model, subject, artefacts, &mut verdict).await?;
    }
    Ok(verdict.end())
}

async fn measure(
    model: &ModelDefinition,
    subject: &Subject,
    artefacts: Arc<ArtefactCache>,
    verdict: &mut Verdict,
) -> Result<()> {
    let runs = subject.runs;
    machine::wait_until_quiet().await;
    let folder = tempfile::tempdir_in(build_folder())?;
    let node = start(folder.path(), Arc::clone(&artefacts)).await?;
    let router = node.router();
    let caller = system_caller(Namespace::default());
    router.put(&caller, &Definition::Model(Arc::new(model.clone()))).await?;
    router.put(&caller, &parse(&workflow(&model.name))?).await?;
    router.models().ready(&caller.namespace, &model.name).await?;
    embed_all(router, AT_ONCE).await?;
    let view = || router.models().view(&caller.namespace, &model.name).context("the model is not there");
    let before = view()?.figures;
    let begun = Instant::now();
    embed_all(router, runs).await?;
    let per_second = runs as f64 / begun.elapsed().as_secs_f64();
    let after = view()?.figures;
    let rows = (after.rows - before.rows) as f64;
    let batch = (rows / (after.batches - before.batches).max(1) as f64).round();
    let while_busy = rows / ((after.busy_ms - before.busy_ms).max(1) as f64 / 1e3);
    node.stop(Duration::from_secs(5)).await?;

    machine::wait_until_quiet().await;
    let bare = bare(model, runs, batch as usize, &artefacts).await?;
    let (whole, busy) = (per_second / bare, while_busy / bare);
    println!(
        "{:<12} {batch:>11.0} {per_second:>11.0} {bare:>12.0} {:>9.0}% {:>11.0}%",
        model.name,
        whole * 100.0,
        busy * 100.0
    );
    if subject.model_bound {
        let goal = format!("{}: at least {:.0} % of the bare backend", model.name, MUST_SHARE * 100.0);
        verdict.must(whole >= MUST_SHARE, goal);
    }
    Ok(())
}

fn parse(yaml: &str) -> Result<Definition> {
    let mut found = document::parse_definitions("bench", yaml).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    ensure!(found.len() == 1, "one definition is expected");
    Ok(found.remove(0))
}

fn workflow(model: &Name) -> String {
    format!(
        "kind: Workflow\nname: embed\nversion: \"1\"\nsteps:\n  embed: {{call: model, model: {model}, with: {{text: \"${{ input.text }}\"}}}}\n"
    )
}

async fn start(folder: &std::path::Path, artefacts: Arc<ArtefactCache>) -> Result<Node> {
    let parts = NodeParts {
        name: "bench".to_owned(),
        store: Arc::new(SqliteStore::open(folder).await?),
        clock: Arc::new(SystemClock::default()),
        entropy: Arc::new(SystemEntropy),
        model_backends: vec![Arc::new(BurnBackend::default())],
        vector_backends: vec![Arc::new(EmbeddedBackend::new(folder.join("indexes")))],
        http_caller: Arc::new(ReqwestCaller::new(AllowList::default(), 1 << 20)),
        egress: EgressLimits { in_flight: 256, in_flight_per_host: 256 },
        artefacts,
        model_memory: 0,
        responses: None,
        shards: 64,
        max_live: 20_000,
        max_unfinished: 100_000,
        max_outbox: 100_000,
        recovery_per_second: 500,
        alone: true,
        streams: StreamParts::default(),
        holds_models: true,
    };
    Ok(Node::start(parts).await?)
}

/// Submits runs, [`AT_ONCE`] of them unfinished at any time.
async fn embed_all(router: &Arc<Router>, runs: usize) -> Result<()> {
    let all = stream::iter(0..runs).map(|number| {
        let router = Arc::clone(router);
        async move {
            let caller = system_caller(Namespace::default());
            let request = SubmitRequest {
                workflow: Name::new("embed")?,
                version: None,
                input: Value::from(serde_json::json!({ "text": format!("{SENTENCE}{number}") })),
                tags: vec![],
                priority: 0,
                idempotency: None,
            };
            let run = router.submit(&caller, request).await?.run;
            let ended = router.wait_for_end(&caller, run, PATIENCE).await?;
            ensure!(ended.phase() == Phase::Succeeded, "{run} ended as {:?}", ended.phase());
            Ok(())
        }
    });
    all.buffer_unordered(AT_ONCE).try_collect().await
}

/// Rows per second of the backend alone, batch after batch.
async fn bare(model: &ModelDefinition, rows: usize, batch: usize, artefacts: &ArtefactCache) -> Result<f64> {
    let artefact = model.source.as_ref().and_then(|source| artefacts.cached(source));
    let loaded = BurnBackend::default().load(model, artefact).await.map_err(anyhow::Error::msg)?;
    let batch = batch.max(1);
    let infer = async |first: usize| -> Result<()> {
        let texts: Vec<_> = (first..first + batch).map(|number| format!("{SENTENCE}{number}")).collect();
        let inputs = Tensors::from([("text".to_owned(), Tensor::from_strings(&texts))]);
        let request = InferRequest { inputs, rows: batch, deadline: Instant::now() + PATIENCE };
        loaded.infer(request).await.map(drop).map_err(anyhow::Error::msg)
    };
    infer(0).await?;
    let begun = Instant::now();
    let mut done = 0;
    while done < rows {
        infer(done).await?;
        done += batch;
    }
    let per_second = done as f64 / begun.elapsed().as_secs_f64();
    loaded.unload().await;
    Ok(per_second)
}
