//! What Redis promises beside the contract, against real servers; and how its URL is read.

mod fault;
mod shape;
mod urls;

use std::time::Instant;

use fred::interfaces::ClientLike;
use tokio::time::{interval, timeout};

use super::*;
use crate::ErrorClass;
use crate::contract::{RedisServer, VOLATILE_CHECKS, service};
use crate::port::Hint;

/// Names the server that all tests share.
const URL: &str = "MOTET_TEST_REDIS_URL";

const LONG: Duration = Duration::from_secs(60);

/// Longest wait for something that must come to pass.
const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(number: u8) -> CacheKey {
    CacheKey { space: name("answers"), digest: [number; 32] }
}

/// Settings for the shared server with keys that nobody else uses.
fn settings(url: &str, test: &str) -> RedisSettings {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut settings = RedisSettings::from_url(url).unwrap();
    settings.prefix = format!("test:{test}:{}:{number}", std::process::id());
    // The machine of a test may be busy with builds; the waits themselves are tested with servers of their own.
    settings.command_timeout = Duration::from_secs(5);
    settings.lease_timeout = Duration::from_secs(5);
    settings
}

/// Asks until the answer is yes.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let (begun, mut looks) = (Instant::now(), interval(Duration::from_millis(10)));
    while !ask().await {
        assert!(begun.elapsed() < PATIENCE * 2, "waited in vain for {what}");
        looks.tick().await;
    }
}

/// An open object whose connections are up.
async fn connected(settings: RedisSettings) -> Arc<RedisVolatile> {
    let redis = RedisVolatile::open(settings).unwrap();
    until_connected(&redis).await;
    redis
}

async fn until_connected(redis: &RedisVolatile) {
    let all = || redis.values.iter().chain([&redis.control]);
    let down = || all().filter(|link| !link.client().is_connected()).map(|link| link.trouble()).collect::<Vec<_>>();
    let up = timeout(PATIENCE, until("all connections", async || down().is_empty())).await;
    assert!(up.is_ok(), "no connections: {:?}", down());
    until("the listening connection", async || redis.listening.is_connected()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise_of_the_volatile_ports() {
    for (name, check) in VOLATILE_CHECKS {
        let Some(url) = service("redis contract", URL) else { return };
        eprintln!("redis: {name}");
        check(connected(settings(&url, name)).await).await;
    }
}

/// Whoever writes into the server by another way cannot make a wrong answer of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoiled_values_count_as_missing() {
    let Some(url) = service("redis spoiled", URL) else { return };
    let settings = settings(&url, "spoiled");
    let redis = connected(settings.clone()).await;
    redis.put(&key(1), Bytes::from_static(b"one"), LONG).await.unwrap();
    redis.put(&key(2), Bytes::from_static(b"two"), LONG).await.unwrap();
    let raw = redis.values[0].client();
    let places = [1, 2].map(|number| cache::key(&settings.prefix, &key(number)));
    let sealed: Bytes = raw.get(&places[0]).await.unwrap();
    for (spoiled, what) in [
        (sealed.slice(..sealed.len() - 1), "cut"),
        (Bytes::from_static(b"anything"), "foreign"),
        (Bytes::new(), "empty"),
        (raw.get(&places[1]).await.unwrap(), "of another key"),
    ] {
        let _: () = raw.set(&places[0], Value::Bytes(spoiled), None, None, false).await.unwrap();
        assert_eq!(redis.get(&key(1)).await.unwrap(), None, "{what}");
    }
    let _: () = raw.set(&places[0], Value::Bytes(sealed), None, None, false).await.unwrap();
    assert_eq!(redis.get(&key(1)).await.unwrap(), Some(Bytes::from_static(b"one")));
    redis.close().await;
}

/// A hand in the server must neither block a lease for ever nor be taken for its holder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_keys_do_not_block_a_lease() {
    let Some(url) = service("redis strange", URL) else { return };
    let settings = settings(&url, "strange");
    let redis = connected(settings.clone()).await;
    let raw = redis.control.client();
    let claim = Claim::new(name("planner"), "one");
    let place = format!("{}:lease:{{planner}}", settings.prefix);
    let _: () = raw.set(&place, "without an end", None, None, false).await.unwrap();
    assert_eq!(redis.holder(&claim.name).await.unwrap(), None);
    assert_eq!(redis.acquire(&claim, LONG).await.unwrap(), Claimed::Mine);
    let _: () = raw.set(&place, "somebody", Some(Expiration::PX(60_000)), None, false).await.unwrap();
    let Claimed::Held(holding) = redis.acquire(&claim, LONG).await.unwrap() else { panic!("it is held") };
    assert_eq!(holding.holder, "somebody");
    let _: () = raw.del(&place).await.unwrap();
    let _: () = ClientLike::custom(
        raw,
        fred::types::CustomCommand::new_static("RPUSH", fred::types::ClusterHash::FirstKey, false),
        vec![place.as_str(), "a list"],
    )
    .await
    .unwrap();
    let refused = redis.acquire(&claim, LONG).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    redis.close().await;
}
