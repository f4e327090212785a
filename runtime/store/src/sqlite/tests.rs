//! What SQLite promises beside the contract.

mod crash;
mod disk;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use motet_engine::id::ShardId;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tempfile::TempDir;

use super::*;
use crate::contract;
use crate::port::{HeadChange, HeadState};

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

fn append(run: RunId, entry: Entry) -> Append {
    Append { run, epoch: Epoch(1), incarnation: None, entry, head: None, outbox: vec![] }
}

/// A second connection behind the store's back.
async fn foreign(folder: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(folder.join(schema::DATABASE_FILE)).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise_of_the_port() {
    for (name, check) in contract::CHECKS {
        eprintln!("sqlite: {name}");
        let folder = tempfile::tempdir().unwrap();
        check(Arc::new(SqliteStore::open(folder.path()).await.unwrap())).await;
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for life in 0..3u64 {
        // The runtime ends with the block, and the writer and its lock with it.
        runtime().block_on(async {
            let store = SqliteStore::open(folder.path()).await.unwrap();
            assert_eq!(store.claim(SHARD, "owner").await.unwrap(), Epoch(life + 1));
            if life == 0 {
                store.admit(admission(run(1))).await.unwrap();
            }
            let next = Append { epoch: Epoch(life + 1), ..append(run(1), entry(life + 2, vec![2])) };
            store.append(next).await.unwrap();
            let loaded = store.load(run(1), true).await.unwrap().unwrap();
            assert_eq!(loaded.entries.len() as u64, life + 2);
            assert_eq!(store.counts().await.unwrap()[0], (HeadState::Pending, 1));
        });
    }
}

#[tokio::test]
async fn a_folder_in_use_is_refused_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let refused = SqliteStore::open(folder.path()).await.unwrap_err();
    let StoreError::InUse { path, holder } = &refused else { panic!("{refused}") };
    assert_eq!(path, &folder.path().display().to_string());
    assert!(holder.starts_with(&format!(" (pid {}, running for ", std::process::id())), "{holder}");
    store.close().await.unwrap();
    assert!(matches!(store.head(run(1)).await, Err(StoreError::Closed)));
    SqliteStore::open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    SqliteStore::open(folder.path()).await.unwrap().close().await.unwrap();
    let mut connection = foreign(folder.path()).await;
    connection.execute("pragma user_version = 999").await.unwrap();
    connection.close().await.unwrap();
    let refused = SqliteStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(text) if text.contains("schema 999")), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(schema::DATABASE_FILE), vec![b'x'; 8192]).unwrap();
    let refused = SqliteStore::open(folder.path()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt(_)), "{refused}");
}

/// A trigger stands for whatever the planner cannot foresee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_database_refuses_does_not_hurt_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    store.claim(SHARD, "owner").await.unwrap();
    let mut connection = foreign(folder.path()).await;
    let trigger = "create trigger refuse before insert on journal when new.payload = x'bad0'
        begin select raise(abort, 'not this one'); end";
    connection.execute(trigger).await.unwrap();
    let ghost = "insert into run select ?1, 1, 'default', 'answer', '1', '[]', 0, 0, null, null, null, null";
    sqlx::query(ghost).bind(run(77).to_bytes().to_vec()).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

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
            77 => assert!(matches!(answer, Err(StoreError::SeqTaken { .. })), "{number}: {answer:?}"),
            _ => assert!(matches!(answer, Ok(Admitted::New)), "{number}: {answer:?}"),
        }
    }
    let health = store.health();
    assert_eq!((health.fault, health.entries), (None, 95));
}

/// While a foreign program holds the file, the queue fills; nobody waits for ever and nothing is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_tells_callers_to_slow_down() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    let mut connection = foreign(folder.path()).await;
    connection.execute("begin immediate").await.unwrap();
    let admissions: Vec<_> = (0..10_000)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.admit(admission(run(number))).await })
        })
        .collect();
    // The first to be answered are those that found no room.
    let (first, _, others) = futures::future::select_all(admissions).await;
    assert!(matches!(first.unwrap(), Err(StoreError::Busy)));
    connection.execute("rollback").await.unwrap();
    let answers: Vec<_> = join_all(others).await.into_iter().map(Result::unwrap).collect();
    let admitted = answers.iter().filter(|answer| matches!(answer, Ok(Admitted::New))).count() as u64;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Admitted::New) | Err(StoreError::Busy))));
    let counts: BTreeMap<_, _> = store.counts().await.unwrap().into_iter().collect();
    assert_eq!(counts[&HeadState::Pending], admitted);
    assert_eq!(store.health().fault, None);
}

