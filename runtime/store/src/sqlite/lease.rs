//! Leases in SQLite, by its own clock: each change is one statement that compares and sets.
//!
//! Decides nothing about writes of runs; the planner does, from the list of lives. Used by the writer for changes and
//! by `sqlite` for reading.

use std::collections::HashMap;
use std::time::Duration;

use motet_engine::id::Name;
use motet_engine::time::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::connection::{Connection, Statement};
use super::reader::{column, failed, number};
use super::schema::Trouble;
use super::writer::unreadable;
use crate::port::{Incarnation, Leader, LiveNode, Term};
use crate::{StoreError, check};

const LEAD: &str = "insert into leadership (role, term, holder, until)
  values (?1, 1, ?2, cast(unixepoch('subsec') * 1000 as integer) + ?3)
  on conflict (role) do update set term = term + 1, holder = excluded.holder, until = excluded.until
  where leadership.holder is null or leadership.until <= cast(unixepoch('subsec') * 1000 as integer) returning term";
const USURP: &str = "insert into leadership (role, term, holder, until)
  values (?1, 1, ?2, cast(unixepoch('subsec') * 1000 as integer) + ?3)
  on conflict (role) do update set term = term + 1, holder = excluded.holder, until = excluded.until
  where leadership.holder is null or leadership.holder = excluded.holder
  or leadership.until <= cast(unixepoch('subsec') * 1000 as integer) + ?4 returning term";
const RENEW_LEAD: &str = "update leadership set until = cast(unixepoch('subsec') * 1000 as integer) + ?3
  where role = ?1 and term = ?2 and holder is not null returning term";
const RESIGN: &str = "update leadership set holder = null where role = ?1 and term = ?2 returning term";
const LEADER: &str = "select holder, term, until - cast(unixepoch('subsec') * 1000 as integer) from leadership
  where role = ?1 and holder is not null and until > cast(unixepoch('subsec') * 1000 as integer)";
const FENCE_EARLIER: &str = "update incarnation set fenced = 1 where node = ?1 and not fenced";
const REGISTER: &str = "insert into incarnation (node, address, until)
  values (?1, ?2, cast(unixepoch('subsec') * 1000 as integer) + ?3) returning number";
const RENEW: &str = "update incarnation set until = cast(unixepoch('subsec') * 1000 as integer) + ?2
  where number = ?1 and not fenced returning number";
const FENCE: &str = "update incarnation set fenced = 1 where number = ?1 returning number";
const FENCE_EXPIRED: &str = "update incarnation set fenced = 1
  where number = ?1 and not fenced and until <= cast(unixepoch('subsec') * 1000 as integer)";
const LIVES_STILL: &str = "select number from incarnation where number = ?1 and not fenced";
const LIVE: &str = "select number, node, address, max(0, until - cast(unixepoch('subsec') * 1000 as integer))
  from incarnation where not fenced order by number";

/// A change of a lease.
#[derive(Debug)]
pub(super) enum LeaseOp {
    Lead { role: Name, holder: String, lease: Duration },
    Usurp { role: Name, holder: String, lease: Duration, left: Duration },
    RenewLead { role: Name, term: Term, lease: Duration },
    Resign { role: Name, term: Term },
    Register { node: String, address: String, lease: Duration },
    Renew { incarnation: Incarnation, lease: Duration },
    Fence { incarnation: Incarnation },
    FenceExpired { incarnation: Incarnation },
}

/// A life that is not fenced.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) node: String,
    pub(super) until: Timestamp,
}

/// Carries a change out; the number of the term or life that was changed, if there was one. An expired life that is to
/// be fenced is told when it goes on.
pub(super) async fn change(connection: &mut Connection, op: &LeaseOp) -> Result<Option<u64>, Trouble> {
    let statement = match op {
        LeaseOp::Lead { role, holder, lease } => {
            sqlx::query(LEAD).bind(role.as_str()).bind(holder).bind(check::lease_millis(*lease))
        }
        LeaseOp::Usurp { role, holder, lease, left } => {
            let query = sqlx::query(USURP).bind(role.as_str()).bind(holder);
            query.bind(check::lease_millis(*lease)).bind(check::lease_millis(*left))
        }
        LeaseOp::RenewLead { role, term, lease } => of_term(RENEW_LEAD, role, *term).bind(check::lease_millis(*lease)),
        LeaseOp::Resign { role, term } => of_term(RESIGN, role, *term),
        LeaseOp::Register { node, address, lease } => {
            connection.execute(sqlx::query(FENCE_EARLIER).bind(node)).await?;
            sqlx::query(REGISTER).bind(node).bind(address).bind(check::lease_millis(*lease))
        }
        LeaseOp::Renew { incarnation, lease } => {
            sqlx::query(RENEW).bind(incarnation.0.cast_signed()).bind(check::lease_millis(*lease))
        }
        LeaseOp::Fence { incarnation } => sqlx::query(FENCE).bind(incarnation.0.cast_signed()),
        LeaseOp::FenceExpired { incarnation } => {
            connection.execute(sqlx::query(FENCE_EXPIRED).bind(incarnation.0.cast_signed())).await?;
            sqlx::query(LIVES_STILL).bind(incarnation.0.cast_signed())
        }
    };
    let rows = connection.fetch(statement).await?;
    rows.first().map(|row| number(row, 0)).transpose().map_err(unreadable)
}

fn of_term<'q>(text: &'q str, role: &'q Name, term: Term) -> Statement<'q> {
    sqlx::query(text).bind(role.as_str()).bind(term.0.cast_signed())
}

/// The lives that are not fenced.
pub(super) async fn lives(connection: &mut Connection) -> Result<HashMap<Incarnation, Life>, Trouble> {
    let rows = connection.fetch(sqlx::query("select number, node, until from incarnation where not fenced")).await?;
    let read = |row: &SqliteRow| {
        let until = Timestamp::from_millis(column(row, 2)?);
        Ok((Incarnation(number(row, 0)?), Life { node: column(row, 1)?, until }))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(unreadable)
}

/// Who leads.
pub(super) async fn leader(pool: &SqlitePool, role: &Name) -> Result<Option<Leader>, StoreError> {
    let row = sqlx::query(LEADER).bind(role.as_str()).fetch_optional(pool).await.map_err(failed)?;
    let read = |row: &SqliteRow| {
        Ok(Leader {
            holder: column(row, 0)?,
            term: Term(number(row, 1)?),
            left: Duration::from_millis(number(row, 2)?),
        })
    };
    row.as_ref().map(read).transpose()
}

/// The lives that are not fenced.
pub(super) async fn live(pool: &SqlitePool) -> Result<Vec<LiveNode>, StoreError> {
    let rows = sqlx::query(LIVE).fetch_all(pool).await.map_err(failed)?;
    let read = |row: &SqliteRow| {
        Ok(LiveNode {
            incarnation: Incarnation(number(row, 0)?),
            node: column(row, 1)?,
            address: column(row, 2)?,
            left: Duration::from_millis(number(row, 3)?),
        })
    };
    rows.iter().map(read).collect()
}
