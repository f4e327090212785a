//! One process of a model: what is asked of it, what it answers, how it ended.
//!
//! Never starts anew and never lives longer than its value. Used by `keeper`.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use motet_engine::failure::Failure;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::launch::{Launched, launch};
use super::wire::{Command, Ready, Report, Start, pack, receive, send, unpack};
use crate::failure::{internal, timeout as timed_out, unavailable};
use crate::port::{InferRequest, Tensors};

/// Longest wait for a process to load its model.
const LOAD_WITHIN: Duration = Duration::from_secs(180);

/// Longest wait for a process to end of its own accord when its socket is closed, and for a killed one to be gone.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait for the last words of a process that has ended.
const HEAR_WITHIN: Duration = Duration::from_millis(300);

/// Lines of standard error that are kept to explain an end.
const LAST_WORDS: usize = 12;

/// Longest line that is kept, in bytes.
const LINE_BYTES: u64 = 1024;

/// Lines that are logged; a library that talks more is heard no more.
const LOGGED_LINES: usize = 1000;

/// Why a batch has no answer.
pub(super) enum Broken {
    /// The process said so and lives on.
    Said(Failure),
    /// The process is gone or cannot be understood any more.
    Ended(String),
}

/// A process that has loaded its model.
pub(super) struct Process {
    child: Child,
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    last_words: Arc<Mutex<VecDeque<String>>>,
    listening: Option<JoinHandle<()>>,
    batches: u64,
}

impl Process {
    /// Starts one and waits until its model is loaded.
    pub(super) async fn start(worker: &Path, start: &Start) -> Result<(Self, Ready), Failure> {
        let Launched { mut child, socket } = launch(worker, &start.model).await?;
        let last_words = Arc::default();
        let listen = |stderr| tokio::spawn(listen(stderr, start.model.clone(), Arc::clone(&last_words)));
        let listening = child.stderr.take().map(listen);
        let (from, to) = socket.into_split();
        let mut process = Self { child, from: BufReader::new(from), to, last_words, listening, batches: 0 };
        let loaded = timeout(LOAD_WITHIN, process.load(start)).await;
        let loaded = loaded.unwrap_or_else(|_| {
            Err(Broken::Said(timed_out(format!("the process of the model {} did not load it in time", start.model))))
        });
        match loaded {
            Ok(ready) => Ok((process, ready)),
            Err(Broken::Said(failure)) => {
                process.end().await;
                Err(failure)
            }
            Err(Broken::Ended(how)) => {
                Err(unavailable(format!("the process of the model {} ended while it loaded: {how}", start.model)))
            }
        }
    }

    async fn load(&mut self, start: &Start) -> Result<Ready, Broken> {
        match self.exchange(&Command::Start(start.clone()), &[]).await? {
            (Report::Ready(ready), _) => Ok(ready),
            (Report::Refused(refusal), _) => Err(Broken::Said(refusal.into())),
            (other, _) => Err(Broken::Said(internal(format!("the process answered its start with {other:?}")))),
        }
    }

    /// Lets it compute a batch. When this is dropped the process cannot be used any more.
    pub(super) async fn infer(&mut self, request: &InferRequest) -> Result<Tensors, Broken> {
        self.batches += 1;
        let (id, (inputs, payload)) = (self.batches, pack(&request.inputs));
        let command = Command::Infer { id, rows: request.rows, inputs };
        match self.exchange(&command, &payload).await? {
            (Report::Done { id: answered, outputs }, payload) if answered == id => {
                unpack(outputs, payload).map_err(|failure| Broken::Ended(failure.message))
            }
            (Report::Failed { id: answered, refusal }, _) if answered == id => Err(Broken::Said(refusal.into())),
            _ => Err(Broken::Ended("it answered what was not asked".to_owned())),
        }
    }

    async fn exchange(&mut self, command: &Command, payload: &[Bytes]) -> Result<(Report, Bytes), Broken> {
        let exchanged = match send(&mut self.to, command, payload).await {
            Ok(()) => receive(&mut self.from).await,
            Err(error) => Err(error),
        };
        match exchanged {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Broken::Ended(self.post_mortem(&error).await)),
        }
    }

    /// The number by which the system knows it.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Comes back when it has ended, with how.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        self.told(status.ok()).await
    }

    /// How it ended, when its socket broke; a process that still lives is killed.
    async fn post_mortem(&mut self, error: &std::io::Error) -> String {
        let alone = timeout(Duration::from_millis(500), self.child.wait()).await;
        if let Ok(status) = alone {
            return self.told(status.ok()).await;
        }
        self.kill().await;
        format!("it could not be understood any more: {error}")
    }

    async fn told(&mut self, status: Option<ExitStatus>) -> String {
        if let Some(listening) = self.listening.take() {
            // What it said last may still be on its way. A grandchild may hold the pipe open: then it is not waited for.
            let _ = timeout(HEAR_WITHIN, listening).await;
        }
        let how = match status.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => format!("it was ended by signal {signal}{}", signal_name(signal)),
            Some((None, Some(code))) => format!("it ended with exit code {code}"),
            _ => "it ended".to_owned(),
        };
        let last_words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last_words.iter().map(String::as_str).collect::<Vec<_>>().join("; ") {
            "" => how,
            words => format!("{how}; its last words: {words}"),
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = timeout(END_WITHIN, self.child.kill()).await.unwrap_or(Ok(())) {
            tracing::warn!(%error, "the process of a model could not be killed");
        }
    }

    /// Closes its socket and waits for its end; kills it when that takes too long.
    pub(super) async fn end(self) {
        let Self { mut child, from, to, .. } = self;
        drop((from, to));
        if timeout(END_WITHIN, child.wait()).await.is_err() && timeout(END_WITHIN, child.kill()).await.is_err() {
            tracing::warn!("the process of a model does not end, though it was killed");
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        9 => " (kill: out of memory, or somebody ended it)",
        11 => " (segmentation fault)",
        15 => " (terminate)",
        31 => " (a system call that it may not make)",
        _ => "",
    }
}

/// Logs what it says, and keeps the end of it.
async fn listen(stderr: ChildStderr, model: String, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut stderr = BufReader::new(stderr);
    let (mut line, mut lines) = (Vec::new(), 0);
    loop {
        line.clear();
        match (&mut stderr).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let words = String::from_utf8_lossy(&line).trim().to_owned();
        if words.is_empty() {
            continue;
        }
        lines += 1;
        if lines <= LOGGED_LINES {
            tracing::debug!(model, words, "the process of the model says");
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LAST_WORDS {
            kept.pop_front();
        }
        kept.push_back(words);
    }
}
