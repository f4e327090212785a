//! The election step by step, and the loop around it over memory.

use std::sync::atomic::{AtomicU64, Ordering};

use motet_store::memory::{MemoryStore, MemoryVolatile};
use motet_store::port::Store;
use tokio::time::timeout;

use super::election::News;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn at(millis: u64) -> Moment {
    Moment::new(Duration::from_millis(millis))
}

fn election(with_redis: bool) -> Election {
    Election::new(LeaderSettings::default(), "me".to_owned(), with_redis, 7, at(0))
}

fn store(request: StoreRequest) -> Request {
    Request::Store(request)
}

#[test]
fn settings_must_fit_each_other() {
    assert_eq!(LeaderSettings::default().check().unwrap().as_str(), "leader");
    let with = |change: fn(&mut LeaderSettings)| {
        let mut settings = LeaderSettings::default();
        change(&mut settings);
        settings.check()
    };
    for (what, checked) in [
        ("too short", with(|it| it.lease = Duration::from_millis(10))),
        ("before trying again", with(|it| it.retry = Duration::from_secs(5))),
        ("before trying again", with(|it| it.retry = Duration::ZERO)),
        ("for an answer", with(|it| it.request_timeout = Duration::from_secs(3))),
        ("redis_failures", with(|it| it.redis_failures = 0)),
        ("no name", with(|it| it.role = "The Leader".to_owned())),
    ] {
        let LeaderError::Settings(text) = checked.unwrap_err();
        assert!(text.contains(what), "{what}: {text}");
    }
}

/// The answer that gave the term was lost: the store says that this very node leads, and it must not wait for itself.
#[test]
fn a_term_whose_answer_was_lost_is_taken_anew() {
    let mut election = election(false);
    assert_eq!(election.step(at(0), Input::Tick).requests, [store(StoreRequest::Look)]);
    let next = election.step(at(5), Input::Store(at(0), StoreRequest::Look, Answer::NotOurs));
    let take = StoreRequest::Take(Duration::ZERO);
    assert_eq!(next.requests, [store(take)]);
    assert_eq!(election.step(at(2_005), Input::Store(at(5), take, Answer::Failed)).requests, []);
    let wake = election.wake_at().unwrap();
    assert_eq!(election.step(wake, Input::Tick).requests, [store(StoreRequest::Look)]);
    let mine = Answer::Theirs("me".to_owned(), Duration::from_secs(9));
    let next = election.step(wake, Input::Store(wake, StoreRequest::Look, mine));
    assert_eq!(next.requests, [store(take)], "at once");
    let next = election.step(wake, Input::Store(wake, take, Answer::Taken(Term(2))));
    assert_eq!(next.news, [News::Won { term: Term(2), by_redis: false }]);
    assert_eq!(election.term(wake), Some(Term(2)));
}

/// Time counts from before the request: an answer that took too long gives a term that is not sure any more.
#[test]
fn an_answer_that_comes_too_late_gives_no_lead() {
    let mut election = election(false);
    let take = StoreRequest::Take(Duration::ZERO);
    election.step(at(0), Input::Tick);
    election.step(at(0), Input::Store(at(0), StoreRequest::Look, Answer::NotOurs));
    let step = election.step(at(8_000), Input::Store(at(0), take, Answer::Taken(Term(1))));
    assert_eq!(election.term(at(8_000)), None);
    assert_eq!(step.requests, [store(StoreRequest::Renew(Term(1)))], "it is asked whether the term still lasts");
    assert!(step.news.contains(&News::Lapsed(Term(1))));
    let step = election.step(at(8_010), Input::Store(at(8_000), StoreRequest::Renew(Term(1)), Answer::Ours));
    assert_eq!(step.news, [News::Restored(Term(1))]);
    assert_eq!(election.term(at(15_999)), Some(Term(1)));
    assert_eq!(election.term(at(16_000)), None, "four fifths of 10 s after it was asked");
}

#[test]
fn who_stood_down_meanwhile_gives_the_term_back() {
    let mut election = election(false);
    let take = StoreRequest::Take(Duration::ZERO);
    election.step(at(0), Input::Tick);
    election.step(at(0), Input::Store(at(0), StoreRequest::Look, Answer::NotOurs));
    assert_eq!(election.step(at(1), Input::Stand(false)).requests, []);
    let step = election.step(at(2), Input::Store(at(0), take, Answer::Taken(Term(1))));
    assert_eq!(step.requests, [store(StoreRequest::Resign(Term(1)))]);
    assert_eq!(election.term(at(2)), None);
    election.step(at(3), Input::Store(at(2), StoreRequest::Resign(Term(1)), Answer::NotOurs));
    assert!(election.is_quiet());
}

