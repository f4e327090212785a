//! The way out of this node: calls to other services, sent by one supervised actor.
//!
//! Reads what a step wants sent, gives it its trace and its time, and lets it wait for a place. Never sends itself.
//! Used by the router.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use motet_engine::access::Caller;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Namespace;
use motet_engine::value::Value;
use motet_models::egress::{HttpCaller, HttpRequest, Terms, target};
use ractor::{Actor, ActorCell};
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::address::Address;
use crate::census::Census;
use crate::egress_actor::{EgressActor, EgressCall, EgressMessage};
use crate::mailbox::{Mailbox, SendError};
use crate::message::{EgressAsk, RouteError};
use crate::ports::Entropy;
use crate::supervisor::{Children, Nursery};

/// Calls that may wait or be under way. Many, since a host that does not answer must not keep others from the actor,
/// which has a line for each.
const CALLS: usize = 65_536;

/// How much longer than a call's own time its answer is waited for: whoever sends it measures that time, and knows
/// better why it was too short.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// How many calls may be under way.
#[derive(Debug, Clone, Copy)]
pub struct EgressLimits {
    /// To all hosts together, at least 1.
    pub in_flight: usize,
    /// To one host and port, at least 1.
    pub in_flight_per_host: usize,
}

/// The way out.
pub struct Egress {
    census: Arc<Census>,
    children: Arc<Children>,
    http: Arc<dyn HttpCaller>,
    limits: EgressLimits,
    entropy: Arc<dyn Entropy>,
    places: Arc<Semaphore>,
    mailbox: RwLock<Option<Mailbox<EgressMessage>>>,
    opening: Mutex<()>,
    supervisor: OnceLock<ActorCell>,
}

impl Egress {
    pub(crate) fn new(
        census: Arc<Census>,
        http: Arc<dyn HttpCaller>,
        limits: EgressLimits,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        Arc::new(Self {
            census,
            children: Arc::default(),
            http,
            limits,
            entropy,
            places: Arc::new(Semaphore::new(CALLS)),
            mailbox: RwLock::default(),
            opening: Mutex::default(),
            supervisor: OnceLock::new(),
        })
    }

    pub(crate) fn wire(&self, supervisor: ActorCell) {
        // Wired once, by the node, before anything can arrive.
        let _ = self.supervisor.set(supervisor);
    }

    pub(crate) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Makes one call, within the time that it has.
    pub(crate) async fn ask(&self, caller: &Caller, ask: EgressAsk) -> Result<Value, RouteError> {
        let EgressAsk::Http { with, key, priority, timeout } = ask;
        let entered = Instant::now();
        let trace = caller.trace.child(self.entropy.next());
        let request = HttpRequest::read(&with, Terms { key: key.as_deref(), trace, timeout })?;
        let timeout = request.timeout();
        let deadline = entered + timeout;
        let answered = tokio::time::timeout_at((deadline + GRACE / 2).into(), async {
            let mailbox = self.opened().await?;
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| unavailable())?;
            let (reply, answer) = oneshot::channel();
            let call = Box::new(EgressCall { request, priority, deadline, reply, _place: place });
            mailbox.try_send(caller, EgressMessage::Call(call)).map_err(|error| match error {
                SendError::Full => RouteError::Overloaded("the queue of calls to other services is full".into()),
                SendError::Gone => unavailable(),
            })?;
            Ok(answer.await.map_err(|_| unavailable())??)
        });
        answered.await.unwrap_or_else(|_| {
            let words =
                "for its turn; egress.max_in_flight and egress.max_in_flight_per_host bound the calls under way";
            let words = format!("{} waited {timeout:?} {words}", target(&with));
            Err(Failure::new(FailureClass::Timeout, words).into())
        })
    }

    fn live(&self) -> Option<Mailbox<EgressMessage>> {
        // The slot is whole whatever happened to another thread.
        let mailbox = self.mailbox.read().unwrap_or_else(PoisonError::into_inner);
        mailbox.as_ref().filter(|mailbox| !mailbox.is_gone()).cloned()
    }

    /// The actor's mailbox; it is started by the first call, and by the first after it failed too often.
    async fn opened(&self) -> Result<Mailbox<EgressMessage>, RouteError> {
        if let Some(mailbox) = self.live() {
            return Ok(mailbox);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(mailbox) = self.live() {
            return Ok(mailbox);
        }
        let Some(supervisor) = self.supervisor.get() else { return Err(RouteError::NotOwner) };
        // Beside every call there may be the message that one has ended.
        let vitals = self.census.enter(Address::Egress, CALLS + self.limits.in_flight.max(1) + 64);
        let actor = EgressActor {
            http: Arc::clone(&self.http),
            limits: self.limits,
            vitals: Arc::clone(&vitals),
            caller: crate::router::system_caller(Namespace::default()),
        };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.clone()).await.map_err(|error| {
            Failure::new(FailureClass::Internal, format!("the actor of calls to other services cannot start: {error}"))
        })?;
        self.children.enter(&actor.get_cell(), Address::Egress);
        let mailbox = Mailbox::new(actor, vitals);
        *self.mailbox.write().unwrap_or_else(PoisonError::into_inner) = Some(mailbox.clone());
        Ok(mailbox)
    }
}

fn unavailable() -> RouteError {
    Failure::new(FailureClass::Unavailable, "the actor of calls to other services is being restarted").into()
}

/// What the supervisor of the way out needs to know.
pub(crate) struct EgressNursery(pub(crate) Arc<Egress>);

#[async_trait]
impl Nursery for EgressNursery {
    async fn revive(&self, _: &Address) -> Result<(), String> {
        self.0.opened().await.map(drop).map_err(|error| error.to_string())
    }

    fn ended(&self, _: &Address) {}

    fn quarantined(&self, child: &Address, reason: &str) {
        tracing::error!(actor = %child, reason, "calls to other services fail until the next of them starts the actor");
    }
}
