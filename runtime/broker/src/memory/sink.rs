//! Sinks in memory: a record is written the moment it is sent.
//!
//! Never fails for a reason that passes. Used through the port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::world::World;
use crate::BrokerError;
use crate::port::{Delivered, Outgoing, RecordSink, TransactionSettings, TransactionalSink};

/// A sink of records that stand each for themselves.
pub(super) struct MemorySink {
    pub(super) world: Arc<World>,
    pub(super) closed: AtomicBool,
}

#[async_trait]
impl RecordSink for MemorySink {
    async fn send(&self, records: Vec<Outgoing>) -> Vec<Result<Delivered, BrokerError>> {
        if self.closed.load(Ordering::Acquire) {
            return records.iter().map(|_| Err(BrokerError::Closed)).collect();
        }
        self.world.change(|state| records.iter().map(|record| state.write(record)).collect())
    }

    async fn close(&self, _: Duration) {
        self.closed.store(true, Ordering::Release);
    }
}

/// A sink whose records and position are written at once.
pub(super) struct MemoryTransactionalSink {
    world: Arc<World>,
    settings: TransactionSettings,
    /// How often the id was opened when this one was.
    turn: u64,
    position: Option<i64>,
    usable: bool,
}

impl MemoryTransactionalSink {
    pub(super) fn open(world: &Arc<World>, settings: TransactionSettings) -> Result<Self, BrokerError> {
        if settings.id.is_empty() || settings.group.is_empty() {
            return Err(BrokerError::Setting("a transactional sink needs an id and a group".to_owned()));
        }
        let (turn, position) = world.touch(|state| {
            state.log(&settings.anchor)?;
            let turn = state.transactions.entry(settings.id.clone()).or_default();
            *turn += 1;
            let position = state.positions.get(&(settings.group.clone(), settings.anchor.clone())).copied();
            Ok((*turn, position))
        })?;
        Ok(Self { world: Arc::clone(world), settings, turn, position, usable: true })
    }
}

#[async_trait]
impl TransactionalSink for MemoryTransactionalSink {
    fn position(&self) -> Option<i64> {
        self.position
    }

    async fn send(&mut self, records: Vec<Outgoing>, position: i64) -> Result<Vec<Delivered>, BrokerError> {
        if !self.usable {
            return Err(BrokerError::Closed);
        }
        let TransactionSettings { id, group, anchor, .. } = &self.settings;
        let delivered = self.world.change(|state| {
            if state.transactions.get(id) != Some(&self.turn) {
                return Err(BrokerError::Fenced(format!(
                    "the transactions of '{id}': another one writes under this id"
                )));
            }
            let delivered = state.write_all(&records)?;
            state.positions.insert((group.clone(), anchor.clone()), position);
            Ok(delivered)
        });
        self.usable = !matches!(delivered, Err(BrokerError::Fenced(_)));
        if delivered.is_ok() {
            self.position = Some(position);
        }
        delivered
    }

    fn is_usable(&self) -> bool {
        self.usable
    }

    async fn close(self: Box<Self>) {}
}
