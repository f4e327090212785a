//! One loaded copy: a thread that computes one batch after the other, for engines that run in this process.
//!
//! Never computes on the async executor, and a network that panics costs its batch and nothing else. Used by `burn` and
//! `onnx`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use motet_engine::failure::Failure;
use rayon::ThreadPool;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use crate::call;
use crate::failure::{internal, timeout, unavailable};
use crate::network::Network;
use crate::port::{InferRequest, LoadedModel, ModelSignature, Tensors};

/// Batches that may wait for the thread. The model actor sends one at a time; a second hides its way back.
const WAITING_BATCHES: usize = 2;

/// Longest wait of `unload` for the batch that is being computed.
const UNLOAD_WAIT: Duration = Duration::from_secs(60);

/// A batch on its way to the thread, with the place where its answer is awaited.
struct Batch {
    request: InferRequest,
    answer: oneshot::Sender<Result<Tensors, Failure>>,
}

/// What is let go of when the copy is unloaded.
struct Loaded {
    network: Arc<dyn Network>,
    batches: mpsc::Sender<Batch>,
}

/// A loaded copy of one network.
pub(crate) struct ThreadReplica {
    name: String,
    signature: ModelSignature,
    loaded: Mutex<Option<Loaded>>,
    ended: watch::Receiver<bool>,
}

impl ThreadReplica {
    /// Starts the copy's thread, and a rayon pool of so many threads for networks that do not bring their own.
    pub(crate) fn start(
        backend: &str,
        name: &str,
        network: Box<dyn Network>,
        threads: Option<usize>,
    ) -> Result<Self, Failure> {
        let network: Arc<dyn Network> = network.into();
        let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
        let (end, ended) = watch::channel(false);
        let pool = threads.map(|threads| pool(backend, name, threads)).transpose()?;
        let signature = network.signature().clone();
        let computing = Arc::clone(&network);
        let model = name.to_owned();
        std::thread::Builder::new()
            .name(format!("{backend}-{name}"))
            .spawn(move || {
                serve(&model, computing, pool.as_ref(), waiting);
                drop(pool);
                end.send_replace(true);
            })
            .map_err(|error| unavailable(format!("the thread of the model {name} cannot be started: {error}")))?;
        Ok(Self { name: name.to_owned(), signature, loaded: Mutex::new(Some(Loaded { network, batches })), ended })
    }

    fn with_loaded<T>(&self, f: impl FnOnce(&Loaded) -> T) -> Result<T, Failure> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref().map(f).ok_or_else(|| unavailable(format!("the model {} is unloaded", self.name)))
    }
}

fn pool(backend: &str, name: &str, threads: usize) -> Result<ThreadPool, Failure> {
    let thread_name = format!("{backend}-{name}");
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{thread_name}-{index}"))
        .build()
        .map_err(|error| unavailable(format!("the threads of the model {name} cannot be started: {error}")))
}

