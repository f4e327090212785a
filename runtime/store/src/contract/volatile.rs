//! Promises of the volatile ports: the lease, the cache, the hints.
//!
//! Each check gets an object that holds nothing. Where something must end by itself, the check asks until it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{LocalBoxFuture, join_all};
use tokio::time::{interval, timeout};

use super::name;
use crate::ErrorClass;
use crate::port::{
    CacheKey, Claim, Claimed, HINTS_WAITING, Hint, HintReceiver, MAX_HINT_BYTES, Volatile, VolatileError,
};

/// One promise: takes an object that holds nothing and panics when the promise is broken.
pub type VolatileCheck = fn(Arc<dyn Volatile>) -> LocalBoxFuture<'static, ()>;

macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        /// Every promise of the volatile ports with its name.
        pub const VOLATILE_CHECKS: &[(&str, VolatileCheck)] =
            &[$((stringify!($name), |volatile| Box::pin($name(volatile)))),+];
    };
}

checks! {
    one_has_the_lease_at_a_time, a_claim_may_be_sent_again, only_its_claim_renews_or_releases_a_lease,
    a_lease_ends_by_itself, of_many_claims_one_wins, what_was_put_comes_back, values_end_by_themselves,
    keys_of_different_spaces_are_apart, hints_reach_who_listens, a_slow_listener_is_told_of_the_gap,
    large_hints_are_refused, what_is_closed_answers_so,
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

/// Longest wait for something that must come to pass.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until the answer is yes.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let (begun, mut looks) = (Instant::now(), interval(Duration::from_millis(5)));
    while !ask().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        looks.tick().await;
    }
}

async fn next(hints: &mut HintReceiver) -> Hint {
    timeout(PATIENCE, hints.next()).await.expect("a hint comes").expect("the channel is open")
}

fn held(claimed: Claimed) -> (String, Duration) {
    match claimed {
        Claimed::Held(holding) => (holding.holder, holding.left),
        Claimed::Mine => panic!("the lease was free"),
    }
}

async fn one_has_the_lease_at_a_time(volatile: Arc<dyn Volatile>) {
    let (one, two) = (Claim::new(name("planner"), "one 1"), Claim::new(name("planner"), "two 2"));
    assert_eq!(volatile.holder(&one.name).await.unwrap(), None);
    assert_eq!(volatile.acquire(&one, LONG).await.unwrap(), Claimed::Mine);
    let (holder, left) = held(volatile.acquire(&two, LONG).await.unwrap());
    assert_eq!(holder, "one 1");
    assert!(left > LONG / 2 && left <= LONG, "{left:?}");
    let seen = volatile.holder(&one.name).await.unwrap().unwrap();
    assert!(seen.holder == "one 1" && seen.left > LONG / 2 && seen.left <= LONG, "{seen:?}");
    let elsewhere = Claim::new(name("other"), "two 2");
    assert_eq!(volatile.acquire(&elsewhere, LONG).await.unwrap(), Claimed::Mine, "leases are apart");
    assert!(volatile.release(&one).await.unwrap());
    assert_eq!(volatile.acquire(&two, LONG).await.unwrap(), Claimed::Mine);
}

async fn a_claim_may_be_sent_again(volatile: Arc<dyn Volatile>) {
    let claim = Claim::new(name("planner"), "one");
    assert_eq!(volatile.acquire(&claim, SHORT).await.unwrap(), Claimed::Mine);
    assert_eq!(volatile.acquire(&claim, LONG).await.unwrap(), Claimed::Mine);
    assert!(volatile.holder(&claim.name).await.unwrap().unwrap().left > LONG / 2, "it was prolonged");
    let same_holder = Claim::new(name("planner"), "one");
    assert_ne!(claim.token, same_holder.token);
    assert_eq!(held(volatile.acquire(&same_holder, LONG).await.unwrap()).0, "one", "another boot, another claim");
}

async fn only_its_claim_renews_or_releases_a_lease(volatile: Arc<dyn Volatile>) {
    let (one, two) = (Claim::new(name("planner"), "same"), Claim::new(name("planner"), "same"));
    for claim in [&one, &two] {
        assert!(!volatile.renew(claim, LONG).await.unwrap(), "nobody has it");
        assert!(!volatile.release(claim).await.unwrap());
    }
    assert_eq!(volatile.acquire(&one, LONG / 4).await.unwrap(), Claimed::Mine);
    assert!(!volatile.renew(&two, LONG).await.unwrap());
    assert!(!volatile.release(&two).await.unwrap());
    assert!(volatile.holder(&one.name).await.unwrap().unwrap().left <= LONG / 4, "nothing changed");
    assert!(volatile.renew(&one, LONG).await.unwrap());
    assert!(volatile.holder(&one.name).await.unwrap().unwrap().left > LONG / 2);
    assert!(volatile.release(&one).await.unwrap());
    assert!(!volatile.renew(&one, LONG).await.unwrap(), "a lease that ended is not renewed");
}

async fn a_lease_ends_by_itself(volatile: Arc<dyn Volatile>) {
    let (one, two) = (Claim::new(name("planner"), "one"), Claim::new(name("planner"), "two"));
    assert_eq!(volatile.acquire(&one, SHORT).await.unwrap(), Claimed::Mine);
    until("the lease to end", async || volatile.acquire(&two, LONG).await.unwrap() == Claimed::Mine).await;
    assert!(!volatile.renew(&one, LONG).await.unwrap());
    assert!(!volatile.release(&one).await.unwrap());
    let instant = Claim::new(name("instant"), "one");
    assert_eq!(volatile.acquire(&instant, Duration::ZERO).await.unwrap(), Claimed::Mine);
    until("it to end", async || volatile.holder(&instant.name).await.unwrap().is_none()).await;
}

