//! A journal that a newer version of the program has written to, as while an upgrade rolls over the nodes.

use motet_engine::id::Seq;
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use motet_store::codec;
use motet_store::port::{Append, Entry};
use serde_json::json;

use crate::world::{ECHO, PATIENCE, World, apply, caller, finish, output, submit, until};

const ASKS: &str = "
kind: Workflow
name: asks
steps:
  ask: {call: signal, signal: answer}
output: '${ steps.ask.output }'
";

/// An old node leaves such a run alone: it says why, writes nothing, and goes on with all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_events_of_a_newer_version_is_left_alone() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, ECHO).await;
    apply(&node, ASKS).await;
    let run = submit(&node, "asks", json!({})).await;
    until("the run waits", async || node.router().runs().live() == 0).await;
    node.end(PATIENCE).await;

    let store = world.store();
    let before = store.load(run, true).await.unwrap().unwrap().entries;
    let next = before.last().map_or(1, |entry| entry.seq.0 + u64::from(entry.count));
    let newer = codec::encode_journal(&json!([{"teleported": {"to": "another version"}}])).unwrap();
    let entry = Entry { seq: Seq(next), count: 1, at: Timestamp::from_millis(1), payload: newer };
    let epoch = store.epoch(run.shard()).await.unwrap();
    let write = Append { run, epoch, incarnation: None, entry, head: None, outbox: vec![] };
    store.append(write).await.unwrap();
    let written = store.load(run, true).await.unwrap().unwrap().entries;

    let old = world.node().await;
    let signalled = old.router().signal(&caller(), run, "answer".into(), Value::from(json!(1)), "once".into()).await;
    let words = signalled.unwrap_err().to_string();
    assert!(words.contains("teleported") && words.contains("newer version"), "{words}");
    let cancelled = old.router().cancel(&caller(), run, None).await.unwrap_err().to_string();
    assert!(cancelled.contains("newer version"), "{cancelled}");
    let other = submit(&old, "echo", json!({"text": "on it goes"})).await;
    assert_eq!(output(&finish(&old, other).await), json!("on it goes"));
    old.end(PATIENCE).await;
    assert_eq!(store.load(run, true).await.unwrap().unwrap().entries, written);
}