/// Computes batches until every sender is gone, then lets go of the network.
fn serve(model: &str, network: Arc<dyn Network>, pool: Option<&ThreadPool>, mut waiting: mpsc::Receiver<Batch>) {
    while let Some(Batch { request, answer }) = waiting.blocking_recv() {
        if answer.is_closed() {
            continue;
        }
        let result = if Instant::now() >= request.deadline {
            Err(timeout(format!("the deadline passed before the model {model} could begin")))
        } else {
            let cancelled = || answer.is_closed();
            let forward = || network.forward(&request.inputs, request.rows, &cancelled);
            let computed = catch_unwind(AssertUnwindSafe(|| match pool {
                Some(pool) => pool.install(forward),
                None => forward(),
            }));
            computed.unwrap_or_else(|panic| {
                let reason = panic_message(&*panic);
                tracing::error!(model, rows = request.rows, reason, "the network panicked; its batch is lost");
                Err(internal(format!("the network of the model {model} panicked: {reason}")))
            })
        };
        // The caller may have gone in the meantime: then nobody wants the answer.
        let _ = answer.send(result);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

#[async_trait]
impl LoadedModel for ThreadReplica {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn length(&self, inputs: &Tensors) -> u32 {
        let network = self.with_loaded(|loaded| Arc::clone(&loaded.network));
        network.map_or(0, |network| network.length(inputs))
    }

    async fn infer(&self, request: InferRequest) -> Result<Tensors, Failure> {
        let batches = self.with_loaded(|loaded| loaded.batches.clone())?;
        let late = || timeout(format!("the model {} did not answer before the deadline", self.name));
        if Instant::now() >= request.deadline {
            return Err(late());
        }
        call::check(&self.signature, &request.inputs, request.rows)?;
        let deadline = request.deadline.into();
        let (answer, answered) = oneshot::channel();
        let gone = || unavailable(format!("the thread of the model {} has ended", self.name));
        timeout_at(deadline, batches.send(Batch { request, answer })).await.map_err(|_| late())?.map_err(|_| gone())?;
        drop(batches);
        timeout_at(deadline, answered).await.map_err(|_| late())?.map_err(|_| gone())?
    }

    async fn health(&self) -> Result<(), Failure> {
        let closed = self.with_loaded(|loaded| loaded.batches.is_closed())?;
        if closed { Err(unavailable(format!("the thread of the model {} has ended", self.name))) } else { Ok(()) }
    }

    async fn unload(&self) {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(loaded);
        let mut ended = self.ended.clone();
        let waited = tokio::time::timeout(UNLOAD_WAIT, ended.wait_for(|ended| *ended)).await;
        if waited.is_err() {
            tracing::warn!(model = self.name, "the model still computes; its memory is freed when it ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use motet_engine::failure::FailureClass;
    use motet_engine::tensor::Tensor;

    use super::*;

    /// Panics on the text `panic`; on `wait` tells that it began and computes until it is cancelled.
    struct Odd {
        signature: ModelSignature,
        began: Mutex<std_mpsc::SyncSender<()>>,
        cancelled: Mutex<std_mpsc::SyncSender<()>>,
    }

    impl Network for Odd {
        fn signature(&self) -> &ModelSignature {
            &self.signature
        }

        fn length(&self, _: &Tensors) -> u32 {
            7
        }

        fn forward(
            &self,
            inputs: &Tensors,
            _: usize,
            cancelled: &(dyn Fn() -> bool + Sync),
        ) -> Result<Tensors, Failure> {
            match inputs["text"].byte_strings().unwrap()[0] {
                b"panic" => panic!("odd input"),
                b"wait" => {
                    self.began.lock().unwrap().send(()).unwrap();
                    while !cancelled() {
                        std::thread::yield_now();
                    }
                    self.cancelled.lock().unwrap().send(()).unwrap();
                    Err(internal("cancelled"))
                }
                _ => Ok(inputs.clone()),
            }
        }
    }

    struct Start {
        replica: ThreadReplica,
        began: std_mpsc::Receiver<()>,
        cancelled: std_mpsc::Receiver<()>,
    }

    fn start() -> Start {
        let (began_sender, began) = std_mpsc::sync_channel(8);
        let (cancelled_sender, cancelled) = std_mpsc::sync_channel(8);
        let network = Odd {
            signature: crate::fake::text_signature(),
            began: Mutex::new(began_sender),
            cancelled: Mutex::new(cancelled_sender),
        };
        Start { replica: ThreadReplica::start("test", "odd", Box::new(network), Some(1)).unwrap(), began, cancelled }
    }

    fn request(text: &str) -> InferRequest {
        InferRequest {
            inputs: Tensors::from([("text".to_owned(), Tensor::from_strings(&[text]))]),
            rows: 1,
            deadline: Instant::now() + Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn a_panic_costs_its_batch_only() {
        let Start { replica, began: _began, cancelled: _cancelled } = start();
        let failure = replica.infer(request("panic")).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Internal);
        assert!(failure.message.contains("odd input"), "{failure}");
        assert!(replica.infer(request("fine")).await.is_ok());
        replica.health().await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_call_cancels_the_batch_that_is_computed() {
        let Start { replica, began, cancelled } = start();
        let replica = Arc::new(replica);
        let caller = tokio::spawn({
            let replica = Arc::clone(&replica);
            async move { replica.infer(request("wait")).await }
        });
        tokio::task::spawn_blocking(move || began.recv_timeout(Duration::from_secs(30))).await.unwrap().unwrap();
        caller.abort();
        tokio::task::spawn_blocking(move || cancelled.recv_timeout(Duration::from_secs(30))).await.unwrap().unwrap();
        assert!(replica.infer(request("fine")).await.is_ok());
    }

    #[tokio::test]
    async fn a_deadline_that_passes_while_computing_is_a_timeout() {
        let Start { replica, began: _began, cancelled } = start();
        let late = InferRequest { deadline: Instant::now() + Duration::from_millis(20), ..request("wait") };
        assert_eq!(replica.infer(late).await.unwrap_err().class, FailureClass::Timeout);
        tokio::task::spawn_blocking(move || cancelled.recv_timeout(Duration::from_secs(30))).await.unwrap().unwrap();
        replica.unload().await;
        assert_eq!(replica.infer(request("fine")).await.unwrap_err().class, FailureClass::Unavailable);
    }
}
