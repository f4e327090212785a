//! A world of elections: nodes, two Redis, a store, a network and a clock, all drawn from one seed.
//!
//! After every event it checks what must hold at every moment. The elections are the real ones; everything else is a
//! model.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use motet_store::port::Term;

use super::super::draw::Draw;
use super::super::election::{Answer, Election, Input, News, Request, StoreRequest};
use super::super::settings::LeaderSettings;
use super::services::{ModelRedis, ModelStore};
use crate::clock::Moment;

/// How often a leader does something.
const WORK_MS: u64 = 200;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Wake,
    /// A request gets to where it was sent, with its number.
    Serve(u64, usize),
    /// An answer gets back, or time is up.
    Answer(u64, usize),
    /// A leader looks whether it leads, and begins a write if it does.
    Work,
    /// The write leaves the node.
    Write(u64),
}

/// At a time, in order of making: what happens to which life of which node.
type Event = Reverse<(u64, u64, usize, u32, What)>;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) election: Option<Election>,
    life: u32,
    pub(super) frozen_until: u64,
    /// The Redis that it reaches.
    pub(super) redis: Option<usize>,
    pub(super) reaches_store: bool,
    /// Requests under way: number, what, when asked.
    asked: Vec<(u64, Request, Moment)>,
    /// Answers by place, kept until they arrive.
    answers: Vec<Option<Answer>>,
    /// Until when it may believe that it leads, by what was answered.
    may_lead_until: Moment,
    wake_at: u64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) draw: Draw,
    pub(super) now_ms: u64,
    pub(super) settings: LeaderSettings,
    with_redis: bool,
    pub(super) nodes: Vec<Node>,
    pub(super) redis: [ModelRedis; 2],
    pub(super) store: ModelStore,
    /// Longest time that the store takes, in milliseconds.
    pub(super) store_ms: u64,
    queue: BinaryHeap<Event>,
    numbers: u64,
    pub(super) yielded: u64,
}

