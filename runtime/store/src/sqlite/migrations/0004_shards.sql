-- Owners with their lives, and where the leader wants a shard to be. `owner` is the name of the node in either case.
alter table shard add column incarnation integer;            -- none when free, or claimed by a node that runs alone
alter table shard add column target text;                    -- name of the node that shall own it
alter table shard add column changed integer not null default 0; -- version of the map with which it last changed

-- Every shard has its row.
insert or ignore into shard (shard, epoch, owner)
  with recursive number (n) as (select 0 union all select n + 1 from number where n < 4095)
  select n, 0, '' from number;

create table shard_map (
  id      integer primary key check (id = 1),
  version integer not null default 0
) strict;

insert into shard_map (id) values (1);
