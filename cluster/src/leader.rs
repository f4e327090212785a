//! Who leads: one node of the cluster at a time, under a term that every one of its writes carries.
//!
//! Does no work of a leader itself, and is no fence: the store refuses writes of an old term. The rules are in
//! `election`; here is what asks Redis and the store, keeps time and tells others. Used by whoever plans for the
//! cluster, and by the process, which stands down when it drains.

mod draw;
mod election;
mod settings;
#[cfg(test)]
mod simulation;
mod telling;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use motet_engine::id::Name;
use motet_store::port::{Claim, Claimed, Lease, LeaseStore, Term};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::{BootClock, Moment, SystemBootClock};
use election::{Answer, Election, Input, RedisRequest, Request, StoreRequest};
pub use settings::{LeaderSettings, ROLE};

/// Why an election cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderError {
    /// The settings do not fit each other.
    #[error("the settings of the election cannot be used: {0}")]
    Settings(String),
}

/// This node's part in the election.
///
/// Dropping it ends the part without resigning: others lead when the lease is over.
#[derive(Debug)]
pub struct Leader {
    shared: Arc<Shared>,
    term: watch::Receiver<Option<Term>>,
    standing: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    work: JoinHandle<()>,
    request_timeout: Duration,
}

/// What the loop tells to those who ask.
struct Shared {
    clock: Arc<dyn BootClock>,
    now_known: Mutex<Known>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("known", &*self.known()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Known {
    /// The term and until when it can be relied on.
    sure: Option<(Term, Moment)>,
    /// Who leads, as far as this node has heard.
    seen: Option<String>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.now_known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leader {
    /// Stands for election. `holder` is how others see this node: its name and its incarnation, so that a node that
    /// was restarted is another one. Without `redis` the store alone decides.
    ///
    /// # Errors
    /// [`LeaderError::Settings`].
    pub fn start(
        settings: LeaderSettings,
        holder: &str,
        store: Arc<dyn LeaseStore>,
        redis: Option<Arc<dyn Lease>>,
    ) -> Result<Self, LeaderError> {
        Self::start_with_clock(settings, holder, store, redis, Arc::new(SystemBootClock))
    }

    /// As [`Leader::start`], by another clock.
    ///
    /// # Errors
    /// [`LeaderError::Settings`].
    pub fn start_with_clock(
        settings: LeaderSettings,
        holder: &str,
        store: Arc<dyn LeaseStore>,
        redis: Option<Arc<dyn Lease>>,
        clock: Arc<dyn BootClock>,
    ) -> Result<Self, LeaderError> {
        let role = settings.check()?;
        let claim = Claim::new(role.clone(), holder);
        let election = Election::new(settings.clone(), holder.to_owned(), redis.is_some(), claim.token, clock.now());
        let (term, watched) = watch::channel(None);
        let (standing, stands) = watch::channel(true);
        let (stopping, stops) = watch::channel(false);
        let shared = Arc::new(Shared { clock, now_known: Mutex::default() });
        let request_timeout = settings.request_timeout;
        let asking = Asking { role, holder: holder.to_owned(), claim, store, redis, settings };
        let work = Work { election, asking, shared: Arc::clone(&shared), term, stands, stops };
        let work = tokio::spawn(work.run());
        Ok(Self { shared, term: watched, standing, stopping, work, request_timeout })
    }

    /// Tells when the term begins and ends. To be waited on; what is about to be done as the leader asks
    /// [`Leader::term`] first, since a process that stood still may not have heard yet.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Term>> {
        self.term.clone()
    }

    /// The term of this node if it leads at this moment, by a clock that goes on while the machine sleeps.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        let now = self.shared.clock.now();
        self.shared.known().sure.filter(|(_, until)| now < *until).map(|(term, _)| term)
    }

    /// Who leads, as far as this node has heard: as that node calls itself.
    #[must_use]
    pub fn seen(&self) -> Option<String> {
        self.shared.known().seen.clone()
    }

    /// Whether this node wants to lead. One that drains does not: it resigns at once.
    pub fn stand(&self, standing: bool) {
        self.standing.send_replace(standing);
    }

    /// Resigns and ends. Waits for the store no longer than two requests may take.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if timeout(self.request_timeout * 2, &mut self.work).await.is_err() {
            tracing::warn!("the lead could not be given back; it is over when its lease is");
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.work.abort();
        self.shared.known().sure = None;
    }
}

type Asked = BoxFuture<'static, Input>;

/// The loop: asks, waits, tells.
struct Work {
    election: Election,
    asking: Asking,
    shared: Arc<Shared>,
    term: watch::Sender<Option<Term>>,
    stands: watch::Receiver<bool>,
    stops: watch::Receiver<bool>,
}

