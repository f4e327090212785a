-- Where other nodes reach a node: who joins finds the others here.
alter table incarnation add column address text not null default '';
