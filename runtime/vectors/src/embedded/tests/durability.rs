//! What is left after a crash at every byte, after damage, after a full disk, and after compaction.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use motet_engine::definition::Metric;
use serde_json::json;

use super::*;
use crate::contract::{definition, query, record};

async fn open(backend: &EmbeddedBackend) -> Result<Box<dyn VectorIndex>, Failure> {
    backend.open("k", &definition(Metric::Dotproduct, 2)).await
}

async fn ids(index: &dyn VectorIndex) -> Vec<String> {
    index.query(query(&[1.0, 0.0], 100)).await.unwrap().into_iter().map(|found| found.id).collect()
}

/// Three batches, and the length of the segment after each.
async fn three_batches(backend: &EmbeddedBackend, segment: &Path) -> Vec<u64> {
    let index = open(backend).await.unwrap();
    let mut lengths = vec![fs::metadata(segment).unwrap().len()];
    for (id, value) in [("a", 3.0), ("b", 2.0)] {
        let batch =
            vec![record(id, &[value, 0.0], json!({"k": "v"})), record(&format!("{id}2"), &[1.0, 1.0], json!({}))];
        index.upsert("", batch).await.unwrap();
        lengths.push(fs::metadata(segment).unwrap().len());
    }
    index.delete("", &["a2".to_owned()]).await.unwrap();
    lengths.push(fs::metadata(segment).unwrap().len());
    lengths
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let segment = folder.path().join("k/segment-000001.log");
    let lengths = three_batches(&backend, &segment).await;
    let whole = fs::read(&segment).unwrap();
    for frame in [1, 2] {
        let before = ["a,a2", "a,b,a2,b2"][frame - 1];
        for cut in lengths[frame]..lengths[frame + 1] {
            fs::write(&segment, &whole[..cut as usize]).unwrap();
            let index = open(&backend).await.unwrap();
            assert_eq!(ids(&*index).await.join(","), before, "cut at {cut}");
            assert_eq!(index.stats().await.unwrap().disk_bytes, lengths[frame]);
            // The index goes on from there.
            index.upsert("", vec![record("c", &[9.0, 0.0], json!({}))]).await.unwrap();
            drop(index);
            assert_eq!(ids(&*open(&backend).await.unwrap()).await[0], "c", "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_last_frame_with_any_wrong_byte_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let segment = folder.path().join("k/segment-000001.log");
    let lengths = three_batches(&backend, &segment).await;
    let whole = fs::read(&segment).unwrap();
    for at in lengths[2]..lengths[3] {
        let mut torn = whole.clone();
        torn[at as usize] ^= 0x40;
        fs::write(&segment, torn).unwrap();
        assert_eq!(ids(&*open(&backend).await.unwrap()).await.join(","), "a,b,a2,b2", "byte {at}");
    }
    // A file that was made longer before its bytes were written.
    let mut zeros = whole[..lengths[2] as usize].to_vec();
    zeros.resize(zeros.len() + 10_000, 0);
    fs::write(&segment, zeros).unwrap();
    assert_eq!(ids(&*open(&backend).await.unwrap()).await.len(), 4);
}

#[tokio::test]
async fn damage_before_whole_frames_is_refused_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let segment = folder.path().join("k/segment-000001.log");
    let lengths = three_batches(&backend, &segment).await;
    let whole = fs::read(&segment).unwrap();
    for at in 0..lengths[2] {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 0x40;
        fs::write(&segment, &damaged).unwrap();
        let failure = open(&backend).await.err().unwrap();
        let frame = if at < lengths[0] { 0 } else { lengths[usize::from(at >= lengths[1])] };
        assert!(failure.message.contains(&format!("segment-000001.log is damaged at offset {frame}:")), "{failure}");
        assert_eq!(failure.class, FailureClass::Internal);
        assert_eq!(fs::read(&segment).unwrap(), damaged, "nothing may be changed");
    }
    fs::write(&segment, whole).unwrap();
    assert_eq!(ids(&*open(&backend).await.unwrap()).await, ["a", "b", "b2"]);
}

#[tokio::test]
async fn bytes_in_metadata_are_never_taken_for_a_frame() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let segment = folder.path().join("k/segment-000001.log");
    let lengths = three_batches(&backend, &segment).await;
    let whole = fs::read(&segment).unwrap();
    // A torn frame that holds a whole frame of another place.
    let mut torn = whole[..lengths[1] as usize].to_vec();
    torn.extend([0xFF; 16]);
    torn.extend(&whole[lengths[1] as usize..lengths[2] as usize]);
    fs::write(&segment, torn).unwrap();
    assert_eq!(ids(&*open(&backend).await.unwrap()).await, ["a", "a2"]);
}

#[tokio::test]
async fn missing_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let backend = EmbeddedBackend::new(folder.path());
    let segment = folder.path().join("k/segment-000001.log");
    three_batches(&backend, &segment).await;
    let description = folder.path().join("k/index.json");
    let text = fs::read_to_string(&description).unwrap();
    assert_eq!(text, r#"{"format":1,"dimension":2,"metric":"dotproduct"}"#);
    for (bad, words) in [("{}", "another version"), ("{\"format\":2}", "format 2"), ("[", "index.json")] {
        fs::write(&description, bad).unwrap();
        let failure = open(&backend).await.err().unwrap();
        assert!(failure.class == FailureClass::Invalid && failure.message.contains(words), "{failure}");
    }
    fs::remove_file(&description).unwrap();
    assert!(open(&backend).await.err().unwrap().message.contains("index.json beside it is missing"));
    fs::write(&description, text).unwrap();
    fs::rename(&segment, folder.path().join("kept")).unwrap();
    assert!(open(&backend).await.err().unwrap().message.contains("no segment"));
    // A crash between the two files of a new index.
    fs::remove_file(&description).unwrap();
    fs::write(&segment, b"MOTETVX\x01").unwrap();
    assert!(ids(&*open(&backend).await.unwrap()).await.is_empty());
}

fn opened(folder: &tempfile::TempDir, compaction: Compaction) -> EmbeddedIndex {
    let shape = Shape { dimension: 2, metric: Metric::Dotproduct };
    EmbeddedIndex::open(folder.path(), "k", shape, compaction).unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_ends_writes_and_leaves_reads() {
    let folder = tempfile::tempdir().unwrap();
    let index = opened(&folder, EmbeddedBackend::new("").compaction);
    index.upsert("", vec![record("a", &[1.0, 0.0], json!({}))]).await.unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    index.state.writer.lock().unwrap().as_mut().unwrap().replace_file(full);
    let failure = index.upsert("", vec![record("b", &[2.0, 0.0], json!({}))]).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable);
    assert!(failure.message.contains("could not write") && failure.message.contains("space"), "{failure}");
    for later in [index.upsert("", vec![]).await, index.delete("", &["a".to_owned()]).await] {
        assert!(later.unwrap_err().message.contains("takes no writes until it is opened again"));
    }
    assert_eq!(ids(&index).await, ["a"]);
    drop(index);
    let index = opened(&folder, EmbeddedBackend::new("").compaction);
    index.upsert("", vec![record("b", &[2.0, 0.0], json!({}))]).await.unwrap();
    assert_eq!(ids(&index).await, ["b", "a"]);
}

#[tokio::test]
async fn compaction_keeps_the_living_and_frees_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let index = opened(&folder, Compaction { min_dead_bytes: 4096, not_before: 0 });
    let mut longest = 0;
    for round in 0..200u16 {
        let batch = (0..10).map(|n| record(&format!("{n}"), &[f32::from(round), n as f32], json!({"round": round})));
        index.upsert("", batch.collect()).await.unwrap();
        longest = longest.max(index.stats().await.unwrap().disk_bytes);
    }
    assert!(longest < 8192, "{longest} bytes for ten vectors");
    drop(index);
    let index = opened(&folder, EmbeddedBackend::new("").compaction);
    let kept = index.fetch("", &["7".to_owned()]).await.unwrap();
    assert_eq!(kept, [record("7", &[199.0, 7.0], json!({"round": 199}))]);
    assert_eq!(ids(&index).await.len(), 10);
}

