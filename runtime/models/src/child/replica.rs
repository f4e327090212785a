//! One loaded copy: a process that computes one batch after the other.
//!
//! Never computes in this process. Used by the backends of this room.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use motet_engine::failure::Failure;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use super::keeper::{Condition, Job, Keeper, Plan};
use super::memory;
use super::process::Process;
use super::wire::{Layer, Ready};
use crate::call;
use crate::failure::{timeout, unavailable};
use crate::port::{InferRequest, LoadedModel, ModelSignature, TensorSpec, Tensors};

/// Batches that may wait for the process. The model actor sends one at a time; a second hides its way back.
const WAITING_BATCHES: usize = 2;

/// Longest wait of `unload` for the batch that is being computed.
const UNLOAD_WAIT: Duration = Duration::from_secs(60);

/// What is let go of when the copy is unloaded.
struct Loaded {
    jobs: mpsc::Sender<Job>,
    leave: watch::Sender<bool>,
}

/// A loaded copy in a process of its own.
pub(super) struct ChildReplica {
    name: String,
    signature: ModelSignature,
    loaded: Mutex<Option<Loaded>>,
    condition: watch::Receiver<Condition>,
}

impl ChildReplica {
    /// Starts the process and waits until its model is loaded.
    pub(super) async fn start(plan: Plan) -> Result<Self, Failure> {
        let name = plan.start.model.clone();
        let (process, ready) = Process::start(&plan.worker, &plan.start).await?;
        let resident = process.pid().and_then(memory::resident).unwrap_or(0);
        let signature = signature(ready, resident)?;
        let (jobs, waiting) = mpsc::channel(WAITING_BATCHES);
        let (leave, leaving) = watch::channel(false);
        let (told, condition) = watch::channel(Condition::Running);
        tokio::spawn(Keeper::new(plan, waiting, leaving, told).run(process));
        Ok(Self { name, signature, loaded: Mutex::new(Some(Loaded { jobs, leave })), condition })
    }

    fn jobs(&self) -> Result<mpsc::Sender<Job>, Failure> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = loaded.as_ref().map(|loaded| loaded.jobs.clone());
        jobs.ok_or_else(|| unavailable(format!("the model {} is unloaded", self.name)))
    }
}

fn signature(ready: Ready, memory_bytes: u64) -> Result<ModelSignature, Failure> {
    let specs = |declared: Vec<_>| declared.into_iter().map(TensorSpec::try_from).collect::<Result<Vec<_>, _>>();
    let mut facts = ready.facts;
    let of_layer = |layer: &Layer| match &layer.missing {
        None => (layer.name.clone(), json!("holds")),
        Some(why) => (layer.name.clone(), json!(format!("does not hold: {why}"))),
    };
    let layers: serde_json::Map<_, _> = ready.isolation.iter().map(of_layer).collect();
    facts.insert("isolation".to_owned(), layers.into());
    Ok(ModelSignature { inputs: specs(ready.inputs)?, outputs: specs(ready.outputs)?, memory_bytes, facts })
}

#[async_trait]
impl LoadedModel for ChildReplica {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn length(&self, _: &Tensors) -> u32 {
        0
    }

    async fn infer(&self, request: InferRequest) -> Result<Tensors, Failure> {
        let jobs = self.jobs()?;
        let late = || timeout(format!("the model {} did not answer before the deadline", self.name));
        if Instant::now() >= request.deadline {
            return Err(late());
        }
        call::check(&self.signature, &request.inputs, request.rows)?;
        let deadline = request.deadline.into();
        let (answer, answered) = oneshot::channel();
        let gone = || unavailable(format!("the process of the model {} has ended", self.name));
        timeout_at(deadline, jobs.send(Job { request, answer })).await.map_err(|_| late())?.map_err(|_| gone())?;
        drop(jobs);
        timeout_at(deadline, answered).await.map_err(|_| late())?.map_err(|_| gone())?
    }

    async fn health(&self) -> Result<(), Failure> {
        match &*self.condition.borrow() {
            Condition::Running => Ok(()),
            Condition::Down(why) => Err(unavailable(format!("its process is being started anew: {why}"))),
            Condition::Unloaded => Err(unavailable(format!("the model {} is unloaded", self.name))),
        }
    }

    async fn unload(&self) {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Loaded { jobs, leave }) = loaded {
            leave.send_replace(true);
            drop(jobs);
        }
        let mut condition = self.condition.clone();
        let ended = condition.wait_for(|condition| matches!(condition, Condition::Unloaded));
        if tokio::time::timeout(UNLOAD_WAIT, ended).await.is_err() {
            tracing::warn!(model = self.name, "the model still computes; its process ends when it has");
        }
    }
}
