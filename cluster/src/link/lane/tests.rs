//! What becomes of envelopes whose peer leaves in the moment of posting.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::Name;
use motet_store::port::Incarnation;

use crate::envelope::{Answer, Envelope, Kind, Lane, NodeId, Parcel, Route};
use crate::link::loopback::Loopback;
use crate::link::{Handler, Link, LinkError, LinkSettings, Place};

struct Nobody;

#[async_trait]
impl Handler for Nobody {
    fn reads(&self, _kind: Kind, _version: u32) -> bool {
        false
    }

    async fn receive(self: Arc<Self>, _envelope: Envelope) -> Answer {
        Answer::NotOwner
    }
}

/// A book that knows each node once: when it is asked again, the node has left.
fn forgetful() -> impl Fn(&NodeId) -> Option<Place> + Send + Sync + 'static {
    let known = Mutex::new(BTreeSet::new());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    move |node| {
        let first = known.lock().unwrap().insert(node.to_string());
        first.then_some(Place { incarnation: Incarnation(1), address })
    }
}

#[tokio::test]
async fn an_envelope_to_a_node_that_leaves_meanwhile_may_go_elsewhere() {
    let me = LinkSettings::new(Name::new("choir").unwrap(), NodeId::new("me").unwrap(), Incarnation(1));
    let link = Loopback::new().join(me, Arc::new(forgetful()), Arc::new(Nobody)).unwrap();
    // Whether the lane takes it in before or after it finds the node gone is drawn anew for each.
    for number in 0..64 {
        let peer = NodeId::new(&format!("peer{number}")).unwrap();
        let parcel = Parcel {
            route: Route::default(),
            correlation: None,
            trace: None,
            kind: Kind(1),
            version: 1,
            payload: Bytes::new(),
        };
        let answer = link.request(&peer, Lane::Control, parcel, Duration::from_secs(5)).await;
        assert_eq!(answer, Err(LinkError::Unknown { peer, sent: false }));
    }
}
