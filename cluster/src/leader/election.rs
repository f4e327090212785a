//! The rules of the election, without waiting, clocks or services: inputs with their time in, requests out.
//!
//! Two leases, of which one is the authority. A leader is who holds the *term* and the lease of it in the store, as far
//! as its own clock can be sure; every write of a leader carries the term, and the store refuses an old one. The lease
//! in Redis only decides who of many may reach for the term, so that the store is asked by one and not by all.
//!
//! Why no two leaders can push each other out for ever, whatever Redis does:
//!
//! * Whoever wins Redis gets the term only when the leader has not renewed its lease in the store for four fifths of
//!   it, after which that one believes no more that it leads. A leader that does its work is left alone, even when it
//!   lost Redis, cannot reach it, or another Redis says otherwise; the winner gives Redis back. So an emptied Redis,
//!   one that failed over, or two of them change nothing.
//! * A leader renews in the store as well as in Redis. Who must do without Redis asks the store, finds the lease
//!   renewed, and waits. So nodes that disagree whether Redis is there agree on the leader.
//! * A winner of Redis that cannot take the term gives Redis back and stays away from it for about a lease: it may be
//!   the only one that cannot reach the store.
//! * Redis that was away is trusted again by those who do not lead only when it has answered for a while; the leader
//!   asks it at once. So it comes back into the hands of who leads.
//!
//! Two who reach for the term at once, when clocks do not run alike, still get two terms, of which the later one counts:
//! that costs a needless hand-over and no correctness. Never says that a node leads past four fifths of a lease, counted
//! from before the request that got or renewed it was sent. Used by the loop in `leader` and by its simulation.

mod words;

use std::time::Duration;

use motet_store::port::Term;

use super::draw::Draw;
use super::settings::LeaderSettings;
use crate::clock::Moment;
pub(super) use words::{Answer, Input, News, RedisRequest, Request, Step, StoreRequest};

/// The election as one node sees it.
#[derive(Debug)]
pub(super) struct Election {
    settings: LeaderSettings,
    holder: String,
    draw: Draw,
    standing: bool,
    reign: Option<Reign>,
    /// A term to be given back.
    resigning: Option<(Term, Moment)>,
    redis: Option<Redis>,
    store: Side,
    /// In an election by the store: nobody leads, so the term may be taken.
    vacant: bool,
    seen: Option<String>,
    news: Vec<News>,
}

/// A term, and how long this node can be sure of it.
#[derive(Clone, Copy, Debug)]
struct Reign {
    term: Term,
    sure_until: Moment,
    /// Whether it was told that it can be sure no more.
    lapsed: bool,
}

/// One of the two that are asked.
#[derive(Clone, Copy, Debug)]
struct Side {
    asking: bool,
    /// When to ask next.
    next: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Redis {
    side: Side,
    held: bool,
    /// Whether it is to be given back.
    giving_back: bool,
    /// Not to be acquired before.
    away_until: Moment,
    failures: u32,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    Well,
    /// Answers again since then.
    Settling(Moment),
    Ill,
}

impl Election {
    pub(super) fn new(settings: LeaderSettings, holder: String, with_redis: bool, seed: u64, now: Moment) -> Self {
        let side = Side { asking: false, next: now };
        let redis = Redis { side, held: false, giving_back: false, away_until: now, failures: 0, health: Health::Well };
        Self {
            settings,
            holder,
            draw: Draw::new(seed),
            standing: true,
            reign: None,
            resigning: None,
            redis: with_redis.then_some(redis),
            store: side,
            vacant: false,
            seen: None,
            news: vec![],
        }
    }

    /// The term of this node, as long as it can be sure of it.
    pub(super) fn term(&self, now: Moment) -> Option<Term> {
        self.sure().filter(|(_, until)| now < *until).map(|(term, _)| term)
    }

    /// The term of this node and until when it can be sure of it.
    pub(super) fn sure(&self) -> Option<(Term, Moment)> {
        self.reign.as_ref().map(|reign| (reign.term, reign.sure_until))
    }

