//! Rows about who may talk to whom: mutual TLS, identities, new certificates under living streams, plain text.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use motet_cluster::envelope::{Answer, Lane, NodeId};
use motet_cluster::link::grpc::tls::TlsSettings;
use motet_cluster::link::grpc::{self, GrpcSettings, Security};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{ErrorClass, Link, LinkError, Place};
use motet_store::port::Incarnation;

use crate::authority::{Authority, trust};
use crate::peer::{ECHO, GATE, Peer, parcel};
use crate::waiting::until;
use crate::world::{PATIENCE, answer, error, id, settings};

const LONG: Duration = Duration::from_secs(3_600);

/// Nodes that know each other.
#[derive(Default)]
struct Nodes {
    places: Arc<Mutex<HashMap<NodeId, Place>>>,
}

impl Nodes {
    async fn start(&self, node: &str, security: Security) -> (Arc<NodeLink>, Arc<Peer>) {
        let (peer, places) = (Peer::new(), Arc::clone(&self.places));
        let book = Arc::new(move |node: &NodeId| places.lock().unwrap().get(node).copied());
        let mut settings = settings(node, 1);
        settings.refused_pause = Duration::from_millis(100);
        let grpc = GrpcSettings { security, ..GrpcSettings::loopback() };
        let link = grpc::start(settings, grpc, book, peer.clone()).await.unwrap();
        let place = Place { incarnation: Incarnation(1), address: link.address().unwrap() };
        self.places.lock().unwrap().insert(id(node), place);
        (link, peer)
    }
}

fn plain() -> Security {
    GrpcSettings::loopback().security
}

async fn echoes(link: &NodeLink, to: &str) {
    let receipt = link.request(&id(to), Lane::Control, parcel(ECHO, "echo"), LONG);
    assert_eq!(answer(receipt).await, Answer::Ack(Bytes::from("echo")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_authority_talk_and_gossip() {
    let (folder, authority, nodes) = (tempfile::tempdir().unwrap(), Authority::new(), Nodes::default());
    let tls = |node: &str| Security::Tls(authority.node(&folder.path().join(node), &[node, "localhost"]));
    let (one, _) = nodes.start("one", tls("one")).await;
    let (other, _) = nodes.start("other", tls("other")).await;
    echoes(&one, "other").await;
    echoes(&other, "one").await;
    assert!(one.gossip().send(other.address().unwrap(), Bytes::from("psst")));
    let heard = tokio::time::timeout(PATIENCE, other.gossip().receive()).await.unwrap();
    assert_eq!(heard, Some((one.address().unwrap(), Bytes::from("psst"))));
}

/// What comes of a node with some certificate that asks one with another.
async fn outcome(asking: Security, answering: Security) -> Result<Answer, LinkError> {
    let nodes = Nodes::default();
    let (_answers, peer) = nodes.start("answers", answering).await;
    let (asks, _) = nodes.start("asks", asking).await;
    let receipt = asks.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG);
    let outcome = tokio::time::timeout(PATIENCE, receipt).await.unwrap();
    assert_eq!(peer.begun(), usize::from(outcome.is_ok()), "{outcome:?}");
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_right_certificate_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let of = |authority: &Authority, place: &str, name: &str, required: bool| {
        let tls = TlsSettings { require_identity: required, ..authority.node(&folder.path().join(place), &[name]) };
        Security::Tls(tls)
    };
    let good = |place: &str| of(&authority, place, place, true);
    for (what, asking, answering, words) in [
        ("a stranger asks", of(&stranger, "1", "asks", true), good("answers"), "certificates do not fit"),
        ("a stranger answers", good("asks"), of(&stranger, "2", "answers", true), "certificates do not fit"),
        ("another name asks", of(&authority, "3", "mallory", true), good("answers"), "must include the node's"),
        ("another name answers", good("asks"), of(&authority, "4", "mallory", true), "must include the node's"),
    ] {
        let error = outcome(asking, answering).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{what}: {error}");
        assert!(error.to_string().contains(words), "{what}: {error}");
    }
    let any_name = outcome(of(&authority, "5", "mallory", false), of(&authority, "6", "mallory", false)).await;
    assert_eq!(any_name, Ok(Answer::taken()));
    for (what, asking, answering) in
        [("plain text asks TLS", plain(), good("answers")), ("TLS asks plain text", good("asks"), plain())]
    {
        let error = outcome(asking, answering).await.unwrap_err();
        assert!(matches!(error, LinkError::Down { sent: false, .. } | LinkError::Refused { .. }), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_serve_new_connections_and_harm_no_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new, nodes) = (Authority::new(), Authority::new(), Nodes::default());
    let place = |node: &str| folder.path().join(node);
    let (asks, _) = nodes.start("asks", Security::Tls(old.node(&place("asks"), &["asks"]))).await;
    let (_answers, peer) = nodes.start("answers", Security::Tls(old.node(&place("answers"), &["answers"]))).await;
    let (third, _) = nodes.start("third", Security::Tls(new.node(&place("third"), &["third"]))).await;
    let pending = asks.request(&id("answers"), Lane::Control, parcel(GATE, "pending"), LONG);
    until(PATIENCE, "the call to begin", async || (peer.begun() == 1).then_some(())).await.unwrap();
    let stranger = error(third.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG)).await;
    assert_eq!(stranger.class(), ErrorClass::Permanent, "{stranger}");
    // Half of a certificate changes nothing.
    std::fs::write(place("answers").join("node.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    trust(&place("answers"), &[&old, &new]);
    new.sign(&place("answers"), &["answers"]);
    let accepted = async || {
        let receipt = third.request(&id("answers"), Lane::Control, parcel(ECHO, ""), LONG);
        receipt.await.is_ok().then_some(())
    };
    until(PATIENCE, "the new certificate to be in use", accepted).await.unwrap();
    peer.gate.add_permits(1);
    assert_eq!(answer(pending).await, Answer::Ack(Bytes::from("pending")));
    echoes(&asks, "answers").await;
    assert_eq!(asks.peers()[0].resent, 0, "the old stream lives");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Authority::new().node(folder.path(), &["node"]);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    let loopback = GrpcSettings::loopback().listen;
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let taken = std::net::TcpListener::bind(loopback).unwrap();
    let secured = |settings: TlsSettings| Security::Tls(settings);
    for (listen, security, words) in [
        (everywhere, plain(), "without TLS".to_owned()),
        (taken.local_addr().unwrap(), plain(), "choose another address or port".to_owned()),
        (loopback, secured(TlsSettings { certificate: missing.clone(), ..tls.clone() }), text(&missing)),
        (loopback, secured(TlsSettings { key: empty.clone(), ..tls.clone() }), text(&empty)),
        (loopback, secured(TlsSettings { authority: empty.clone(), ..tls.clone() }), "no certificate".to_owned()),
    ] {
        let nobody = Arc::new(|_: &NodeId| None::<Place>);
        let grpc = GrpcSettings { listen, advertise: None, security };
        let Err(error) = grpc::start(settings("node", 1), grpc, nobody, Peer::new()).await else {
            panic!("{words}: it started");
        };
        assert!(matches!(error, LinkError::Setup(_)) && error.to_string().contains(&words), "{words}: {error}");
    }
    let mut senseless = settings("node", 1);
    senseless.drop_after = senseless.beat;
    assert!(senseless.check().is_err_and(|error| error.to_string().contains("must rise")));
}
