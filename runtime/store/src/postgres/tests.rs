//! What PostgreSQL promises beside the contract, against a real server.

mod crew;
mod fault;
mod place;
mod shape;
mod shard;

use std::sync::Arc;

use futures::future::join_all;
use motet_engine::id::ShardId;
use sqlx::{Connection, Row};

use super::*;
use crate::contract;
use crate::port::HeadChange;
use place::Place;

const SHARD: ShardId = ShardId(1);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn run(number: u64) -> RunId {
    RunId::new(at(0), SHARD, number)
}

fn entry(seq: u64, payload: Vec<u8>) -> Entry {
    Entry { seq: Seq(seq), count: 1, at: at(0), payload: payload.into() }
}

fn admission(run: RunId) -> Admission {
    Admission {
        run,
        namespace: Namespace::default(),
        workflow: Name::new("answer").unwrap(),
        version: "1".to_owned(),
        tags: vec![],
        entry: entry(1, vec![1]),
        head: HeadChange { state: HeadState::Pending, wake_at: None, leaves_line: false },
        idempotency: None,
        outbox: vec![],
        line: None,
    }
}

fn append(run: RunId, epoch: Epoch, entry: Entry) -> Append {
    Append { run, epoch, incarnation: None, entry, head: None, outbox: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise_of_the_port() {
    for (name, check) in contract::CHECKS {
        let Some(place) = Place::new("contract").await else { return };
        eprintln!("postgres: {name}");
        check(place.store().await).await;
    }
}

/// Two processes with one database: the one whose shard was taken is refused, whatever it tries and however often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_stores_the_one_with_the_newer_epoch_writes() {
    let Some(place) = Place::new("zombie").await else { return };
    let stores = [place.store().await, place.store().await];
    for number in 0..20 {
        stores[0].admit(admission(run(number))).await.unwrap();
    }
    let owners = stores.iter().enumerate().map(|(owner, store)| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let (mut written, mut fenced) = (Vec::new(), 0u32);
            for round in 0..20u64 {
                let epoch = store.claim(SHARD, &format!("owner {owner}")).await.unwrap();
                for number in 0..20 {
                    // What a new owner does first: it reads where the run stands.
                    let stored = store.load(run(number), true).await.unwrap().unwrap();
                    let next = stored.entries.len() as u64 + 1;
                    let payload = format!("{owner} {round}").into_bytes();
                    match store.append(append(run(number), epoch, entry(next, payload.clone()))).await {
                        Ok(()) => written.push((number, next, payload)),
                        Err(StoreError::Fenced { carried, current, .. }) => {
                            assert!(carried == epoch && current > epoch, "{carried} {current}");
                            fenced += 1;
                        }
                        Err(StoreError::SeqTaken { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            (written, fenced)
        })
    });
    let outcomes: Vec<_> = join_all(owners).await.into_iter().map(Result::unwrap).collect();
    assert!(outcomes.iter().any(|(_, fenced)| *fenced > 0), "nobody was ever fenced: the race was none");
    for number in 0..20 {
        let entries = stores[0].load(run(number), true).await.unwrap().unwrap().entries;
        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == Seq(seq)), "run {number} has holes");
        let mut acknowledged: Vec<_> = outcomes.iter().flat_map(|(written, _)| written).collect();
        acknowledged.retain(|(its, ..)| *its == number);
        assert_eq!(acknowledged.len() + 1, entries.len(), "run {number}: what is there is what was acknowledged");
        for (_, seq, payload) in acknowledged {
            assert_eq!(entries[*seq as usize - 1].payload, *payload);
        }
    }
}

/// A claim that is not committed yet holds writes of the old owner back, and then they are fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_a_claim_and_then_fails() {
    let Some(place) = Place::new("claim").await else { return };
    let store = place.store().await;
    store.admit(admission(run(1))).await.unwrap();
    let epoch = store.claim(SHARD, "old").await.unwrap();
    let mut foreign = place.connection().await;
    let mut claim = foreign.begin().await.unwrap();
    claim.execute("update shard set epoch = epoch + 1 where shard = 1").await.unwrap();
    let late = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.append(append(run(1), epoch, entry(2, vec![2]))).await }
    });
    // The write has begun to wait when the server says so.
    let waiting = format!(
        "select count(*) from pg_stat_activity
         where wait_event_type = 'Lock' and query like 'with life%' and application_name = '{}'",
        place.name()
    );
    let mut watcher = place.connection().await;
    while watcher.fetch_one(&*waiting).await.unwrap().get::<i64, _>(0) == 0 {}
    claim.commit().await.unwrap();
    let answer = late.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Fenced { current, .. }) if current.0 == epoch.0 + 1), "{answer:?}");
    assert_eq!(store.load(run(1), true).await.unwrap().unwrap().entries.len(), 1);
}

/// A trigger stands for whatever the planner cannot foresee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_database_refuses_does_not_hurt_its_neighbours() {
    let Some(place) = Place::new("row").await else { return };
    let store = place.store().await;
    store.admit(admission(run(1_000))).await.unwrap();
    let refuse = "create function refuse() returns trigger language plpgsql as
        $$ begin raise exception 'not this one' using errcode = '22000'; end $$;
      create trigger refuse before insert on journal for each row when (new.payload = '\\xbad0')
        execute function refuse();
      insert into run select '\\x"
        .to_owned();
    let ghost: String = run(77).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{refuse}{ghost}', 1, 'default', 'answer', '1', '[]', 0, 0, null, null");
    schema::run(&mut place.connection().await, &text).await.unwrap();
    let admissions = (0..100u64).map(|number| {
        let store = Arc::clone(&store);
        let payload = if number % 30 == 7 { vec![0xba, 0xd0] } else { vec![1] };
        let admission = Admission { entry: entry(1, payload), ..admission(run(number)) };
        tokio::spawn(async move { store.admit(admission).await })
    });
    for (number, answer) in join_all(admissions).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        match number {
            7 | 37 | 67 | 97 => assert!(matches!(answer, Err(StoreError::Refused(_))), "{number}: {answer:?}"),
            77 => assert!(matches!(answer, Err(StoreError::Refused(_) | StoreError::SeqTaken { .. })), "{answer:?}"),
            _ => assert!(matches!(answer, Ok(Admitted::New)), "{number}: {answer:?}"),
        }
    }
    let health = store.health();
    assert_eq!((health.fault, health.entries), (None, 96));
}

/// What is remembered of a run may be old: another store went on with it in the meantime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_others_moved_are_looked_up() {
    let Some(place) = Place::new("moved").await else { return };
    let (here, there) = (place.store().await, place.store().await);
    here.admit(admission(run(1))).await.unwrap();
    for round in 0..4u64 {
        let store = if round % 2 == 0 { &here } else { &there };
        let epoch = store.claim(SHARD, "owner").await.unwrap();
        for seq in 2 + round * 3..5 + round * 3 {
            let state = if seq % 2 == 0 { HeadState::Waiting } else { HeadState::Running };
            let head = Some(HeadChange { state, wake_at: None, leaves_line: false });
            store.append(Append { head, ..append(run(1), epoch, entry(seq, vec![2])) }).await.unwrap();
            let again = store.append(append(run(1), epoch, entry(seq, vec![3]))).await;
            assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{again:?}");
        }
    }
    let again = there.admit(admission(run(1))).await;
    assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{again:?}");
    let counted = here.counts().await.unwrap().into_iter().filter(|(_, count)| *count > 0);
    assert_eq!(counted.collect::<Vec<_>>(), [(HeadState::Running, 1)]);
}