    /// Who leads, as far as this node has heard.
    pub(super) fn seen(&self) -> Option<&str> {
        self.seen.as_deref()
    }

    /// Whether nothing is held and nothing is asked.
    pub(super) fn is_quiet(&self) -> bool {
        let redis = self.redis.as_ref().is_none_or(|redis| !redis.held && !redis.side.asking);
        self.reign.is_none() && self.resigning.is_none() && !self.store.asking && redis
    }

    /// When to come again although nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let idle = |side: &Side| (!side.asking).then_some(side.next);
        let redis = self.redis.as_ref().and_then(|redis| idle(&redis.side));
        let lapse = self.reign.as_ref().filter(|reign| !reign.lapsed).map(|reign| reign.sure_until);
        [idle(&self.store), redis, lapse].into_iter().flatten().min()
    }

    /// Takes an input in, and tells what is to be sent now.
    pub(super) fn step(&mut self, now: Moment, input: Input) -> Step {
        match input {
            Input::Tick => {}
            Input::Stand(standing) => self.stand(now, standing),
            Input::Redis(asked, request, answer) => self.redis_answered(now, asked, request, answer),
            Input::Store(asked, request, answer) => self.store_answered(now, asked, request, answer),
        }
        self.notice_lapse(now);
        let mut requests = vec![];
        // Redis first: what it gives back does not depend on the store, but the store may wait for what it wins.
        requests.extend(self.redis_request(now).map(Request::Redis));
        requests.extend(self.store_request(now).map(Request::Store));
        Step { requests, news: std::mem::take(&mut self.news) }
    }

    fn stand(&mut self, now: Moment, standing: bool) {
        self.standing = standing;
        self.store.next = now;
        if let Some(redis) = &mut self.redis {
            redis.side.next = now;
        }
        if !standing && let Some(reign) = self.reign.take() {
            self.give_up(reign.term, now);
            self.news.push(News::Resigned(reign.term));
        }
    }

    /// The term is to be given back; after a lease there is nothing left to give.
    fn give_up(&mut self, term: Term, now: Moment) {
        self.resigning = Some((term, now + self.settings.lease));
        self.store.next = now;
        self.give_redis_back(now);
    }

    fn give_redis_back(&mut self, now: Moment) {
        if let Some(redis) = self.redis.as_mut().filter(|redis| redis.held) {
            redis.giving_back = true;
            redis.side.next = now;
        }
    }

    fn notice_lapse(&mut self, now: Moment) {
        let Some(reign) = self.reign.as_mut().filter(|reign| !reign.lapsed && reign.sure_until <= now) else { return };
        reign.lapsed = true;
        self.news.push(News::Lapsed(reign.term));
        // Others may reach the store.
        self.give_redis_back(now);
    }

    /// Half to three halves of a time.
    fn jittered(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.5 + self.draw.fraction())
    }

    fn soon(&mut self, now: Moment) -> Moment {
        let retry = self.settings.retry;
        now + self.jittered(retry)
    }

    /// When to look again at a lease of somebody else: soon, or right after it ends.
    fn after_theirs(&mut self, now: Moment, left: Duration) -> Moment {
        let retry = self.settings.retry;
        let just_after = left + retry.mul_f64(self.draw.fraction() / 4.0);
        self.soon(now).min(now + just_after)
    }

    fn heard_of(&mut self, holder: String) {
        if self.seen.as_ref() != Some(&holder) {
            self.news.push(News::Seen(holder.clone()));
            self.seen = Some(holder);
        }
    }
}

