//! The shard table in PostgreSQL: each change is one statement that compares and sets.
//!
//! A change locks the rows of its shards in key order, as writes of runs do, and then the one of the version, so that
//! neither two changes nor a change and a write wait for each other; writes under the epoch that ends are waited for.
//! Decides nothing about writes of runs. Used by `postgres`, and by its writer for claims.

use motet_engine::id::{Epoch, Name, ShardId};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;

use super::link::Link;
use super::reader::{column, number};
use super::trouble::{Trouble, failed};
use super::writer::arguments;
use crate::StoreError;
use crate::port::{Assignment, Incarnation, MapVersion, ShardOwner, ShardRow, Term};
use crate::shard_map::owned_by_the_living;

const VERSION: &str = "select version from shard_map";
const SHARDS: &str = "select map.version, shard.shard, shard.epoch, shard.incarnation, shard.owner, shard.target
  from shard_map as map left join shard on shard.shard < $1 and shard.changed > $2 order by shard.shard";

// Counting what was locked first makes sure that all of it is, before the version's row is.
const NEXT_VERSION: &str = "map as (update shard_map set version = version + 1
    where (select count(*) from locked) > 0 returning version)";

const ASSIGN: &str = "with led as materialized (select term from leadership
    where role = $1 and term = $2 and holder is not null for share),
  locked as materialized (select shard.shard, asked.target
    from unnest($3::smallint[], $4::bigint[], $5::text[]) as asked(shard, epoch, target)
    join shard on shard.shard = asked.shard
    where exists (select from led) and shard.epoch = asked.epoch and shard.target is distinct from asked.target
    order by shard.shard for update of shard),
  {next_version},
  assigned as (update shard set target = locked.target, changed = map.version from locked, map
    where shard.shard = locked.shard)
  select count(*) from led";
const TAKE: &str = "with taker as materialized (select number, node from incarnation where number = $3 and not fenced),
  locked as materialized (select shard.shard
    from unnest($1::smallint[], $2::bigint[]) as asked(shard, epoch) join shard on shard.shard = asked.shard
    where exists (select from taker) and shard.epoch = asked.epoch and not exists
      (select from incarnation where incarnation.number = shard.incarnation and not incarnation.fenced)
    order by shard.shard for update of shard),
  {next_version},
  taken as (update shard set epoch = shard.epoch + 1, incarnation = taker.number, owner = taker.node,
      target = taker.node, changed = map.version from locked, map, taker
    where shard.shard = locked.shard returning shard.shard, shard.epoch)
  select shard, epoch from taken order by shard";
const RELEASE: &str = "with locked as materialized (select shard.shard
    from unnest($1::smallint[], $2::bigint[]) as asked(shard, epoch) join shard on shard.shard = asked.shard
    where shard.epoch = asked.epoch and shard.incarnation = $3
    order by shard.shard for update of shard),
  {next_version},
  released as (update shard set epoch = shard.epoch + 1, incarnation = null, owner = '', changed = map.version
    from locked, map where shard.shard = locked.shard returning shard.shard, shard.epoch)
  select shard, epoch from released order by shard";
const CLAIM: &str = "with locked as materialized (select shard from shard where shard = $1 and not exists
      (select from incarnation where incarnation.number = shard.incarnation and not incarnation.fenced
        and incarnation.until > clock_timestamp()) for update),
  {next_version}
  update shard set epoch = shard.epoch + 1, incarnation = null, owner = $2, target = null, changed = map.version
    from locked, map where shard.shard = locked.shard returning shard.epoch";
const OWNER: &str = "select incarnation, owner from shard where shard = $1";

fn text(form: &str) -> String {
    form.replace("{next_version}", NEXT_VERSION)
}

/// The version of the table.
pub(super) async fn version(pool: &PgPool) -> Result<MapVersion, StoreError> {
    let row = sqlx::query(VERSION).fetch_one(pool).await.map_err(failed)?;
    number(&row, 0).map(MapVersion)
}

