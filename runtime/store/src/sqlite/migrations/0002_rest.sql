create table shard (
  shard integer primary key,
  epoch integer not null,
  owner text    not null
) strict;

create table definition (
  position   integer primary key autoincrement, -- the newest put is the current version
  kind       integer not null,
  namespace  text    not null,
  name       text    not null,
  version    text    not null,
  document   text    not null,
  created_at integer not null,
  unique (kind, namespace, name, version)
) strict;

create table blob (
  id     integer primary key,
  sha256 blob not null unique,
  data   blob not null
) strict;

create table blob_use (
  run    blob not null,
  sha256 blob not null,
  primary key (run, sha256)
) without rowid, strict;

create index blob_use_by_digest on blob_use (sha256);