/// How SQLite would run a statement.
async fn plan(connection: &mut SqliteConnection, text: &str) -> String {
    let rows = sqlx::raw_sql(&format!("explain query plan {text}")).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(3)).collect::<Vec<_>>().join("; ")
}

/// With a hundred thousand finished runs, whatever walks the whole table is too slow.
#[tokio::test]
async fn every_question_has_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let _store = SqliteStore::open(folder.path()).await.unwrap();
    let mut connection = foreign(folder.path()).await;
    let list = |workflow: bool, states: &[HeadState]| {
        let query = RunQuery {
            workflow: workflow.then(|| Name::new("answer").unwrap()),
            states: states.to_vec(),
            before: Some(run(1)),
            ..RunQuery::newest(Namespace::default(), 10)
        };
        reader::list_text(&query).into_sql()
    };
    let primary = "SEARCH run USING PRIMARY KEY";
    let cases = [
        (batch::HEADS.to_owned(), primary),
        (writer::FIND_TAILS.to_owned(), primary),
        (writer::FIND_KEYS.to_owned(), "SEARCH found USING PRIMARY KEY (namespace=? AND key=?)"),
        (reader::LOAD.to_owned(), "SEARCH journal USING INDEX journal_by_run (run=? AND seq>?)"),
        (reader::ENTRIES.to_owned(), "SEARCH journal USING INDEX journal_by_run (run=? AND seq>?)"),
        (reader::UNFINISHED.to_owned(), "SEARCH run USING INDEX run_live (shard=? AND id>?)"),
        (reader::DUE.to_owned(), "SEARCH run USING COVERING INDEX run_due (shard=? AND wake_at<?)"),
        (reader::NEXT_WAKE.to_owned(), "SEARCH run USING COVERING INDEX run_due (shard=?"),
        (list(false, &[]), "SEARCH run USING PRIMARY KEY (id<?)"),
        (list(true, &[]), "SEARCH run USING INDEX run_by_workflow (namespace=? AND workflow=? AND id<?)"),
        (list(true, &[HeadState::Failed]), "SEARCH run USING INDEX run_failed (namespace=? AND id<?)"),
        (retention::FIND_RUNS.to_owned(), primary),
    ];
    for (text, expected) in cases {
        let plan = plan(&mut connection, &text).await;
        assert!(plan.contains(expected), "{text}\nis run as: {plan}");
        let walks = plan.contains("SCAN run") || plan.contains("SCAN journal") || plan.contains("TEMP B-TREE");
        assert!(!walks, "{text}\nis run as: {plan}");
    }
    // This one sorts, but only what lives.
    let plan = plan(&mut connection, &list(false, &[HeadState::Running])).await;
    assert!(plan.contains("run_live"), "{plan}");
}

/// The folder's lock is free again when the writer of a closed store has ended.
async fn reopened(store: SqliteStore, folder: &TempDir) -> SqliteStore {
    store.close().await.unwrap();
    SqliteStore::open(folder.path()).await.unwrap()
}

#[tokio::test]
async fn runs_that_are_not_remembered_are_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.claim(SHARD, "owner").await.unwrap(), Epoch(1));
    store.admit(admission(run(1))).await.unwrap();
    for seq in 2..5 {
        store = reopened(store, &folder).await;
        let state = if seq == 4 { HeadState::Succeeded } else { HeadState::Running };
        let head = Some(HeadChange { state, wake_at: None, leaves_line: false });
        store.append(Append { head, ..append(run(1), entry(seq, vec![2])) }).await.unwrap();
        let again = store.append(append(run(1), entry(seq, vec![2]))).await;
        assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{again:?}");
    }
    store = reopened(store, &folder).await;
    let again = store.admit(admission(run(1))).await;
    assert!(matches!(again, Err(StoreError::SeqTaken { .. })), "{again:?}");
    let counted = store.counts().await.unwrap().into_iter().filter(|(_, count)| *count > 0);
    assert_eq!(counted.collect::<Vec<_>>(), [(HeadState::Succeeded, 1)]);
}
