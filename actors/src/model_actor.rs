//! The mailbox around one model: lets calls of many runs wait, forms batches, feeds replicas, splits answers.
//!
//! Computes nothing itself and never retries, except that the members of a batch that broke are tried alone, so that one
//! bad input costs only its own call, and a process that somebody ended costs none. Spawned by `models`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_models::call;
use motet_models::port::{InferRequest, LoadedModel, Tensors};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::AbortHandle;

use crate::batcher::{Batch, Batcher, Waiting};
use crate::breaker::Breaker;
use crate::mailbox::{Letter, Vitals};
use crate::pace::Pace;
use crate::ports::Entropy;
use crate::residency::MemoryShare;
use crate::stats::ModelStats;

/// How often a call that is computed alone may end its process before it is told that it does.
const CRASHES: u32 = 3;

/// Where the answer to a call goes.
pub(crate) type Reply = oneshot::Sender<Result<Tensors, Failure>>;

/// A call and where its answer goes.
#[derive(Debug)]
pub(crate) struct ModelCall {
    pub(crate) inputs: Tensors,
    pub(crate) rows: usize,
    pub(crate) length: u32,
    pub(crate) priority: i8,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
    /// Its place among the calls that the model takes at one time; free again when it is answered.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What a model actor is told.
#[derive(Debug)]
pub(crate) enum ModelMessage {
    /// Answer this call.
    Call(ModelCall),
    /// This replica has answered a batch of so many calls; `well` unless that speaks against the model.
    ReplicaFree { replica: usize, calls: usize, well: bool },
    /// The window of the oldest call is over.
    WindowOver,
    /// End when every call is answered; no more are sent.
    Leave,
}

/// The actor's fixed parts.
pub(crate) struct ModelActor {
    pub(crate) definition: Arc<ModelDefinition>,
    pub(crate) replicas: Vec<Arc<dyn LoadedModel>>,
    /// What the replicas take of the node's memory for models; given back with the actor.
    pub(crate) _memory: Arc<MemoryShare>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) stats: Arc<ModelStats>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Called with a replica's number when its batch is answered.
    pub(crate) caller: motet_engine::access::Caller,
}

/// What changes.
pub(crate) struct Serving {
    batcher: Batcher<ModelCall>,
    free: Vec<usize>,
    /// Calls that replicas work on.
    under_way: usize,
    pace: Option<Pace>,
    breaker: Option<Breaker>,
    begun: Instant,
    alarm: Option<(Instant, AbortHandle)>,
    leaving: bool,
    mailbox: crate::mailbox::Mailbox<ModelMessage>,
}

