//! What goes into the election and what comes out of it: inputs with their answers, requests, news.
//!
//! Holds no rules. Used by the election, its loop and its simulation.

use std::time::Duration;

use motet_store::port::Term;

use crate::clock::Moment;

/// A question to Redis. One at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::leader) enum RedisRequest {
    Look,
    Acquire,
    Renew,
    Release,
}

/// A question to the store. One at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::leader) enum StoreRequest {
    Look,
    /// Takes the term when at most so much is left of another's lease.
    Take(Duration),
    Renew(Term),
    Resign(Term),
}

/// Something that must be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::leader) enum Request {
    Redis(RedisRequest),
    Store(StoreRequest),
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::leader) enum Answer {
    /// The lease is ours, or is prolonged.
    Ours,
    /// The term is ours.
    Taken(Term),
    /// The lease is somebody's: who, and what is left of it.
    Theirs(String, Duration),
    /// The lease is nobody's, or is not ours any more.
    NotOurs,
    /// Nobody knows: it failed, or took too long.
    Failed,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::leader) enum Input {
    /// Time went by.
    Tick,
    /// An answer to what was asked at that moment.
    Redis(Moment, RedisRequest, Answer),
    /// An answer to what was asked at that moment.
    Store(Moment, StoreRequest, Answer),
    /// Whether this node wants to lead.
    Stand(bool),
}

/// What others should hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::leader) enum News {
    /// This node leads, elected by Redis or by the store.
    Won { term: Term, by_redis: bool },
    /// This node leads again under its term: the store answered late, and nobody took the term meanwhile.
    Restored(Term),
    /// This node leads no more: the store did not renew its lease in time.
    Lapsed(Term),
    /// This node leads no more: another one took the term.
    Deposed(Term),
    /// This node leads no more, as it was told.
    Resigned(Term),
    /// Another node leads, as it seems.
    Seen(String),
    /// This node won Redis, but the leader is well: it gives Redis back.
    Yielded,
    /// The election goes on without Redis.
    WithoutRedis,
    /// Redis answers again and will decide after a while.
    RedisReturned,
}

/// What follows from an input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::leader) struct Step {
    pub(in crate::leader) requests: Vec<Request>,
    pub(in crate::leader) news: Vec<News>,
}
