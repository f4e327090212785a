//! Whole processes that are killed or stand still: what a leader never hears of must not make it act.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use motet_store::contract::{PostgresSchema, RedisServer};
use motet_store::port::LeaseStore;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::stage::{let_pass, role, until};
use super::*;

/// A process that stands for election.
struct Candidate {
    child: Child,
    /// Its last line.
    says: watch::Receiver<String>,
    /// It ends when this does.
    _input: ChildStdin,
}

fn program() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let program = folder.join("examples/candidate");
    assert!(program.is_file(), "{} is missing: build with --all-targets", program.display());
    program
}

impl Candidate {
    fn start(schema: &PostgresSchema, redis: Option<&RedisServer>, number: usize, lease: Option<Duration>) -> Self {
        let mut command = Command::new(program());
        command.env("CANDIDATE_STORE", &schema.url).env("CANDIDATE_SCHEMA", &schema.name);
        command.env("CANDIDATE_HOLDER", format!("node-{number}/1"));
        if let Some(redis) = redis {
            command.env("CANDIDATE_REDIS", redis.url());
        }
        if let Some(lease) = lease {
            command.env("CANDIDATE_LEASE_MS", lease.as_millis().to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, says) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                told.send_replace(line);
            }
        });
        Self { _input: child.stdin.take().unwrap(), child, says }
    }

    fn term(&self) -> Option<u64> {
        self.says.borrow().strip_prefix("leads ").map(|term| term.parse().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(pid, signal).unwrap();
    }
}

async fn leader(candidates: &[Candidate], other_than: usize) -> (usize, u64) {
    until("a leader", async || {
        let terms = candidates.iter().map(Candidate::term).enumerate();
        terms.filter_map(|(place, term)| term.map(|term| (place, term))).find(|(place, _)| *place != other_than)
    })
    .await
}

/// Kills the leader again and again, with the usual settings, and measures how long nobody leads.
async fn kill_leaders(test: &str, redis: Option<&RedisServer>, times: usize) {
    let Some(schema) = PostgresSchema::new(test).await else { return };
    let mut candidates: Vec<_> = (0..4).map(|number| Candidate::start(&schema, redis, number, None)).collect();
    let (mut place, mut term) = leader(&candidates, usize::MAX).await;
    for _ in 0..times {
        let_pass(Duration::from_millis(500)).await;
        candidates[place].signal(Signal::KILL);
        let begun = Instant::now();
        candidates[place].child.wait().await.unwrap();
        candidates.remove(place);
        let (next, newer) = leader(&candidates, usize::MAX).await;
        let gap = begun.elapsed();
        println!("{test}: nobody led for {} ms", gap.as_millis());
        assert!(gap < Duration::from_secs(15), "{gap:?}");
        assert_eq!(newer, term + 1);
        (place, term) = (next, newer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_are_followed_in_time() {
    let Some(redis) = RedisServer::start("killed leaders", &[]).await else { return };
    kill_leaders("killed", Some(&redis), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_are_followed_in_time_without_redis() {
    kill_leaders("killed_alone", None, 1).await;
}

/// Redis is dead when the leader dies: the store alone elects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_are_followed_in_time_when_redis_died_before() {
    let Some(mut redis) = RedisServer::start("killed both", &[]).await else { return };
    redis.kill();
    kill_leaders("killed_both", Some(&redis), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_leads_no_more_when_it_goes_on() {
    let Some(schema) = PostgresSchema::new("frozen").await else { return };
    let Some(redis) = RedisServer::start("frozen leader", &[]).await else { return };
    let store = schema.store().await;
    let candidates: Vec<_> =
        (0..3).map(|number| Candidate::start(&schema, Some(&redis), number, Some(QUICK))).collect();
    let (frozen, term) = leader(&candidates, usize::MAX).await;
    candidates[frozen].signal(Signal::STOP);
    let (_, newer) = leader(&candidates, frozen).await;
    assert_eq!(newer, term + 1);
    let_pass(QUICK).await;
    let mut says = candidates[frozen].says.clone();
    says.borrow_and_update();
    candidates[frozen].signal(Signal::CONT);
    tokio::time::timeout(QUICK * 3, says.changed()).await.expect("it says what it found").unwrap();
    assert_eq!(*says.borrow(), "follows");
    let lease = Duration::from_secs(60);
    assert!(!store.renew_lead(&role(), motet_store::port::Term(term), lease).await.unwrap(), "its term is over");
    let_pass(QUICK).await;
    assert_eq!(leader(&candidates, usize::MAX).await.1, newer, "it took nothing back");
}
