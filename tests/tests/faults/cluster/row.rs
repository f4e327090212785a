//! The rows C1 to C5, in two groups: each has one cluster and one crowd of runs, and makes its faults in turn.
//!
//! Not a cluster for each row: filling it and coming to an end would take longer than the faults.

use anyhow::Result;
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use tokio::sync::{Mutex, MutexGuard};

use super::redis::{ProxiedRedis, SentinelRedis};
use super::{Cluster, kill, link, redis, stop, store};

const CLIENTS: usize = 48;

/// In the long forms one cluster has the machine at a time: what is measured shall not be the other one.
pub(super) async fn turn(scale: Scale) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::const_new(());
    if scale == Scale::Short { None } else { Some(TURN.lock().await) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_c2_c5_nodes_die_and_stand_still_and_redis_fails_over() -> Result<()> {
    let scale = Scale::from_environment();
    let _turn = turn(scale).await;
    let test = "c1_c2_c5_nodes_die_and_stand_still_and_redis_fails_over";
    let mut redis = SentinelRedis::start(test).await?;
    let urls = redis.as_ref().map(SentinelRedis::urls);
    let Some(mut cluster) = Cluster::start(test, urls).await? else { return Ok(()) };
    let mut seed = Seed::from_environment();
    let load = Load::hold(cluster.clients(), Crowd::of(scale), CLIENTS, &mut seed).await?;
    let mut done = vec![];
    done.push(kill::in_turn(&mut cluster, &load, scale, &mut seed).await?);
    done.push(stop::in_turn(&mut cluster, &load, scale, &mut seed).await?);
    if let Some(redis) = &mut redis {
        done.push(redis::fails_over(&mut cluster, &load, scale, redis).await?);
    }
    cluster.prove(load, "C1 C2 C5", &done.join(", ")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_c4_c5_nodes_are_cut_off_and_redis_is_lost() -> Result<()> {
    let scale = Scale::from_environment();
    let _turn = turn(scale).await;
    let test = "c3_c4_c5_nodes_are_cut_off_and_redis_is_lost";
    let mut redis = ProxiedRedis::start(test).await?;
    let urls = redis.as_ref().map(ProxiedRedis::urls);
    let Some(mut cluster) = Cluster::start(test, urls).await? else { return Ok(()) };
    let mut seed = Seed::from_environment();
    let load = Load::hold(cluster.clients(), Crowd::of(scale), CLIENTS, &mut seed).await?;
    let mut done = vec![];
    done.push(store::in_turn(&mut cluster, &load, scale, &mut seed).await?);
    done.push(link::in_turn(&mut cluster, &load, scale, &mut seed).await?);
    if let Some(redis) = &mut redis {
        done.push(redis::in_turn(&mut cluster, &load, scale, redis).await?);
    }
    cluster.prove(load, "C3 C4 C5", &done.join(", ")).await
}