/// Redis: who may reach for the term.
impl Election {
    fn redis_decides(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.health == Health::Well)
    }

    fn redis_request(&mut self, now: Moment) -> Option<RedisRequest> {
        let wants = self.standing && self.reign.as_ref().is_none_or(|reign| !reign.lapsed);
        let (leads, settling) = (self.reign.is_some(), self.settings.redis_settling);
        let soon = self.soon(now);
        let redis = self.redis.as_mut()?;
        if redis.side.asking || redis.side.next > now {
            return None;
        }
        if matches!(redis.health, Health::Settling(since) if now.since(since) >= settling) {
            redis.health = Health::Well;
        }
        let request = match redis.held {
            true if redis.giving_back || !wants => RedisRequest::Release,
            true => RedisRequest::Renew,
            // Who leads need not wait until Redis has proven itself: it stays the leader whatever Redis does.
            false if wants && leads && redis.away_until <= now => RedisRequest::Acquire,
            false if wants && redis.health == Health::Well && redis.away_until <= now => RedisRequest::Acquire,
            false if wants && redis.health != Health::Well => RedisRequest::Look,
            false => {
                redis.side.next = soon;
                return None;
            }
        };
        redis.side.asking = true;
        Some(request)
    }

    fn redis_answered(&mut self, now: Moment, asked: Moment, request: RedisRequest, answer: Answer) {
        let third = self.settings.third();
        let soon = self.soon(now);
        if answer == Answer::Failed {
            return self.redis_failed(now, request);
        }
        let leads = self.reign.is_some();
        let Some(redis) = &mut self.redis else { return };
        redis.side.asking = false;
        redis.failures = 0;
        if redis.health == Health::Ill {
            redis.health = Health::Settling(now);
            self.news.push(News::RedisReturned);
        }
        match (request, answer) {
            (RedisRequest::Acquire, Answer::Ours) => {
                (redis.held, redis.giving_back, redis.side.next) = (true, false, asked + third);
                // Now, not at the next look: the lease in Redis runs.
                self.store.next = if leads { self.store.next } else { now };
            }
            (RedisRequest::Renew, Answer::Ours) => redis.side.next = asked + third,
            (RedisRequest::Renew, _) => (redis.held, redis.side.next) = (false, now),
            (RedisRequest::Release, _) => {
                (redis.held, redis.giving_back) = (false, false);
                redis.side.next = redis.away_until.max(soon);
            }
            (_, Answer::Theirs(_, left)) => {
                let next = self.after_theirs(now, left);
                if let Some(redis) = &mut self.redis {
                    redis.side.next = next;
                }
            }
            (RedisRequest::Look | RedisRequest::Acquire, _) => redis.side.next = soon,
        }
    }

    fn redis_failed(&mut self, now: Moment, request: RedisRequest) {
        let soon = self.soon(now);
        let limit = self.settings.redis_failures;
        let Some(redis) = &mut self.redis else { return };
        redis.side = Side { asking: false, next: soon };
        redis.failures = redis.failures.saturating_add(1);
        if request == RedisRequest::Release {
            // It runs out by itself; a claim that is still there is only found again.
            (redis.held, redis.giving_back) = (false, false);
        }
        let ill = redis.failures >= limit || matches!(redis.health, Health::Settling(_));
        if ill && redis.health != Health::Ill {
            redis.health = Health::Ill;
            self.store.next = self.store.next.min(now);
            self.news.push(News::WithoutRedis);
        }
    }
}

/// The store: who has the term.
impl Election {
    fn store_request(&mut self, now: Moment) -> Option<StoreRequest> {
        if self.store.asking || self.store.next > now {
            return None;
        }
        if self.resigning.is_some_and(|(_, until)| until <= now) {
            self.resigning = None;
        }
        let request = match (&self.reign, self.resigning) {
            (Some(reign), _) => StoreRequest::Renew(reign.term),
            (None, Some((term, _))) => StoreRequest::Resign(term),
            (None, None) if !self.standing => {
                self.store.next = self.soon(now);
                return None;
            }
            (None, None) if self.won_redis() => StoreRequest::Take(self.settings.unsure()),
            (None, None) if self.vacant && !self.redis_decides() => StoreRequest::Take(Duration::ZERO),
            (None, None) => StoreRequest::Look,
        };
        self.vacant = false;
        self.store.asking = true;
        Some(request)
    }

