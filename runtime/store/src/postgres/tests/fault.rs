//! Connections that are killed, and what is known afterwards.

use std::collections::BTreeMap;

use super::*;

/// Ends the store's connections on the server; how many there were.
async fn kill(place: &Place, connection: &mut sqlx::postgres::PgConnection) -> i64 {
    let text = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1";
    connection.fetch_one(sqlx::query(text).bind(place.name())).await.unwrap().get(0)
}

/// Every write is acknowledged once, and what is there is what was acknowledged, however often the connection dies
/// with statements in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_and_double_nothing() {
    const RUNS: u64 = 32;
    const EVENTS: u64 = 60;
    let Some(place) = Place::new("killed").await else { return };
    let store = place.store().await;
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    let writers: Vec<_> = (0..RUNS)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let key = crate::port::IdempotencyKey {
                    key: format!("key {number}"),
                    fingerprint: [7; 32],
                    expires_at: at(60_000),
                };
                let first = Admission { idempotency: Some(key), ..admission(run(number)) };
                assert_eq!(store.admit(first).await.unwrap(), Admitted::New);
                for seq in 2..=EVENTS {
                    let payload = format!("{number} {seq}").into_bytes();
                    let state = if seq == EVENTS { HeadState::Succeeded } else { HeadState::Running };
                    let head = Some(HeadChange { state, wake_at: None, leaves_line: false });
                    let row = crate::port::OutboxRow {
                        event: [seq as u8; 16],
                        topic: "t".to_owned(),
                        key: None,
                        headers: vec![],
                        payload: payload.clone().into(),
                        transactional: false,
                    };
                    let append = Append { head, outbox: vec![row], ..append(run(number), epoch, entry(seq, payload)) };
                    store.append(append).await.unwrap();
                }
            })
        })
        .collect();
    let (mut connection, mut killed) = (place.connection().await, 0);
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        // Only while something is in flight, and not so often that nothing gets through.
        let before = store.health().commits;
        while store.health().commits < before + 5 && !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        if killed < 12 {
            killed += kill(&place, &mut connection).await;
        }
    }
    join_all(writers).await.into_iter().for_each(Result::unwrap);
    assert!(killed >= 3, "only {killed} connections were killed");
    for number in 0..RUNS {
        let entries = store.load(run(number), true).await.unwrap().unwrap().entries;
        let payloads: Vec<_> = entries.iter().skip(1).map(|entry| entry.payload.clone()).collect();
        let expected: Vec<_> = (2..=EVENTS).map(|seq| bytes::Bytes::from(format!("{number} {seq}"))).collect();
        assert_eq!(payloads, expected, "run {number}");
    }
    let records = store.outbox(SHARD, 0, 10_000).await.unwrap();
    assert!(records.iter().map(|record| record.position).eq(1..=RUNS * (EVENTS - 1)), "{} records", records.len());
    let counts: BTreeMap<_, _> = store.counts().await.unwrap().into_iter().collect();
    assert_eq!((counts[&HeadState::Succeeded], counts[&HeadState::Running]), (RUNS, 0));
    assert_eq!(store.health().fault, None);
}

/// The commit has happened, its answer has not: the entry is found again and is not written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_found_again() {
    let Some(place) = Place::new("answer").await else { return };
    let store = place.store().await;
    store.admit(admission(run(1))).await.unwrap();
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    // Holding the shard's row keeps the write in flight; the same entry is put there meanwhile, as if it had been
    // committed before the connection died.
    let mut foreign = place.connection().await;
    let mut hold = foreign.begin().await.unwrap();
    hold.execute("update shard set owner = owner where shard = 1").await.unwrap();
    let late = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let same = store.append(append(run(1), epoch, entry(2, b"same".to_vec())));
            let other = store.append(append(run(1), epoch, entry(2, b"other".to_vec())));
            tokio::join!(same, other)
        }
    });
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = $1";
    let mut watcher = place.connection().await;
    while watcher.fetch_one(sqlx::query(waiting).bind(place.name())).await.unwrap().get::<i64, _>(0) == 0 {}
    let put = "insert into journal values ($1, $2, 2, 1, 0, 'same')";
    let put = sqlx::query(put).bind(partition::born(run(1))).bind(run(1).to_bytes());
    hold.execute(put).await.unwrap();
    kill(&place, &mut watcher).await;
    hold.commit().await.unwrap();
    let (same, other) = late.await.unwrap();
    same.unwrap();
    assert!(matches!(other, Err(StoreError::SeqTaken { .. })), "{other:?}");
    assert_eq!(store.load(run(1), true).await.unwrap().unwrap().entries.len(), 2);
}

/// A server that is not there: an error within the store's patience, and no longer than that.
#[tokio::test]
async fn a_server_that_is_away_is_told_of() {
    let options = PostgresOptions::from_url("postgres://nobody:very-secret@127.0.0.1:1/nothing").unwrap();
    let error = PostgresStore::open(options.clone()).await.unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::Retryable);
    let text = format!("{error} {error:?} {options:?}");
    assert!(text.contains("nobody@127.0.0.1:1/nothing") && !text.contains("very-secret"), "{text}");
}

/// While nobody may connect, writes fail in time and the health says why; afterwards all is well by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_recovers_by_itself() {
    let Some(place) = Place::new("away").await else { return };
    let mut admin = place.connection().await;
    let role = place.name().to_owned();
    let grants = format!(
        "create role {role} login password 'motet'; grant all on schema {role} to {role};
         grant all on all tables in schema {role} to {role}; alter table {role}.journal owner to {role}"
    );
    schema::run(&mut admin, &grants).await.unwrap();
    let mut options = place.options().with_user(&role, "motet");
    options.patience = Duration::from_millis(300);
    let store = PostgresStore::open(options).await.unwrap();
    store.admit(admission(run(1))).await.unwrap();
    schema::run(&mut admin, &format!("alter role {role} nologin")).await.unwrap();
    kill(&place, &mut admin).await;
    let answer = store.admit(admission(run(2))).await;
    assert!(matches!(answer, Err(StoreError::Storage(_))), "{answer:?}");
    assert!(store.health().fault.is_some());
    schema::run(&mut admin, &format!("alter role {role} login")).await.unwrap();
    while store.health().fault.is_some() {
        tokio::task::yield_now().await;
    }
    store.admit(admission(run(3))).await.unwrap();
    assert!(store.head(run(1)).await.unwrap().is_some());
    store.close().await.unwrap();
    let away = format!("drop schema {role} cascade; drop owned by {role}; drop role {role}");
    schema::run(&mut admin, &away).await.unwrap();
}
