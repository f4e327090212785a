//! Records of Kafka that become durable runs: how many per second, beside the bare transaction and the bare consumer on
//! the same PostgreSQL and the same broker; with poison among them; and memory while more come than can be worked on.
//!
//! `cargo bench --bench ingest -- short` does a tenth of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_benches::floor::Floor;
use motet_benches::intake::{self, Content, PARTITIONS, Step};
use motet_benches::peers::{self, postgres, postgres::Postgres};
use motet_benches::verdict::Verdict;
use motet_benches::{floor, machine};
use motet_tests::faults::kafka::KafkaServer;
use motet_tests::node::{self, Node, NodeSettings};
use motet_tests::topics::Topics;
use motet_tests::waiting::{let_pass, until};
use sqlx::{Connection, PgConnection};

/// Records that warm everything up and show what Motet writes for them.
const WARM: u64 = 5_000;

/// Longest time until a topic has been read to its end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs that may be unfinished while too many records come.
const UNFINISHED: u64 = 1_000;

/// Records that wait when the load begins, and how long what is taken of them is watched.
const BACKLOG: u64 = 20_000;
const WATCHED: Duration = Duration::from_secs(10);

/// How many times as many records are offered as are taken.
const OVERLOAD: f64 = 3.0;

/// Time between two looks at the node's memory.
const LOOK: Duration = Duration::from_millis(500);

/// Of the records per second of the bare transaction.
const AIM_OF_FLOOR: f64 = 0.8;
/// Of the records per second without poison.
const AIM_POISONED: f64 = 0.9;
/// How much more memory the node may have on average in the last third of the time than in the first: what its
/// allocator gives back late comes and goes.
const MUST_GROW_LESS: u64 = 16 << 20;

/// How much is done.
struct Size {
    records: u64,
    floor_time: Duration,
    overload: Duration,
}

impl Size {
    fn from_arguments() -> Self {
        if std::env::args().any(|argument| argument == "short") {
            return Self { records: 20_000, floor_time: Duration::from_secs(2), overload: Duration::from_secs(10) };
        }
        Self { records: 200_000, floor_time: Duration::from_secs(5), overload: Duration::from_secs(60) }
    }
}

/// The services and the topics.
struct Ground {
    server: Postgres,
    kafka: KafkaServer,
    topics: Topics,
    folder: tempfile::TempDir,
}

impl Ground {
    async fn begin() -> Result<Self> {
        let folder = tempfile::tempdir_in(peers::ground())?;
        // The server's user has to get through.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let server = Postgres::start(folder.path()).await?;
        node::migrate(&server.url("postgres"))?;
        let kafka = KafkaServer::start(&folder.path().join("kafka")).await?;
        let topics = Topics::at(&kafka.address().to_string()).await?;
        Ok(Self { server, kafka, topics, folder })
    }

    fn url(&self) -> String {
        self.server.url("postgres")
    }

    fn settings(&self, name: &str) -> NodeSettings {
        NodeSettings::new(self.folder.path().join(name))
            .with("MOTET__STORE__URL", &self.url())
            .with("MOTET__KAFKA__BROKERS", &self.kafka.address().to_string())
            .with("MOTET__LOG__FILTER", "warn")
    }

    /// Has the server write down what came before, so that nobody pays for another's rows.
    async fn settle(&self) -> Result<()> {
        let mut database = PgConnection::connect(&self.url()).await?;
        sqlx::raw_sql("checkpoint").execute(&mut database).await?;
        Ok(database.close().await?)
    }

    async fn topic(&self, name: &str, content: Content, records: u64) -> Result<()> {
        intake::make(&self.topics, name).await;
        intake::fill(&self.topics, name, content, 0..records).await
    }
}

/// Bare commits over one connection, and over two.
struct Floors {
    one: Floor,
    two: Floor,
}