    fn store_answered(&mut self, now: Moment, asked: Moment, request: StoreRequest, answer: Answer) {
        self.store = Side { asking: false, next: self.soon(now) };
        match (request, answer) {
            (StoreRequest::Take(left), Answer::Taken(term)) => self.took(now, asked, term, !left.is_zero()),
            (StoreRequest::Take(left), answer) => self.took_not(now, left, answer),
            (StoreRequest::Renew(term), Answer::Ours) => self.renewed(now, asked, term),
            (StoreRequest::Renew(term), Answer::NotOurs) => self.deposed(now, term),
            (StoreRequest::Renew(_), _) => {
                // Sooner than others try again: there is less than half a lease left.
                let retry = self.settings.retry / 2;
                self.store.next = now + self.jittered(retry);
            }
            (StoreRequest::Resign(_), Answer::Failed) => {}
            (StoreRequest::Resign(_), _) => self.resigning = None,
            (StoreRequest::Look, answer) => self.looked(now, answer),
        }
    }

    fn looked(&mut self, now: Moment, answer: Answer) {
        let lease = self.settings.lease;
        let (vacant, left) = match answer {
            // Its own lease under a term that it does not know: the answer that told it was lost.
            Answer::Theirs(holder, _) if holder == self.holder => (true, None),
            Answer::Theirs(holder, left) => {
                self.heard_of(holder);
                (false, Some(left))
            }
            answer => (answer == Answer::NotOurs, None),
        };
        self.store.next = match left {
            _ if self.won_redis() => now,
            // Only to know who leads: who may reach for the term is for Redis to say.
            _ if self.redis_decides() => now + self.jittered(lease),
            Some(left) => self.after_theirs(now, left),
            None if vacant => now,
            None => self.store.next,
        };
        self.vacant = vacant;
    }

    fn won_redis(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.held && !redis.giving_back)
    }

    fn took(&mut self, now: Moment, asked: Moment, term: Term, by_redis: bool) {
        if !self.standing {
            return self.give_up(term, now);
        }
        self.reign = Some(Reign { term, sure_until: asked + self.settings.sure(), lapsed: false });
        self.store.next = asked + self.settings.third();
        self.seen = Some(self.holder.clone());
        self.news.push(News::Won { term, by_redis });
        // An election by the store: Redis is to know of it soon.
        if let Some(redis) = self.redis.as_mut().filter(|redis| !redis.held && !redis.side.asking) {
            redis.side.next = now;
        }
    }

    fn took_not(&mut self, now: Moment, left: Duration, answer: Answer) {
        if left.is_zero() {
            return;
        }
        let (third, lease) = (self.settings.third(), self.settings.lease);
        // A leader that is well gets time to take Redis back. A store that does not answer may do so to others only.
        let away = if answer == Answer::Failed { self.jittered(lease) } else { third + self.jittered(third) };
        if let Some(redis) = &mut self.redis {
            redis.away_until = now + away;
        }
        if answer != Answer::Failed {
            self.news.push(News::Yielded);
        }
        self.give_redis_back(now);
    }

    fn renewed(&mut self, now: Moment, asked: Moment, term: Term) {
        let (sure_until, next) = (asked + self.settings.sure(), asked + self.settings.third());
        let Some(reign) = self.reign.as_mut().filter(|reign| reign.term == term) else { return };
        reign.sure_until = reign.sure_until.max(sure_until);
        self.store.next = next;
        if reign.lapsed && reign.sure_until > now {
            reign.lapsed = false;
            self.news.push(News::Restored(term));
        }
    }

    fn deposed(&mut self, now: Moment, term: Term) {
        if self.reign.as_ref().is_none_or(|reign| reign.term != term) {
            return;
        }
        self.reign = None;
        self.seen = None;
        self.news.push(News::Deposed(term));
        self.give_redis_back(now);
    }
}
