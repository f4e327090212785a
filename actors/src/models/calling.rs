//! One call of a model of this node: waits for the load and for a place, goes into the mailbox, waits for the answer.
//!
//! Never retries and never asks another node. Used by the router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_engine::access::Caller;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_engine::value::Value;
use motet_models::call::{self, EncodedCall};
use motet_models::port::{LoadedModel, Tensors};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};

use super::responses::Missed;
use super::{EXPECTING, Entry, Models, Status, Why, described};
use crate::mailbox::{Mailbox, SendError};
use crate::message::{Answer, ModelAsk, RouteError};
use crate::model_actor::{ModelCall, ModelMessage};
use crate::residency::Interest;

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
            ModelAsk::Unload => self.unload(&caller.namespace, name).map(|()| Answer::Accepted),
            ModelAsk::Describe => loop {
                let (entry, _interest) = self.entry(&caller.namespace, name, Why::Called).await?;
                if let Some((_, model)) = ready(&entry, asker).await? {
                    return Ok(Answer::Output(described(&entry.definition.version, model.signature())?));
                }
            },
            ModelAsk::Infer { with, priority, key } => {
                let deadline = Instant::now() + patience;
                // A run is accepted and must not fail for want of room; whoever else asks is told at once.
                let may_wait = key.is_some() && asker == Asker::Own;
                let order = Order { with: &with, priority, deadline, may_wait, asker };
                loop {
                    let (entry, interest) = self.entry(&caller.namespace, name, Why::Called).await?;
                    if let Some(answer) = self.infer(caller, &entry, interest, &order).await {
                        return answer;
                    }
                    if Instant::now() >= deadline {
                        return Err(absent(format!("model '{name}' was unloaded for others again and again")));
                    }
                }
            }
        }
    }

    /// Calls a model; nothing when it left before it answered, and is to be asked for anew.
    async fn infer(
        &self,
        caller: &Caller,
        entry: &Entry,
        interest: Option<Interest>,
        order: &Order<'_>,
    ) -> Option<Result<Answer, RouteError>> {
        let (mailbox, model) = match ready(entry, order.asker).await {
            Ok(ready) => ready?,
            Err(error) => return Some(Err(error)),
        };
        let EncodedCall { inputs, rows, single } = match call::encode(model.signature(), order.with) {
            Ok(encoded) => encoded,
            Err(failure) => return Some(Err(failure.into())),
        };
        let ready = Ready { entry, mailbox: &mailbox, model: &*model, interest, order };
        let answered = match &entry.responses {
            None => ready.compute(caller, inputs, rows).await,
            Some(responses) => {
                let computed = ready.compute(caller, inputs.clone(), rows);
                match responses.get(&inputs, computed).await {
                    Ok(outputs) => Ok(outputs),
                    // Whoever computed it had less time than is left here: it is asked for again.
                    Err(missed) if missed.is_late() && Instant::now() < order.deadline => return None,
                    Err(missed) => Err(missed.as_ref().clone()),
                }
            }
        };
        match answered {
            Ok(outputs) => Some(Ok(Answer::Output(call::decode(outputs, single)))),
            Err(Missed::Failed(error)) => Some(Err(error)),
            Err(Missed::Left) => None,
        }
    }

    /// Waits until a model is loaded.
    ///
    /// # Errors
    /// When it does not exist or cannot be loaded.
    pub async fn ready(self: &Arc<Self>, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        loop {
            let (entry, _interest) = self.entry(namespace, name, Why::Called).await?;
            if ready(&entry, Asker::Own).await?.is_some() {
                return Ok(());
            }
        }
    }
}

/// One call as it was ordered.
struct Order<'a> {
    with: &'a Value,
    priority: i8,
    deadline: Instant,
    may_wait: bool,
    asker: Asker,
}

/// A model that can be called.
struct Ready<'a> {
    entry: &'a Entry,
    mailbox: &'a Mailbox<ModelMessage>,
    model: &'a dyn LoadedModel,
    interest: Option<Interest>,
    order: &'a Order<'a>,
}

impl Ready<'_> {
    /// Sends the call, once it has a place, and waits for the answer.
    async fn compute(self, caller: &Caller, inputs: Tensors, rows: usize) -> Result<Tensors, Missed> {
        let (entry, name) = (self.entry, &self.entry.definition.name);
        let place = place(entry, self.order.may_wait).await.map_err(|refused| match refused {
            TryAcquireError::Closed => Missed::Left,
            TryAcquireError::NoPermits => {
                let queue = entry.definition.queue;
                overloaded(format!("the queue of model '{name}' is full ({queue} calls)"))
            }
        })?;
        // With its place it keeps the model from being ended as one that nobody calls.
        drop(self.interest);
        entry.history.called();
        let (reply, answer) = oneshot::channel();
        let length = self.model.length(&inputs);
        let (priority, deadline) = (self.order.priority, self.order.deadline);
        let call = ModelCall { inputs, rows, length, priority, deadline, reply, _place: place };
        let gone = |words: String| match entry.places.is_closed() {
            true => Missed::Left,
            false => Missed::Failed(absent(words)),
        };
        match self.mailbox.try_send(caller, ModelMessage::Call(call)) {
            Ok(()) => {}
            Err(SendError::Full) => return Err(overloaded(format!("the queue of model '{name}' is full"))),
            Err(SendError::Gone) => return Err(gone(format!("model '{name}' is being restarted"))),
        }
        match answer.await {
            Ok(answered) => answered.map_err(|failure| Missed::Failed(failure.into())),
            Err(_) => Err(gone(format!("model '{name}' ended before it answered"))),
        }
    }
}

fn overloaded(words: String) -> Missed {
    Missed::Failed(RouteError::Overloaded(words))
}

/// A place for one call. The wait for it ends with the caller's patience.
async fn place(entry: &Entry, may_wait: bool) -> Result<OwnedSemaphorePermit, TryAcquireError> {
    let places = Arc::clone(&entry.places);
    if may_wait {
        places.acquire_owned().await.map_err(|_| TryAcquireError::Closed)
    } else {
        places.try_acquire_owned()
    }
}

/// The model when it is loaded; none when it left before.
async fn ready(
    entry: &Entry,
    asker: Asker,
) -> Result<Option<(Mailbox<ModelMessage>, Arc<dyn LoadedModel>)>, RouteError> {
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
        Ok(Status::Ready { mailbox, model }) => Ok(Some((mailbox.clone(), Arc::clone(model)))),
        Ok(Status::Failed { failure, .. }) => Err(RouteError::Absent(failure.clone())),
        Ok(Status::Loading(_) | Status::Left) | Err(_) => Ok(None),
    }
}

fn absent(words: String) -> RouteError {
    RouteError::Absent(Failure::new(FailureClass::Unavailable, words))
}
