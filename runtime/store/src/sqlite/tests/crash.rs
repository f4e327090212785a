//! A process that is killed in the middle of writing loses nothing that it acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// Names the folder in which this test program, started again, shall write until it is killed.
const CHILD_FOLDER: &str = "MOTET_TEST_CHILD_FOLDER";

const RUNS: u64 = 8;

/// The child's part; does nothing when the test program runs by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = Arc::new(SqliteStore::open(Path::new(&folder)).await.unwrap());
    store.claim(SHARD, "child").await.unwrap();
    let writers = (0..RUNS).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.admit(admission(run(number))).await.unwrap();
            for seq in 2.. {
                store.append(append(run(number), entry(seq, vec![3; 300]))).await.unwrap();
                // One call per line, so that lines of several writers do not mix; the test's capture does not see it.
                std::io::stdout().lock().write_all(format!("\nack {number} {seq}\n").as_bytes()).unwrap();
            }
        })
    });
    join_all(writers).await;
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::tests::crash::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut acknowledged = [0u64; RUNS as usize];
    let mut note = |line: String| {
        let mut words = line.strip_prefix("ack ")?.split(' ').map(|word| word.parse::<u64>().unwrap());
        let (run, seq) = (words.next()?, words.next()?);
        acknowledged[run as usize] = seq;
        Some(())
    };
    assert_eq!(lines.by_ref().filter_map(&mut note).take(2_000).count(), 2_000, "the child ended early");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(SqliteStore::open(folder.path())).unwrap_err();
    let expected = format!("(pid {}", child.id());
    assert!(matches!(&refused, StoreError::InUse { holder, .. } if holder.contains(&expected)), "{refused}");

    child.kill().unwrap();
    child.wait().unwrap();
    // What was still on its way through the pipe was acknowledged too; the last line may be torn.
    let rest: Vec<String> = lines.collect();
    let whole = rest.len().saturating_sub(1);
    rest.into_iter().take(whole).for_each(|line| _ = note(line));

    runtime.block_on(async {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        for (number, seq) in acknowledged.iter().enumerate() {
            let entries = store.load(run(number as u64), true).await.unwrap().unwrap().entries;
            assert!(entries.len() as u64 >= *seq, "run {number}: {} events, {seq} acknowledged", entries.len());
            assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == Seq(seq)), "run {number} has holes");
        }
        store.close().await.unwrap();
        disk::check_integrity(folder.path()).await;
    });
}
