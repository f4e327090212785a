//! Keeps a model's process alive: gives it batches, ends it when it hangs or grows, starts it anew when it died.
//!
//! Never gives a batch twice: what a process took with it is told to its caller as crashed. Used by `replica`.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use motet_engine::failure::{Failure, FailureClass};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::memory;
use super::process::{Broken, Process};
use super::wire::Start;
use crate::failure::{timeout, unavailable};
use crate::port::{InferRequest, Tensors};

/// How often the memory of the process is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// How long after its deadline a batch is left to a process before the process is ended.
const GRACE: Duration = Duration::from_millis(250);

/// Wait before the second start in a row that nothing followed; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Starts in a row that nothing followed after which calls are told instead of waiting for the next.
const PATIENT_STARTS: u32 = 4;

/// Longest wait before a start.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A batch on its way to the process.
pub(super) struct Job {
    pub(super) request: InferRequest,
    pub(super) answer: oneshot::Sender<Result<Tensors, Failure>>,
}

/// How the process is.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Running,
    /// It died, and a new one is being started.
    Down(String),
    Unloaded,
}

/// How a process ended.
struct End {
    how: String,
    /// Whether it computed nothing at the time.
    idle: bool,
}

/// What is needed to start it.
pub(super) struct Plan {
    pub(super) worker: PathBuf,
    pub(super) start: Start,
    /// Resident bytes above which it is ended.
    pub(super) memory: u64,
    /// What it may write to; gone with the plan.
    pub(super) _scratch: Option<TempDir>,
}

pub(super) struct Keeper {
    plan: Plan,
    jobs: mpsc::Receiver<Job>,
    leave: watch::Receiver<bool>,
    condition: watch::Sender<Condition>,
    /// Starts in a row that failed, or that were followed by an end over which no batch was computed. A batch that ends
    /// its process does not count: who sent it is told, and the next batch is owed a process.
    idle_ends: u32,
}

impl Keeper {
    /// `leave` turns true, or loses its sender, when the process is wanted no more.
    pub(super) fn new(
        plan: Plan,
        jobs: mpsc::Receiver<Job>,
        leave: watch::Receiver<bool>,
        condition: watch::Sender<Condition>,
    ) -> Self {
        Self { plan, jobs, leave, condition, idle_ends: 0 }
    }

    /// Lives until nobody can send batches any more.
    pub(super) async fn run(mut self, process: Process) {
        let mut running = Some(process);
        while let Some(mut process) = running.take() {
            match self.keep(&mut process).await {
                None => {
                    process.end().await;
                    break;
                }
                Some(End { how, idle }) => {
                    self.idle_ends = if idle { self.idle_ends + 1 } else { 0 };
                    tracing::warn!(model = self.plan.start.model, how, "the process of the model ended");
                    metrics::counter!("motet_model_process_ends_total", "model" => self.plan.start.model.clone())
                        .increment(1);
                    running = self.start_anew(how).await;
                }
            }
        }
        self.condition.send_replace(Condition::Unloaded);
    }

