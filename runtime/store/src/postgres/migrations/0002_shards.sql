-- Owners with their lives, and where the leader wants a shard to be. `owner` is the name of the node in either case.
alter table shard
  add column incarnation bigint,             -- none when free, or claimed by a node that runs alone
  add column target      text,               -- name of the node that shall own it
  add column changed     bigint not null default 0; -- version of the map with which owner or target last changed

-- One row: whoever changes the map locks shards in key order, then this.
create table shard_map (
  id      smallint not null primary key check (id = 1),
  version bigint   not null default 0
) with (fillfactor = 50);

insert into shard_map (id) values (1);
