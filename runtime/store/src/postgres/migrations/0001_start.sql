-- Heads of runs. Times are milliseconds since 1970, ids are 16 bytes, big-endian: they sort by time.
create table run (
  id          bytea    not null primary key,
  shard       smallint not null,
  namespace   text     not null,
  workflow    text     not null,
  version     text     not null,
  tags        text     not null,            -- JSON list of texts
  -- 0 pending 1 running 2 waiting 3 paused 4 succeeded 5 failed 6 cancelled 7 timed_out
  state       smallint not null,
  created_at  bigint   not null,
  finished_at bigint,
  wake_at     bigint
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index run_by_workflow on run (namespace, workflow, id);
create index run_live on run (shard, id) where state < 2;
create index run_due on run (shard, wake_at, id) where wake_at is not null;
create index run_failed on run (namespace, id) where state in (5, 7);

-- Partitioned by the day on which the run was born, so that a run never straddles partitions and forgetting a day is
-- dropping a table.
create table journal (
  born    integer  not null,                -- days since 1970
  run     bytea    not null,
  seq     bigint   not null,                -- number of the first event
  count   integer  not null,                -- events in the payload
  at      bigint   not null,
  payload bytea    not null,
  primary key (born, run, seq)
) partition by range (born);

create table snapshot (
  run    bytea   not null primary key,
  seq    bigint  not null,
  schema integer not null,
  state  bytea   not null
) with (fillfactor = 70);

create table idempotency (
  namespace   text   not null,
  key         text   not null,
  fingerprint bytea  not null,
  run         bytea  not null,
  used_at     bigint not null,
  expires_at  bigint not null,
  primary key (namespace, key)
);

create index idempotency_by_expiry on idempotency (expires_at);

-- Runs by state. Every writer counts in a slot of its own, so that no row is hot; the sum over the slots is the count.
create table run_count (
  slot  integer  not null,
  state smallint not null,
  runs  bigint   not null,
  primary key (slot, state)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- Every shard has its row from the beginning: a fence is a lock on it, and what is not there cannot be locked.
create table shard (
  shard  smallint not null primary key,
  epoch  bigint   not null default 0,
  owner  text     not null default '',
  outbox bigint   not null default 0         -- the last position that was given out
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

insert into shard (shard) select generate_series(0, 4095);

create table outbox (
  shard    smallint not null,
  position bigint   not null,
  run      bytea    not null,
  event    bytea    not null,
  topic    text     not null,
  key      bytea,
  headers  bytea    not null,                -- encoded like journal payloads
  payload  bytea    not null,
  primary key (shard, position)
);

create table definition (
  position   bigint   generated always as identity primary key, -- the newest put is the current version
  kind       smallint not null,
  namespace  text     not null,
  name       text     not null,
  version    text     not null,
  document   text     not null,
  created_at bigint   not null,
  unique (kind, namespace, name, version)
);

create table blob (
  sha256 bytea not null primary key,
  data   bytea not null
);
-- Tensors do not shrink, so trying to compress them only costs time.
alter table blob alter column data set storage external;

create table blob_use (
  run    bytea not null,
  sha256 bytea not null,
  primary key (run, sha256)
);

create index blob_use_by_digest on blob_use (sha256);

create table leadership (
  role   text   not null primary key,
  term   bigint not null,
  holder text,                               -- none after the leader resigned
  until  timestamptz not null
);

create table incarnation (
  number bigint  generated always as identity primary key,
  node   text    not null,
  until  timestamptz not null,
  fenced boolean not null default false
) with (fillfactor = 50);

create index incarnation_live on incarnation (node) where not fenced;
