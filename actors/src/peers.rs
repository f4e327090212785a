//! The actors of other nodes: asks them over the link, and answers what other nodes ask of the actors here.
//!
//! A question is answered here or not at all: it is never passed on, so that nodes that disagree about a shard cannot
//! send it round in circles. Used by the router.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use motet_cluster::envelope::{Answer as Reply, Envelope, Kind, Lane, NodeId, Parcel, Route};
use motet_cluster::link::{ErrorClass, Handler, Link, LinkError};
use motet_cluster::members::{Member, MemberState};
use motet_cluster::shards::{Home, ShardTable};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{RunId, ShardId};
use motet_store::port::{Incarnation, Store};
use tokio::sync::watch;

use crate::address::Address;
use crate::message::{Answer, Ask, RouteError, RunAsk};
use crate::placement::Placement;
use crate::router::{Homes, Router};
use crate::wire::{self, Question, WireError};

/// A question to an actor.
const ASK: Kind = Kind(1);

/// A run was admitted elsewhere on a shard of the receiver.
const ADMITTED: Kind = Kind(2);

/// A definition was put.
const DEFINED: Kind = Kind(3);

/// The receiver shall give its work away, or take some again.
const DRAIN: Kind = Kind(4);

/// Version of every payload.
const VERSION: u32 = 1;

/// How long a node may take to hear that it is to drain.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a message of which nothing depends may be on its way.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);

/// The way to the actors of other nodes.
pub struct Peers {
    /// This node.
    pub me: NodeId,
    /// The way to the others.
    pub link: Arc<dyn Link>,
    /// Where shards are.
    pub table: Arc<ShardTable>,
    /// Which nodes there are, this one included.
    pub members: watch::Receiver<Arc<Vec<Member>>>,
    /// Whether this node is to give its work away; whoever started it acts on that.
    pub draining: watch::Sender<bool>,
    /// Where models are.
    pub placement: Placement,
    /// Where indexes are.
    pub homes: Homes,
    /// What all nodes share.
    pub store: Arc<dyn Store>,
}

/// Why another node gave no answer of its actor.
pub(crate) enum Missed {
    /// The shard is elsewhere, or nobody can be reached who has it; another home may be known soon.
    Elsewhere(RouteError),
    /// Asking again cannot help, or might do twice what was done.
    For(RouteError),
}

impl Peers {
    /// The node that serves a shard, as far as this one knows; none while nobody does, and none for this node itself.
    pub(crate) fn home(&self, shard: ShardId) -> Option<Home> {
        self.table.home(shard).filter(|home| *home.node != *self.me.as_str())
    }

    /// Asks an actor that lives at a home.
    pub(crate) async fn ask(&self, home: &Home, question: &Question, patience: Duration) -> Result<Answer, Missed> {
        let shard = match &question.to {
            Address::Run(run) => Some(run.shard()),
            _ => None,
        };
        let node = NodeId::new(&home.node).map_err(|error| Missed::For(internal(&error)))?;
        let route = Route { shard, table_version: self.table.version().0, epoch: shard.map(|_| home.epoch) };
        let payload = self.packed(question).await.map_err(Missed::For)?;
        self.carry(&node, route, question, payload, patience).await
    }

