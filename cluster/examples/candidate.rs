//! One process that stands for election, and says on its output when it leads.
//!
//! Does no work of a leader. Used by the tests that kill, freeze and thaw whole processes; it also shows how little it
//! takes to stand. Ends when its input ends.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use motet_cluster::leader::{Leader, LeaderSettings};
use motet_store::port::Lease;
use motet_store::postgres::{PostgresOptions, PostgresStore};
use motet_store::redis::{RedisSettings, RedisVolatile};

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(format!("CANDIDATE_{name}")).ok();
    let needed = |name| variable(name).ok_or_else(|| anyhow::anyhow!("CANDIDATE_{name} is not set"));
    let mut options = PostgresOptions::from_url(&needed("STORE")?)?;
    options.schema = Some(needed("SCHEMA")?);
    let store = PostgresStore::open(options).await?;
    let redis = match variable("REDIS") {
        Some(url) => Some(RedisVolatile::open(RedisSettings::from_url(&url)?)? as Arc<dyn Lease>),
        None => None,
    };
    let mut settings = LeaderSettings::default();
    if let Some(millis) = variable("LEASE_MS") {
        settings.lease = Duration::from_millis(millis.parse()?);
        settings.retry = settings.lease / 10;
        settings.request_timeout = settings.lease / 5;
    }
    let leader = Leader::start(settings, &needed("HOLDER")?, store, redis)?;
    let mut term = leader.watch();
    let (ended, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = ended.send(());
    });
    loop {
        let led = *term.borrow_and_update();
        match led.and(leader.term()) {
            Some(term) => say(&format!("leads {}", term.0))?,
            None => say("follows")?,
        }
        tokio::select! {
            changed = term.changed() => changed?,
            _ = &mut end => break,
        }
    }
    leader.stop().await;
    Ok(())
}
