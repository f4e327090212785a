//! The contract: what every implementation of the ports promises, as checks that run against any of them.
//!
//! Each check gets grounds with a broker and panics when a promise is broken. Never looks behind the port. Used by the
//! tests of every implementation, here and, behind the feature `contract`, elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken promise ends the test that runs the check")]

mod grounds;
mod group;
mod place;
mod reader;
mod reading;
mod transaction;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;

#[cfg(test)]
pub(crate) use self::grounds::until;
pub use self::grounds::{Grounds, KafkaGrounds, MemoryGrounds, service};
pub use self::reader::Reader;
use crate::port::{Broker, Delivered, Outgoing, RecordSink, SinkSettings};

/// One promise: takes grounds of its own and panics when the promise is broken.
pub type Check = fn(Arc<dyn Grounds>) -> LocalBoxFuture<'static, ()>;

macro_rules! checks {
    ($($module:ident: $($name:ident),+;)+) => {
        /// Every promise with its name.
        pub const CHECKS: &[(&str, Check)] =
            &[$($((stringify!($name), |grounds| Box::pin($module::$name(grounds)))),+),+];
    };
}

checks! {
    reading: nothing_is_read_before_it_is_begun, records_come_as_they_were_written, reading_begins_where_it_is_told,
        credit_stops_and_starts_reading, a_halted_partition_can_be_begun_again, a_paused_partition_rests,
        what_nobody_sees_is_passed_over, what_retention_took_is_told, a_position_beyond_the_end_is_told;
    group: members_share_partitions_and_lose_nothing, whoever_leaves_gives_back_at_once,
        patterns_find_topics_that_come_later, groups_do_not_know_each_other, wrong_subscriptions_are_refused;
    place: starts_become_offsets, what_is_not_there_is_told, a_topic_that_comes_again_is_another_one;
    writing: order_and_content_are_kept, the_same_key_goes_to_the_same_partition, refused_records_hurt_no_others,
        a_closed_sink_refuses;
    transaction: a_position_comes_with_its_records, a_newer_one_fences_an_older_one, a_refused_record_leaves_nothing;
}

/// Longest wait for something that must come to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A record of a value only, for a partition.
pub(crate) fn outgoing(topic: &str, partition: i32, value: &str) -> Outgoing {
    Outgoing {
        topic: topic.to_owned(),
        partition: Some(partition),
        value: Some(Bytes::from(value.to_owned())),
        ..Outgoing::default()
    }
}

/// Values `from` to `to` (without it) as records of one partition.
pub(crate) fn numbers(topic: &str, partition: i32, range: std::ops::Range<u32>) -> Vec<Outgoing> {
    range.map(|number| outgoing(topic, partition, &number.to_string())).collect()
}

async fn sink(broker: &Arc<dyn Broker>) -> Arc<dyn RecordSink> {
    broker.sink(SinkSettings { deliver_within: PATIENCE, ..SinkSettings::default() }).await.unwrap()
}

/// Writes records, each of which must arrive.
pub(crate) async fn write(broker: &Arc<dyn Broker>, records: Vec<Outgoing>) -> Vec<Delivered> {
    let sink = sink(broker).await;
    let written = sink.send(records).await.into_iter().map(Result::unwrap).collect();
    sink.close(PATIENCE).await;
    written
}
