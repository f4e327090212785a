//! A watch inside the database over who writes: no event is written by a node that does not own the run's shard at
//! that moment, whatever that node believes.
//!
//! Knows nothing of epochs or leases: it looks at the row of the shard while the writer's transaction holds it, and at
//! the name under which the writer has connected. Used by the rows of the fault matrix about clusters.

use anyhow::{Context, Result, ensure};

use super::postgres::PostgresServer;

/// The name under which the watch itself connects; nobody owns a shard under it.
const STRANGER: &str = "nobody";

/// Admissions, which are a run's first events, may be written by any node.
const INSTALL: &str = "
create sequence audit_seen;
create table audit_stale (run bytea, seq bigint, shard smallint, writer text, owner text, epoch bigint, at timestamptz);
create function audit() returns trigger language plpgsql as $$
declare
    held record;
begin
    if new.seq > 1 then
        perform nextval('audit_seen');
        select shard.shard, shard.owner, shard.epoch into held
            from run join shard on shard.shard = run.shard where run.id = new.run;
        if held.owner is distinct from current_setting('application_name') then
            insert into audit_stale values (new.run, new.seq, held.shard, current_setting('application_name'),
                held.owner, held.epoch, clock_timestamp());
        end if;
    end if;
    return null;
end $$;
create trigger audit after insert on journal for each row execute function audit();";

/// What a stranger's write does, taken back at once.
const FORGE: &str = "begin;
insert into journal select born, run, 1000000, 1, at, payload from journal limit 1;
select count(*) from audit_stale where seq = 1000000;
rollback;";

/// What the watch has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Entries that only an owner may write, each written by the owner.
    pub entries: u64,
}

/// Begins to watch every write. Nodes must connect under their own names (`application_name`).
///
/// # Errors
/// When the database refuses.
pub fn install(server: &PostgresServer) -> Result<()> {
    server.query(STRANGER, INSTALL).map(drop)
}

/// Proves that every entry was written by its owner, and that the watch would have seen another writer.
///
/// # Errors
/// With the first entries that were not.
pub fn prove(server: &PostgresServer) -> Result<Seen> {
    let stale = "select encode(run, 'hex'), seq, shard, writer, owner, epoch, at from audit_stale order by at limit 20";
    let stale = server.query(STRANGER, stale)?;
    ensure!(stale.is_empty(), "written by a node that did not own the shard:\n{stale}");
    ensure!(server.query(STRANGER, FORGE)? == "1", "the watch does not see a stranger's write");
    let entries = server.query(STRANGER, "select last_value from audit_seen")?;
    Ok(Seen { entries: entries.parse().with_context(|| format!("no number: {entries}"))? })
}
