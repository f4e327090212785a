//! One envelope in the hands of its handler.
//!
//! Whatever the handler does, there is an answer: a panic is a failure, a deadline ends it. Used by the session.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;
use motet_engine::failure::{Failure, FailureClass};
use tokio::time::timeout_at;

use crate::envelope::{Answer, Envelope, MAX_PAYLOAD_BYTES};
use crate::link::Handler;

/// A handler that waits for something: ends with the envelope's id, whether it was one-way, and the answer.
pub(crate) type Handled = BoxFuture<'static, (u64, bool, Answer)>;

/// Begins handling. Handlers that need not wait, which are most of those that put a message into a mailbox, are through
/// at once and cost no place among those that run.
pub(crate) fn begin(handler: &Arc<dyn Handler>, envelope: Envelope) -> Result<Answer, Handled> {
    let (id, one_way, deadline) = (envelope.id.0, envelope.one_way, envelope.deadline);
    let receiving = std::panic::catch_unwind(AssertUnwindSafe(|| Arc::clone(handler).receive(envelope)));
    let Ok(mut receiving) = receiving else { return Ok(no_answer()) };
    // Nobody is woken by this look: one that waits is looked at again as soon as it is among those that run.
    match look(&mut receiving, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => {
            let answered = timeout_at(deadline, poll_fn(move |context| look(&mut receiving, context)));
            Err(answered.map(move |answer| (id, one_way, answer.unwrap_or(Answer::Expired))).boxed())
        }
    }
}

fn look(receiving: &mut Pin<Box<dyn Future<Output = Answer> + Send>>, context: &mut Context<'_>) -> Poll<Answer> {
    std::panic::catch_unwind(AssertUnwindSafe(|| receiving.as_mut().poll(context)))
        .unwrap_or_else(|_| Poll::Ready(no_answer()))
}

fn no_answer() -> Answer {
    Answer::Failed(Failure::new(FailureClass::Internal, "the handler ended without an answer"))
}

/// The answer as it may travel: a payload that nobody reads is dropped, one that is too large is a failure.
pub(crate) fn ended(answer: Answer, one_way: bool) -> Answer {
    match answer {
        Answer::Ack(_) if one_way => Answer::taken(),
        Answer::Ack(payload) if payload.len() > MAX_PAYLOAD_BYTES => {
            let why = format!(
                "the answer has {} bytes, more than the {MAX_PAYLOAD_BYTES} that may travel: answer with a reference",
                payload.len()
            );
            Answer::Failed(Failure::new(FailureClass::Invalid, why))
        }
        Answer::Failed(mut failure) if failure.message.len() > MAX_MESSAGE_BYTES => {
            failure.message.truncate(failure.message.floor_char_boundary(MAX_MESSAGE_BYTES));
            Answer::Failed(failure)
        }
        Answer::Undecodable(mut why) if why.len() > MAX_MESSAGE_BYTES => {
            why.truncate(why.floor_char_boundary(MAX_MESSAGE_BYTES));
            Answer::Undecodable(why)
        }
        answer => answer,
    }
}

/// Longest words for people that travel, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;