async fn of_many_claims_one_wins(volatile: Arc<dyn Volatile>) {
    let calls = (0..16).map(|number| {
        let volatile = Arc::clone(&volatile);
        let claim = Claim::new(name("planner"), format!("node {number}"));
        tokio::spawn(async move { volatile.acquire(&claim, LONG).await.unwrap() == Claimed::Mine })
    });
    let won = join_all(calls).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
}

fn key(space: &str, number: u8) -> CacheKey {
    CacheKey { space: name(space), digest: [number; 32] }
}

async fn what_was_put_comes_back(volatile: Arc<dyn Volatile>) {
    let values = [Bytes::new(), Bytes::from_static(b"\0\r\n*1"), Bytes::from(vec![0xa5; 300_000])];
    for (number, value) in (0..).zip(&values) {
        assert_eq!(volatile.get(&key("answers", number)).await.unwrap(), None);
        volatile.put(&key("answers", number), value.clone(), LONG).await.unwrap();
    }
    for (number, value) in (0..).zip(&values) {
        assert_eq!(volatile.get(&key("answers", number)).await.unwrap().as_ref(), Some(value));
    }
    volatile.put(&key("answers", 0), values[1].clone(), LONG).await.unwrap();
    assert_eq!(volatile.get(&key("answers", 0)).await.unwrap().as_ref(), Some(&values[1]), "the later one counts");
    let endless = Bytes::from(vec![0; 65 << 20]);
    let refused = volatile.put(&key("answers", 9), endless, LONG).await.unwrap_err();
    assert!(matches!(refused, VolatileError::Refused(_)), "{refused}");
    assert_eq!(refused.class(), ErrorClass::Permanent);
}

async fn values_end_by_themselves(volatile: Arc<dyn Volatile>) {
    volatile.put(&key("answers", 1), Bytes::from_static(b"short"), SHORT).await.unwrap();
    volatile.put(&key("answers", 2), Bytes::from_static(b"long"), LONG).await.unwrap();
    until("the value to end", async || volatile.get(&key("answers", 1)).await.unwrap().is_none()).await;
    assert!(volatile.get(&key("answers", 2)).await.unwrap().is_some());
}

async fn keys_of_different_spaces_are_apart(volatile: Arc<dyn Volatile>) {
    volatile.put(&key("answers", 1), Bytes::from_static(b"answer"), LONG).await.unwrap();
    assert_eq!(volatile.get(&key("vectors", 1)).await.unwrap(), None);
}

async fn hints_reach_who_listens(volatile: Arc<dyn Volatile>) {
    let (wake, other) = (name("wake"), name("other"));
    volatile.publish(&wake, Bytes::from_static(b"nobody listens")).await.unwrap();
    let mut first = volatile.subscribe(&wake).await.unwrap();
    let mut second = volatile.subscribe(&wake).await.unwrap();
    let mut elsewhere = volatile.subscribe(&other).await.unwrap();
    for text in ["one", "two"] {
        volatile.publish(&wake, Bytes::from(text)).await.unwrap();
    }
    volatile.publish(&other, Bytes::from_static(b"other")).await.unwrap();
    for receiver in [&mut first, &mut second] {
        for text in ["one", "two"] {
            assert_eq!(next(receiver).await, Hint::Message(Bytes::from(text)));
        }
    }
    assert_eq!(next(&mut elsewhere).await, Hint::Message(Bytes::from_static(b"other")));
}

async fn a_slow_listener_is_told_of_the_gap(volatile: Arc<dyn Volatile>) {
    let wake = name("wake");
    let mut slow = volatile.subscribe(&wake).await.unwrap();
    let mut quick = volatile.subscribe(&wake).await.unwrap();
    for number in 0..HINTS_WAITING * 2 {
        volatile.publish(&wake, Bytes::from(number.to_string())).await.unwrap();
        // The next one is published when this one has arrived: the slow listener's line must have filled up.
        assert_eq!(next(&mut quick).await, Hint::Message(Bytes::from(number.to_string())));
    }
    assert_eq!(next(&mut slow).await, Hint::Gap);
    assert_eq!(next(&mut slow).await, Hint::Message(Bytes::from(HINTS_WAITING.to_string())));
}

async fn large_hints_are_refused(volatile: Arc<dyn Volatile>) {
    let wake = name("wake");
    let mut hints = volatile.subscribe(&wake).await.unwrap();
    let refused = volatile.publish(&wake, vec![0; MAX_HINT_BYTES + 1].into()).await.unwrap_err();
    assert!(matches!(refused, VolatileError::Refused(_)), "{refused}");
    let largest = Bytes::from(vec![1; MAX_HINT_BYTES]);
    volatile.publish(&wake, largest.clone()).await.unwrap();
    assert_eq!(next(&mut hints).await, Hint::Message(largest));
}

async fn what_is_closed_answers_so(volatile: Arc<dyn Volatile>) {
    let wake = name("wake");
    let mut hints = volatile.subscribe(&wake).await.unwrap();
    volatile.close().await;
    volatile.close().await;
    assert_eq!(timeout(PATIENCE, hints.next()).await.expect("the channel ends"), None);
    let claim = Claim::new(name("planner"), "one");
    for closed in [
        volatile.acquire(&claim, LONG).await.map(drop),
        volatile.renew(&claim, LONG).await.map(drop),
        volatile.release(&claim).await.map(drop),
        volatile.holder(&claim.name).await.map(drop),
        volatile.get(&key("answers", 1)).await.map(drop),
        volatile.put(&key("answers", 1), Bytes::new(), LONG).await,
        volatile.publish(&wake, Bytes::new()).await,
        volatile.subscribe(&wake).await.map(drop),
    ] {
        assert_eq!(closed, Err(VolatileError::Closed));
    }
}
