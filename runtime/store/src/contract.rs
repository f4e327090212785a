//! The contract: what every implementation of the ports promises, as checks that run against any of them.
//!
//! Each check gets an empty store and panics when a promise is broken. Never looks behind the port. Used by the tests
//! of every implementation, here and, behind the feature `contract`, elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken promise ends the test that runs the check")]

mod admission;
mod ingest;
mod journal;
mod keeping;
mod lease;
mod line;
mod outbox;
mod query;
mod redis_server;
mod schema;
mod shard;
mod volatile;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;

use crate::port::{Admission, Append, Entry, HeadChange, HeadState, IdempotencyKey, Store};
pub use redis_server::{RedisServer, service};
pub use schema::PostgresSchema;
pub use volatile::{VOLATILE_CHECKS, VolatileCheck};

/// One promise: takes an empty store and panics when the promise is broken.
pub type Check = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

macro_rules! checks {
    ($($module:ident: $($name:ident),+;)+) => {
        /// Every promise with its name.
        pub const CHECKS: &[(&str, Check)] =
            &[$($((stringify!($name), |store| Box::pin($module::$name(store)))),+),+];
    };
}

checks! {
    admission: an_admitted_run_can_be_read, the_same_key_means_the_same_run, a_key_of_another_request_is_told_apart,
        a_key_may_be_used_again_after_it_expired, one_key_used_at_once_starts_one_run, a_run_is_admitted_once,
        impossible_admissions_are_refused;
    journal: appends_come_back_in_order, a_taken_number_is_refused, a_hole_is_refused, an_unknown_run_is_refused,
        an_old_epoch_is_refused, a_claim_fences_what_comes_after_it, heads_follow_appends,
        bad_writes_do_not_hurt_their_neighbours, a_thousand_writers_leave_whole_journals,
        a_snapshot_shortens_loading, an_older_snapshot_changes_nothing, a_snapshot_needs_its_events;
    query: unfinished_runs_are_found_by_shard, due_runs_are_found_in_order, lists_filter, lists_go_page_by_page,
        counts_follow_heads;
    keeping: bytes_are_kept_once, bytes_go_with_their_last_run, definitions_are_immutable_per_version,
        the_newest_definition_is_current, ended_runs_are_forgotten, keys_outlive_their_runs_until_they_expire,
        epochs_only_grow, a_closed_store_refuses_writes;
    outbox: records_come_back_in_the_order_of_commits, a_refused_write_leaves_no_record,
        only_the_owner_forgets_records, positions_are_never_given_twice, many_writers_leave_no_gap,
        records_are_forgotten_one_by_one, outboxes_are_told_apart;
    ingest: a_claim_begins_a_partition_and_fences_the_one_before, what_records_became_is_kept_at_once_or_not_at_all,
        a_position_is_compared_and_set, a_run_that_is_there_is_not_begun_again, a_new_generation_is_another_reading,
        barren_claims_are_counted_until_there_is_progress, operators_steer_whoever_owns,
        dead_letters_are_found_and_settled_once, dead_letters_wait_to_be_sent, of_two_owners_only_the_last_writes,
        partitions_do_not_get_in_each_others_way, what_no_store_keeps_is_told_beforehand;
    line: the_first_of_a_line_is_known, a_failure_keeps_its_place_until_it_is_left;
    lease: one_leads_at_a_time, terms_only_rise, a_leader_prolongs_its_lease, of_many_one_wins,
        a_lease_that_nearly_ended_can_be_taken, of_many_usurpers_each_has_its_term,
        every_boot_has_its_number, a_fenced_node_writes_no_more, a_new_boot_fences_the_one_before,
        only_expired_lives_are_fenced_as_expired;
    shard: rows_are_there_from_the_beginning, a_shard_is_taken_under_its_epoch, only_a_fenced_owner_is_succeeded,
        a_fenced_life_takes_nothing, of_many_takers_each_shard_has_one, a_released_epoch_is_over,
        only_its_owner_releases_a_shard, takers_are_their_own_target, a_leader_whose_term_is_over_assigns_nothing,
        a_plan_for_another_epoch_is_dropped, changes_are_read_by_version, a_claim_respects_the_living;
}

/// The time at which every check begins.
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The shard that most checks use.
const SHARD: ShardId = ShardId(7);

/// `START` plus some milliseconds.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START.as_millis() + millis)
}

/// A fresh id: of the given time and shard, different from all others of the process.
fn run_at(millis: i64, shard: ShardId) -> RunId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    RunId::new(at(millis), shard, COUNT.fetch_add(1, Ordering::Relaxed))
}

fn run() -> RunId {
    run_at(0, SHARD)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn entry(seq: u64, count: u32, millis: i64) -> Entry {
    Entry { seq: Seq(seq), count, at: at(millis), payload: Bytes::from(format!("events from {seq}")) }
}

fn head(state: HeadState) -> HeadChange {
    HeadChange { state, wake_at: None, leaves_line: false }
}

/// An admission as of the time in its id.
fn admission(run: RunId) -> Admission {
    let millis = i64::try_from(run.as_u128() >> 80).unwrap() - START.as_millis();
    Admission {
        run,
        namespace: Namespace::default(),
        workflow: name("answer"),
        version: "1".to_owned(),
        tags: vec!["blue".to_owned(), "quote \" and ä".to_owned()],
        entry: entry(1, 1, millis),
        head: head(HeadState::Pending),
        idempotency: None,
        outbox: vec![],
        line: None,
    }
}

fn keyed(run: RunId, key: &str, fingerprint: u8) -> Admission {
    let idempotency = IdempotencyKey {
        key: key.to_owned(),
        fingerprint: [fingerprint; 32],
        expires_at: admission(run).entry.at.after(std::time::Duration::from_secs(60)),
    };
    Admission { idempotency: Some(idempotency), ..admission(run) }
}

fn append(run: RunId, epoch: Epoch, entry: Entry) -> Append {
    Append { run, epoch, incarnation: None, entry, head: None, outbox: vec![] }
}

/// Admits a run and claims its shard.
async fn owned_run(store: &Arc<dyn Store>) -> (RunId, Epoch) {
    let run = run();
    store.admit(admission(run)).await.unwrap();
    (run, store.claim(run.shard(), "owner").await.unwrap())
}

/// Admits a run and moves its head to a state at a time.
async fn run_in_state(store: &Arc<dyn Store>, run: RunId, state: HeadChange, millis: i64) {
    store.admit(admission(run)).await.unwrap();
    let epoch = store.epoch(run.shard()).await.unwrap();
    let change = Append { head: Some(state), ..append(run, epoch, entry(2, 1, millis)) };
    store.append(change).await.unwrap();
}
