-- Heads of runs. Clustered by id, and ids sort by time: new rows go to the end, and the rows that change are near it.
create table run (
  id          blob    not null primary key, -- 16 bytes, big-endian
  shard       integer not null,
  namespace   text    not null,
  workflow    text    not null,
  version     text    not null,
  tags        text    not null,             -- JSON list of texts
  state       integer not null,             -- 0 pending 1 running 2 waiting 3 paused 4 succeeded 5 failed 6 cancelled 7 timed_out
  created_at  integer not null,             -- milliseconds since 1970, like all times here
  finished_at integer,
  wake_at     integer
) without rowid, strict;

create index run_by_workflow on run (namespace, workflow, id);
create index run_live on run (shard, id) where state < 2;
create index run_due on run (shard, wake_at, id) where wake_at is not null;
create index run_failed on run (namespace, id) where state in (5, 7);

-- The journal is an append table: clustering it by run would make every row of a commit dirty its own page.
create table journal (
  position integer primary key,
  run      blob    not null,
  seq      integer not null,                -- number of the first event
  count    integer not null,                -- events in the payload
  at       integer not null,
  payload  blob    not null
) strict;

create unique index journal_by_run on journal (run, seq);

create table snapshot (
  run    blob    not null primary key,
  seq    integer not null,
  schema integer not null,
  state  blob    not null
) strict;

create table idempotency (
  namespace   text    not null,
  key         text    not null,
  fingerprint blob    not null,
  run         blob    not null,
  expires_at  integer not null,
  primary key (namespace, key)
) without rowid, strict;

create index idempotency_by_expiry on idempotency (expires_at);

-- Runs by state, kept with every change, so that nobody counts a hundred thousand finished runs.
create table run_count (
  id        integer primary key check (id = 1),
  pending   integer not null default 0,
  running   integer not null default 0,
  waiting   integer not null default 0,
  paused    integer not null default 0,
  succeeded integer not null default 0,
  failed    integer not null default 0,
  cancelled integer not null default 0,
  timed_out integer not null default 0
) strict;

insert into run_count (id) values (1);
