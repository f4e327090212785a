//! Responses that are kept: equal calls of a model are computed once.
//!
//! Calls that come while an equal one is computed wait for its response. In memory, bounded by bytes and age; behind
//! that, where the node has one, in a cache that all nodes share, whose outages cost time only. Failures are never kept.
//! Used by `calling`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache as Memory;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::FailureClass;
use motet_engine::id::{Name, Namespace};
use motet_models::child::wire;
use motet_models::port::Tensors;
use motet_store::port::{Cache, CacheKey};
use sha2::{Digest as _, Sha256};

use crate::message::RouteError;

/// What the keys of responses are among others in a shared cache.
const SPACE: &str = "responses";

/// Longest wait for the shared cache; a model is often faster than a slow one.
const SHARED_WITHIN: Duration = Duration::from_millis(250);

/// Longest response that is shared, in bytes.
const MAX_SHARED: usize = 4 << 20;

/// Bytes that a kept response takes beside its data.
const OVERHEAD: usize = 128;

type Key = [u8; 32];

/// Why there is no response.
#[derive(Clone, Debug)]
pub(super) enum Missed {
    /// The model left before it answered; it is to be asked for anew.
    Left,
    /// It failed.
    Failed(RouteError),
}

impl Missed {
    /// Whether its time was over, which says nothing about a call with more.
    pub(super) fn is_late(&self) -> bool {
        match self {
            Self::Left | Self::Failed(RouteError::Expired) => true,
            Self::Failed(RouteError::Failed(failure)) => failure.class == FailureClass::Timeout,
            Self::Failed(_) => false,
        }
    }
}

/// The kept responses of one version of a model.
pub(super) struct Responses {
    model: String,
    /// Of namespace and definition: what else decides over a response.
    identity: Sha256,
    memory: Memory<Key, Tensors>,
    shared: Option<Arc<dyn Cache>>,
    ttl: Duration,
}

impl Responses {
    /// Empty ones; none where the definition wants none.
    pub(super) fn new(
        namespace: &Namespace,
        definition: &ModelDefinition,
        shared: Option<Arc<dyn Cache>>,
    ) -> Option<Self> {
        let policy = definition.serving.cache?;
        let mut identity = Sha256::new();
        for part in
            [namespace.0.as_str(), definition.name.as_str(), &definition.version, &definition.document.to_string()]
        {
            field(&mut identity, part.as_bytes());
        }
        let memory = Memory::builder()
            .max_capacity(policy.max_bytes)
            .weigher(|_: &Key, response: &Tensors| u32::try_from(size(response)).unwrap_or(u32::MAX))
            .time_to_live(policy.ttl)
            .build();
        Some(Self { model: definition.name.to_string(), identity, memory, shared, ttl: policy.ttl })
    }

    /// The response to these inputs, computed if it is not there.
    pub(super) async fn get(
        &self,
        inputs: &Tensors,
        compute: impl Future<Output = Result<Tensors, Missed>>,
    ) -> Result<Tensors, Arc<Missed>> {
        let key = self.key(inputs);
        let mut told = "memory";
        let found = self
            .memory
            .try_get_with(key, async {
                if let Some(response) = self.find_shared(key).await {
                    told = "shared";
                    return Ok(response);
                }
                told = "none";
                let response = compute.await?;
                self.share(key, &response);
                Ok(response)
            })
            .await;
        let model = self.model.clone();
        metrics::counter!("motet_model_responses_total", "model" => model, "from" => told).increment(1);
        found
    }

    fn key(&self, inputs: &Tensors) -> Key {
        let mut digest = self.identity.clone();
        for (name, tensor) in inputs {
            field(&mut digest, name.as_bytes());
            field(&mut digest, tensor.datatype().as_str().as_bytes());
            field(&mut digest, &tensor.shape().iter().flat_map(|length| length.to_le_bytes()).collect::<Vec<_>>());
            field(&mut digest, tensor.data());
        }
        digest.finalize().into()
    }

    async fn find_shared(&self, key: Key) -> Option<Tensors> {
        let (shared, key) = (self.shared.as_ref()?, shared_key(key)?);
        match tokio::time::timeout(SHARED_WITHIN, shared.get(&key)).await {
            Ok(Ok(found)) => found.and_then(|bytes| opened(bytes, &self.model)),
            Ok(Err(error)) => {
                tracing::debug!(model = self.model, %error, "the shared cache gives no responses");
                None
            }
            Err(_) => None,
        }
    }

