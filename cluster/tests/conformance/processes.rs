//! Rows with a peer in a process of its own, which is stopped and killed by signals.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use motet_cluster::envelope::{Answer, Lane, NodeId};
use motet_cluster::link::grpc::{self, GrpcSettings};
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::{LaneState, Link, LinkError, Place};
use motet_store::port::Incarnation;
use rustix::process::{Pid, Signal, kill_process};

use crate::peer::{ECHO, GATE, Peer, parcel};
use crate::world::{PATIENCE, answer, error, id, lane_is, settings, up};

const LONG: Duration = Duration::from_secs(3_600);

/// A peer's process; ends with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(incarnation: u64) -> (Self, Place) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_link-peer"))
            .args(["answers", &incarnation.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address: SocketAddr = line.trim().parse().unwrap();
        (Self(child), Place { incarnation: Incarnation(incarnation), address })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// A node here and where it believes the other one to be.
async fn node(place: Place) -> (Arc<NodeLink>, Arc<Mutex<Place>>) {
    let book = Arc::new(Mutex::new(place));
    let found = Arc::clone(&book);
    let book_of = Arc::new(move |node: &NodeId| (*node == id("answers")).then(|| *found.lock().unwrap()));
    let link = grpc::start(settings("asks", 1), GrpcSettings::loopback(), book_of, Peer::new()).await.unwrap();
    (link, book)
}

async fn echoes(link: &NodeLink) {
    let receipt = link.request(&id("answers"), Lane::Control, parcel(ECHO, "echo"), LONG);
    assert_eq!(answer(receipt).await, Answer::Ack(Bytes::from("echo")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_is_dropped_and_found_again() {
    let (process, place) = Process::start(1);
    let (link, _book) = node(place).await;
    echoes(&link).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    // Answered only after the other one was sent.
    echoes(&link).await;
    process.signal(Signal::STOP);
    let begun = Instant::now();
    lane_is(&link, "answers", Lane::Control, "a suspicion", |view| view.state == LaneState::Suspect).await;
    let down = error(pending).await;
    assert!(matches!(down, LinkError::Down { sent: true, .. }), "{down}");
    assert!(begun.elapsed() < Duration::from_secs(5), "noticed after {:?}", begun.elapsed());
    process.signal(Signal::CONT);
    up(&link, "answers").await;
    echoes(&link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_ends_what_is_pending() {
    let (process, place) = Process::start(1);
    let (link, _book) = node(place).await;
    echoes(&link).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    // Answered only after the other one was sent.
    echoes(&link).await;
    let begun = Instant::now();
    process.signal(Signal::KILL);
    let down = error(pending).await;
    assert!(matches!(down, LinkError::Down { sent: true, .. }), "{down}");
    assert!(begun.elapsed() < Duration::from_secs(5), "noticed after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_begins_anew_ends_what_the_old_one_had() {
    let (process, place) = Process::start(1);
    let (link, book) = node(place).await;
    echoes(&link).await;
    let pending = link.request(&id("answers"), Lane::Control, parcel(GATE, ""), LONG);
    // Answered only after the other one was sent.
    echoes(&link).await;
    let (_newer, newer_place) = Process::start(2);
    process.signal(Signal::KILL);
    *book.lock().unwrap() = newer_place;
    let restarted = tokio::time::timeout(PATIENCE, error(pending)).await.unwrap();
    assert_eq!(restarted, LinkError::Restarted { peer: id("answers"), now: Incarnation(2) });
    echoes(&link).await;
}
