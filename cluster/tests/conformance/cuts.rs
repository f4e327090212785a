//! Rows that cut a connection after an exact number of bytes, of the request or of its answer.

use std::time::Duration;

use motet_cluster::envelope::{Answer, Lane};
use motet_cluster::link::Link;

use crate::peer::{ECHO, parcel};
use crate::proxy::Direction;
use crate::rows::pair;
use crate::world::{Grpc, answer, id, up};

/// Cuts after each number of bytes up to `most`, which is more than a request, or its answer, has here with all that
/// gRPC puts around it.
async fn cut_everywhere(direction: Direction, most: u32) {
    let world = Grpc::default();
    let (link, peer, _other) = pair(&world).await;
    let mut cuts = 0;
    for bytes in 0..most {
        answer(link.request(&id("answers"), Lane::Control, parcel(ECHO, "calm"), Duration::from_secs(60))).await;
        up(&link, "answers").await;
        world.cut_after("answers", direction, bytes);
        let text = format!("request {bytes}");
        let sent = parcel(ECHO, text.clone());
        let echoed = answer(link.request(&id("answers"), Lane::Control, sent, Duration::from_secs(60))).await;
        assert_eq!(echoed, Answer::Ack(text.into()), "cut after {bytes} bytes");
        cuts += u32::from(!world.disarm("answers", direction));
    }
    assert_eq!(peer.begun(), 2 * most as usize, "each request is handled once");
    println!("{cuts} connections were cut");
    assert!(cuts > most / 3, "only {cuts} connections were cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_be_cut_at_every_byte() {
    cut_everywhere(Direction::There, 96).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_be_cut_at_every_byte() {
    cut_everywhere(Direction::Back, 64).await;
}
