//! Promises about finding runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use motet_engine::id::{Namespace, RunId, ShardId};

use super::{SHARD, admission, append, at, entry, head, name, run, run_at, run_in_state};
use crate::port::{Admission, Append, HeadChange, HeadState, RunQuery, Store};

pub(super) async fn unfinished_runs_are_found_by_shard(store: Arc<dyn Store>) {
    let mut expected = Vec::new();
    for (place, (state, _)) in HeadState::ALL.into_iter().enumerate() {
        let run = run_at(place as i64, SHARD);
        run_in_state(&store, run, head(state), 50).await;
        if matches!(state, HeadState::Pending | HeadState::Running) {
            expected.push(run);
        }
    }
    run_in_state(&store, run_at(9, ShardId(8)), head(HeadState::Running), 50).await;
    let late = run_at(99, SHARD);
    store.admit(admission(late)).await.unwrap();
    expected.push(late);
    assert_eq!(store.unfinished(SHARD, None, 10).await.unwrap(), expected);
    assert_eq!(store.unfinished(SHARD, None, 2).await.unwrap(), expected[..2]);
    assert_eq!(store.unfinished(SHARD, Some(expected[0]), 10).await.unwrap(), expected[1..]);
    assert!(store.unfinished(ShardId(9), None, 10).await.unwrap().is_empty());
}

pub(super) async fn due_runs_are_found_in_order(store: Arc<dyn Store>) {
    let wake = |millis| HeadChange { state: HeadState::Waiting, wake_at: Some(at(millis)), leaves_line: false };
    let (late, early, other) = (run_at(1, SHARD), run_at(2, SHARD), run_at(3, ShardId(8)));
    assert_eq!(store.next_wake(SHARD).await.unwrap(), None);
    for (run, millis) in [(late, 300), (early, 200), (other, 100)] {
        run_in_state(&store, run, wake(millis), 50).await;
    }
    assert_eq!(store.next_wake(SHARD).await.unwrap(), Some(at(200)));
    for (millis, expected) in [(199, vec![]), (200, vec![early]), (300, vec![early, late])] {
        assert_eq!(store.due(SHARD, at(millis), 10).await.unwrap(), expected, "at {millis}");
    }
    assert_eq!(store.due(SHARD, at(900), 1).await.unwrap(), [early]);
    let epoch = store.epoch(SHARD).await.unwrap();
    let woken = Append { head: Some(head(HeadState::Running)), ..append(early, epoch, entry(3, 1, 200)) };
    store.append(woken).await.unwrap();
    assert_eq!(store.due(SHARD, at(900), 10).await.unwrap(), [late]);
    assert_eq!(store.next_wake(SHARD).await.unwrap(), Some(at(300)));
}

fn query() -> RunQuery {
    RunQuery::newest(Namespace::default(), 100)
}

async fn found(store: &Arc<dyn Store>, query: &RunQuery) -> Vec<RunId> {
    store.list(query).await.unwrap().into_iter().map(|head| head.run).collect()
}

pub(super) async fn lists_filter(store: Arc<dyn Store>) {
    let [first, second, third, foreign] = [0, 10, 20, 30].map(|millis| run_at(millis, SHARD));
    run_in_state(&store, first, head(HeadState::Failed), 50).await;
    store.admit(Admission { workflow: name("other"), ..admission(second) }).await.unwrap();
    store.admit(Admission { tags: vec!["red".to_owned(), "blue".to_owned()], ..admission(third) }).await.unwrap();
    store.admit(Admission { namespace: Namespace(name("elsewhere")), ..admission(foreign) }).await.unwrap();
    let states = |states: &[HeadState]| RunQuery { states: states.to_vec(), ..query() };
    let answer = Some(name("answer"));
    let cases = [
        (query(), vec![third, second, first]),
        (RunQuery { namespace: Namespace(name("elsewhere")), ..query() }, vec![foreign]),
        (RunQuery { namespace: Namespace(name("nowhere")), ..query() }, vec![]),
        (RunQuery { workflow: answer.clone(), ..query() }, vec![third, first]),
        (RunQuery { workflow: Some(name("none")), ..query() }, vec![]),
        (states(&[HeadState::Failed]), vec![first]),
        (states(&[HeadState::TimedOut, HeadState::Failed]), vec![first]),
        (RunQuery { workflow: answer.clone(), ..states(&[HeadState::Failed]) }, vec![first]),
        (states(&[HeadState::Pending]), vec![third, second]),
        (RunQuery { workflow: answer.clone(), ..states(&[HeadState::Pending]) }, vec![third]),
        (states(&[HeadState::Pending, HeadState::Failed]), vec![third, second, first]),
        (states(&[HeadState::Waiting, HeadState::Succeeded]), vec![]),
        (RunQuery { tag: Some("red".to_owned()), ..query() }, vec![third]),
        (RunQuery { tag: Some("quote \" and ä".to_owned()), ..query() }, vec![second, first]),
        (RunQuery { tag: Some("re".to_owned()), ..query() }, vec![]),
        (RunQuery { created_from: Some(at(10)), ..query() }, vec![third, second]),
        (RunQuery { created_before: Some(at(10)), ..query() }, vec![first]),
        (RunQuery { created_from: Some(at(5)), created_before: Some(at(20)), workflow: answer, ..query() }, vec![]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(&store, &query).await, expected, "{query:?}");
    }
}

pub(super) async fn lists_go_page_by_page(store: Arc<dyn Store>) {
    let runs: Vec<RunId> = (0..25).map(|millis| run_at(millis, SHARD)).collect();
    for run in &runs {
        store.admit(admission(*run)).await.unwrap();
    }
    for workflow in [None, Some(name("answer"))] {
        let mut query = RunQuery { limit: 10, workflow, ..query() };
        let mut seen = Vec::new();
        loop {
            let page = found(&store, &query).await;
            query.before = page.last().copied();
            if page.is_empty() {
                break;
            }
            // What comes in meanwhile does not move the pages.
            store.admit(admission(run_at(1_000, SHARD))).await.unwrap();
            seen.extend(page);
        }
        seen.retain(|run| runs.contains(run));
        assert!(seen.iter().rev().eq(&runs), "{} of {} runs", seen.len(), runs.len());
    }
}

pub(super) async fn counts_follow_heads(store: Arc<dyn Store>) {
    let counts = async || store.counts().await.unwrap().into_iter().collect::<BTreeMap<_, _>>();
    assert!(counts().await.values().all(|count| *count == 0));
    for state in [HeadState::Pending, HeadState::Succeeded, HeadState::Succeeded, HeadState::Waiting] {
        run_in_state(&store, run(), head(state), 1).await;
    }
    let both = [run(), run()];
    tokio::join!(
        run_in_state(&store, both[0], head(HeadState::Running), 1),
        run_in_state(&store, both[1], head(HeadState::TimedOut), 1)
    );
    let expected = [
        (HeadState::Pending, 1),
        (HeadState::Running, 1),
        (HeadState::Waiting, 1),
        (HeadState::Paused, 0),
        (HeadState::Succeeded, 2),
        (HeadState::Failed, 0),
        (HeadState::Cancelled, 0),
        (HeadState::TimedOut, 1),
    ];
    assert_eq!(counts().await, BTreeMap::from(expected));
}
