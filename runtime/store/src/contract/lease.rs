//! Promises about leadership and the lives of nodes. Leases of no length stand for expired ones.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::{append, entry, name, owned_run};
use crate::StoreError;
use crate::port::{Append, Incarnation, Store, Term};

const LONG: Duration = Duration::from_secs(60);
const OVER: Duration = Duration::ZERO;

pub(super) async fn one_leads_at_a_time(store: Arc<dyn Store>) {
    let (planner, other) = (name("planner"), name("other"));
    assert_eq!(store.leader(&planner).await.unwrap(), None);
    assert_eq!(store.lead(&planner, "one", LONG).await.unwrap(), Some(Term(1)));
    for late in ["two", "one"] {
        assert_eq!(store.lead(&planner, late, LONG).await.unwrap(), None, "{late}");
    }
    assert_eq!(store.lead(&other, "two", LONG).await.unwrap(), Some(Term(1)), "roles are apart");
    let leader = store.leader(&planner).await.unwrap().unwrap();
    assert_eq!((leader.holder.as_str(), leader.term), ("one", Term(1)));
    assert!(leader.left > Duration::from_secs(30) && leader.left <= LONG, "{:?}", leader.left);
}

pub(super) async fn terms_only_rise(store: Arc<dyn Store>) {
    let role = name("planner");
    assert_eq!(store.lead(&role, "one", OVER).await.unwrap(), Some(Term(1)));
    assert_eq!(store.leader(&role).await.unwrap(), None);
    assert_eq!(store.lead(&role, "one", LONG).await.unwrap(), Some(Term(2)));
    store.resign(&role, Term(1)).await.unwrap();
    assert_eq!(store.lead(&role, "two", LONG).await.unwrap(), None, "only the term that runs is resigned");
    store.resign(&role, Term(2)).await.unwrap();
    assert_eq!(store.leader(&role).await.unwrap(), None);
    assert_eq!(store.lead(&role, "two", LONG).await.unwrap(), Some(Term(3)));
}

pub(super) async fn a_leader_prolongs_its_lease(store: Arc<dyn Store>) {
    let role = name("planner");
    assert!(!store.renew_lead(&role, Term(1), LONG).await.unwrap());
    store.lead(&role, "one", OVER).await.unwrap();
    assert!(store.renew_lead(&role, Term(1), LONG).await.unwrap(), "nobody took it meanwhile");
    assert_eq!(store.lead(&role, "two", LONG).await.unwrap(), None);
    assert!(store.renew_lead(&role, Term(1), OVER).await.unwrap());
    assert_eq!(store.lead(&role, "two", LONG).await.unwrap(), Some(Term(2)));
    assert!(!store.renew_lead(&role, Term(1), LONG).await.unwrap());
    store.resign(&role, Term(2)).await.unwrap();
    assert!(!store.renew_lead(&role, Term(2), LONG).await.unwrap(), "who resigned does not lead");
}

pub(super) async fn of_many_one_wins(store: Arc<dyn Store>) {
    let calls = (0..16).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.lead(&name("planner"), &format!("node {number}"), LONG).await.unwrap() })
    });
    let terms: Vec<_> = join_all(calls).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(terms, [Term(1)]);
}

pub(super) async fn a_lease_that_nearly_ended_can_be_taken(store: Arc<dyn Store>) {
    let role = name("planner");
    let half = LONG / 2;
    assert_eq!(store.usurp(&role, "one", LONG, OVER).await.unwrap(), Some(Term(1)), "nobody leads");
    assert_eq!(store.usurp(&role, "two", LONG, OVER).await.unwrap(), None);
    assert_eq!(store.usurp(&role, "two", LONG, half).await.unwrap(), None, "more than half is left");
    assert_eq!(store.leader(&role).await.unwrap().unwrap().holder, "one");
    assert_eq!(store.usurp(&role, "one", LONG, OVER).await.unwrap(), Some(Term(2)), "a holder that lost its term");
    assert!(!store.renew_lead(&role, Term(1), LONG).await.unwrap());
    assert!(store.renew_lead(&role, Term(2), half / 2).await.unwrap());
    assert_eq!(store.usurp(&role, "two", LONG, half).await.unwrap(), Some(Term(3)), "less than half is left");
    assert!(!store.renew_lead(&role, Term(2), LONG).await.unwrap());
    assert_eq!(store.usurp(&role, "one", LONG, Duration::MAX).await.unwrap(), Some(Term(4)), "whoever leads");
    store.resign(&role, Term(4)).await.unwrap();
    assert_eq!(store.usurp(&role, "two", LONG, OVER).await.unwrap(), Some(Term(5)), "the leader resigned");
    let leader = store.leader(&role).await.unwrap().unwrap();
    assert_eq!((leader.holder.as_str(), leader.term), ("two", Term(5)));
    assert!(leader.left > half && leader.left <= LONG, "{:?}", leader.left);
}

