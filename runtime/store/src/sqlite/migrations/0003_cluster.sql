-- The last position of the shard's outbox that was given out.
alter table shard add column outbox integer not null default 0;

create table outbox (
  shard    integer not null,
  position integer not null,
  run      blob    not null,
  event    blob    not null,
  topic    text    not null,
  key      blob,
  headers  blob    not null, -- encoded like journal payloads
  payload  blob    not null,
  primary key (shard, position)
) without rowid, strict;

create table leadership (
  role   text    primary key,
  term   integer not null,
  holder text,               -- none after the leader resigned
  until  integer not null
) strict;

create table incarnation (
  number integer primary key autoincrement,
  node   text    not null,
  until  integer not null,
  fenced integer not null default 0
) strict;

create index incarnation_live on incarnation (number) where not fenced;