    /// Nobody waits for it.
    fn share(&self, key: Key, response: &Tensors) {
        let Some((shared, key)) = self.shared.clone().zip(shared_key(key)) else { return };
        if size(response) > MAX_SHARED {
            return;
        }
        let (heads, data) = wire::pack(response);
        let mut bytes = vec![];
        if wire::write(&mut bytes, &heads, &data).is_err() {
            return;
        }
        let (ttl, model) = (self.ttl, self.model.clone());
        tokio::spawn(async move {
            let put = tokio::time::timeout(SHARED_WITHIN, shared.put(&key, Bytes::from(bytes), ttl)).await;
            if let Ok(Err(error)) = put {
                tracing::debug!(model, %error, "the shared cache takes no responses");
            }
        });
    }
}

fn opened(bytes: Bytes, model: &str) -> Option<Tensors> {
    let read = wire::read::<Vec<wire::Head>>(&*bytes).ok().flatten();
    let response = read.and_then(|(heads, data)| wire::unpack(heads, data).ok());
    if response.is_none() {
        tracing::warn!(model, "a shared response cannot be read; it is computed again");
    }
    response
}

fn shared_key(digest: Key) -> Option<CacheKey> {
    Some(CacheKey { space: Name::new(SPACE).ok()?, digest })
}

fn size(response: &Tensors) -> usize {
    OVERHEAD + response.iter().map(|(name, tensor)| name.len() + tensor.data().len() + OVERHEAD).sum::<usize>()
}

/// With its length, so that the end of one field is never the beginning of another.
fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use motet_engine::definition::Definition;
    use motet_engine::definition::document::parse_definitions;
    use motet_engine::failure::Failure;
    use motet_engine::tensor::Tensor;
    use motet_store::memory::MemoryVolatile;

    use super::*;

    fn responses(rest: &str, shared: Option<Arc<dyn Cache>>) -> Responses {
        let yaml = format!("{{kind: Model, name: m, backend: fake, {rest}}}");
        let parsed = parse_definitions("m.yaml", &yaml).unwrap();
        let Definition::Model(model) = &parsed[0] else { panic!("{parsed:?}") };
        Responses::new(&Namespace::default(), model, shared).unwrap()
    }

    fn text(text: &str) -> Tensors {
        Tensors::from([("text".to_owned(), Tensor::from_strings(&[text]))])
    }

    #[tokio::test]
    async fn equal_calls_at_one_time_are_computed_once_and_failures_not_kept() {
        let responses = responses("cache: {ttl: 1m}", None);
        let computed = AtomicUsize::new(0);
        let compute = |answer: &'static str| {
            let computed = &computed;
            async move {
                computed.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(text(answer))
            }
        };
        let failed = || async { Err(Missed::Failed(Failure::new(FailureClass::Internal, "no").into())) };
        let broken = responses.get(&text("a"), failed()).await;
        assert!(matches!(*broken.unwrap_err(), Missed::Failed(_)));
        let input = text("a");
        let (one, two) = tokio::join!(responses.get(&input, compute("A")), responses.get(&input, compute("B")));
        assert_eq!((one.unwrap(), two.unwrap()), (text("A"), text("A")));
        assert_eq!(responses.get(&text("b"), compute("C")).await.unwrap(), text("C"));
        assert_eq!(computed.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn another_node_finds_a_response_but_another_version_does_not() {
        let shared: Arc<dyn Cache> = Arc::new(MemoryVolatile::new());
        let one = responses("cache: {}", Some(Arc::clone(&shared)));
        one.get(&text("a"), async { Ok(text("A")) }).await.unwrap();
        let key = shared_key(one.key(&text("a"))).unwrap();
        tokio::time::timeout(Duration::from_secs(5), async {
            while shared.get(&key).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let two = responses("cache: {}", Some(Arc::clone(&shared)));
        let none = || async { Err(Missed::Left) };
        assert_eq!(two.get(&text("a"), none()).await.unwrap(), text("A"));
        let other = responses("cache: {}, version: '2'", Some(shared));
        assert!(matches!(*other.get(&text("a"), none()).await.unwrap_err(), Missed::Left));
    }
}