impl Actor for ModelActor {
    type Msg = Letter<ModelMessage>;
    type State = Serving;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Serving, ActorProcessingErr> {
        let queue = usize::try_from(self.definition.queue).unwrap_or(usize::MAX);
        Ok(Serving {
            batcher: Batcher::new(self.definition.batch.clone(), queue),
            free: (0..self.replicas.len()).rev().collect(),
            under_way: 0,
            pace: self.definition.limits.rate.map(|rate| Pace::new(rate.count, rate.per)),
            breaker: self.definition.serving.breaker.map(Breaker::new),
            begun: Instant::now(),
            alarm: None,
            leaving: false,
            mailbox: crate::mailbox::Mailbox::new(myself, Arc::clone(&self.vitals)),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        serving: &mut Serving,
    ) -> Result<(), ActorProcessingErr> {
        let (_, message) = letter.open(&self.vitals);
        match message {
            ModelMessage::Call(call) => self.admit(serving, call),
            ModelMessage::ReplicaFree { replica, calls, well } => {
                serving.free.push(replica);
                serving.under_way -= calls;
                self.judge(serving, well);
            }
            ModelMessage::WindowOver => serving.alarm = None,
            ModelMessage::Leave => serving.leaving = true,
        }
        self.feed(serving);
        if serving.leaving && serving.batcher.is_empty() && serving.under_way == 0 {
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, serving: &mut Serving) -> Result<(), ActorProcessingErr> {
        if let Some((_, alarm)) = serving.alarm.take() {
            alarm.abort();
        }
        for replica in &self.replicas {
            replica.unload().await;
        }
        Ok(())
    }
}

impl ModelActor {
    fn admit(&self, serving: &mut Serving, call: ModelCall) {
        if let Some(pause) = serving.breaker.as_ref().and_then(|breaker| breaker.refuses(Instant::now())) {
            return answer(call.reply, Err(self.refused(pause)));
        }
        let bytes = call.inputs.values().map(|tensor| tensor.data().len() as u64).sum();
        let waiting = Waiting {
            rows: u32::try_from(call.rows).unwrap_or(u32::MAX),
            bytes,
            length: call.length,
            form: call::form(&call.inputs),
            priority: call.priority,
            deadline: call.deadline,
            arrived: Instant::now(),
            item: call,
        };
        if let Err(refused) = serving.batcher.push(waiting) {
            let words =
                format!("the queue of model '{}' is full ({} calls)", self.definition.name, self.definition.queue);
            answer(refused.item.reply, Err(Failure::new(FailureClass::Overloaded, words)));
        }
        self.stats.queued(serving.batcher.len());
    }

    /// Gives batches to free replicas as long as there are both.
    fn feed(&self, serving: &mut Serving) {
        let now = Instant::now();
        for late in serving.batcher.expire(now) {
            self.stats.failed(1);
            answer(late.item.reply, Err(self.too_late()));
        }
        while serving.breaker.as_ref().is_none_or(|breaker| breaker.lets(now))
            && let Some(replica) = serving.free.pop()
        {
            let most = self.allowed(serving, now);
            let Some(batch) = (most > 0).then(|| serving.batcher.take(now, most)).flatten() else {
                serving.free.push(replica);
                break;
            };
            let Batch { calls, departure } = batch;
            // Calls whose asker went away are not computed.
            let batch: Vec<_> = calls.into_iter().filter(|waiting| !waiting.item.reply.is_closed()).collect();
            self.stats.waited(batch.iter().map(|waiting| now.saturating_duration_since(waiting.arrived)).sum());
            let batch: Vec<_> = batch.into_iter().map(|waiting| waiting.item).collect();
            if batch.is_empty() {
                serving.free.push(replica);
            } else {
                self.stats.left(departure);
                if let Some(breaker) = &mut serving.breaker {
                    breaker.left();
                }
                if let Some(pace) = &mut serving.pace {
                    // There were as many tokens when the batch was taken.
                    let _ = pace.take(now.saturating_duration_since(serving.begun), count(batch.len()));
                }
                serving.under_way += batch.len();
                self.run(serving, replica, batch);
            }
        }
        self.stats.queued(serving.batcher.len());
        self.set_alarm(serving, now);
    }

    /// How many more calls the model's limits allow now.
    fn allowed(&self, serving: &Serving, now: Instant) -> usize {
        let most = self.definition.limits.concurrency.map_or(usize::MAX, |most| most as usize);
        let paced = serving.pace.map(|pace| pace.available(now.saturating_duration_since(serving.begun)) as usize);
        most.saturating_sub(serving.under_way).min(paced.unwrap_or(usize::MAX))
    }

    fn run(&self, serving: &Serving, replica: usize, batch: Vec<ModelCall>) {
        let model = Arc::clone(&self.replicas[replica]);
        let (stats, mailbox, caller) = (Arc::clone(&self.stats), serving.mailbox.clone(), self.caller.clone());
        let (timeout, calls) = (self.definition.timeout, batch.len());
        tokio::spawn(async move {
            let well = run_batch(&*model, batch, timeout, &stats).await;
            // The actor has ended when this fails, and its replicas with it.
            let _ = mailbox
                .send(&caller, ModelMessage::ReplicaFree { replica, calls, well }, Duration::from_secs(30))
                .await;
        });
    }

    fn set_alarm(&self, serving: &mut Serving, now: Instant) {
        let ready = if serving.free.is_empty() { None } else { serving.batcher.ready_at() };
        // A batch that is ready may have to wait for the rate; for room it waits without an alarm.
        let paced = serving.pace.map(|pace| now + pace.wait(now.saturating_duration_since(serving.begun)));
        let at = ready.map(|ready| paced.map_or(ready, |paced| paced.max(ready)));
        let full = self.definition.limits.concurrency.is_some_and(|most| serving.under_way >= most as usize);
        let at = at.filter(|_| !full);
        if serving.alarm.as_ref().map(|(at, _)| *at) == at {
            return;
        }
        if let Some((_, alarm)) = serving.alarm.take() {
            alarm.abort();
        }
        let Some(at) = at else { return };
        let (mailbox, caller) = (serving.mailbox.clone(), self.caller.clone());
        let wait = at.saturating_duration_since(now);
        let alarm = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = mailbox.send(&caller, ModelMessage::WindowOver, Duration::from_secs(30)).await;
        });
        serving.alarm = Some((at, alarm.abort_handle()));
    }

    /// Takes note of how a batch went; what waits is not left to wait for a model in trouble.
    fn judge(&self, serving: &mut Serving, well: bool) {
        let (Some(breaker), now) = (&mut serving.breaker, Instant::now()) else { return };
        let opens = breaker.told(well, now, self.entropy.fraction());
        let pause = breaker.refuses(now);
        self.stats.refuses(pause.is_some());
        if let Some(pause) = pause.filter(|_| opens) {
            tracing::warn!(model = %self.definition.name, ?pause, "calls are refused: too many failed in a row");
            for waiting in serving.batcher.drain() {
                self.stats.failed(1);
                answer(waiting.item.reply, Err(self.refused(pause)));
            }
        }
    }

    fn refused(&self, pause: Duration) -> Failure {
        let words = format!("model '{}' is not called for now: its last batches failed", self.definition.name);
        let wait = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        Failure { retry_after_ms: Some(wait), ..Failure::new(FailureClass::Unavailable, words) }
    }

    fn too_late(&self) -> Failure {
        Failure::new(FailureClass::Timeout, format!("model '{}' did not get to the call in time", self.definition.name))
    }
}

/// Answers the calls of a batch. False when what happened speaks against the model.
async fn run_batch(model: &dyn LoadedModel, batch: Vec<ModelCall>, timeout: Duration, stats: &ModelStats) -> bool {
    let begun = Instant::now();
    let rows: Vec<_> = batch.iter().map(|call| call.rows).collect();
    let total: usize = rows.iter().sum();
    let inputs: Vec<_> = batch.iter().map(|call| &call.inputs).collect();
    let result = infer(model, &inputs, total, timeout).await.and_then(|outputs| call::split(&outputs, &rows));
    stats.batch(batch.len(), total, begun.elapsed(), result.is_ok());
    match result {
        Ok(outputs) => {
            for (call, outputs) in batch.into_iter().zip(outputs) {
                answer(call.reply, Ok(outputs));
            }
            true
        }
        Err(failure) if is_of_one(&failure, batch.len()) => {
            // One member broke the batch: each is tried alone, so that the others have their answers.
            let mut well = false;
            for call in batch {
                let alone = try_alone(model, &call, timeout).await;
                well |= alone.as_ref().map_or_else(|failure| !Breaker::counts(failure), |_| true);
                stats.batch(1, call.rows, begun.elapsed(), alone.is_ok());
                stats.failed(usize::from(alone.is_err()));
                answer(call.reply, alone);
            }
            well
        }
        Err(failure) => {
            stats.failed(batch.len());
            for call in batch {
                answer(call.reply, Err(failure.clone()));
            }
            !Breaker::counts(&failure)
        }
    }
}

/// Whether the failure may be the doing of one member, so that the others are not to suffer. A process may also have been
/// ended by somebody, which is the doing of none.
fn is_of_one(failure: &Failure, calls: usize) -> bool {
    match failure.class {
        FailureClass::Crashed => true,
        FailureClass::Internal | FailureClass::Invalid => calls > 1,
        _ => false,
    }
}

/// Tries one call alone: once, and again when the process died over it, in case that was not its doing.
async fn try_alone(model: &dyn LoadedModel, call: &ModelCall, timeout: Duration) -> Result<Tensors, Failure> {
    let mut tries = 1;
    loop {
        match infer(model, &[&call.inputs], call.rows, timeout).await {
            Err(failure) if failure.class == FailureClass::Crashed && tries < CRASHES => tries += 1,
            Err(failure) if failure.class == FailureClass::Crashed => {
                let words = format!("{}; tried alone, it died {tries} times", failure.message);
                return Err(Failure::new(FailureClass::Crashed, words));
            }
            outcome => return outcome,
        }
    }
}

async fn infer(
    model: &dyn LoadedModel,
    inputs: &[&Tensors],
    rows: usize,
    timeout: Duration,
) -> Result<Tensors, Failure> {
    let inputs = call::join(inputs)?;
    let request = InferRequest { inputs, rows, deadline: Instant::now() + timeout };
    tokio::time::timeout(timeout, model.infer(request)).await.unwrap_or_else(|_| {
        Err(Failure::new(FailureClass::Timeout, format!("the model gave no answer within {timeout:?}")))
    })
}

fn count(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}

/// Answers whoever still listens; one who went away needs no answer.
fn answer(reply: Reply, words: Result<Tensors, Failure>) {
    let _ = reply.send(words);
}
