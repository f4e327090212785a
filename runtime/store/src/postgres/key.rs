//! What became of admissions with an idempotency key.
//!
//! A key that was free is taken by the statement itself; whoever holds one that was not free is asked for afterwards,
//! when its transaction has certainly ended. Never writes. Used by the writer.

use std::collections::{HashMap, HashSet};

use motet_engine::id::{Namespace, RunId, Seq};
use motet_engine::time::Timestamp;
use sqlx::postgres::PgRow;

use super::link::Link;
use super::plan::{Decision, KeyName};
use super::queue::{Op, Outcome, Write};
use super::reader::{column, digest, name, run_id};
use super::trouble::Trouble;
use super::writer::{arguments, unreadable};
use crate::StoreError;
use crate::port::{Admission, Admitted, IdempotencyKey};

const FIND: &str = "select kept.namespace, kept.key, kept.run, kept.fingerprint, kept.expires_at
  from unnest($1, $2) as asked(namespace, key) join idempotency as kept
  on kept.namespace = asked.namespace and kept.key = asked.key";

/// A key that is in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedKey {
    run: RunId,
    fingerprint: [u8; 32],
    expires_at: Timestamp,
}

/// The keys of a batch.
pub(super) struct Keyed {
    used: HashMap<KeyName, UsedKey>,
    unknown: Vec<KeyName>,
    /// Whether it is known who holds the unknown ones, or that nobody does.
    complete: bool,
    taken: HashSet<RunId>,
}

impl Keyed {
    /// Knows of the keys that the batch itself took.
    pub(super) fn new(writes: &[Write], decisions: &[Decision], taken: &HashSet<RunId>) -> Self {
        let mut keyed = Self { used: HashMap::new(), unknown: Vec::new(), complete: false, taken: taken.clone() };
        let admissions = || {
            let keyed = writes.iter().zip(decisions).filter(|(_, decision)| matches!(decision, Decision::Keyed { .. }));
            keyed.filter_map(|(write, _)| with_key(write))
        };
        for (admission, key) in admissions().filter(|(admission, _)| taken.contains(&admission.run)) {
            let used = UsedKey { run: admission.run, fingerprint: key.fingerprint, expires_at: key.expires_at };
            keyed.used.insert(key_name(admission, key), used);
        }
        let unknown = admissions().map(|(admission, key)| key_name(admission, key));
        keyed.unknown = unknown.filter(|name| !keyed.used.contains_key(name)).collect();
        keyed
    }

    /// Keys that somebody else holds.
    pub(super) fn unknown(&self) -> &[KeyName] {
        &self.unknown
    }

    pub(super) fn learn(&mut self, used: HashMap<KeyName, UsedKey>) {
        self.used.extend(used);
        self.complete = true;
    }

    /// What became of an admission; none when it must be tried again.
    pub(super) fn settle(&self, write: &Write, exists: bool) -> Option<Result<Outcome, StoreError>> {
        let (admission, key) = with_key(write)?;
        if self.taken.contains(&admission.run) {
            return Some(Ok(Outcome::Admitted(Admitted::New)));
        }
        let used = self.used.get(&key_name(admission, key));
        let Some(used) = used.filter(|used| used.expires_at > admission.entry.at) else {
            let taken = StoreError::SeqTaken { run: admission.run, seq: Seq(1) };
            return (exists && self.complete).then_some(Err(taken));
        };
        let admitted = if write.in_doubt && used.run == admission.run {
            Admitted::New
        } else if used.fingerprint == key.fingerprint {
            Admitted::Replayed(used.run)
        } else {
            Admitted::KeyReused(used.run)
        };
        Some(Ok(Outcome::Admitted(admitted)))
    }
}

fn with_key(write: &Write) -> Option<(&Admission, &IdempotencyKey)> {
    let Op::Admit(admission) = &write.op else { return None };
    admission.idempotency.as_ref().map(|key| (&**admission, key))
}

fn key_name(admission: &Admission, key: &IdempotencyKey) -> KeyName {
    (admission.namespace.clone(), key.key.clone())
}

/// Who holds the keys; none when nothing is asked.
pub(super) async fn look_up(link: &mut Link, keys: &[KeyName]) -> Result<Option<HashMap<KeyName, UsedKey>>, Trouble> {
    if keys.is_empty() {
        return Ok(None);
    }
    let (namespaces, texts): (Vec<&str>, Vec<&str>) =
        keys.iter().map(|(namespace, key)| (namespace.0.as_str(), key.as_str())).unzip();
    let rows = link.fetch(FIND, arguments((namespaces, texts))?).await?;
    let read = |row: &PgRow| {
        let expires_at = Timestamp::from_millis(column(row, 4)?);
        let used = UsedKey { run: run_id(row, 2)?, fingerprint: digest(row, 3)?, expires_at };
        Ok(((Namespace(name(row, 0)?), column(row, 1)?), used))
    };
    rows.iter().map(read).collect::<Result<_, StoreError>>().map(Some).map_err(unreadable)
}
