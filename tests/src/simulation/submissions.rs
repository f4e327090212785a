//! What the clients of a simulated world asked for, and what they were told.
//!
//! Notes only; what follows from it is the verdict's. Used by the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use motet_engine::access::Principal;
use motet_engine::definition::Workflow;
use motet_engine::event::Submission as Asked;
use motet_engine::id::{Name, Namespace, RunId};
use motet_engine::stream::Source;
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_store::port::{Admitted, IdempotencyKey};

use super::shapes::SHAPES;

/// One thing that a client wants done once.
pub(super) struct Submission {
    pub(super) shape: usize,
    /// None for a client that does not care whether it happens twice.
    pub(super) key: Option<String>,
    /// The runs that the client was told.
    pub(super) told: BTreeSet<RunId>,
}

/// Everything that clients asked for.
pub(super) struct Submissions {
    /// The workflows by shape.
    pub(super) workflows: Vec<Arc<Workflow>>,
    pub(super) all: Vec<Submission>,
    /// Which submission each run was made for, whether it was admitted or not.
    pub(super) runs: BTreeMap<RunId, usize>,
    /// Runs that somebody asked to cancel.
    pub(super) to_cancel: BTreeSet<RunId>,
    /// Runs whose cancelling was acknowledged.
    pub(super) cancelled: BTreeSet<RunId>,
}

impl Submissions {
    pub(super) fn new() -> Self {
        Self {
            workflows: vec![],
            all: vec![],
            runs: BTreeMap::new(),
            to_cancel: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, shape: usize, keyed: bool) -> usize {
        let number = self.all.len();
        let key = keyed.then(|| format!("key-{number}"));
        self.all.push(Submission { shape, key, told: BTreeSet::new() });
        number
    }

    /// Submissions that a client repeats until it is told a run.
    pub(super) fn untold(&self) -> Vec<usize> {
        let untold = |number: &usize| self.all[*number].key.is_some() && self.all[*number].told.is_empty();
        (0..self.all.len()).filter(untold).collect()
    }

    pub(super) fn is_sure(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|number| SHAPES[self.all[*number].shape].sure)
    }

    pub(super) fn answered(&mut self, number: usize, run: RunId, admitted: Admitted) {
        let told = match admitted {
            Admitted::New => run,
            Admitted::Replayed(earlier) | Admitted::KeyReused(earlier) => earlier,
        };
        self.all[number].told.insert(told);
    }

    /// The engine's view of a submission.
    pub(super) fn asked(&self, number: usize, at: Timestamp) -> (Arc<Workflow>, Asked) {
        let shape = self.all[number].shape;
        let workflow = Arc::clone(&self.workflows[shape]);
        let asked = Asked {
            namespace: Namespace::default(),
            principal: Principal::Local,
            workflow: workflow.name.clone(),
            version: workflow.version.clone(),
            input: SHAPES[shape].input(number).into(),
            tags: vec![],
            priority: 0,
            trace: TraceContext::start(1, 1),
            at,
            // Some come from records, so that what they come from passes through every journal and snapshot, too.
            source: number.is_multiple_of(3).then(|| Arc::new(record(number))),
        };
        (workflow, asked)
    }

    pub(super) fn idempotency(&self, number: usize) -> Option<IdempotencyKey> {
        let key = self.all[number].key.clone()?;
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Some(IdempotencyKey { key, fingerprint, expires_at: Timestamp::from_millis(i64::MAX / 2) })
    }
}

/// The record that began the run of a submission.
fn record(number: usize) -> Source {
    Source {
        stream: Name::new("records").unwrap(),
        revision: "1".into(),
        generation: 1,
        topic: "in".into(),
        partition: 3,
        offset: i64::try_from(number).unwrap(),
        timestamp: None,
        key: Some(Bytes::from_static(b"ada")),
        // Each in a line of its own, which it is the first of.
        order: Some((number as u128).to_be_bytes()),
        reply: vec![("correlation-id".into(), None)],
        event: None,
    }
}
