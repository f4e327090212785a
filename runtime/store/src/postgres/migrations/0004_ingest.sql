-- A run's place in an order that its neighbours of the same line keep too; none once it has left.
alter table run add column line bytea, add column place bigint;

alter table outbox add column transactional boolean not null default false;

-- Tells this store's outboxes from those of every other, also where records leave for the same brokers.
alter table shard_map add column origin text not null default '';
update shard_map set origin = replace(gen_random_uuid()::text, '-', '');

create index run_line on run (shard, id) where line is not null;
create index run_first on run (line, place) where line is not null;
create index run_held on run (namespace, id) where line is not null and state in (5, 7);

-- One hot row for each partition: half of a page stays free for its versions.
create table ingest_partition (
  namespace  text    collate "C" not null,
  stream     text    collate "C" not null,
  topic      text    collate "C" not null,
  part       integer not null,
  generation bigint  not null default 0,
  since      bigint  not null,
  epoch      bigint  not null,
  owner      text    not null,               -- '' when nobody has it
  next       bigint,                         -- the first offset that is not durable; none before it was known
  origin     text    not null default '',
  barren     bigint  not null default 0,     -- claims since the last progress
  paused     boolean not null default false,
  trouble    text,
  changed_at bigint  not null,
  primary key (namespace, stream, topic, part)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

create table dead_letter (
  namespace    text    collate "C" not null,
  stream       text    collate "C" not null,
  topic        text    collate "C" not null,
  part         integer not null,
  generation   bigint  not null,
  at_offset    bigint  not null,
  at           bigint  not null,
  timestamp    bigint,
  stage        text    not null,
  class        text    not null,
  state        smallint not null,            -- 0 open 1 redriven 2 discarded
  sent         boolean not null,
  message      bytea   not null,             -- UTF-8; it may quote a record, and so hold any character
  record_key   bytea,
  headers      bytea   not null,             -- encoded like journal payloads
  record_value bytea,
  primary key (namespace, stream, topic, part, generation, at_offset)
);
-- Records are kept as they came, and many are compressed already.
alter table dead_letter alter column record_key set storage external;
alter table dead_letter alter column record_value set storage external;

create index dead_letter_by_time on dead_letter (namespace, at, stream, topic, part, generation, at_offset);
create index dead_letter_by_stream on dead_letter (namespace, stream, at, topic, part, generation, at_offset);
create index dead_letter_unsent on dead_letter (namespace, stream, topic, part, generation, at_offset) where not sent;
create index dead_letter_settled on dead_letter (at) where state > 0;