    /// Asks an actor of a certain node, on which no shard depends.
    pub(crate) async fn ask_node(
        &self,
        node: &str,
        question: &Question,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Answer, Missed> {
        let node = NodeId::new(node).map_err(|error| Missed::Elsewhere(internal(&error)))?;
        self.carry(&node, Route::default(), question, payload, patience).await
    }

    /// A question as it travels: the same for every node that is asked.
    pub(crate) async fn packed(&self, question: &Question) -> Result<Bytes, RouteError> {
        Ok(wire::pack(&*self.store, question.run(), question).await?)
    }

    async fn carry(
        &self,
        node: &NodeId,
        route: Route,
        question: &Question,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Answer, Missed> {
        let trace = Some(question.caller.trace);
        let parcel = Parcel { route, correlation: None, trace, kind: ASK, version: VERSION, payload };
        // What waits for a model or for a run's end must not stand before what steers.
        let lane = match &question.ask {
            Ask::Run(RunAsk::Input(_) | RunAsk::Proceed | RunAsk::Read) => Lane::Control,
            _ => Lane::Bulk,
        };
        match self.link.request(node, lane, parcel, patience).await {
            Ok(Reply::Ack(payload)) => {
                let reply: wire::Reply =
                    wire::unpack(&*self.store, &payload).await.map_err(|error| Missed::For(error.into()))?;
                reply.map_err(|error| match error {
                    error @ (RouteError::NotOwner | RouteError::Moved(_)) => Missed::Elsewhere(error),
                    error => Missed::For(error),
                })
            }
            Ok(Reply::Moved { owner, epoch, .. }) => {
                if let Some(shard) = route.shard {
                    // Which boot of it owns the shard is not said, and not needed to ask it.
                    self.table.learn(shard, Home { node: owner.as_str().into(), incarnation: Incarnation(0), epoch });
                }
                Err(Missed::Elsewhere(RouteError::Moved(owner.to_string())))
            }
            Ok(Reply::NotOwner) => Err(Missed::Elsewhere(RouteError::NotOwner)),
            Ok(Reply::Overloaded { .. }) => {
                Err(Missed::For(RouteError::Overloaded(format!("node '{node}' takes no more questions now"))))
            }
            Ok(Reply::Undecodable(why)) => Err(Missed::For(RouteError::Undecodable(format!("node '{node}': {why}")))),
            Ok(Reply::Expired) => Err(Missed::For(RouteError::Expired)),
            Ok(Reply::Failed(failure)) => Err(Missed::For(RouteError::Failed(failure))),
            Err(error) => Err(missed(error, question)),
        }
    }

    /// Tells the owner of a run's shard that the run was admitted. Lossy: the owner's sweep finds it all the same.
    pub(crate) fn tell_admitted(&self, run: RunId) {
        let Some(home) = self.home(run.shard()) else { return };
        let Ok(node) = NodeId::new(&home.node) else { return };
        let route = Route { shard: Some(run.shard()), table_version: self.table.version().0, epoch: Some(home.epoch) };
        self.tell(&node, route, ADMITTED, Bytes::copy_from_slice(&run.to_bytes()));
    }

    /// Tells the other nodes that definitions have changed. Lossy: each looks by itself now and then.
    pub(crate) fn tell_defined(&self) {
        let members = self.members.borrow().clone();
        let others = members.iter().filter(|member| !member.is_self && !matches!(member.state, MemberState::Gone(_)));
        for node in others.filter_map(|member| NodeId::new(&member.name).ok()) {
            self.tell(&node, Route::default(), DEFINED, Bytes::new());
        }
    }

    /// Has a node give its work away, or take some again. It has heard of it when this returns, not done it.
    pub(crate) async fn drain(&self, name: &str, drain: bool) -> Result<(), RouteError> {
        let unknown = || RouteError::Unknown(format!("node '{name}'"));
        if *name == *self.me.as_str() {
            self.draining.send_replace(drain);
            return Ok(());
        }
        let there = self.members.borrow().iter().any(|member| member.name == name);
        let node = NodeId::new(name).ok().filter(|_| there).ok_or_else(unknown)?;
        let payload = Bytes::copy_from_slice(&[u8::from(drain)]);
        let parcel =
            Parcel { route: Route::default(), correlation: None, trace: None, kind: DRAIN, version: VERSION, payload };
        match self.link.request(&node, Lane::Control, parcel, DRAIN_PATIENCE).await {
            Ok(Reply::Ack(_)) => Ok(()),
            Ok(Reply::Undecodable(why)) => Err(RouteError::Undecodable(format!("node '{name}': {why}"))),
            Ok(Reply::Overloaded { .. }) => Err(RouteError::Overloaded(format!("node '{name}' takes no messages now"))),
            Ok(_) => Err(Failure::new(FailureClass::Unavailable, format!("node '{name}' is not ready")).into()),
            Err(error) => Err(Failure::new(FailureClass::Unavailable, format!("node '{name}': {error}")).into()),
        }
    }

    fn tell(&self, node: &NodeId, route: Route, kind: Kind, payload: Bytes) {
        let parcel = Parcel { route, correlation: None, trace: None, kind, version: VERSION, payload };
        // Whether it arrives is nobody's concern: the receipt may go.
        drop(self.link.send(node, Lane::Control, parcel, NEWS_PATIENCE));
    }
}

/// Whether a question may be asked again though it may have been heard: what it asks for is done once whatever happens.
fn may_repeat(question: &Question) -> bool {
    use motet_engine::input::Input;
    match &question.ask {
        Ask::Run(RunAsk::Input(input)) => {
            matches!(input, Input::Signal { .. } | Input::Woken | Input::CallFinished { .. })
        }
        Ask::Run(_) => true,
        // What a model computes changes nothing, and only one answer is recorded.
        Ask::Model(_) => true,
        // The same vectors under the same ids.
        Ask::Index(_) => true,
        // The run that owes the call decides about another attempt.
        Ask::Egress(_) => false,
    }
}

fn missed(error: LinkError, question: &Question) -> Missed {
    if error.may_have_arrived() && !may_repeat(question) {
        let words = format!("{error}; whether it was done is unknown");
        return Missed::For(Failure::new(FailureClass::Unavailable, words).into());
    }
    match error {
        LinkError::Expired { .. } => Missed::For(RouteError::Expired),
        // Another node may have the model and fit.
        LinkError::Refused { .. } if matches!(question.ask, Ask::Model(_)) => {
            Missed::Elsewhere(Failure::new(FailureClass::Unavailable, error.to_string()).into())
        }
        error => match error.class() {
            ErrorClass::Busy => Missed::For(RouteError::Overloaded(error.to_string())),
            ErrorClass::Retryable => {
                Missed::Elsewhere(Failure::new(FailureClass::Unavailable, error.to_string()).into())
            }
            ErrorClass::Permanent => Missed::For(Failure::new(FailureClass::Unavailable, error.to_string()).into()),
        },
    }
}

fn internal(error: &dyn std::fmt::Display) -> RouteError {
    Failure::new(FailureClass::Internal, error.to_string()).into()
}

impl From<WireError> for RouteError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLarge(_) => Failure::new(FailureClass::Invalid, error.to_string()).into(),
            WireError::Store(_) => Failure::new(FailureClass::Unavailable, error.to_string()).into(),
            WireError::Codec(_) | WireError::Gone => Self::Undecodable(error.to_string()),
        }
    }
}

