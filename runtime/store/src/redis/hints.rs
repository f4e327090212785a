//! Hints over Redis: published on the lease's connection, heard on one of its own.
//!
//! Never promises that a hint arrives: while the connection was away, listeners are told of a gap. Used by `redis`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{Message, Value};
use motet_engine::id::Name;
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::link::Link;
use super::settings::RedisSettings;
use crate::port::{HINTS_WAITING, Hint, HintReceiver, VolatileError};

/// How often the server is told again what is listened to. A connection on which nothing is asked does not show that
/// it is dead; this asks.
const AGAIN: Duration = Duration::from_secs(5);

type Channels = BTreeMap<String, broadcast::Sender<Hint>>;

/// The listening side.
pub(super) struct Listening {
    link: Arc<Link>,
    channels: Arc<Mutex<Channels>>,
    prefix: String,
    patience: Duration,
    closed: watch::Sender<bool>,
}

fn open(channels: &Mutex<Channels>) -> MutexGuard<'_, Channels> {
    channels.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listening {
    /// Begins to connect, and returns at once.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, VolatileError> {
        let link = Arc::new(Link::new(settings, "hints")?);
        let channels = Arc::new(Mutex::new(Channels::new()));
        let (closed, closing) = watch::channel(false);
        let hearing =
            Hearing { link: Arc::clone(&link), channels: Arc::clone(&channels), patience: settings.lease_timeout };
        tokio::spawn(hearing.run(closing));
        Ok(Self { link, channels, prefix: settings.prefix.clone(), patience: settings.lease_timeout, closed })
    }

    /// Listens to a channel. When the server is away that begins when it is back.
    pub(super) async fn subscribe(&self, channel: &Name) -> Result<HintReceiver, VolatileError> {
        if *self.closed.borrow() {
            return Err(VolatileError::Closed);
        }
        let name = channel_name(&self.prefix, channel);
        let receiver = {
            let mut channels = open(&self.channels);
            let sender = channels.entry(name.clone()).or_insert_with(|| broadcast::channel(HINTS_WAITING).0);
            sender.subscribe()
        };
        if let Err(error) = tell(&self.link, vec![name], self.patience).await {
            tracing::debug!(%channel, %error, "Redis is away; hints of this channel are heard when it is back");
        }
        Ok(HintReceiver::new(receiver))
    }

    #[cfg(test)]
    pub(super) fn is_connected(&self) -> bool {
        self.link.client().is_connected()
    }

    /// Ends it; listeners are told that nothing will come.
    pub(super) async fn close(&self) {
        self.closed.send_replace(true);
        open(&self.channels).clear();
        self.link.close().await;
    }
}

/// The name in Redis.
pub(super) fn channel_name(prefix: &str, channel: &Name) -> String {
    format!("{prefix}:hints:{channel}")
}

/// Tells the server what is listened to. The client does not wait for the server to confirm that, so the answer to a
/// question behind it on the same connection is waited for.
async fn tell(link: &Link, names: Vec<String>, patience: Duration) -> Result<(), VolatileError> {
    let question = |client: WithOptions<Client>| async move {
        client.subscribe(names).await?;
        client.ping::<()>(None).await
    };
    link.ask(patience, question).await
}

/// What hears.
struct Hearing {
    link: Arc<Link>,
    channels: Arc<Mutex<Channels>>,
    patience: Duration,
}

impl Hearing {
    async fn run(self, mut closing: watch::Receiver<bool>) {
        let client = self.link.client().clone();
        let (mut messages, mut connections) = (client.message_rx(), client.reconnect_rx());
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = closing.changed() => return,
                message = messages.recv() => match message {
                    Ok(message) => self.hand_on(message),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.tell_of_gap(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Ok(_) = connections.recv() => {
                    self.listen().await;
                    // After the server knows what is listened to: whoever looks now misses nothing that comes later.
                    self.tell_of_gap();
                }
                _ = again.tick() => {
                    if client.is_connected() && !self.listen().await {
                        let _ = client.force_reconnection().await;
                    }
                }
            }
        }
    }

    /// Tells the server about all channels. False when it did not answer.
    async fn listen(&self) -> bool {
        let names: Vec<_> = {
            let mut channels = open(&self.channels);
            channels.retain(|_, sender| sender.receiver_count() > 0);
            channels.keys().cloned().collect()
        };
        names.is_empty() || tell(&self.link, names, self.patience).await.is_ok()
    }

    fn hand_on(&self, message: Message) {
        let channels = open(&self.channels);
        let Some(sender) = channels.get(&*message.channel) else { return };
        let bytes = match message.value {
            Value::Bytes(bytes) => bytes,
            Value::String(text) => text.into_inner(),
            other => {
                tracing::debug!(kind = ?other.kind(), "a hint that is no bytes was dropped");
                return;
            }
        };
        let _ = sender.send(Hint::Message(bytes));
    }

    fn tell_of_gap(&self) {
        for sender in open(&self.channels).values() {
            let _ = sender.send(Hint::Gap);
        }
    }
}
