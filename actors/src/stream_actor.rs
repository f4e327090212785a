//! The actor of one stream on this node: a member of the stream's group, whose partitions it gives their actors.
//!
//! Never looks into a record and never waits for the store. Spawned by `streams` on every node that reads.

use std::sync::Arc;
use std::time::Duration;

use motet_broker::port::{GroupProtocol, RecordSource, SourceEvent, SourceHandle, SourceSettings, Topics};
use motet_engine::definition;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::catalog::StoredStream;
use crate::mailbox::{Letter, Mailbox, Vitals};
use crate::partition_actor::PartitionMessage;
use crate::router::system_caller;
use crate::streams::{StreamState, Streams, partition_key};

/// How long what the source tells waits for a place in a mailbox.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a stream's actor is told.
pub(crate) enum StreamMessage {
    /// The source tells something.
    Heard(SourceEvent),
    /// Leave the group.
    End,
}

/// The actor's fixed parts.
pub(crate) struct StreamActor {
    pub(crate) streams: Arc<Streams>,
    pub(crate) stream: Arc<StoredStream>,
    pub(crate) vitals: Arc<Vitals>,
}

/// What changes.
pub(crate) struct Member {
    handle: Arc<dyn SourceHandle>,
    /// Ends the pump, which closes the source.
    stop: Option<oneshot::Sender<()>>,
    pump: JoinHandle<()>,
}

impl Actor for StreamActor {
    type Msg = Letter<StreamMessage>;
    type State = Member;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Member, ActorProcessingErr> {
        self.streams.note(&self.stream, StreamState::Joining);
        let broker = self.streams.broker().ok_or("no broker is set")?;
        let source = broker.subscribe(self.settings()).await?;
        let handle = source.handle();
        let (stop, stopped) = oneshot::channel();
        let mailbox = Mailbox::new(myself, Arc::clone(&self.vitals));
        let pump = tokio::spawn(pump(source, mailbox, Arc::clone(&self.stream), stopped));
        Ok(Member { handle, stop: Some(stop), pump })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        member: &mut Member,
    ) -> Result<(), ActorProcessingErr> {
        match letter.open(&self.vitals).1 {
            StreamMessage::Heard(event) => self.hear(event, member).await,
            StreamMessage::End => {
                self.leave(member).await;
                myself.stop(None);
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, member: &mut Member) -> Result<(), ActorProcessingErr> {
        // One that was ended from above has not left yet.
        if member.stop.is_some() {
            self.leave(member).await;
        }
        Ok(())
    }
}

impl StreamActor {
    fn settings(&self) -> SourceSettings {
        let definition = &self.stream.definition;
        let group = definition.group(&self.stream.namespace);
        let topics = match &definition.topics {
            definition::Topics::Named(names) => Topics::Named(names.clone()),
            definition::Topics::Pattern(pattern) => Topics::Pattern(pattern.source().to_owned()),
        };
        let instance = definition.static_membership.then(|| self.streams.node.clone());
        let protocol = match definition.protocol {
            definition::GroupProtocol::Classic => GroupProtocol::Classic,
            definition::GroupProtocol::Consumer => GroupProtocol::Consumer,
        };
        SourceSettings { instance, protocol, ..SourceSettings::new(&group, topics) }
    }

    async fn hear(&self, event: SourceEvent, member: &Member) -> Result<(), ActorProcessingErr> {
        match event {
            SourceEvent::Assigned(places) => {
                self.streams.note(&self.stream, StreamState::Reading);
                for place in places {
                    self.streams.seat(&self.stream, place, Arc::clone(&member.handle)).await;
                }
            }
            SourceEvent::Revoked { places, lost } => {
                for place in places {
                    self.streams.unseat(&partition_key(&self.stream, &place), lost).await;
                }
            }
            SourceEvent::Records(batch) => {
                let place = batch.place.clone();
                self.tell(&place, PartitionMessage::Records(batch)).await;
            }
            SourceEvent::OutOfRange { place, position, low, high } => {
                let words = out_of_range(position, low, high);
                self.tell(&place, PartitionMessage::Cut(words)).await;
            }
            SourceEvent::Gone { place, reason } => self.tell(&place, PartitionMessage::Cut(reason)).await,
            SourceEvent::Trouble(words) => {
                tracing::warn!(stream = %self.stream.definition.name, words, "the broker has trouble");
                self.streams.trouble(&self.stream, Some(words));
            }
            SourceEvent::Ended(error) => {
                self.streams.note(&self.stream, StreamState::Failed(error.to_string()));
                return Err(error.to_string().into());
            }
        }
        Ok(())
    }

    /// Tells a partition's actor. One that is being revived reads on from what is durable, so nothing is lost with it.
    async fn tell(&self, place: &motet_broker::port::Place, message: PartitionMessage) {
        let key = partition_key(&self.stream, place);
        let Some(mailbox) = self.streams.partition(&key) else { return };
        let caller = system_caller(self.stream.namespace.clone());
        if mailbox.send(&caller, message, PATIENCE).await.is_err() {
            // It then finds a gap, or is gone: either way it begins anew at what is durable.
            tracing::error!(topic = %place.topic, partition = place.partition, "records did not reach their actor");
            mailbox.actor().stop(None);
        }
    }

    /// Releases the partitions, then leaves the group.
    async fn leave(&self, member: &mut Member) {
        let own: Vec<_> =
            self.streams.seats().into_iter().filter(|(_, seat)| Arc::ptr_eq(&seat.handle, &member.handle)).collect();
        for (key, seat) in &own {
            member.handle.halt(&seat.place);
            self.streams.unseat(key, false).await;
        }
        self.streams.released(own.into_iter().filter_map(|(_, seat)| seat.mailbox).collect()).await;
        if let Some(stop) = member.stop.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(PATIENCE, &mut member.pump).await.is_err() {
            tracing::warn!(stream = %self.stream.definition.name, "the group was not left in time");
            member.pump.abort();
        }
    }
}

/// Brings what the source tells into the mailbox, in order, until it is stopped; then closes the source.
async fn pump(
    mut source: Box<dyn RecordSource>,
    mailbox: Mailbox<StreamMessage>,
    stream: Arc<StoredStream>,
    mut stopped: oneshot::Receiver<()>,
) {
    let caller = system_caller(stream.namespace.clone());
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            _ = &mut stopped => break,
        };
        let ended = matches!(event, SourceEvent::Ended(_));
        // The source is bounded by credit, so a place is only waited for while the actor starts partitions.
        if mailbox.send(&caller, StreamMessage::Heard(event), PATIENCE).await.is_err() {
            // What was dropped would never come again, so the stream is left; its keeper begins it anew.
            mailbox.actor().stop(None);
            break;
        }
        if ended {
            break;
        }
    }
    source.close().await;
}

fn out_of_range(position: i64, low: i64, high: i64) -> String {
    if position < low {
        format!(
            "offset {position} is no longer there: the topic begins at {low} now (retention has passed what was not \
             read). Records {position} to {} are lost to this stream; to go on, seek to {low}",
            low - 1
        )
    } else {
        format!(
            "offset {position} is not there: the topic ends at {high}. It was cut or made anew; to go on, seek to an \
             offset from {low} to {high}"
        )
    }
}
