//! Puts chitchat's messages on our datagrams.
//!
//! Trusts no bytes: what is too large, was changed on its way, cannot be read or comes from another cluster is refused
//! and counted, and said at most once in a while. Never waits for a receiver. Used by `gossip`.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};

use super::datagrams::{Datagrams, MAX_DATAGRAM_BYTES};
use super::keys::shown;

/// First byte of every datagram: the form of the rest, which is a checksum and a message of chitchat.
const FORM: u8 = 1;

/// Form and checksum.
const HEAD_BYTES: usize = 1 + 4;

/// Time between two lines in the log about refused datagrams.
const QUIET: Duration = Duration::from_secs(10);

/// The way from chitchat to the network.
pub(super) struct GossipTransport {
    pub(super) datagrams: Arc<dyn Datagrams>,
    /// Name of our cluster.
    pub(super) cluster: String,
}

#[async_trait]
impl Transport for GossipTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (datagrams, cluster) = (Arc::clone(&self.datagrams), self.cluster.clone());
        Ok(Box::new(GossipSocket { datagrams, cluster, said: None }))
    }
}

struct GossipSocket {
    datagrams: Arc<dyn Datagrams>,
    cluster: String,
    /// When the log last heard of a refused datagram.
    said: Option<Instant>,
}

fn count(outcome: &'static str) {
    metrics::counter!("motet_gossip_datagrams_total", "outcome" => outcome).increment(1);
}

impl GossipSocket {
    fn refuse(&mut self, from: SocketAddr, why: &str) {
        count("refused");
        if self.said.is_none_or(|said| said.elapsed() >= QUIET) {
            self.said = Some(Instant::now());
            tracing::warn!(%from, why, "a datagram of gossip was refused");
        }
    }

    /// Tells of a peer that belongs elsewhere. The message goes on: chitchat answers it with a refusal.
    fn look_at_cluster(&mut self, from: SocketAddr, message: &ChitchatMessage) {
        let ours = self.cluster.clone();
        match message {
            ChitchatMessage::Syn { cluster_id, .. } if *cluster_id != ours => {
                let theirs = shown(cluster_id);
                self.refuse(from, &format!("it is of the cluster {theirs}, this node of '{ours}': it is no member"));
            }
            ChitchatMessage::BadCluster => {
                let why = format!("it is not of the cluster '{ours}' of this node: check its name there and here");
                self.refuse(from, &why);
            }
            _ => {}
        }
    }
}

#[async_trait]
impl Socket for GossipSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = framed(&message.serialize_to_vec());
        if bytes.len() > MAX_DATAGRAM_BYTES {
            count("too_large");
            tracing::warn!(bytes = bytes.len(), "what nodes tell of themselves does not fit into a datagram");
            return Ok(());
        }
        count(if self.datagrams.send(to, bytes) { "sent" } else { "dropped" });
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.datagrams.receive().await else { bail!("the network was closed") };
            match decoded(&bytes) {
                Ok(message) => {
                    count("received");
                    self.look_at_cluster(from, &message);
                    return Ok((from, message));
                }
                Err(why) => self.refuse(from, &why),
            }
        }
    }
}

/// A message with what proves it. Chitchat itself would believe a changed number, and a heartbeat from the future keeps
/// a node from being heard for as long as it takes to get there.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len());
    bytes.put_u8(FORM);
    bytes.put_u32_le(crc32fast::hash(message));
    bytes.put_slice(message);
    bytes.freeze()
}

/// A message, if the bytes are one and nothing else.
pub(super) fn decoded(bytes: &[u8]) -> Result<ChitchatMessage, String> {
    if bytes.len() > MAX_DATAGRAM_BYTES {
        return Err(format!("{} bytes are more than a datagram has", bytes.len()));
    }
    let mut rest = match bytes {
        [FORM, a, b, c, d, rest @ ..] if u32::from_le_bytes([*a, *b, *c, *d]) == crc32fast::hash(rest) => rest,
        [FORM, _, _, _, _, ..] => return Err("it was changed on its way".to_owned()),
        _ => return Err("it has no form that is known".to_owned()),
    };
    // The decoder is another's: should it panic, only this datagram is lost.
    let message = catch_unwind(AssertUnwindSafe(|| ChitchatMessage::deserialize(&mut rest)));
    match message {
        Ok(Ok(message)) if rest.is_empty() => Ok(message),
        Ok(Ok(_)) => Err(format!("{} bytes follow the message", rest.len())),
        Ok(Err(error)) => Err(format!("it is no message: {error}")),
        Err(_) => Err("it cannot be decoded".to_owned()),
    }
}