/// The version, and the first rows or those of them that changed.
pub(super) async fn rows(
    pool: &PgPool,
    count: u16,
    after: Option<MapVersion>,
) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
    let after = after.map_or(-1, |after| after.0.cast_signed());
    let query = sqlx::query(SHARDS).bind(count.min(i16::MAX.cast_unsigned()).cast_signed()).bind(after);
    let rows = query.fetch_all(pool).await.map_err(failed)?;
    let first = rows.first().ok_or_else(|| StoreError::Corrupt("the shard map has no version".to_owned()))?;
    let version = MapVersion(number(first, 0)?);
    let changed = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
    Ok((version, changed))
}

/// A row of the table; none where the statement found only the version.
fn read(row: &PgRow) -> Result<Option<ShardRow>, StoreError> {
    let Some(shard) = column::<Option<i16>>(row, 1)? else { return Ok(None) };
    let owner = match column::<Option<i64>>(row, 3)? {
        Some(number) => Some(ShardOwner { incarnation: Incarnation(number.cast_unsigned()), node: column(row, 4)? }),
        None => None,
    };
    let shard = ShardId(shard.cast_unsigned());
    Ok(Some(ShardRow { shard, epoch: Epoch(number(row, 2)?), owner, target: column(row, 5)? }))
}

/// Writes a leader's plan while its term lasts.
pub(super) async fn assign(pool: &PgPool, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError> {
    let shards: Vec<i16> = plan.iter().map(|wanted| wanted.shard.0.cast_signed()).collect();
    let epochs: Vec<i64> = plan.iter().map(|wanted| wanted.epoch.0.cast_signed()).collect();
    let targets: Vec<&str> = plan.iter().map(|wanted| wanted.target.as_str()).collect();
    let text = text(ASSIGN);
    let query = sqlx::query(&text).bind(role.as_str()).bind(term.0.cast_signed());
    let row = query.bind(shards).bind(epochs).bind(targets).fetch_one(pool).await.map_err(failed)?;
    Ok(number::<u64>(&row, 0)? > 0)
}

/// Takes shards over. Waits for writes of their earlier owners that are being committed.
pub(super) async fn take(
    pool: &PgPool,
    asked: &[(ShardId, Epoch)],
    incarnation: Incarnation,
) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
    change(pool, &text(TAKE), asked, incarnation).await
}

/// Gives shards up. Waits for writes under their epochs that are being committed.
pub(super) async fn release(
    pool: &PgPool,
    asked: &[(ShardId, Epoch)],
    incarnation: Incarnation,
) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
    change(pool, &text(RELEASE), asked, incarnation).await
}

async fn change(
    pool: &PgPool,
    text: &str,
    asked: &[(ShardId, Epoch)],
    incarnation: Incarnation,
) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
    let (shards, epochs): (Vec<i16>, Vec<i64>) =
        asked.iter().map(|(shard, epoch)| (shard.0.cast_signed(), epoch.0.cast_signed())).unzip();
    let query: Query<'_, _, PgArguments> = sqlx::query(text).bind(shards).bind(epochs);
    let rows = query.bind(incarnation.0.cast_signed()).fetch_all(pool).await.map_err(failed)?;
    let read = |row: &PgRow| Ok((ShardId(column::<i16>(row, 0)?.cast_unsigned()), Epoch(number(row, 1)?)));
    rows.iter().map(read).collect()
}

/// Claims a shard for a node that runs alone.
pub(super) async fn claim(link: &mut Link, shard: ShardId, owner: &str) -> Result<Result<Epoch, StoreError>, Trouble> {
    let rows = link.fetch(&text(CLAIM), arguments((shard.0.cast_signed(), owner))?).await?;
    if let Some(row) = rows.first() {
        return Ok(number(row, 0).map(Epoch));
    }
    let mut given = PgArguments::default();
    sqlx::Arguments::add(&mut given, shard.0.cast_signed()).map_err(|error| Trouble::Row(error.to_string()))?;
    let rows = link.fetch(OWNER, given).await?;
    let there = rows.first().map(|row| (row.try_get::<Option<i64>, _>(0), row.try_get::<String, _>(1)));
    Ok(Err(match there {
        Some((Ok(Some(number)), Ok(node))) => {
            owned_by_the_living(shard, &ShardOwner { incarnation: Incarnation(number.cast_unsigned()), node })
        }
        // Its owner gave it up between the two statements.
        Some(_) => StoreError::Storage(format!("shard {shard} is changing hands; try again")),
        None => StoreError::Refused(format!("there is no shard {shard}")),
    }))
}
