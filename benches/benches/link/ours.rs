//! The link itself, at both ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use motet_cluster::envelope::{Answer, Envelope, Kind, Lane, NodeId, Parcel, Route};
use motet_cluster::link::grpc::{self, GrpcSettings};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{Handler, Link, LinkSettings, Place};
use motet_engine::id::Name;
use motet_store::port::Incarnation;

use crate::calls::Caller;
use crate::{MESSAGES, WINDOW};

const PATIENCE: Duration = Duration::from_secs(30);

struct Echo;

#[async_trait]
impl Handler for Echo {
    fn reads(&self, _: Kind, _: u32) -> bool {
        true
    }

    async fn receive(self: Arc<Self>, envelope: Envelope) -> Answer {
        Answer::Ack(envelope.parcel.payload)
    }
}

async fn start(node: &str, other: Option<SocketAddr>) -> Result<Arc<NodeLink>> {
    let settings = LinkSettings::new(Name::new("bench")?, NodeId::new(node)?, Incarnation(1));
    let place = other.map(|address| Place { incarnation: Incarnation(1), address });
    let book = Arc::new(move |_: &NodeId| place);
    Ok(grpc::start(settings, GrpcSettings::loopback(), book, Arc::new(Echo)).await?)
}

/// The accepting end.
pub(crate) async fn serve() -> Result<Arc<NodeLink>> {
    start("server", None).await
}

/// The asking end.
pub(crate) struct Ours {
    link: Arc<NodeLink>,
    server: NodeId,
}

impl Ours {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self> {
        let ours = Self { link: start("client", Some(server)).await?, server: NodeId::new("server")? };
        ours.call(Bytes::new()).await?;
        Ok(ours)
    }

    /// Messages per second, all acknowledged.
    pub(crate) async fn one_way(&self, payload: &Bytes) -> Result<f64> {
        let begun = Instant::now();
        let mut receipts = VecDeque::with_capacity(WINDOW);
        for _ in 0..MESSAGES {
            if receipts.len() == WINDOW
                && let Some(oldest) = receipts.pop_front()
            {
                taken(oldest).await?;
            }
            receipts.push_back(self.link.send(&self.server, Lane::Bulk, parcel(payload.clone()), PATIENCE));
        }
        for receipt in receipts {
            taken(receipt).await?;
        }
        Ok(MESSAGES as f64 / begun.elapsed().as_secs_f64())
    }
}

async fn taken(receipt: motet_cluster::link::Receipt) -> Result<()> {
    ensure!(receipt.await? == Answer::taken(), "not taken");
    Ok(())
}

fn parcel(payload: Bytes) -> Parcel {
    Parcel { route: Route::default(), correlation: None, trace: None, kind: Kind(1), version: 1, payload }
}

impl Caller for Ours {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        match self.link.request(&self.server, Lane::Control, parcel(payload), PATIENCE).await? {
            Answer::Ack(payload) => Ok(payload),
            other => bail!("no answer but {other:?}"),
        }
    }
}
