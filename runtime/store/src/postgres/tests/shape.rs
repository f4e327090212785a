//! Schema, partitions, plans, and the way to the server.

use std::time::Instant;

use crate::port::RunQuery;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_twice_and_at_once_changes_nothing_more() {
    let Some(place) = Place::bare("migrate") else { return };
    let refused = PostgresStore::open(place.options()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(text) if text.contains("motet migrate")), "{refused}");
    let options = place.options();
    let all = join_all((0..6).map(|_| PostgresStore::migrate(&options))).await;
    assert!(all.iter().all(|done| matches!(done, Ok(4))), "{all:?}");
    place.store().await.admit(admission(run(1))).await.unwrap();
    assert_eq!(PostgresStore::migrate(&options).await.unwrap(), 4);
    assert!(place.store().await.head(run(1)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_schema_is_refused_with_advice() {
    let Some(place) = Place::new("schema").await else { return };
    let mut connection = place.connection().await;
    schema::run(&mut connection, "insert into motet_schema (version) values (999)").await.unwrap();
    for migrate_at_start in [false, true] {
        let mut options = place.options();
        options.migrate_at_start = migrate_at_start;
        let refused = PostgresStore::open(options).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(text) if text.contains("schema 999")), "{refused}");
    }
    schema::run(&mut connection, "truncate motet_schema").await.unwrap();
    let refused = PostgresStore::open(place.options()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(text) if text.contains("schema 0")), "{refused}");
    let old = schema::refuse_old_server(130_012).unwrap_err();
    assert!(old.to_string().contains("PostgreSQL 13"), "{old}");
    schema::refuse_old_server(140_000).unwrap();
}

/// The names of the journal's partitions.
async fn partitions(connection: &mut sqlx::postgres::PgConnection) -> Vec<String> {
    let text = "select inhrelid::regclass::text from pg_inherits where inhparent = 'journal'::regclass order by 1";
    connection.fetch_all(text).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_is_dropped_when_its_last_run_is_forgotten() {
    const DAY: i64 = partition::DAY_MILLIS;
    let Some(place) = Place::new("retain").await else { return };
    let store = place.store().await;
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    let mut connection = place.connection().await;
    let on_day = |day: i64, number: u64| RunId::new(at(day * DAY), SHARD, number);
    let (ended, lasting) = ([on_day(0, 1), on_day(0, 2), on_day(1, 3)], on_day(1, 4));
    for run in ended.into_iter().chain([lasting]) {
        store.admit(admission(run)).await.unwrap();
        let state = if run == lasting { HeadState::Waiting } else { HeadState::Succeeded };
        let head = Some(HeadChange { state, wake_at: None, leaves_line: false });
        store.append(Append { head, ..append(run, epoch, entry(2, vec![2])) }).await.unwrap();
    }
    let names = [0, 1].map(|day| format!("journal_{}", partition::born(on_day(day, 0))));
    let before = partitions(&mut connection).await;
    assert!(names.iter().all(|name| before.contains(name)), "{before:?}");
    assert_eq!(store.retain(at(5 * DAY), at(5 * DAY), 100).await.unwrap(), 3);
    let after = partitions(&mut connection).await;
    assert!(!after.contains(&names[0]), "every run of that day was forgotten: {after:?}");
    assert!(after.contains(&names[1]), "a run of that day lasts: {after:?}");
    let left: i64 = connection.fetch_one("select count(*) from journal").await.unwrap().get(0);
    assert_eq!(left, 2, "the rows of the other run of that day were deleted");
    assert_eq!(store.load(lasting, true).await.unwrap().unwrap().entries.len(), 2);
    // The day is made again when somebody is born on it after all.
    store.admit(admission(on_day(0, 9))).await.unwrap();
    assert_eq!(store.load(on_day(0, 9), true).await.unwrap().unwrap().entries.len(), 1);
}

/// With a hundred thousand parked runs, whatever walks the whole table is too slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_its_index() {
    let Some(place) = Place::new("plans").await else { return };
    place.store().await.admit(admission(run(1))).await.unwrap();
    let mut connection = place.connection().await;
    schema::run(&mut connection, READER_GREETING).await.unwrap();
    let fill = "insert into run select decode(lpad(to_hex(i), 32, '0'), 'hex'), i % 64, 'default', 'answer', '1', '[]',
        case when i % 100 = 0 then 1 when i % 100 = 1 then 5 when i % 2 = 0 then 2 else 4 end, i, null,
        case when i % 2 = 0 then i end from generate_series(1, 20000) as i; analyze run";
    schema::run(&mut connection, fill).await.unwrap();
    let list = |workflow: bool, states: &[HeadState]| {
        let query = RunQuery {
            workflow: workflow.then(|| Name::new("answer").unwrap()),
            states: states.to_vec(),
            before: Some(run(1)),
            ..RunQuery::newest(Namespace::default(), 10)
        };
        reader::list_text(&query).into_sql()
    };
    let (id, born) = ("'\\xff'::bytea", partition::born(run(1)).to_string());
    let born = born.as_str();
    let cases: [(String, &[&str], &str); 8] = [
        (reader::LOAD.to_owned(), &[id, born, "false"], "run_pkey"),
        (reader::ENTRIES.to_owned(), &[id, born, "1", "9"], "Index"),
        (reader::UNFINISHED.to_owned(), &["7", "'\\x00'", "10"], "run_live"),
        (reader::DUE.to_owned(), &["7", "900", "10"], "run_due"),
        (reader::NEXT_WAKE.to_owned(), &["7"], "run_due"),
        (list(false, &[]), &["'default'", id, "10"], "run_"),
        (list(true, &[]), &["'default'", "'answer'", id, "10"], "run_"),
        (list(false, &[HeadState::Failed]), &["'default'", id, "10"], "run_failed"),
    ];
    for (text, values, expected) in cases {
        let explained = values
            .iter()
            .enumerate()
            .fold(text.clone(), |text, (place, value)| text.replace(&format!("${}", place + 1), value));
        let rows = connection.fetch_all(&*format!("explain {explained}")).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(expected) && !plan.contains("Seq Scan on run"), "{text}\nis run as\n{plan}");
    }
}

