//! Candidates in this process, each with connections of its own, over one database schema and one Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet_cluster::leader::{Leader, LeaderSettings};
use motet_engine::id::Name;
use motet_store::contract::{PostgresSchema, RedisServer};
use motet_store::port::{Lease, LeaseStore, Store, Term};
use motet_store::postgres::PostgresStore;
use motet_store::redis::{RedisSettings, RedisVolatile};
use tokio::time::interval;

/// Longest wait for something that must come to pass.
const PATIENCE: Duration = Duration::from_secs(40);

/// Lets time pass in which something must not happen. Never a way to wait for something.
pub(super) async fn let_pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// Looks until there is something to see.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let (begun, mut looks) = (Instant::now(), interval(Duration::from_millis(10)));
    loop {
        looks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
    }
}

/// Candidates and what they are elected by.
pub(super) struct Stage {
    pub(super) redis: RedisServer,
    pub(super) candidates: Vec<Leader>,
    pub(super) store: Arc<PostgresStore>,
    lease: Arc<dyn Lease>,
    stores: Vec<Arc<PostgresStore>>,
    /// Last: its tables go with it.
    _schema: PostgresSchema,
}

pub(super) fn role() -> Name {
    Name::new("leader").unwrap()
}

fn settings(lease: Option<Duration>) -> LeaderSettings {
    let mut settings = LeaderSettings::default();
    if let Some(lease) = lease {
        settings.lease = lease;
        settings.retry = lease / 10;
        settings.request_timeout = lease / 5;
        settings.redis_settling = lease;
    }
    settings
}

impl Stage {
    /// So many candidates with leases of the given length, the usual one when none is given.
    pub(super) async fn new(test: &str, lease: Option<Duration>, candidates: usize) -> Option<Self> {
        let schema = PostgresSchema::new(test).await?;
        let redis = RedisServer::start(test, &[]).await?;
        let connect = || RedisVolatile::open(RedisSettings::from_url(&redis.url()).unwrap()).unwrap();
        let (mut standing, mut stores) = (vec![], vec![]);
        for number in 0..candidates {
            let store = schema.store().await;
            let holder = format!("node-{number}/1");
            let redis = Some(connect() as Arc<dyn Lease>);
            standing.push(Leader::start(settings(lease), &holder, Arc::clone(&store) as _, redis).unwrap());
            stores.push(store);
        }
        let (lease, store) = (connect(), schema.store().await);
        Some(Self { redis, candidates: standing, store, lease, stores, _schema: schema })
    }

    /// Which one leads, and its term; waits until one does.
    pub(super) async fn leads(&self) -> (usize, Term) {
        self.leads_other_than(usize::MAX).await
    }

    pub(super) async fn leads_other_than(&self, other: usize) -> (usize, Term) {
        until("a leader", async || {
            let terms = self.candidates.iter().map(Leader::term).enumerate();
            let leaders: Vec<_> = terms.filter_map(|(place, term)| term.map(|term| (place, term))).collect();
            assert!(leaders.len() < 2, "{leaders:?} lead at the same time");
            leaders.first().copied().filter(|(place, _)| *place != other)
        })
        .await
    }

    /// Waits until the leader has the lease in Redis, and the store knows the same leader.
    pub(super) async fn leader_has_redis(&self) {
        let (place, term) = self.leads().await;
        let holder = format!("node-{place}/1");
        until("the leader to have Redis", async || {
            let held = self.lease.holder(&role()).await.ok().flatten();
            held.filter(|held| held.holder == holder)
        })
        .await;
        let leader = self.store.leader(&role()).await.unwrap().unwrap();
        assert_eq!((leader.holder, leader.term), (holder, term));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for store in std::mem::take(&mut self.stores) {
            tokio::spawn(async move { store.close().await });
        }
    }
}
