//! Definitions in PostgreSQL: immutable per version, the newest put is the current one.
//!
//! Used by `postgres`.

use motet_engine::id::{Name, Namespace};
use motet_engine::time::Timestamp;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Postgres, QueryBuilder};

use super::reader::{column, name};
use super::trouble::failed;
use crate::StoreError;
use crate::port::{DefinitionKind, PutOutcome, StoredDefinition};

const COLUMNS: &str = "select namespace, name, version, document, created_at from definition";

const PUT: &str = "insert into definition (kind, namespace, name, version, document, created_at)
  values ($1, $2, $3, $4, $5, $6) on conflict (kind, namespace, name, version) do nothing";
const FIND: &str = "select document from definition where kind = $1 and namespace = $2 and name = $3 and version = $4";

/// Stores a version unless it is there.
pub(super) async fn put(pool: &PgPool, new: &StoredDefinition) -> Result<PutOutcome, StoreError> {
    let document = new.document.to_string();
    let put = addressed(PUT, new).bind(&document).bind(new.created_at.as_millis());
    if put.execute(pool).await.map_err(failed)?.rows_affected() > 0 {
        return Ok(PutOutcome::Created);
    }
    let row = addressed(FIND, new).fetch_one(pool).await.map_err(failed)?;
    Ok(if same(column(&row, 0)?, &document) { PutOutcome::Unchanged } else { PutOutcome::Conflict })
}

/// A statement with kind, namespace, name and version bound first.
fn addressed<'q>(
    text: &'q str,
    new: &'q StoredDefinition,
) -> sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments> {
    let statement = sqlx::query(text).bind(new.kind as i16).bind(new.namespace.0.as_str());
    statement.bind(new.name.as_str()).bind(new.version.as_str())
}

/// Both texts are compared after the same parsing, so that neither the order of keys nor the last digit of a number
/// makes equal documents differ.
fn same(there: &str, new: &str) -> bool {
    let parsed = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    there == new || (parsed(there).is_some() && parsed(there) == parsed(new))
}

/// One version, or the newest when none is named.
pub(super) async fn get(
    pool: &PgPool,
    kind: DefinitionKind,
    namespace: &Namespace,
    wanted: &Name,
    version: Option<&str>,
) -> Result<Option<StoredDefinition>, StoreError> {
    let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
    query.push(" where kind = ").push_bind(kind as i16);
    query.push(" and namespace = ").push_bind(namespace.0.as_str());
    query.push(" and name = ").push_bind(wanted.as_str());
    if let Some(version) = version {
        query.push(" and version = ").push_bind(version);
    }
    query.push(" order by position desc limit 1");
    let row = query.build().fetch_optional(pool).await.map_err(failed)?;
    row.map(|row| read(kind, &row)).transpose()
}

/// The newest version of each, by name.
pub(super) async fn list(
    pool: &PgPool,
    kind: DefinitionKind,
    namespace: Option<&Namespace>,
) -> Result<Vec<StoredDefinition>, StoreError> {
    let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
    query.push(" where position in (select max(position) from definition where kind = ").push_bind(kind as i16);
    if let Some(namespace) = namespace {
        query.push(" and namespace = ").push_bind(namespace.0.as_str());
    }
    query.push(" group by namespace, name) order by name, namespace");
    let rows = query.build().fetch_all(pool).await.map_err(failed)?;
    rows.iter().map(|row| read(kind, row)).collect()
}

fn read(kind: DefinitionKind, row: &PgRow) -> Result<StoredDefinition, StoreError> {
    let document: &str = column(row, 3)?;
    Ok(StoredDefinition {
        kind,
        namespace: Namespace(name(row, 0)?),
        name: name(row, 1)?,
        version: column(row, 2)?,
        document: serde_json::from_str(document).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        created_at: Timestamp::from_millis(column(row, 4)?),
    })
}