/// Without TCP_NODELAY every exchange of more than one packet stalls for 44 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_batches_do_not_stall() {
    let Some(place) = Place::new("stall").await else { return };
    assert!(
        place.options().place().contains("@127.0.0.1:"),
        "the stall shows on TCP only: {}",
        place.options().place()
    );
    let store = place.store().await;
    let epoch = store.claim(SHARD, "owner").await.unwrap();
    join_all((0..64).map(|number| store.admit(admission(run(number)))))
        .await
        .into_iter()
        .for_each(|one| _ = one.unwrap());
    let (begun, before) = (Instant::now(), store.health().commits);
    for seq in 2..202 {
        let batch = (0..64).map(|number| store.append(append(run(number), epoch, entry(seq, vec![3; 300]))));
        join_all(batch).await.into_iter().for_each(Result::unwrap);
    }
    let (took, commits) = (begun.elapsed(), store.health().commits - before);
    eprintln!("200 times 64 rows took {took:?} in {commits} commits");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn urls_are_read_as_users_of_libpq_write_them() {
    let good = [
        ("postgres://ann:secret@db:5433/motet", "ann@db:5433/motet"),
        ("postgresql://ann@db/motet?sslmode=verify-full&sslrootcert=/ca.pem", "ann@db:5432/motet"),
        ("postgres://ann@db/?dbname=other&port=6000", "ann@db:6000/other"),
        ("postgres:///motet?host=/run/postgresql&user=ann", "ann@/run/postgresql:5432/motet"),
        ("postgres://ann@db/motet?connect_timeout=3&application_name=x&password=secret", "ann@db:5432/motet"),
    ];
    for (url, place) in good {
        let options = PostgresOptions::from_url(url).unwrap();
        assert_eq!(options.place(), place, "{url}");
        assert!(!format!("{options:?}").contains("secret"));
        assert_eq!(options.needs_tls(), url.contains("verify-full"));
    }
    let bad = [
        ("mysql://ann:secret@db/motet", "begins with 'mysql:'"),
        ("postgres://ann:secret@a,b/motet", "several hosts"),
        ("postgres://ann:secret@db/motet?sslmod=require", "unknown parameter 'sslmod'"),
        ("postgres://ann:secret@db/motet?sslmode=maybe", "sslmode"),
        ("postgres://ann:secret@db/motet?connect_timeout=soon", "connect_timeout"),
        ("postgres://ann:secret@db:port/motet", "unreadable"),
        ("nothing", "unreadable"),
    ];
    for (url, words) in bad {
        let error = PostgresOptions::from_url(url).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("secret"), "{url}: {error}");
    }
}

#[test]
fn a_password_file_is_read_when_the_url_has_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, "db:5432:motet:ann:fromthefile\n").unwrap();
    let url = format!("postgres://ann@db/motet?passfile={}", file.display());
    let open = PostgresOptions::from_url(&url).unwrap_err().to_string();
    assert!(open.contains("chmod 600"), "{open}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = PostgresOptions::from_url(&url).unwrap();
    assert!(options.has_password("fromthefile") && !format!("{options:?}").contains("fromthefile"));
    let own = PostgresOptions::from_url(&url.replace("ann@", "ann:own@")).unwrap();
    assert!(own.has_password("own"), "the URL's password goes first");
}