fn at(millis: u64) -> Moment {
    Moment::new(Duration::from_millis(millis))
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, with_redis: bool) -> Self {
        let mut world = Self {
            draw: Draw::new(seed),
            now_ms: 1_000_000,
            settings: LeaderSettings::default(),
            with_redis,
            nodes: vec![],
            redis: Default::default(),
            store: ModelStore::default(),
            store_ms: 20,
            queue: BinaryHeap::new(),
            numbers: 0,
            yielded: 0,
        };
        for place in 0..nodes {
            world.nodes.push(Node {
                election: None,
                life: 0,
                frozen_until: 0,
                redis: Some(0),
                reaches_store: true,
                asked: vec![],
                answers: vec![],
                may_lead_until: Moment::default(),
                wake_at: u64::MAX,
            });
            world.boot(place);
        }
        world
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.draw.number() % bound
    }

    fn push(&mut self, after_ms: u64, node: usize, what: What) {
        self.numbers += 1;
        let life = self.nodes[node].life;
        self.queue.push(Reverse((self.now_ms + after_ms, self.numbers, node, life, what)));
    }

    /// Begins a new life of a node.
    pub(super) fn boot(&mut self, place: usize) {
        let seed = self.draw.number();
        let node = &mut self.nodes[place];
        node.life += 1;
        let holder = format!("node {place}/{}", node.life);
        let now = at(self.now_ms);
        node.election = Some(Election::new(self.settings.clone(), holder, self.with_redis, seed, now));
        (node.asked, node.answers, node.wake_at, node.frozen_until) = (vec![], vec![], u64::MAX, 0);
        node.may_lead_until = Moment::default();
        self.push(0, place, What::Wake);
        let first = self.below(WORK_MS);
        self.push(first, place, What::Work);
    }

    pub(super) fn kill(&mut self, place: usize) {
        self.nodes[place].election = None;
    }

    /// Who believes now that it leads. One that stands still believes nothing.
    pub(super) fn leader(&self) -> Option<(usize, Term)> {
        let now = at(self.now_ms);
        let awake = |node: &Node| node.frozen_until <= self.now_ms;
        let leads = |node: &Node| node.election.as_ref().filter(|_| awake(node)).and_then(|it| it.term(now));
        self.nodes.iter().enumerate().find_map(|(place, node)| leads(node).map(|term| (place, term)))
    }

    pub(super) fn stand(&mut self, place: usize, standing: bool) {
        self.input(place, Input::Stand(standing));
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, millis: u64) {
        let end = self.now_ms + millis;
        while self.queue.peek().is_some_and(|Reverse((time, ..))| *time <= end) {
            self.one();
        }
        self.now_ms = end;
    }

    /// Lets time pass until the condition holds; how long that took.
    pub(super) fn run_until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let begun = self.now_ms;
        while self.now_ms - begun <= limit_ms {
            if done(self) {
                return Some(self.now_ms - begun);
            }
            self.one();
        }
        None
    }

    fn one(&mut self) {
        let Some(Reverse((time, number, place, life, what))) = self.queue.pop() else { return };
        let thaw = self.nodes[place].frozen_until;
        let lives = self.nodes[place].life == life && self.nodes[place].election.is_some();
        // What happens inside a process waits for it; what is on its way to a service does not.
        if lives && thaw > time && !matches!(what, What::Serve(..)) {
            self.queue.push(Reverse((thaw, number, place, life, what)));
            return;
        }
        self.now_ms = self.now_ms.max(time);
        match what {
            What::Serve(number, slot) => self.serve(place, life, number, slot),
            _ if !lives => {}
            What::Wake => {
                if self.nodes[place].wake_at <= self.now_ms || self.nodes[place].wake_at == u64::MAX {
                    self.nodes[place].wake_at = u64::MAX;
                    self.input(place, Input::Tick);
                }
            }
            What::Answer(number, slot) => self.answer(place, number, slot),
            What::Work => self.work(place),
            What::Write(term) => self.store.write(Term(term)),
        }
        self.check();
    }

    fn input(&mut self, place: usize, input: Input) {
        let now = at(self.now_ms);
        let Some(election) = &mut self.nodes[place].election else { return };
        let step = election.step(now, input);
        self.yielded += step.news.iter().filter(|news| **news == News::Yielded).count() as u64;
        for request in step.requests {
            self.send(place, request);
        }
        let node = &mut self.nodes[place];
        let wake = node.election.as_ref().and_then(Election::wake_at);
        let wake = wake.map_or(u64::MAX, |at| at.since(Moment::default()).as_nanos().div_ceil(1_000_000) as u64);
        if wake != node.wake_at {
            node.wake_at = wake;
            let after = wake.saturating_sub(self.now_ms);
            if wake != u64::MAX {
                self.push(after, place, What::Wake);
            }
        }
    }

    fn send(&mut self, place: usize, request: Request) {
        self.numbers += 1;
        let (number, now) = (self.numbers, at(self.now_ms));
        let timeout = self.settings.request_timeout.as_millis() as u64;
        let way = match request {
            Request::Redis(_) => 1 + self.below(10),
            Request::Store(_) => 1 + self.below(self.store_ms),
        };
        let node = &mut self.nodes[place];
        node.asked.push((number, request, now));
        node.answers.push(None);
        let slot = node.answers.len() - 1;
        let reachable = match request {
            Request::Redis(_) => node.redis.is_some_and(|which| !self.redis[which].down),
            Request::Store(_) => node.reaches_store,
        };
        // Without a connection a request fails at once; one whose answer does not come fails in time.
        self.push(if reachable { timeout } else { 2 }, place, What::Answer(number, slot));
        if reachable {
            self.push(way, place, What::Serve(number, slot));
        }
    }

    fn serve(&mut self, place: usize, life: u32, number: u64, slot: usize) {
        let node = &self.nodes[place];
        let Some(&(_, request, _)) = node.asked.iter().find(|(its, ..)| *its == number) else { return };
        let holder = format!("node {place}/{life}");
        let (now, lease) = (at(self.now_ms), self.settings.lease);
        let answer = match request {
            Request::Redis(request) => match node.redis {
                Some(which) if !self.redis[which].down => self.redis[which].serve(now, &holder, lease, request),
                _ => return,
            },
            Request::Store(_) if self.store.down || !node.reaches_store => return,
            Request::Store(request) => {
                let before = self.store.term;
                let answer = self.store.serve(now, &holder, lease, request);
                if let Answer::Taken(term) = &answer {
                    assert!(term.0 > before, "terms rise");
                }
                answer
            }
        };
        if self.nodes[place].life == life {
            self.nodes[place].answers[slot] = Some(answer);
            let back = 1 + self.below(if matches!(request, Request::Store(_)) { self.store_ms } else { 10 });
            self.push(back, place, What::Answer(number, slot));
        }
    }

    fn answer(&mut self, place: usize, number: u64, slot: usize) {
        let node = &mut self.nodes[place];
        let Some(found) = node.asked.iter().position(|(its, ..)| *its == number) else { return };
        let (_, request, asked) = node.asked.swap_remove(found);
        let answer = node.answers[slot].take().unwrap_or(Answer::Failed);
        let input = match request {
            Request::Redis(request) => Input::Redis(asked, request, answer),
            Request::Store(request) => {
                let granted = matches!(
                    (request, &answer),
                    (StoreRequest::Take(_), Answer::Taken(_)) | (StoreRequest::Renew(_), Answer::Ours)
                );
                if granted {
                    node.may_lead_until = node.may_lead_until.max(asked + self.settings.lease.mul_f64(0.8));
                }
                Input::Store(asked, request, answer)
            }
        };
        self.input(place, input);
    }

    /// What a leader does: it asks whether it leads, and writes a little later.
    fn work(&mut self, place: usize) {
        let now = at(self.now_ms);
        let node = &self.nodes[place];
        if let Some(term) = node.election.as_ref().and_then(|election| election.term(now)) {
            assert!(
                now < node.may_lead_until,
                "node {place} works at {now}, but may only until {}",
                node.may_lead_until
            );
            let after = 1 + self.below(40);
            self.push(after, place, What::Write(term.0));
        }
        self.push(WORK_MS, place, What::Work);
    }

    /// What holds at every moment.
    fn check(&self) {
        let now = at(self.now_ms);
        let leads = |node: &Node| node.election.as_ref().and_then(|election| election.term(now));
        let leaders: Vec<_> = self.nodes.iter().filter_map(leads).collect();
        assert!(leaders.len() <= 1, "two believe to lead: {leaders:?}");
        assert!(leaders.iter().all(|term| term.0 <= self.store.term), "{leaders:?} was never given");
    }
}
