//! Leases in PostgreSQL, by the server's clock: each change is one statement that compares and sets.
//!
//! Decides nothing about writes of runs; their own statement asks whether the writer lives. Used by `postgres`.

use std::time::Duration;

use motet_engine::id::Name;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;

use super::reader::{column, number};
use super::trouble::failed;
use crate::port::{Incarnation, Leader, LiveNode, Term};
use crate::{StoreError, check};

const LEAD: &str = "insert into leadership as kept (role, term, holder, until)
  values ($1, 1, $2, clock_timestamp() + $3 * interval '1 ms')
  on conflict (role) do update set term = kept.term + 1, holder = excluded.holder, until = excluded.until
  where kept.holder is null or kept.until <= clock_timestamp() returning term";
const USURP: &str = "insert into leadership as kept (role, term, holder, until)
  values ($1, 1, $2, clock_timestamp() + $3 * interval '1 ms')
  on conflict (role) do update set term = kept.term + 1, holder = excluded.holder, until = excluded.until
  where kept.holder is null or kept.holder = excluded.holder
  or kept.until <= clock_timestamp() + $4 * interval '1 ms' returning term";
const RENEW_LEAD: &str = "update leadership set until = clock_timestamp() + $3 * interval '1 ms'
  where role = $1 and term = $2 and holder is not null returning term";
const RESIGN: &str = "update leadership set holder = null where role = $1 and term = $2 returning term";
const LEADER: &str =
    "select holder, term, (extract(epoch from until - clock_timestamp()) * 1000)::bigint from leadership
  where role = $1 and holder is not null and until > clock_timestamp()";
const REGISTER: &str = "with earlier as (update incarnation set fenced = true where node = $1 and not fenced)
  insert into incarnation (node, address, until)
  values ($1, $2, clock_timestamp() + $3 * interval '1 ms') returning number";
const RENEW: &str = "update incarnation set until = clock_timestamp() + $2 * interval '1 ms'
  where number = $1 and not fenced returning number";
const FENCE: &str = "update incarnation set fenced = true where number = $1 returning number";
const FENCE_EXPIRED: &str = "with over as (update incarnation set fenced = true
    where number = $1 and not fenced and until <= clock_timestamp() returning number)
  select not exists (select from incarnation where number = $1 and not fenced and number not in (select number from over))";
const LIVE: &str =
    "select number, node, address, greatest(0, (extract(epoch from until - clock_timestamp()) * 1000)::bigint)
  from incarnation where not fenced order by number";

/// Takes the lead of a role unless somebody has it.
pub(super) async fn lead(
    pool: &PgPool,
    role: &Name,
    holder: &str,
    lease: Duration,
) -> Result<Option<Term>, StoreError> {
    let query = sqlx::query(LEAD).bind(role.as_str()).bind(holder).bind(check::lease_millis(lease));
    Ok(number_of(pool, query).await?.map(Term))
}

/// Takes the lead of a role unless more than `left` remains of somebody else's lease.
pub(super) async fn usurp(
    pool: &PgPool,
    role: &Name,
    holder: &str,
    lease: Duration,
    left: Duration,
) -> Result<Option<Term>, StoreError> {
    let query = sqlx::query(USURP).bind(role.as_str()).bind(holder);
    let query = query.bind(check::lease_millis(lease)).bind(check::lease_millis(left));
    Ok(number_of(pool, query).await?.map(Term))
}

/// Prolongs a lease while its term lasts.
pub(super) async fn renew_lead(pool: &PgPool, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError> {
    let query = sqlx::query(RENEW_LEAD).bind(role.as_str()).bind(term.0.cast_signed());
    Ok(number_of(pool, query.bind(check::lease_millis(lease))).await?.is_some())
}

/// Ends a lease early.
pub(super) async fn resign(pool: &PgPool, role: &Name, term: Term) -> Result<(), StoreError> {
    number_of(pool, sqlx::query(RESIGN).bind(role.as_str()).bind(term.0.cast_signed())).await.map(drop)
}

/// Begins a life of a node and fences its earlier ones.
pub(super) async fn register(
    pool: &PgPool,
    node: &str,
    address: &str,
    lease: Duration,
) -> Result<Incarnation, StoreError> {
    let query = sqlx::query(REGISTER).bind(node).bind(address).bind(check::lease_millis(lease));
    let number = number_of(pool, query).await?;
    number.map(Incarnation).ok_or_else(|| StoreError::Corrupt("a registered node has no number".to_owned()))
}

/// Prolongs a node's lease unless it was fenced.
pub(super) async fn renew(pool: &PgPool, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError> {
    let query = sqlx::query(RENEW).bind(incarnation.0.cast_signed()).bind(check::lease_millis(lease));
    Ok(number_of(pool, query).await?.is_some())
}

/// Declares a life over. Waits for the writes of that life that are being committed.
pub(super) async fn fence(pool: &PgPool, incarnation: Incarnation) -> Result<(), StoreError> {
    number_of(pool, sqlx::query(FENCE).bind(incarnation.0.cast_signed())).await.map(drop)
}

/// Declares a life over when its lease has run out; whether it is over.
pub(super) async fn fence_expired(pool: &PgPool, incarnation: Incarnation) -> Result<bool, StoreError> {
    let query = sqlx::query(FENCE_EXPIRED).bind(incarnation.0.cast_signed());
    column(&query.fetch_one(pool).await.map_err(failed)?, 0)
}

async fn number_of(pool: &PgPool, query: Query<'_, Postgres, PgArguments>) -> Result<Option<u64>, StoreError> {
    let row = query.fetch_optional(pool).await.map_err(failed)?;
    row.as_ref().map(|row| number(row, 0)).transpose()
}

/// Who leads.
pub(super) async fn leader(pool: &PgPool, role: &Name) -> Result<Option<Leader>, StoreError> {
    let row = sqlx::query(LEADER).bind(role.as_str()).fetch_optional(pool).await.map_err(failed)?;
    let read = |row: &PgRow| {
        Ok(Leader {
            holder: column(row, 0)?,
            term: Term(number(row, 1)?),
            left: Duration::from_millis(number(row, 2)?),
        })
    };
    row.as_ref().map(read).transpose()
}

/// The lives that are not fenced.
pub(super) async fn live(pool: &PgPool) -> Result<Vec<LiveNode>, StoreError> {
    let rows = sqlx::query(LIVE).fetch_all(pool).await.map_err(failed)?;
    let read = |row: &PgRow| {
        Ok(LiveNode {
            incarnation: Incarnation(number(row, 0)?),
            node: column(row, 1)?,
            address: column(row, 2)?,
            left: Duration::from_millis(number(row, 3)?),
        })
    };
    rows.iter().map(read).collect()
}
