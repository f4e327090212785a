//! What the supervisor of runs needs to know: how to bring one up again, and what to forget when one has ended.
//!
//! Never counts failures; the supervisor does. Used by the node.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Runs, Slot};
use crate::address::Address;
use crate::message::RouteError;
use crate::supervisor::Nursery;

/// What the supervisor of runs needs to know.
pub(crate) struct RunNursery(pub(crate) Arc<Runs>);

#[async_trait]
impl Nursery for RunNursery {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        let Address::Run(run) = child else { return Ok(()) };
        match self.0.activate(*run).await {
            // Its shard has moved: whoever owns it now brings it up.
            Ok(()) | Err(RouteError::NotOwner) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ended(&self, child: &Address) {
        let Address::Run(run) = child else { return };
        // A newer actor of the same run may live already; only a slot whose actor is dead is struck.
        let stale = |slot: &Slot| matches!(slot, Slot::Live(mailbox) if mailbox.is_gone());
        if self.0.slots.remove_if(run, |_, slot| stale(slot)).is_some() {
            self.0.give_up_turn(*run);
        }
        if !self.0.slots.contains_key(run) {
            self.0.census.leave(child);
        }
    }

    fn quarantined(&self, child: &Address, reason: &str) {
        tracing::error!(run = %child, reason, "run quarantined: it keeps its state and is tried again at the next start");
    }
}
