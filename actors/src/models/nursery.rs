//! How the supervisor of models revives one, and what it says of one that has ended.
//!
//! Loads by the same way as everybody. Used by `node`, which starts the supervisor.

use std::sync::Arc;

use async_trait::async_trait;
use motet_engine::failure::{Failure, FailureClass};

use super::{Loading, Models, Status};
use crate::address::Address;
use crate::supervisor::Nursery;

/// What the supervisor of models needs to know.
pub(crate) struct ModelNursery(pub(crate) Arc<Models>);

#[async_trait]
impl Nursery for ModelNursery {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        let Address::Model(namespace, name) = child else { return Ok(()) };
        let key = (namespace.clone(), name.clone());
        let Some(entry) = self.0.entries.get(&key).map(|entry| Arc::clone(&entry)) else { return Ok(()) };
        self.0.try_bring_up(&key, &entry).await.map_err(|failure| failure.to_string())
    }

    fn ended(&self, child: &Address) {
        let Address::Model(namespace, name) = child else { return };
        if let Some(entry) = self.0.entries.get(&(namespace.clone(), name.clone())) {
            entry.status.send_if_modified(|status| {
                let dead = matches!(status, Status::Ready { mailbox, .. } if mailbox.is_gone());
                if dead {
                    *status = Status::Loading(Loading { what: "restarting".into(), ..Loading::default() });
                }
                dead
            });
        }
    }

    fn quarantined(&self, child: &Address, reason: &str) {
        let Address::Model(namespace, name) = child else { return };
        if let Some(entry) = self.0.entries.get(&(namespace.clone(), name.clone())) {
            let words = format!("model '{name}' failed too often and stays down: {reason}");
            entry.status.send_replace(Status::failed(Failure::new(FailureClass::Unavailable, words)));
        }
    }
}
