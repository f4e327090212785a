//! The mailbox before the outside world: lets HTTP calls of all runs wait for their turn and sends them.
//!
//! Never retries, and never waits for an answer itself: each call that is under way has a task of its own, which ends
//! with whoever asked. Spawned by `egress`.

use std::sync::Arc;
use std::time::Instant;

use motet_engine::access::Caller;
use motet_engine::failure::Failure;
use motet_engine::value::Value;
use motet_models::egress::{HttpCaller, HttpRequest};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::egress::EgressLimits;
use crate::lines::Lines;
use crate::mailbox::{Letter, Mailbox, Vitals};
use crate::turn::Turn;

/// A call and where its answer goes.
#[derive(Debug)]
pub(crate) struct EgressCall {
    pub(crate) request: HttpRequest,
    /// Higher goes first.
    pub(crate) priority: i8,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Value, Failure>>,
    /// Its place among the calls that wait or are under way; free again when it is answered.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What the egress actor is told.
#[derive(Debug)]
pub(crate) enum EgressMessage {
    /// Make this call.
    Call(Box<EgressCall>),
    /// A call to this host is not under way any more.
    Done(Arc<str>),
}

/// The actor's fixed parts.
pub(crate) struct EgressActor {
    pub(crate) http: Arc<dyn HttpCaller>,
    pub(crate) limits: EgressLimits,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) caller: Caller,
}

/// What changes.
pub(crate) struct Traffic {
    lines: Lines<Box<EgressCall>>,
    begun: Instant,
    arrived: u64,
    mailbox: Mailbox<EgressMessage>,
}

impl Actor for EgressActor {
    type Msg = Letter<EgressMessage>;
    type State = Traffic;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Traffic, ActorProcessingErr> {
        Ok(Traffic {
            lines: Lines::new(self.limits.in_flight, self.limits.in_flight_per_host),
            begun: Instant::now(),
            arrived: 0,
            mailbox: Mailbox::new(myself, Arc::clone(&self.vitals)),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        letter: Self::Msg,
        traffic: &mut Traffic,
    ) -> Result<(), ActorProcessingErr> {
        let (_, message) = letter.open(&self.vitals);
        match message {
            EgressMessage::Call(call) => {
                traffic.arrived += 1;
                let turn = Turn::new(traffic.begun.elapsed(), call.priority, traffic.arrived);
                traffic.lines.enter(&call.request.origin().into(), turn, call);
            }
            EgressMessage::Done(host) => traffic.lines.leave(&host),
        }
        while let Some((host, call)) = traffic.lines.take() {
            let slot = Slot { host, mailbox: traffic.mailbox.clone(), caller: self.caller.clone() };
            // Calls whose asker went away are not made; their slot is free again with the next message.
            if !call.reply.is_closed() {
                tokio::spawn(send(Arc::clone(&self.http), *call, slot));
            }
        }
        metrics::gauge!("motet_egress_calls_waiting").set(traffic.lines.waiting() as f64);
        metrics::gauge!("motet_egress_calls_in_flight").set(traffic.lines.under_way() as f64);
        Ok(())
    }
}

/// A call's place among those under way; given back whatever becomes of it.
struct Slot {
    host: Arc<str>,
    mailbox: Mailbox<EgressMessage>,
    caller: Caller,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // There is room for one such message per call; this fails only when the actor has ended, and its lines with it.
        let _ = self.mailbox.try_send(&self.caller, EgressMessage::Done(Arc::clone(&self.host)));
    }
}

async fn send(http: Arc<dyn HttpCaller>, call: EgressCall, slot: Slot) {
    let EgressCall { request, deadline, mut reply, _place, .. } = call;
    let begun = Instant::now();
    let target = tracing::enabled!(tracing::Level::DEBUG).then(|| request.target());
    let outcome = tokio::select! {
        outcome = http.call(request, deadline) => outcome,
        () = reply.closed() => {
            metrics::counter!("motet_egress_calls_total", "outcome" => "abandoned").increment(1);
            return;
        }
    };
    let took = begun.elapsed();
    let label = outcome.as_ref().map_or_else(|failure| failure.class.as_str(), |_| "answered");
    metrics::counter!("motet_egress_calls_total", "outcome" => label).increment(1);
    metrics::histogram!("motet_egress_call_seconds").record(took.as_secs_f64());
    if let Some(target) = target {
        tracing::debug!(target, outcome = label, ms = took.as_millis(), "called");
    }
    // Free before the asker knows of it, so that its next call finds room.
    drop((slot, _place));
    let _ = reply.send(outcome);
}
