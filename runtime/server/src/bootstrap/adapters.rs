//! Which implementation stands behind each port, by the settings.
//!
//! Never starts anything by itself except the store. Used by `bootstrap`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use motet_actors::egress::EgressLimits;
use motet_actors::node::NodeParts;
use motet_actors::ports::{SystemClock, SystemEntropy};
use motet_actors::streams::StreamParts;
use motet_models::burn::BurnBackend;
use motet_models::child::{ChildOptions, PythonBackend, TensorFlowBackend};
use motet_models::egress::ReqwestCaller;
use motet_models::fake::FakeBackend;
use motet_models::onnx::OnnxBackend;
use motet_models::source::ArtefactCache;
use motet_store::memory::MemoryStore;
use motet_store::port::Store;
use motet_store::postgres::{PostgresOptions, PostgresStore};
use motet_store::redis::{RedisSettings, RedisVolatile};
use motet_store::sqlite::SqliteStore;
use motet_vectors::embedded::EmbeddedBackend;

use motet_config::Settings;

use super::{kafka, registry};

/// Everything that a node is made of.
pub(super) async fn parts(settings: &Settings) -> anyhow::Result<NodeParts> {
    let folder = &settings.data.folder;
    let threads = usize::try_from(settings.models.threads).unwrap_or(usize::MAX);
    let artefacts = settings.models.cache_folder.clone().unwrap_or_else(|| folder.join("models"));
    let (egress, count) = (&settings.egress, |count: u32| usize::try_from(count).unwrap_or(usize::MAX));
    let allow = egress.allow.parse().context("egress.allow")?;
    let artefacts = Arc::new(ArtefactCache::new(artefacts));
    let children = ChildOptions {
        worker: std::env::current_exe().context("the path of this program is not known")?,
        artefacts: Arc::clone(&artefacts),
        threads,
        tensorflow: settings.models.tensorflow.clone(),
    };
    Ok(NodeParts {
        name: settings.node.name.clone(),
        store: store(settings).await?,
        clock: Arc::new(SystemClock::default()),
        entropy: Arc::new(SystemEntropy),
        model_backends: vec![
            Arc::new(BurnBackend::new(threads)),
            Arc::new(OnnxBackend::new(threads)),
            Arc::new(TensorFlowBackend::new(children.clone())),
            Arc::new(PythonBackend::new(children)),
            Arc::new(FakeBackend::new()),
        ],
        vector_backends: vec![Arc::new(EmbeddedBackend::new(folder.join("indexes")))],
        http_caller: Arc::new(ReqwestCaller::new(allow, egress.max_answer_bytes)),
        egress: EgressLimits {
            in_flight: count(egress.max_in_flight),
            in_flight_per_host: count(egress.max_in_flight_per_host),
        },
        artefacts,
        model_memory: settings.models.memory_bytes,
        responses: volatile(settings)?.map(|volatile| volatile as Arc<_>),
        shards: settings.runs.shards,
        max_live: usize::try_from(settings.runs.max_live).unwrap_or(usize::MAX),
        max_unfinished: settings.runs.max_unfinished,
        max_outbox: settings.runs.max_outbox,
        recovery_per_second: settings.runs.recovery_per_second,
        streams: StreamParts {
            broker: kafka::broker(settings)?,
            decoder: registry::decoder(settings)?,
            ingests: settings.cluster.roles().contains(&"ingest"),
        },
        alone: settings.cluster.address.is_none(),
        holds_models: settings.cluster.roles().contains(&"models"),
    })
}

/// What may be lost, where it is shared with other nodes.
pub(super) fn volatile(settings: &Settings) -> anyhow::Result<Option<Arc<RedisVolatile>>> {
    let Some(url) = &settings.redis.url else { return Ok(None) };
    let mut options = RedisSettings::from_url(url.expose()).context("redis.url")?;
    // Clusters that share a Redis must not meet in it.
    options.prefix = format!("{}-{}", options.prefix, settings.cluster.name);
    Ok(Some(RedisVolatile::open(options).context("redis.url")?))
}

async fn store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let url = settings.store.url.expose();
    let Some((scheme, rest)) = url.split_once(':') else {
        bail!("store.url: the URL has no scheme; write 'sqlite:', 'postgres://' or 'memory:'");
    };
    match (scheme, rest) {
        ("memory", "") => Ok(Arc::new(MemoryStore::new())),
        ("sqlite", folder) => {
            let folder = if folder.is_empty() { settings.data.folder.clone() } else { PathBuf::from(folder) };
            tokio::fs::create_dir_all(&folder).await.with_context(|| {
                format!("the data folder {} cannot be made; choose another one with --data", folder.display())
            })?;
            let opened = SqliteStore::open(&folder).await;
            Ok(Arc::new(opened.with_context(|| format!("the store in {} cannot be opened", folder.display()))?))
        }
        ("postgres" | "postgresql", _) => {
            let options = PostgresOptions::from_url(url).context("store.url")?;
            let place = options.place();
            Ok(PostgresStore::open(options).await.with_context(|| format!("the store at {place} cannot be opened"))?)
        }
        _ => bail!("store.url: this build knows no store '{scheme}:'; write 'sqlite:', 'postgres://' or 'memory:'"),
    }
}