pub(super) async fn of_many_usurpers_each_has_its_term(store: Arc<dyn Store>) {
    let calls = (0..16).map(|number| {
        let store = Arc::clone(&store);
        let holder = format!("node {number}");
        tokio::spawn(async move { store.usurp(&name("planner"), &holder, LONG, Duration::MAX).await.unwrap() })
    });
    let mut terms: Vec<_> = join_all(calls).await.into_iter().filter_map(Result::unwrap).collect();
    terms.sort();
    assert_eq!(terms, (1..=16).map(Term).collect::<Vec<_>>());
    assert_eq!(store.leader(&name("planner")).await.unwrap().unwrap().term, Term(16));
}

pub(super) async fn every_boot_has_its_number(store: Arc<dyn Store>) {
    assert!(store.live().await.unwrap().is_empty());
    let one = store.register("one", "one:7946", LONG).await.unwrap();
    let two = store.register("two", "two:7946", OVER).await.unwrap();
    assert!(two > one);
    let live = store.live().await.unwrap();
    let seen: Vec<_> = live
        .iter()
        .map(|node| (node.incarnation, node.node.as_str(), node.address.as_str(), node.left.is_zero()))
        .collect();
    assert_eq!(seen, [(one, "one", "one:7946", false), (two, "two", "two:7946", true)]);
    assert!(store.renew(two, LONG).await.unwrap(), "nobody fenced it meanwhile");
    assert!(store.live().await.unwrap().iter().all(|node| node.left > Duration::from_secs(30)));
    assert!(!store.renew(Incarnation(two.0 + 1), LONG).await.unwrap());
    store.fence(two).await.unwrap();
    store.fence(two).await.unwrap();
    assert!(!store.renew(two, LONG).await.unwrap());
    assert_eq!(store.live().await.unwrap().len(), 1);
    assert!(store.register("three", "three:7946", LONG).await.unwrap() > two, "a number is not given again");
}

pub(super) async fn a_fenced_node_writes_no_more(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let life = store.register("one", "one:7946", LONG).await.unwrap();
    let carrying = |life, seq| Append { incarnation: Some(life), ..append(run, epoch, entry(seq, 1, 1)) };
    store.append(carrying(life, 2)).await.unwrap();
    store.fence(life).await.unwrap();
    for (wrong, what) in [(life, "fenced"), (Incarnation(life.0 + 9), "unknown")] {
        let answer = store.append(carrying(wrong, 3)).await;
        assert!(matches!(answer, Err(StoreError::IncarnationFenced(its)) if its == wrong), "{what}: {answer:?}");
    }
    let next = store.register("two", "two:7946", LONG).await.unwrap();
    store.append(carrying(next, 3)).await.unwrap();
    store.append(append(run, epoch, entry(4, 1, 1))).await.unwrap();
    assert_eq!(store.load(run, true).await.unwrap().unwrap().entries.len(), 4);
}

pub(super) async fn a_new_boot_fences_the_one_before(store: Arc<dyn Store>) {
    let (run, epoch) = owned_run(&store).await;
    let before = store.register("one", "one:7946", LONG).await.unwrap();
    let now = store.register("one", "one:7946", LONG).await.unwrap();
    assert!(!store.renew(before, LONG).await.unwrap());
    let late = Append { incarnation: Some(before), ..append(run, epoch, entry(2, 1, 1)) };
    let answer = store.append(late).await;
    assert!(matches!(answer, Err(StoreError::IncarnationFenced(_))), "{answer:?}");
    store.append(Append { incarnation: Some(now), ..append(run, epoch, entry(2, 1, 1)) }).await.unwrap();
}

pub(super) async fn only_expired_lives_are_fenced_as_expired(store: Arc<dyn Store>) {
    let (lasting, over) =
        (store.register("one", "", LONG).await.unwrap(), store.register("two", "", OVER).await.unwrap());
    for (life, expected, what) in [
        (lasting, false, "its lease lasts"),
        (over, true, "its lease is over"),
        (over, true, "it was fenced before"),
        (Incarnation(over.0 + 9), true, "it never was"),
    ] {
        assert_eq!(store.fence_expired(life).await.unwrap(), expected, "{what}");
    }
    assert!(!store.renew(over, LONG).await.unwrap());
    assert!(store.renew(lasting, OVER).await.unwrap());
    assert!(store.renew(lasting, LONG).await.unwrap(), "nobody fenced it meanwhile");
    assert!(!store.fence_expired(lasting).await.unwrap(), "it was prolonged");
}