/// Answers what other nodes ask of the actors here.
pub struct Reception {
    router: Weak<Router>,
    store: Arc<dyn Store>,
}

impl Reception {
    /// A reception that is not open yet: [`Reception::open`] gives it its router.
    #[must_use]
    pub fn new(router: Weak<Router>, store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { router, store })
    }

    async fn answer(&self, router: &Arc<Router>, envelope: &Envelope) -> Result<Reply, WireError> {
        let question: Question = wire::unpack(&*self.store, &envelope.parcel.payload).await?;
        let patience = envelope.deadline.saturating_duration_since(tokio::time::Instant::now());
        let reply = router.answer_peer(&question, patience).await;
        if let (Err(RouteError::NotOwner), Address::Run(run)) = (&reply, &question.to) {
            return Ok(router.not_mine(run.shard()));
        }
        match wire::pack(&*self.store, question.run(), &reply).await {
            // The question was understood and answered; only the answer cannot travel.
            Err(error @ WireError::TooLarge(_)) => {
                let reply: wire::Reply = Err(error.into());
                Ok(Reply::Ack(wire::pack(&*self.store, None, &reply).await?))
            }
            packed => Ok(Reply::Ack(packed?)),
        }
    }
}

#[async_trait]
impl Handler for Reception {
    fn reads(&self, kind: Kind, version: u32) -> bool {
        version == VERSION && [ASK, ADMITTED, DEFINED, DRAIN].contains(&kind)
    }

    async fn receive(self: Arc<Self>, envelope: Envelope) -> Reply {
        let Some(router) = self.router.upgrade() else { return Reply::NotOwner };
        match envelope.parcel.kind {
            ADMITTED => match <[u8; 16]>::try_from(&envelope.parcel.payload[..]) {
                Ok(bytes) => router.bring_up_admitted(RunId::from_bytes(bytes)).await,
                Err(_) => Reply::Undecodable("a run's id has 16 bytes".to_owned()),
            },
            DRAIN => match envelope.parcel.payload[..] {
                [drain @ (0 | 1)] => router.begin_drain(drain == 1),
                _ => Reply::Undecodable("whether to drain is 0 or 1".to_owned()),
            },
            DEFINED => {
                router.catalog().forget_newest();
                router.schedules().changed();
                router.streams().changed();
                Reply::taken()
            }
            _ => self.answer(&router, &envelope).await.unwrap_or_else(|error| match error {
                WireError::Store(error) => Reply::Failed(Failure::new(FailureClass::Unavailable, error.to_string())),
                error => Reply::Undecodable(error.to_string()),
            }),
        }
    }
}