#[tokio::test]
async fn a_compaction_that_fails_leaves_the_old_segment() {
    let folder = tempfile::tempdir().unwrap();
    let eager = Compaction { min_dead_bytes: 0, not_before: 0 };
    let index = opened(&folder, eager);
    // A folder in the way of the new segment.
    let obstacle = folder.path().join("k/segment.tmp");
    fs::create_dir(&obstacle).unwrap();
    for value in [1.0, 2.0, 3.0, 4.0] {
        index.upsert("", vec![record("a", &[value, 0.0], json!({}))]).await.unwrap();
    }
    assert!(folder.path().join("k/segment-000001.log").exists());
    drop(index);
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(opened(&folder, eager).fetch("", &["a".to_owned()]).await.unwrap()[0].values, [4.0, 0.0]);
}

#[tokio::test]
async fn what_an_interrupted_compaction_left_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let eager = Compaction { min_dead_bytes: 0, not_before: 0 };
    drop(opened(&folder, eager));
    let first = folder.path().join("k/segment-000001.log");
    let index = opened(&folder, EmbeddedBackend::new("").compaction);
    index.upsert("", vec![record("a", &[1.0, 0.0], json!({}))]).await.unwrap();
    drop(index);
    // As after a crash between the rename and the removal of the old segment, with rubbish of a still later try.
    fs::copy(&first, folder.path().join("k/segment-000002.log")).unwrap();
    File::create(&first).unwrap();
    fs::write(folder.path().join("k/segment.tmp"), b"half").unwrap();
    assert_eq!(ids(&opened(&folder, eager)).await, ["a"]);
    assert!(!first.exists() && !folder.path().join("k/segment.tmp").exists());
}
