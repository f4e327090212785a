//! The shard table in SQLite: the writer decides by what it remembers, and one statement keeps it.
//!
//! Never changes what is remembered: the writer learns after the commit. Used by the writer for changes and by `sqlite`
//! for reading.

use motet_engine::id::{Epoch, Name, ShardId};
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::connection::Connection;
use super::plan::Known;
use super::reader::{column, failed, number};
use super::schema::Trouble;
use super::writer::{json, unreadable};
use crate::StoreError;
use crate::port::{Assignment, Incarnation, MapVersion, ShardOwner, ShardRow, Term};
use crate::shard_map::ShardMap;

const VERSION: &str = "select version from shard_map";
const SHARDS: &str = "select map.version, shard.shard, shard.epoch, shard.incarnation, shard.owner, shard.target
  from shard_map as map left join shard on shard.shard < ?1 and shard.changed > ?2 order by shard.shard";
const KNOWN: &str = "select map.version, shard, epoch, incarnation, owner, target, changed, outbox
  from shard_map as map left join shard on epoch > 0 or outbox > 0 or changed > 0";
const LEADS: &str = "select term from leadership where role = ?1 and term = ?2 and holder is not null";
const KEEP: &str = "begin immediate;
insert into shard (shard, epoch, incarnation, owner, target, changed)
  select value->>0, value->>1, value->>2, value->>3, value->>4, $2 from json_each($1) where true
  on conflict (shard) do update set epoch = excluded.epoch, incarnation = excluded.incarnation,
    owner = excluded.owner, target = excluded.target, changed = excluded.changed;
update shard_map set version = $2;
commit";

/// A change of the table.
#[derive(Debug)]
pub(super) enum ShardOp {
    Assign { role: Name, term: Term, plan: Vec<Assignment> },
    Take { asked: Vec<(ShardId, Epoch)>, incarnation: Incarnation },
    Release { asked: Vec<(ShardId, Epoch)>, incarnation: Incarnation },
}

/// Makes a change durable. Returns the rows that the writer is to learn; none when the leader's term is over.
pub(super) async fn change(
    connection: &mut Connection,
    known: &Known,
    op: &ShardOp,
) -> Result<Option<Vec<ShardRow>>, Trouble> {
    let rows = match op {
        ShardOp::Assign { role, term, plan } => {
            let leads = sqlx::query(LEADS).bind(role.as_str()).bind(term.0.cast_signed());
            if connection.fetch(leads).await?.is_empty() {
                return Ok(None);
            }
            known.shards.assigned(plan)
        }
        ShardOp::Take { asked, incarnation } => match known.lives.get(incarnation) {
            Some(life) => {
                let taker = ShardOwner { incarnation: *incarnation, node: life.node.clone() };
                known.shards.taken(asked, &taker, |owner| known.lives.contains_key(&owner))
            }
            None => Vec::new(),
        },
        ShardOp::Release { asked, incarnation } => known.shards.released(asked, *incarnation),
    };
    if !rows.is_empty() {
        let packed: Vec<_> = rows.iter().map(pack).collect();
        let keep = sqlx::query(KEEP).bind(json(&packed)?).bind(known.shards.next_version().0.cast_signed());
        connection.transaction(keep).await?;
    }
    Ok(Some(rows))
}

fn pack(row: &ShardRow) -> (u16, u64, Option<u64>, &str, Option<&str>) {
    let node = row.owner.as_ref().map_or("", |owner| owner.node.as_str());
    let incarnation = row.owner.as_ref().map(|owner| owner.incarnation.0);
    (row.shard.0, row.epoch.0, incarnation, node, row.target.as_deref())
}

/// What the writer must know when the store is opened: the table, and the last positions of the outboxes.
pub(super) async fn restore(connection: &mut Connection) -> Result<(ShardMap, Vec<(ShardId, u64)>), Trouble> {
    let rows = connection.fetch(sqlx::query(KNOWN)).await?;
    let (mut map, mut positions) = (ShardMap::default(), Vec::new());
    let mut read_one = |row: &SqliteRow| {
        map.restore_version(MapVersion(number(row, 0)?));
        if let Some(there) = read(row)? {
            positions.push((there.shard, number(row, 7)?));
            map.restore(there, MapVersion(number(row, 6)?));
        }
        Ok(())
    };
    rows.iter().try_for_each(&mut read_one).map_err(unreadable)?;
    Ok((map, positions))
}

/// The version of the table.
pub(super) async fn version(pool: &SqlitePool) -> Result<MapVersion, StoreError> {
    let row = sqlx::query(VERSION).fetch_one(pool).await.map_err(failed)?;
    number(&row, 0).map(MapVersion)
}

/// The version, and the first rows or those of them that changed.
pub(super) async fn rows(
    pool: &SqlitePool,
    count: u16,
    after: Option<MapVersion>,
) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
    let after = after.map_or(-1, |after| after.0.cast_signed());
    let rows = sqlx::query(SHARDS).bind(count).bind(after).fetch_all(pool).await.map_err(failed)?;
    let first = rows.first().ok_or_else(|| StoreError::Corrupt("the shard map has no version".to_owned()))?;
    let version = MapVersion(number(first, 0)?);
    let changed = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
    Ok((version, changed))
}

/// A row of the table; none where the statement found only the version.
fn read(row: &SqliteRow) -> Result<Option<ShardRow>, StoreError> {
    if column::<Option<i64>>(row, 1)?.is_none() {
        return Ok(None);
    }
    let owner = match column::<Option<i64>>(row, 3)? {
        Some(number) => Some(ShardOwner { incarnation: Incarnation(number.cast_unsigned()), node: column(row, 4)? }),
        None => None,
    };
    Ok(Some(ShardRow {
        shard: ShardId(number(row, 1)?),
        epoch: Epoch(number(row, 2)?),
        owner,
        target: column(row, 5)?,
    }))
}