/// What was measured, in records per second.
struct Rates {
    before: Floors,
    after: Floors,
    consumer: f64,
    taken: Vec<(&'static str, f64)>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let mut verdict = Verdict::new();
    if let Err(error) = postgres::check() {
        println!("SKIPPED    PostgreSQL: {error:#}");
        return Ok(verdict.end());
    }
    if !KafkaServer::is_installed() {
        println!("SKIPPED    Kafka is not installed: tests/services/services install kafka");
        return Ok(verdict.end());
    }
    let (size, mut ground) = (Size::from_arguments(), Ground::begin().await?);
    let rates = measure(&ground, &size).await?;
    show(&rates, &mut verdict);
    overload(&ground, size.overload, &mut verdict).await?;
    ground.server.process.stop()?;
    ground.kafka.kill();
    Ok(verdict.end())
}

async fn measure(ground: &Ground, size: &Size) -> Result<Rates> {
    let records = size.records;
    ground.topic("warm", Content::Good, WARM).await?;
    ground.topic("good", Content::Good, records).await?;
    ground.topic("poisoned", Content::Poisoned, records).await?;
    println!("{records} records of {} bytes in {PARTITIONS} partitions", intake::VALUE_BYTES);
    machine::wait_until_quiet().await;

    let mut node = Node::start(ground.settings("node")).await?;
    take(ground, &node, "warm", "warm", Content::Good, WARM).await?;
    let rows = floor::ingest::templates(&ground.url(), "warm").await?;
    let floors = async || {
        let bare = async |connections| {
            ground.settle().await?;
            floor::ingest::measure(&ground.url(), &rows, connections, size.floor_time).await
        };
        anyhow::Ok(Floors { one: bare(1).await?, two: bare(2).await? })
    };
    let before = floors().await?;
    let brokers = ground.kafka.address().to_string();
    let consumer = floor::consumer::measure(&brokers, "good", PARTITIONS, records).await?;
    let mut taken = vec![];
    for (stream, what, topic, content) in [
        ("first", "good", "good", Content::Good),
        ("second", "1 % poison", "poisoned", Content::Poisoned),
        ("third", "good again", "good", Content::Good),
    ] {
        ground.settle().await?;
        taken.push((what, take(ground, &node, stream, topic, content, records).await?));
    }
    let after = floors().await?;
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    Ok(Rates { before, after, consumer, taken })
}

fn show(rates: &Rates, verdict: &mut Verdict) {
    let Rates { before, after, consumer, taken } = rates;
    let mean = |one: &Floor, other: &Floor| f64::midpoint(one.rows_per_second(), other.rows_per_second());
    let (one, two) = (mean(&before.one, &after.one), mean(&before.two, &after.two));
    println!("\n{:<28} {:>11} {:>12} {:>12} {:>12}", "", "records/s", "of one", "of two", "of consumer");
    for (what, floor) in [
        ("bare, one connection", &before.one),
        ("the same afterwards", &after.one),
        ("bare, two connections", &before.two),
        ("the same afterwards", &after.two),
    ] {
        println!("{what:<28} {:>11.0}   commit p50 {:.1} ms", floor.rows_per_second(), floor.p50.as_secs_f64() * 1e3);
    }
    println!("{:<28} {consumer:>11.0}", "bare consumer");
    for (what, per_second) in taken {
        let of = |floor: f64| per_second / floor * 100.0;
        println!(
            "{:<28} {per_second:>11.0} {:>11.0}% {:>11.0}% {:>11.1}%",
            format!("Motet: {what}"),
            of(one),
            of(two),
            of(*consumer)
        );
    }
    println!();
    let good = f64::midpoint(taken[0].1, taken[2].1);
    let (share, poisoned) = (good / one, taken[1].1 / good);
    verdict.aim(
        share >= AIM_OF_FLOOR,
        format!("{:.0} % of the bare transaction, got {:.0} %", AIM_OF_FLOOR * 1e2, share * 1e2),
    );
    verdict.aim(
        poisoned >= AIM_POISONED,
        format!("1 % poison leaves {:.0} % of the records/s, left {:.0} %", AIM_POISONED * 1e2, poisoned * 1e2),
    );
}

/// Has a node read a topic to its end; records per second from the first ones on. Each must have become a run that
/// ended, or a dead letter.
async fn take(ground: &Ground, node: &Node, stream: &str, topic: &str, content: Content, records: u64) -> Result<f64> {
    let mut database = PgConnection::connect(&ground.url()).await?;
    let (mut begun, mut last) = (None, 0);
    intake::begin(&node.client(), stream, topic, Step::Trivial).await?;
    let read = until(PATIENCE, "the end of the topic", async || {
        last = position(&mut database, stream).await.ok()?;
        if last > 0 {
            begun.get_or_insert((Instant::now(), last));
        }
        (last >= records).then(Instant::now)
    });
    let ended = read.await.with_context(|| format!("{last} of {records}\n{}", node.log_tail()))?;
    let (begun, first) = begun.context("nothing was read")?;
    intake::end(&node.client(), stream).await?;
    let count = "select (select count(*) from run where workflow = $1 and state = 4),
      (select count(*) from dead_letter where stream = $1)";
    let (runs, dead): (i64, i64) = sqlx::query_as(count).bind(stream).fetch_one(&mut database).await?;
    database.close().await?;
    let expected = content.dead(records);
    ensure!(
        (runs.unsigned_abs(), dead.unsigned_abs()) == (records - expected, expected),
        "{records} records became {runs} runs and {dead} dead letters, not {expected}"
    );
    Ok((records - first) as f64 / (ended - begun).as_secs_f64())
}

/// How many records of a stream are settled; its topics have no gaps.
async fn position(database: &mut PgConnection, stream: &str) -> Result<u64> {
    let sum = "select coalesce(sum(next), 0)::bigint from ingest_partition where stream = $1";
    let (sum,): (i64,) = sqlx::query_as(sum).bind(stream).fetch_one(database).await?;
    Ok(sum.unsigned_abs())
}

/// Offers more records than can be worked on, and watches the memory of the node that must let them wait.
async fn overload(ground: &Ground, time: Duration, verdict: &mut Verdict) -> Result<()> {
    let bound = UNFINISHED.to_string();
    let settings = ground.settings("full").with("MOTET__RUNS__MAX_UNFINISHED", &bound);
    let node = Node::start(settings.with("MOTET__RUNS__MAX_LIVE", &bound)).await?;
    let mut database = PgConnection::connect(&ground.url()).await?;
    ground.topic("flood", Content::Good, BACKLOG).await?;
    intake::begin(&node.client(), "flood", "flood", Step::Slow).await?;
    let begun = async || (position(&mut database, "flood").await.ok()? > UNFINISHED).then_some(());
    until(PATIENCE, "the first records", begun).await.with_context(|| node.log_tail())?;
    let (moment, first) = (Instant::now(), position(&mut database, "flood").await?);
    let_pass(WATCHED).await;
    let capacity = (position(&mut database, "flood").await? - first) as f64 / moment.elapsed().as_secs_f64();

    let (moment, first) = (Instant::now(), position(&mut database, "flood").await?);
    let (mut offered, mut resident, mut unfinished) = (0u64, vec![], 0i64);
    while moment.elapsed() < time {
        let due = (moment.elapsed().as_secs_f64() * capacity * OVERLOAD) as u64;
        intake::fill(&ground.topics, "flood", Content::Good, BACKLOG + offered..BACKLOG + due).await?;
        offered = due;
        resident.push(node.resident_bytes()?);
        let count = "select count(*) from run where workflow = 'flood' and state < 2";
        let (now,): (i64,) = sqlx::query_as(count).fetch_one(&mut database).await?;
        unfinished = unfinished.max(now);
        let_pass(LOOK).await;
    }
    let seconds = moment.elapsed().as_secs_f64();
    let taken = position(&mut database, "flood").await? - first;
    database.close().await?;
    show_overload(verdict, offered as f64 / seconds, taken as f64 / seconds, &resident, unfinished);
    let mut node = node;
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    Ok(())
}

fn show_overload(verdict: &mut Verdict, offered: f64, taken: f64, resident: &[u64], unfinished: i64) {
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mean = |some: &[u64]| some.iter().sum::<u64>() / some.len().max(1) as u64;
    let third = resident.len().div_ceil(3);
    let (first, last) = (mean(&resident[..third]), mean(&resident[resident.len() - third..]));
    println!(
        "\noverload: {offered:.0} records/s were offered, {taken:.0} taken; {unfinished} runs were unfinished at most \
         ({UNFINISHED} may be)"
    );
    println!(
        "memory of the node meanwhile: {:.1} to {:.1} MB, {:.1} on average in the first third and {:.1} in the last\n",
        megabytes(resident.iter().min().copied().unwrap_or(0)),
        megabytes(resident.iter().max().copied().unwrap_or(0)),
        megabytes(first),
        megabytes(last)
    );
    verdict
        .must(offered >= 2.0 * taken, format!("more was offered than taken ({:.1} times)", offered / taken.max(1.0)));
    verdict.must(
        last <= first + MUST_GROW_LESS,
        format!(
            "memory does not grow: less than {:.0} MB between the first third and the last ({:+.1})",
            megabytes(MUST_GROW_LESS),
            megabytes(last) - megabytes(first)
        ),
    );
}
