//! Redis and the store as the simulation has them: what they promise, and every way in which they break it.
//!
//! Kept as small as the ports allow; the real ones keep the same promises in the contract suites of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use motet_store::port::Term;

use super::super::election::{Answer, RedisRequest, StoreRequest};
use crate::clock::Moment;

/// One Redis: a lease that may be forgotten.
#[derive(Debug, Default)]
pub(super) struct ModelRedis {
    pub(super) down: bool,
    held: Option<(String, Moment)>,
}

impl ModelRedis {
    pub(super) fn forget(&mut self) {
        self.held = None;
    }

    pub(super) fn serve(&mut self, now: Moment, claim: &str, lease: Duration, request: RedisRequest) -> Answer {
        self.held = self.held.take().filter(|(_, until)| *until > now);
        let mine = self.held.as_ref().is_some_and(|(holder, _)| holder == claim);
        match (request, &self.held) {
            (RedisRequest::Look | RedisRequest::Acquire, Some((holder, until))) if !mine => {
                Answer::Theirs(holder.clone(), until.since(now))
            }
            (RedisRequest::Look, Some((holder, until))) => Answer::Theirs(holder.clone(), until.since(now)),
            (RedisRequest::Look, None) => Answer::NotOurs,
            (RedisRequest::Acquire, _) => {
                self.held = Some((claim.to_owned(), now + lease));
                Answer::Ours
            }
            (RedisRequest::Renew, _) if mine => {
                self.held = Some((claim.to_owned(), now + lease));
                Answer::Ours
            }
            (RedisRequest::Release, _) if mine => {
                self.held = None;
                Answer::NotOurs
            }
            (RedisRequest::Renew | RedisRequest::Release, _) => Answer::NotOurs,
        }
    }
}

/// The store: terms that only rise, and writes that carry them.
#[derive(Debug, Default)]
pub(super) struct ModelStore {
    pub(super) down: bool,
    pub(super) term: u64,
    held: Option<(String, Moment)>,
    /// Writes that were taken, by term.
    pub(super) taken: BTreeMap<u64, u64>,
    pub(super) refused: u64,
}

impl ModelStore {
    pub(super) fn serve(&mut self, now: Moment, holder: &str, lease: Duration, request: StoreRequest) -> Answer {
        match request {
            StoreRequest::Look => match self.held.as_ref().filter(|(_, until)| *until > now) {
                Some((holder, until)) => Answer::Theirs(holder.clone(), until.since(now)),
                None => Answer::NotOurs,
            },
            StoreRequest::Take(left) => {
                let in_the_way = |(other, until): &(String, Moment)| other != holder && *until > now + left;
                if self.held.as_ref().is_some_and(in_the_way) {
                    return Answer::NotOurs;
                }
                self.term += 1;
                self.held = Some((holder.to_owned(), now + lease));
                Answer::Taken(Term(self.term))
            }
            StoreRequest::Renew(term) if term.0 == self.term && self.held.is_some() => {
                self.held = Some((holder.to_owned(), now + lease));
                Answer::Ours
            }
            StoreRequest::Resign(term) if term.0 == self.term => {
                self.held = None;
                Answer::NotOurs
            }
            StoreRequest::Renew(_) | StoreRequest::Resign(_) => Answer::NotOurs,
        }
    }

    /// A leader's write: taken only under the present term.
    pub(super) fn write(&mut self, term: Term) {
        if term.0 == self.term {
            *self.taken.entry(term.0).or_default() += 1;
        } else {
            self.refused += 1;
        }
    }
}
