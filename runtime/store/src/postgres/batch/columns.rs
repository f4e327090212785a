//! The columns of a batch's rows, one list per column, as the statement takes them.
//!
//! The lists of one kind of row are always equally long. Used by the batch and by ingests.

use bytes::Bytes;

#[derive(Default)]
pub(in crate::postgres) struct Fresh<'a> {
    pub(super) ids: Vec<[u8; 16]>,
    pub(super) shards: Vec<i16>,
    pub(super) namespaces: Vec<&'a str>,
    pub(super) workflows: Vec<&'a str>,
    pub(super) versions: Vec<&'a str>,
    pub(super) tags: Vec<String>,
    pub(super) states: Vec<i16>,
    pub(super) finished: Vec<Option<i64>>,
    pub(super) wakes: Vec<Option<i64>>,
    pub(super) lines: Vec<Option<Bytes>>,
    pub(super) places: Vec<Option<i64>>,
    pub(super) born: Vec<i32>,
    pub(super) counts: Vec<i32>,
    pub(super) at: Vec<i64>,
    pub(super) payloads: Vec<&'a [u8]>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) fingerprints: Vec<Option<&'a [u8]>>,
    pub(super) expiries: Vec<Option<i64>>,
}

#[derive(Default)]
pub(super) struct Later<'a> {
    pub(super) gates: Vec<i32>,
    pub(super) born: Vec<i32>,
    pub(super) runs: Vec<[u8; 16]>,
    pub(super) seqs: Vec<i64>,
    pub(super) counts: Vec<i32>,
    pub(super) at: Vec<i64>,
    pub(super) payloads: Vec<&'a [u8]>,
}

#[derive(Default)]
pub(super) struct Heads {
    pub(super) gates: Vec<i32>,
    pub(super) runs: Vec<[u8; 16]>,
    pub(super) old: Vec<i16>,
    pub(super) states: Vec<i16>,
    pub(super) finished: Vec<Option<i64>>,
    pub(super) wakes: Vec<Option<i64>>,
    pub(super) leaves: Vec<bool>,
}

#[derive(Default)]
pub(super) struct Snapshots<'a> {
    pub(super) gates: Vec<i32>,
    pub(super) runs: Vec<[u8; 16]>,
    pub(super) seqs: Vec<i64>,
    pub(super) schemas: Vec<i32>,
    pub(super) states: Vec<&'a [u8]>,
}

#[derive(Default)]
pub(in crate::postgres) struct Outbox<'a> {
    pub(super) gates: Vec<i32>,
    pub(super) shards: Vec<i16>,
    pub(super) runs: Vec<[u8; 16]>,
    pub(super) events: Vec<[u8; 16]>,
    pub(super) topics: Vec<&'a str>,
    pub(super) keys: Vec<Option<&'a [u8]>>,
    pub(super) headers: Vec<Bytes>,
    pub(super) payloads: Vec<&'a [u8]>,
    pub(super) transactional: Vec<bool>,
}