    /// Gives it batches until it ends, which gives how; nothing when no more batches will come.
    async fn keep(&mut self, process: &mut Process) -> Option<End> {
        let mut watching = interval(WATCH_EVERY);
        watching.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                job = self.jobs.recv() => {
                    if let Some(how) = self.compute(process, job?).await {
                        return Some(End { how, idle: false });
                    }
                }
                how = process.ended() => return Some(End { how, idle: true }),
                _ = watching.tick() => {
                    if let Some(how) = self.grown(process.pid()) {
                        process.kill().await;
                        return Some(End { how, idle: true });
                    }
                }
            }
        }
    }

    /// Lets it compute one batch; gives how it ended, when it did.
    async fn compute(&mut self, process: &mut Process, job: Job) -> Option<String> {
        let Job { request, answer } = job;
        if answer.is_closed() {
            return None;
        }
        let model = &self.plan.start.model;
        if std::time::Instant::now() >= request.deadline {
            let _ = answer.send(Err(timeout(format!("the deadline passed before the model {model} could begin"))));
            return None;
        }
        let late = Instant::from_std(request.deadline) + GRACE;
        let pid = process.pid();
        let outcome = {
            let mut watching = interval(WATCH_EVERY);
            let computing = timeout_at(late, process.infer(&request));
            tokio::pin!(computing);
            loop {
                tokio::select! {
                    outcome = &mut computing => break Ok(outcome),
                    _ = watching.tick() => {
                        if let Some(how) = self.grown(pid) { break Err(how); }
                    }
                }
            }
        };
        let (failure, how) = match outcome {
            Ok(Ok(Ok(outputs))) => {
                self.idle_ends = 0;
                let _ = answer.send(Ok(outputs));
                return None;
            }
            Ok(Ok(Err(Broken::Said(failure)))) => {
                self.idle_ends = 0;
                let _ = answer.send(Err(failure));
                return None;
            }
            Ok(Ok(Err(Broken::Ended(how)))) => (self.crashed(&how), how),
            Ok(Err(_)) => {
                process.kill().await;
                let how = "it computed past the deadline and was ended".to_owned();
                (timeout(format!("the model {model} did not answer before the deadline; its process was ended")), how)
            }
            Err(how) => {
                process.kill().await;
                (self.crashed(&how), how)
            }
        };
        let _ = answer.send(Err(failure));
        Some(how)
    }

    /// How large it is, when that is more than it may be.
    fn grown(&self, pid: Option<u32>) -> Option<String> {
        let (resident, most) = (memory::resident(pid?)?, self.plan.memory);
        (resident > most).then(|| {
            let (resident, most) = (resident >> 20, most >> 20);
            format!("it had {resident} MiB and may have {most} (parameters.memory_bytes), so it was ended")
        })
    }

    fn crashed(&self, how: &str) -> Failure {
        let model = &self.plan.start.model;
        Failure::new(FailureClass::Crashed, format!("the process of the model {model} died over the batch: {how}"))
    }

    /// Starts it until it lives, with growing pauses; who comes meanwhile is told. Nothing when nobody can come any more.
    async fn start_anew(&mut self, how: String) -> Option<Process> {
        let mut why = how;
        loop {
            self.condition.send_replace(Condition::Down(why.clone()));
            let at = Instant::now() + pause(self.idle_ends);
            loop {
                tokio::select! {
                    () = sleep_until(at) => break,
                    () = left(&mut self.leave) => return None,
                    job = self.jobs.recv(), if self.idle_ends > PATIENT_STARTS => self.refuse(job?, &why),
                }
            }
            let started = tokio::select! {
                started = Process::start(&self.plan.worker, &self.plan.start) => started,
                () = left(&mut self.leave) => return None,
            };
            match started {
                Ok((process, _)) => {
                    self.condition.send_replace(Condition::Running);
                    return Some(process);
                }
                Err(failure) => {
                    tracing::error!(model = self.plan.start.model, %failure, "the process cannot be started anew");
                    why = failure.message;
                    self.idle_ends += 1;
                }
            }
        }
    }

    fn refuse(&self, job: Job, why: &str) {
        let model = &self.plan.start.model;
        let words = format!("the process of the model {model} does not live ({why}); it is started again shortly");
        let _ = job.answer.send(Err(unavailable(words)));
    }
}

async fn left(leave: &mut watch::Receiver<bool>) {
    // A sender that is gone has left too.
    let _ = leave.wait_for(|leave| *leave).await;
}

/// How long to wait before a start that follows so many ends in a row, with jitter; the first follows at once.
fn pause(idle_ends: u32) -> Duration {
    let Some(doublings) = idle_ends.checked_sub(2) else { return Duration::ZERO };
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
    // Many processes that died together do not come back together.
    let chance = RandomState::new().hash_one(idle_ends) % 512;
    longest.mul_f64(0.5 + f64::from(u32::try_from(chance).unwrap_or(0)) / 1024.0)
}
