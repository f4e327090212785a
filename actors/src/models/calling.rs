//! One call of a model of this node: waits for the load and for a place, goes into the mailbox, waits for the answer.
//!
//! Never retries and never asks another node. Used by the router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_engine::access::Caller;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_models::call;
use motet_models::port::LoadedModel;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{EXPECTING, Entry, Models, Status};
use crate::mailbox::{Mailbox, SendError};
use crate::message::{Answer, ModelAsk, RouteError};
use crate::model_actor::{ModelCall, ModelMessage};

/// Who asks: what waits here for another node is in the way of whatever else that node sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// An actor or a client of this node.
    Own,
    /// Another node, which can also ask elsewhere.
    Peer,
}

impl Models {
    /// Answers what a model is asked.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        caller: &Caller,
        name: &Name,
        ask: ModelAsk,
        patience: Duration,
        asker: Asker,
    ) -> Result<Answer, RouteError> {
        match ask {
            ModelAsk::Load => self.load(&caller.namespace, name).await.map(|()| Answer::Accepted),
            ModelAsk::Infer { with, priority, key } => {
                let deadline = Instant::now() + patience;
                // A run is accepted and must not fail for want of room; whoever else asks is told at once.
                let may_wait = key.is_some() && asker == Asker::Own;
                let entry = self.entry(&caller.namespace, name, false).await?;
                let (mailbox, model) = ready(&entry, asker).await?;
                let encoded = call::encode(model.signature(), &with)?;
                let single = encoded.single;
                let place = place(&entry, may_wait).await.ok_or_else(|| {
                    let queue = entry.definition.queue;
                    RouteError::Overloaded(format!("the queue of model '{name}' is full ({queue} calls)"))
                })?;
                let (reply, answer) = oneshot::channel();
                let length = model.length(&encoded.inputs);
                let (inputs, rows) = (encoded.inputs, encoded.rows);
                let call = ModelCall { inputs, rows, length, priority, deadline, reply, _place: place };
                mailbox.try_send(caller, ModelMessage::Call(call)).map_err(|error| match error {
                    SendError::Full => RouteError::Overloaded(format!("the queue of model '{name}' is full")),
                    SendError::Gone => absent(format!("model '{name}' is being restarted")),
                })?;
                match answer.await {
                    Ok(outputs) => Ok(Answer::Output(call::decode(outputs?, single))),
                    Err(_) => Err(absent(format!("model '{name}' ended before it answered"))),
                }
            }
        }
    }

    /// Waits until a model is loaded.
    ///
    /// # Errors
    /// When it does not exist or cannot be loaded.
    pub async fn ready(self: &Arc<Self>, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        let entry = self.entry(namespace, name, false).await?;
        ready(&entry, Asker::Own).await.map(drop)
    }
}

/// A place for one call. The wait for it ends with the caller's patience.
async fn place(entry: &Entry, may_wait: bool) -> Option<OwnedSemaphorePermit> {
    let places = Arc::clone(&entry.places);
    if may_wait { places.acquire_owned().await.ok() } else { places.try_acquire_owned().ok() }
}

async fn ready(entry: &Entry, asker: Asker) -> Result<(Mailbox<ModelMessage>, Arc<dyn LoadedModel>), RouteError> {
    let mut status = entry.status.subscribe();
    let loads = matches!(&*status.borrow(), Status::Loading(_));
    let _place = match asker {
        Asker::Peer if loads => Some(entry.expecting.try_acquire().map_err(|_| {
            let name = &entry.definition.name;
            RouteError::Overloaded(format!("model '{name}' is being loaded, and {EXPECTING} calls wait for it"))
        })?),
        Asker::Peer | Asker::Own => None,
    };
    let settled = status.wait_for(|status| !matches!(status, Status::Loading(_))).await;
    match settled.as_deref() {
        Ok(Status::Ready { mailbox, model }) => Ok((mailbox.clone(), Arc::clone(model))),
        Ok(Status::Failed { failure, .. }) => Err(RouteError::Absent(failure.clone())),
        Ok(Status::Loading(_)) | Err(_) => Err(absent("the model is being replaced".to_owned())),
    }
}

fn absent(words: String) -> RouteError {
    RouteError::Absent(Failure::new(FailureClass::Unavailable, words))
}
