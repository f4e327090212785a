//! A node's handler in tests: answers by kind, waits at a gate, breaks, and keeps account of what it was handed.
//!
//! Used by every row.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use motet_cluster::envelope::payload::{self, Payload};
use motet_cluster::envelope::{Answer, Envelope, Kind, NodeId, Parcel, Route};
use motet_cluster::link::Handler;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Epoch;
use motet_store::codec::{CodecError, decode_disposable};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Answers with what it was sent.
pub(crate) const ECHO: Kind = Kind(1);
/// Like [`ECHO`], after the gate has let it pass.
pub(crate) const GATE: Kind = Kind(2);
/// Panics.
pub(crate) const PANIC: Kind = Kind(3);
/// Never ends.
pub(crate) const ENDLESS: Kind = Kind(4);
/// Answers as the first byte says, see [`ANSWERS`].
pub(crate) const TYPED: Kind = Kind(5);
/// Answers with as many bytes as the payload says in text.
pub(crate) const LARGE: Kind = Kind(6);
/// A [`Greeting`].
pub(crate) const GREETING: Kind = Kind(7);

/// A payload at its second version.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(crate) struct Greeting {
    pub(crate) name: String,
    pub(crate) times: u32,
}

/// The same before it could be said more than once.
#[derive(Serialize, Deserialize)]
pub(crate) struct GreetingBefore {
    pub(crate) name: String,
}

impl Payload for Greeting {
    const KIND: Kind = GREETING;
    const VERSION: u32 = 2;

    fn previous(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        Some(decode_disposable::<GreetingBefore>(bytes).map(|before| Self { name: before.name, times: 1 }))
    }
}

/// Every answer that a handler may give.
pub(crate) fn answers() -> Vec<Answer> {
    vec![
        Answer::taken(),
        Answer::Ack(Bytes::from_static(b"payload")),
        Answer::Moved { owner: NodeId::new("other").unwrap(), epoch: Epoch(7), table_version: 9 },
        Answer::NotOwner,
        Answer::Overloaded { retry_after: std::time::Duration::from_millis(250) },
        Answer::Undecodable("it is upside down".to_owned()),
        Answer::Expired,
        Answer::Failed(Failure::new(FailureClass::NotFound, "there is no such actor")),
        Answer::Failed(Failure { retry_after_ms: Some(5), ..Failure::new(FailureClass::RateLimited, "slowly") }),
    ]
}

/// The handler.
pub(crate) struct Peer {
    /// Lets envelopes of [`GATE`] pass.
    pub(crate) gate: Semaphore,
    /// Envelopes that were handed over.
    pub(crate) begun: AtomicUsize,
    /// Those of them that waited at the gate and have passed it.
    pub(crate) passed: AtomicUsize,
    /// What was handed over, when it is kept.
    pub(crate) seen: Mutex<Vec<Envelope>>,
}

impl Peer {
    /// A handler with a closed gate.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

/// A parcel of a kind.
pub(crate) fn parcel(kind: Kind, payload: impl Into<Bytes>) -> Parcel {
    Parcel { route: Route::default(), correlation: None, trace: None, kind, version: 1, payload: payload.into() }
}

#[async_trait]
impl Handler for Peer {
    fn reads(&self, kind: Kind, version: u32) -> bool {
        (ECHO.0..GREETING.0).contains(&kind.0) && version == 1 || payload::reads::<Greeting>(kind, version)
    }

    async fn receive(self: Arc<Self>, envelope: Envelope) -> Answer {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let payload = envelope.parcel.payload.clone();
        let kind = envelope.parcel.kind;
        if payload.len() < 1_024 {
            self.seen.lock().unwrap().push(envelope.clone());
        }
        match kind {
            ECHO => Answer::Ack(payload),
            GATE => {
                self.gate.acquire().await.unwrap().forget();
                self.passed.fetch_add(1, Ordering::SeqCst);
                Answer::Ack(payload)
            }
            PANIC => panic!("this handler breaks, as the test wants"),
            ENDLESS => std::future::pending().await,
            TYPED => answers()[usize::from(payload[0])].clone(),
            LARGE => Answer::Ack(Bytes::from(vec![7; std::str::from_utf8(&payload).unwrap().parse().unwrap()])),
            _ => match payload::open::<Greeting>(&envelope.parcel) {
                Ok(greeting) => Answer::Ack(Bytes::from(greeting.name.repeat(greeting.times as usize))),
                Err(error) => error.into(),
            },
        }
    }
}
