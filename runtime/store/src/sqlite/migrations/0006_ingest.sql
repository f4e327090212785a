-- A run's place in an order that its neighbours of the same line keep too; none once it has left.
alter table run add column line blob;
alter table run add column place integer;

alter table outbox add column transactional integer not null default 0;

-- Tells this store's outboxes from those of every other, also where records leave for the same brokers.
alter table shard_map add column origin text not null default '';
update shard_map set origin = lower(hex(randomblob(16)));

create index run_line on run (shard, id) where line is not null;
create index run_first on run (line, place) where line is not null;
create index run_held on run (namespace, id) where line is not null and state in (5, 7);

create table ingest_partition (
  namespace  text    not null,
  stream     text    not null,
  topic      text    not null,
  part       integer not null,
  generation integer not null,
  since      integer not null,
  epoch      integer not null,
  owner      text    not null,             -- '' when nobody has it
  next       integer,                      -- the first offset that is not durable; none before it was known
  origin     text    not null,
  barren     integer not null,             -- claims since the last progress
  paused     integer not null,
  trouble    text,
  changed_at integer not null,
  primary key (namespace, stream, topic, part)
) without rowid, strict;

-- The large columns come last: reading the others does not touch their pages.
create table dead_letter (
  id           integer primary key,
  namespace    text    not null,
  stream       text    not null,
  topic        text    not null,
  part         integer not null,
  generation   integer not null,
  at_offset    integer not null,
  at           integer not null,
  timestamp    integer,
  stage        text    not null,
  class        text    not null,
  state        integer not null,           -- 0 open 1 redriven 2 discarded
  sent         integer not null,
  message      blob    not null,           -- UTF-8; it may quote a record, and so hold any character
  record_key   blob,
  headers      blob    not null,           -- encoded like journal payloads
  record_value blob,
  unique (namespace, stream, topic, part, generation, at_offset)
) strict;

create index dead_letter_by_time on dead_letter (namespace, at, stream, topic, part, generation, at_offset);
create index dead_letter_by_stream on dead_letter (namespace, stream, at, topic, part, generation, at_offset);
create index dead_letter_unsent on dead_letter (namespace, stream, topic, part, generation, at_offset) where sent = 0;
create index dead_letter_settled on dead_letter (at) where state > 0;
