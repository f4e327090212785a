//! What a link promises, as one suite that the loopback and gRPC both pass: every row of the faults that were measured
//! on other links, and some more.
//!
//! Rows that need real processes or certificates run over gRPC alone. Never waits by sleeping.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

mod authority;
mod certificates;
mod cuts;
mod faults;
mod peer;
mod processes;
#[path = "../../../tests/src/faults/proxy.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the harness, which stands above this crate")]
mod proxy;
mod rows;
#[path = "../../../tests/src/waiting.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the harness, which stands above this crate")]
mod waiting;
mod world;

macro_rules! conform {
    ($($module:ident::$row:ident),* $(,)?) => {
        mod loopback {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $row() {
                    crate::$module::$row(&crate::world::Memory::default()).await;
                }
            )*
        }
        mod grpc {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $row() {
                    crate::$module::$row(&crate::world::Grpc::default()).await;
                }
            )*
        }
    };
}

conform! {
    rows::an_envelope_tells_what_its_sender_said,
    rows::answers_are_typed,
    rows::sending_keeps_the_order,
    rows::an_unknown_peer_is_an_error_at_once,
    rows::an_envelope_that_is_late_already_is_not_sent,
    rows::kinds_and_versions_that_differ_are_told,
    rows::protocols_that_do_not_meet_are_refused_on_both_sides,
    rows::another_cluster_is_refused,
    rows::too_large_is_an_error_and_nothing_else_is_harmed,
    rows::control_does_not_wait_for_bulk,
    rows::closing_finishes_what_is_under_way,
    rows::gossip_arrives_or_is_dropped,
    faults::a_slow_receiver_makes_the_sender_full,
    faults::bytes_are_bounded_too,
    faults::a_frozen_peer_is_suspected_and_dropped,
    faults::a_stream_that_the_frozen_side_gave_up_ends_too,
    faults::a_killed_peer_ends_what_is_pending,
    faults::a_dropped_reply_is_an_answer,
    faults::a_handler_without_end_expires,
    faults::a_new_incarnation_ends_what_the_old_one_had,
    faults::an_envelope_that_comes_again_is_handled_once,
    faults::an_answer_that_was_lost_is_remembered,
    faults::connections_that_break_again_and_again_lose_and_double_nothing,
}
