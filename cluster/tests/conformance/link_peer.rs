//! A node of its own process for the link's tests: it listens, says where, echoes what it is asked, and ends with its
//! standard input.
//!
//! Not part of the product. Started by the conformance suite, which stops, continues and kills it.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use motet_cluster::envelope::{Answer, Envelope, Kind, NodeId};
use motet_cluster::link::grpc::{self, GrpcSettings};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{Handler, LinkError, LinkSettings, Place};
use motet_engine::id::Name;
use motet_store::port::Incarnation;

/// The kind that is echoed; others wait without end.
const ECHO: Kind = Kind(1);

struct Echo;

#[async_trait]
impl Handler for Echo {
    fn reads(&self, _: Kind, _: u32) -> bool {
        true
    }

    async fn receive(self: Arc<Self>, envelope: Envelope) -> Answer {
        if envelope.parcel.kind == ECHO {
            return Answer::Ack(envelope.parcel.payload);
        }
        std::future::pending().await
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (node, incarnation) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(live(&node, incarnation.parse().unwrap_or(1))) {
        Ok(link) => {
            if let Some(address) = link.address() {
                println!("{address}");
            }
            // Ends when the test does, however that ends.
            let _ = std::io::stdin().read(&mut [0]);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("link-peer: {error}");
    ExitCode::FAILURE
}

async fn live(node: &str, incarnation: u64) -> Result<Arc<NodeLink>, LinkError> {
    let setup = |error: &dyn std::fmt::Display| LinkError::Setup(error.to_string());
    let cluster = Name::new("test").map_err(|error| setup(&error))?;
    let node = NodeId::new(node).map_err(|error| setup(&error))?;
    let mut settings = LinkSettings::new(cluster, node, Incarnation(incarnation));
    settings.beat = Duration::from_millis(100);
    settings.suspect_after = Duration::from_millis(400);
    settings.drop_after = Duration::from_millis(1_200);
    let nobody = Arc::new(|_: &NodeId| None::<Place>);
    grpc::start(settings, GrpcSettings::loopback(), nobody, Arc::new(Echo)).await
}