#[test]
fn redis_is_given_up_after_three_failures_and_trusted_again_after_a_while() {
    let mut election = election(true);
    let mut now = at(0);
    let mut news = vec![];
    for round in 0.. {
        assert!(round < 50);
        let step = election.step(now, Input::Tick);
        news.extend(step.news);
        for request in step.requests {
            let input = match request {
                Request::Redis(request) => Input::Redis(now, request, Answer::Failed),
                Request::Store(request) => {
                    let other = Answer::Theirs("other".to_owned(), Duration::from_secs(9));
                    Input::Store(now, request, other)
                }
            };
            news.extend(election.step(now, input).news);
        }
        if news.contains(&News::WithoutRedis) {
            assert!(round >= 2, "three failures");
            break;
        }
        now = now.max(election.wake_at().unwrap());
    }
    assert!(news.contains(&News::Seen("other".to_owned())), "the store tells who leads: {news:?}");
    let look = RedisRequest::Look;
    let returned = election.step(now, Input::Redis(now, look, Answer::NotOurs));
    assert!(returned.news.contains(&News::RedisReturned));
    let until = now + LeaderSettings::default().redis_settling;
    let mut acquired = None;
    while acquired.is_none() && now < until + Duration::from_secs(3) {
        now = now.max(election.wake_at().unwrap());
        for request in election.step(now, Input::Tick).requests {
            match request {
                Request::Redis(RedisRequest::Acquire) => acquired = Some(now),
                Request::Redis(request) => {
                    election.step(now, Input::Redis(now, request, Answer::NotOurs));
                }
                Request::Store(request) => {
                    let other = Answer::Theirs("other".to_owned(), Duration::from_secs(9));
                    election.step(now, Input::Store(now, request, other));
                }
            }
        }
    }
    assert!(acquired.is_some_and(|at| at >= until), "{acquired:?} is not after {until:?}");
}

fn quick() -> LeaderSettings {
    LeaderSettings {
        lease: Duration::from_secs(2),
        retry: Duration::from_millis(50),
        request_timeout: Duration::from_millis(400),
        redis_settling: Duration::from_secs(2),
        ..LeaderSettings::default()
    }
}

async fn led(leader: &Leader) -> Term {
    let mut term = leader.watch();
    let found = timeout(PATIENCE, term.wait_for(Option::is_some)).await.expect("it leads in time").unwrap();
    found.unwrap()
}

#[tokio::test]
async fn the_lead_goes_from_hand_to_hand() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let redis: Arc<dyn motet_store::port::Volatile> = Arc::new(MemoryVolatile::new());
    let start = |holder: &str, with_redis: bool| {
        let redis: Option<Arc<dyn Lease>> = if with_redis { Some(Arc::clone(&redis) as _) } else { None };
        Leader::start(quick(), holder, Arc::clone(&store) as _, redis).unwrap()
    };
    let one = start("one", true);
    assert_eq!(led(&one).await, Term(1));
    assert_eq!(one.term(), Some(Term(1)));
    let two = start("two", true);
    let mut seen = tokio::time::interval(Duration::from_millis(5));
    while two.seen().as_deref() != Some("one") {
        seen.tick().await;
    }
    assert_eq!(two.term(), None);
    one.stand(false);
    assert_eq!(led(&two).await, Term(2));
    assert_eq!(one.term(), None);
    one.stand(true);
    two.stop().await;
    assert_eq!(led(&one).await, Term(3));
    // One that knows of no Redis is in the same election.
    let three = start("three", false);
    one.stop().await;
    assert_eq!(led(&three).await, Term(4));
    drop(three);
    let role = Name::new("leader").unwrap();
    assert_eq!(store.leader(&role).await.unwrap().unwrap().holder, "three", "who only vanished did not resign");
}

/// A clock that a test sets.
#[derive(Default)]
struct SetClock(AtomicU64);

impl BootClock for SetClock {
    fn now(&self) -> Moment {
        at(self.0.load(Ordering::Relaxed))
    }
}

/// A process that stood still has heard of nothing, and must still not act.
#[tokio::test]
async fn who_stood_still_does_not_lead_although_nobody_told_it() {
    let clock = Arc::new(SetClock::default());
    let settings = LeaderSettings { lease: Duration::from_secs(600), ..LeaderSettings::default() };
    let store = Arc::new(MemoryStore::new());
    let leader = Leader::start_with_clock(settings, "one", store, None, Arc::clone(&clock) as _).unwrap();
    let term = led(&leader).await;
    clock.0.store(479_999, Ordering::Relaxed);
    assert_eq!(leader.term(), Some(term));
    clock.0.store(480_000, Ordering::Relaxed);
    assert_eq!(leader.term(), None);
    assert_eq!(*leader.watch().borrow(), Some(term), "the loop sleeps and has not told it");
}

#[test]
fn the_clock_of_the_machine_goes_on() {
    let first = SystemBootClock.now();
    let second = SystemBootClock.now();
    assert!(second >= first && second.since(first) < Duration::from_secs(5), "{first} {second}");
    assert!(first > Moment::default());
}