impl Work {
    async fn run(mut self) {
        // At most two: one of each side.
        let mut asked = FuturesUnordered::<Asked>::new();
        let mut input = Input::Tick;
        let mut stopping = false;
        loop {
            let now = self.shared.clock.now();
            let step = self.election.step(now, input);
            self.tell(now);
            for news in &step.news {
                telling::tell(&self.asking.role, news);
            }
            for request in step.requests {
                asked.push(self.asking.ask(request, self.shared.clock.now()));
            }
            if stopping && self.election.is_quiet() {
                return;
            }
            let wake = self.election.wake_at().map_or(Duration::MAX, |at| at.since(self.shared.clock.now()));
            input = tokio::select! {
                Some(answer) = asked.next() => answer,
                changed = self.stands.changed(), if !stopping => match changed {
                    Ok(()) => Input::Stand(*self.stands.borrow_and_update()),
                    Err(_) => return,
                },
                changed = self.stops.changed(), if !stopping => match changed {
                    Ok(()) => {
                        stopping = true;
                        Input::Stand(false)
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep(wake) => Input::Tick,
            };
        }
    }

    fn tell(&self, now: Moment) {
        let term = self.election.term(now);
        {
            let mut known = self.shared.known();
            known.sure = self.election.sure();
            if known.seen.as_deref() != self.election.seen() {
                known.seen = self.election.seen().map(str::to_owned);
            }
        }
        self.term.send_if_modified(|told| std::mem::replace(told, term) != term);
    }
}

/// Sends requests, each with a bound on its time.
struct Asking {
    role: Name,
    holder: String,
    claim: Claim,
    store: Arc<dyn LeaseStore>,
    redis: Option<Arc<dyn Lease>>,
    settings: LeaderSettings,
}

impl Asking {
    fn ask(&self, request: Request, now: Moment) -> Asked {
        let limit = self.settings.request_timeout;
        match request {
            Request::Store(request) => {
                let asking = self.ask_store(request);
                Box::pin(async move {
                    let answer = timeout(limit, asking).await.unwrap_or(Answer::Failed);
                    telling::count("store", &answer);
                    Input::Store(now, request, answer)
                })
            }
            Request::Redis(request) => {
                let asking = self.ask_redis(request);
                Box::pin(async move {
                    let answer = timeout(limit, asking).await.unwrap_or(Answer::Failed);
                    telling::count("redis", &answer);
                    Input::Redis(now, request, answer)
                })
            }
        }
    }

    fn ask_store(&self, request: StoreRequest) -> BoxFuture<'static, Answer> {
        let (store, role, holder, lease) =
            (Arc::clone(&self.store), self.role.clone(), self.holder.clone(), self.settings.lease);
        Box::pin(async move {
            let answer = match request {
                StoreRequest::Look => store.leader(&role).await.map(|leader| match leader {
                    Some(leader) => Answer::Theirs(leader.holder, leader.left),
                    None => Answer::NotOurs,
                }),
                StoreRequest::Take(left) => {
                    let taken = store.usurp(&role, &holder, lease, left).await;
                    taken.map(|term| term.map_or(Answer::NotOurs, Answer::Taken))
                }
                StoreRequest::Renew(term) => store.renew_lead(&role, term, lease).await.map(ours),
                StoreRequest::Resign(term) => store.resign(&role, term).await.map(|()| Answer::NotOurs),
            };
            answer.unwrap_or_else(|error| {
                tracing::debug!(%error, ?request, "the store did not answer about the lead");
                Answer::Failed
            })
        })
    }

    fn ask_redis(&self, request: RedisRequest) -> BoxFuture<'static, Answer> {
        let Some(redis) = self.redis.clone() else { return Box::pin(async { Answer::Failed }) };
        let (claim, lease) = (self.claim.clone(), self.settings.lease);
        Box::pin(async move {
            let theirs = |holding: motet_store::port::Holding| Answer::Theirs(holding.holder, holding.left);
            let answer = match request {
                RedisRequest::Look => redis.holder(&claim.name).await.map(|held| held.map_or(Answer::NotOurs, theirs)),
                RedisRequest::Acquire => redis.acquire(&claim, lease).await.map(|claimed| match claimed {
                    Claimed::Mine => Answer::Ours,
                    Claimed::Held(holding) => theirs(holding),
                }),
                RedisRequest::Renew => redis.renew(&claim, lease).await.map(ours),
                RedisRequest::Release => redis.release(&claim).await.map(|_| Answer::NotOurs),
            };
            answer.unwrap_or_else(|error| {
                tracing::debug!(%error, ?request, "Redis did not answer about the lead");
                Answer::Failed
            })
        })
    }
}

fn ours(yes: bool) -> Answer {
    if yes { Answer::Ours } else { Answer::NotOurs }
}
