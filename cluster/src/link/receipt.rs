//! The receipt of an envelope: a future that ends with its answer, or why there is none.
//!
//! Holds no timer: the lane keeps the deadlines. Used by callers of the link.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::LinkError;
use crate::envelope::Answer;

/// Ends with the answer to an envelope.
#[derive(Debug)]
#[must_use = "without its receipt nobody knows what became of an envelope"]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Option<LinkError>),
    Awaited(oneshot::Receiver<Result<Answer, LinkError>>),
}

impl Receipt {
    /// Of an envelope that was not even queued.
    pub(crate) fn refused(error: LinkError) -> Self {
        Self(State::Known(Some(error)))
    }

    /// Of a queued envelope.
    pub(crate) fn awaited(answer: oneshot::Receiver<Result<Answer, LinkError>>) -> Self {
        Self(State::Awaited(answer))
    }

    /// Why the envelope was not even queued; none when it was.
    #[must_use]
    pub fn refusal(&self) -> Option<&LinkError> {
        match &self.0 {
            State::Known(error) => error.as_ref(),
            State::Awaited(_) => None,
        }
    }
}

impl Future for Receipt {
    type Output = Result<Answer, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(error) => Poll::Ready(Err(error.take().unwrap_or(LinkError::Closed { sent: false }))),
            // A lane that ends answers everything first; one whose thread died has left what it held.
            State::Awaited(answer) => {
                Pin::new(answer).poll(context).map(|known| known.unwrap_or(Err(LinkError::Closed { sent: true })))
            }
        }
    }
}
