//! Leases in Redis: one key each, changed by scripts, so that comparing and setting is one step.
//!
//! Never a fence: a server that fails over may have forgotten them, and two of one name may give the same lease twice.
//! Used by `redis`.

use std::time::Duration;

use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use motet_engine::id::Name;

use super::link::Link;
use crate::port::{Claim, Claimed, Holding, VolatileError};

/// A key without an end is of no lease: somebody's hand made it, and it would block for ever.
const ACQUIRE: &str = "local there = redis.call('GET', KEYS[1])
local left = there and redis.call('PTTL', KEYS[1]) or 0
if not there or there == ARGV[1] or left < 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {1, '', 0}
end
return {0, there, left}";
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";
const HOLDER: &str = "local there = redis.call('GET', KEYS[1])
if not there then return {0, '', 0} end
return {1, there, redis.call('PTTL', KEYS[1])}";

/// Longest lease, in milliseconds: some years.
const LONGEST_MS: u64 = 1 << 38;

/// Asks about leases over one connection.
pub(super) struct Leases<'a> {
    pub(super) link: &'a Link,
    pub(super) prefix: &'a str,
    pub(super) patience: Duration,
}

impl Leases<'_> {
    /// Takes or prolongs a lease.
    pub(super) async fn acquire(&self, claim: &Claim, lease: Duration) -> Result<Claimed, VolatileError> {
        let answer: (i64, String, i64) = self.run(ACQUIRE, &claim.name, vec![value(claim), millis(lease)]).await?;
        Ok(if answer.0 == 1 { Claimed::Mine } else { Claimed::Held(holding(&answer.1, answer.2)) })
    }

    /// Prolongs a lease that the claim has.
    pub(super) async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, VolatileError> {
        Ok(self.run::<i64>(RENEW, &claim.name, vec![value(claim), millis(lease)]).await? == 1)
    }

    /// Ends a lease that the claim has.
    pub(super) async fn release(&self, claim: &Claim) -> Result<bool, VolatileError> {
        Ok(self.run::<i64>(RELEASE, &claim.name, vec![value(claim)]).await? == 1)
    }

    /// Who has a lease.
    pub(super) async fn holder(&self, name: &Name) -> Result<Option<Holding>, VolatileError> {
        let answer: (i64, String, i64) = self.run(HOLDER, name, vec![]).await?;
        Ok((answer.0 == 1 && answer.2 >= 0).then(|| holding(&answer.1, answer.2)))
    }

    async fn run<T>(&self, script: &'static str, name: &Name, arguments: Vec<Value>) -> Result<T, VolatileError>
    where
        T: fred::types::FromValue + Send,
    {
        // The script goes with every call: a server that failed over does not know it, and it is short.
        let mut words: Vec<Value> = vec![script.into(), 1.into(), key(self.prefix, name).into()];
        words.extend(arguments);
        let command = CustomCommand::new_static("EVAL", ClusterHash::Offset(2), false);
        self.link.ask(self.patience, |client| async move { client.custom(command, words).await }).await
    }
}

/// The braces make the name alone decide where the key lies in a cluster.
fn key(prefix: &str, name: &Name) -> String {
    format!("{prefix}:lease:{{{name}}}")
}

fn value(claim: &Claim) -> Value {
    format!("{:016x} {}", claim.token, claim.holder).into()
}

fn millis(lease: Duration) -> Value {
    let millis = u64::try_from(lease.as_millis()).unwrap_or(LONGEST_MS).clamp(1, LONGEST_MS);
    millis.cast_signed().into()
}

fn holding(value: &str, left: i64) -> Holding {
    let holder = value.split_once(' ').map_or(value, |(_, holder)| holder);
    Holding { holder: holder.to_owned(), left: Duration::from_millis(left.unsigned_abs()) }
}
