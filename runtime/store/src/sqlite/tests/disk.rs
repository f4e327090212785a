//! A disk that is full loses nothing that was acknowledged.

use std::process::Command;

use super::*;

/// A small disk of its own; gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where the system does not let this process mount one.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Panics unless the file is sound and its counts are those of its rows.
pub(super) async fn check_integrity(folder: &Path) {
    let store = SqliteStore::open(folder).await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writing_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("6m") else {
        eprintln!("SKIPPED: this process may not mount a small disk; run the test as root to have it checked");
        return;
    };
    let folder = disk.0.path();
    let store = SqliteStore::open(folder).await.unwrap();
    store.claim(SHARD, "owner").await.unwrap();
    let runs = 4;
    for number in 0..runs {
        store.admit(admission(run(number))).await.unwrap();
    }
    let mut acknowledged = 1;
    let failure = 'full: loop {
        let seq = acknowledged + 1;
        let round = (0..runs).map(|number| store.append(append(run(number), entry(seq, vec![5; 20_000]))));
        for answer in join_all(round).await {
            if let Err(error) = answer {
                break 'full error;
            }
        }
        acknowledged = seq;
    };
    assert!(matches!(failure, StoreError::Storage(_)), "{failure}");
    assert!(acknowledged > 5, "the disk was full after {acknowledged} rounds");
    assert!(store.health().fault.is_some());

    // It reads, it refuses, it closes.
    assert!(store.load(run(0), true).await.unwrap().unwrap().entries.len() as u64 >= acknowledged);
    let refused = store.admit(admission(run(99))).await;
    assert!(matches!(refused, Err(StoreError::Storage(_))), "{refused:?}");
    disk.grow("64m");
    let refused = store.claim(SHARD, "owner").await;
    assert!(matches!(refused, Err(StoreError::Storage(_))), "not before it is opened again: {refused:?}");
    store.close().await.unwrap();

    let store = SqliteStore::open(folder).await.unwrap();
    for number in 0..runs {
        let entries = store.load(run(number), true).await.unwrap().unwrap().entries;
        assert!(entries.len() as u64 >= acknowledged, "{} of {acknowledged}", entries.len());
        let next = entries.len() as u64 + 1;
        store.append(append(run(number), entry(next, vec![5; 20_000]))).await.unwrap();
    }
    store.close().await.unwrap();
    check_integrity(folder).await;
}
