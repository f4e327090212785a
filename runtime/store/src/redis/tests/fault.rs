//! A server that is away, comes back, stands still or has forgotten everything: nobody waits for it.

use super::*;

/// What one call may take at most while the server does not answer: its own bound, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(600);

fn quick(server: &RedisServer) -> RedisSettings {
    RedisSettings::from_url(&server.url()).unwrap()
}

/// Calls everything once; the longest call and whether all failed as something that may pass.
async fn all_fail(redis: &RedisVolatile) -> (Duration, bool) {
    let claim = Claim::new(name("planner"), "one");
    let (mut longest, mut passing) = (Duration::ZERO, true);
    for call in 0..4 {
        let begun = Instant::now();
        let error = match call {
            0 => redis.get(&key(1)).await.map(drop),
            1 => redis.put(&key(1), Bytes::new(), LONG).await,
            2 => redis.publish(&name("wake"), Bytes::new()).await,
            _ => redis.holder(&claim.name).await.map(drop),
        };
        longest = longest.max(begun.elapsed());
        passing &= error.is_err_and(|error| error.class() == ErrorClass::Retryable);
    }
    (longest, passing)
}

async fn answers_again(redis: &RedisVolatile) {
    // Every connection for values, in turn.
    let turns = redis.values.len();
    until("the cache to answer again", async || {
        let mut answers = 0;
        for _ in 0..turns {
            answers += usize::from(redis.get(&key(1)).await.is_ok());
        }
        answers == turns
    })
    .await;
    until("leases to answer again", async || redis.holder(&name("planner")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_is_found() {
    let Some(mut server) = RedisServer::start("redis later", &[]).await else { return };
    server.kill();
    let begun = Instant::now();
    let redis = RedisVolatile::open(quick(&server)).unwrap();
    let mut hints = redis.subscribe(&name("wake")).await.unwrap();
    for _ in 0..20 {
        let (longest, passing) = all_fail(&redis).await;
        assert!(passing && longest < BOUND, "{longest:?}");
    }
    assert!(begun.elapsed() < BOUND * 5, "without a connection nothing is waited for: {:?}", begun.elapsed());
    server.begin().await;
    answers_again(&redis).await;
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), Some(Hint::Gap));
    redis.publish(&name("wake"), Bytes::from_static(b"now")).await.unwrap();
    assert_eq!(timeout(PATIENCE, hints.next()).await.unwrap(), Some(Hint::Message(Bytes::from_static(b"now"))));
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_has_forgotten_and_is_used_again() {
    let Some(mut server) = RedisServer::start("redis killed", &[]).await else { return };
    let redis = connected(quick(&server)).await;
    let mut hints = redis.subscribe(&name("wake")).await.unwrap();
    let claim = Claim::new(name("planner"), "one");
    for round in 0..3 {
        redis.put(&key(1), Bytes::from_static(b"kept"), LONG).await.unwrap();
        assert_eq!(redis.acquire(&claim, LONG).await.unwrap(), Claimed::Mine);
        server.kill();
        until("the loss to be noticed", async || all_fail(&redis).await.1).await;
        let (longest, passing) = all_fail(&redis).await;
        assert!(passing && longest < BOUND, "{longest:?}");
        server.begin().await;
        answers_again(&redis).await;
        assert_eq!(redis.get(&key(1)).await.unwrap(), None, "round {round}");
        assert!(!redis.renew(&claim, LONG).await.unwrap(), "the server has forgotten the lease");
        until("the gap to be told", async || timeout(PATIENCE, hints.next()).await.unwrap() == Some(Hint::Gap)).await;
    }
    redis.close().await;
}

/// A server that stands still keeps its connections open: only time tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_server_that_stands_still() {
    let Some(server) = RedisServer::start("redis frozen", &[]).await else { return };
    let redis = connected(quick(&server)).await;
    redis.put(&key(1), Bytes::from_static(b"kept"), LONG).await.unwrap();
    server.freeze();
    let (frozen, mut calls, mut rested) = (Instant::now(), 0, 0);
    while frozen.elapsed() < Duration::from_secs(4) {
        let begun = Instant::now();
        match redis.get(&key(1)).await {
            Err(VolatileError::Resting { .. }) => rested += 1,
            Err(VolatileError::Unavailable(_)) => {}
            other => panic!("a frozen server answered {other:?}"),
        }
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        calls += 1;
        tokio::task::yield_now().await;
    }
    assert!(rested * 100 > calls * 95, "{rested} of {calls} calls were not sent");
    server.thaw();
    answers_again(&redis).await;
    assert_eq!(redis.get(&key(1)).await.unwrap(), Some(Bytes::from_static(b"kept")));
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told() {
    let Some(server) = RedisServer::start("redis password", &[]).await else { return };
    let url = server.url().replace(RedisServer::PASSWORD, "something-else");
    let redis = RedisVolatile::open(RedisSettings::from_url(&url).unwrap()).unwrap();
    until("the reason", async || {
        let error = redis.holder(&name("planner")).await.unwrap_err().to_string();
        assert!(!error.contains("something-else"), "{error}");
        error.contains("WRONGPASS") || error.contains("invalid username-password")
    })
    .await;
    redis.close().await;
}

/// A server that is full answers, and is not left alone for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_without_being_left_alone() {
    let arguments = ["--maxmemory", "1", "--maxmemory-policy", "noeviction"];
    let Some(server) = RedisServer::start("redis full", &arguments).await else { return };
    let redis = connected(settings(&server.url(), "full")).await;
    for _ in 0..10 {
        let error = redis.put(&key(1), Bytes::from_static(b"value"), LONG).await.unwrap_err();
        assert!(matches!(&error, VolatileError::Unavailable(text) if text.starts_with("OOM")), "{error}");
        assert_eq!(redis.get(&key(1)).await.unwrap(), None);
    }
    redis.close().await;
}
