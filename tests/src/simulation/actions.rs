//! What may happen next in a simulated world, how likely, and the calm that follows.
//!
//! The faults of a world are as likely as its seed says, so that some worlds are quiet and some are storms. Used by
//! `simulate`.

use motet_actors::ports::Clock as _;
use motet_engine::access::Principal;
use motet_engine::id::{RunId, ShardId};
use motet_engine::input::Input;
use motet_engine::run::Run;
use motet_store::port::{RunStore, ShardStore};

use super::disk::{Boot, Fate, at_once};
use super::shapes::SHAPES;
use super::world::{SHARDS, World};
use crate::seed::Seed;

/// Steps of calm after which a world that has not come to its end is stuck.
const CALM_STEPS: usize = 20_000;

const HOUR: i64 = 3_600_000;

/// How likely what is in one world. Per thousand, except weights.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    steps: usize,
    submissions: usize,
    store_faults: u64,
    call_failures: u64,
    answered_again: u64,
    crash: u64,
    take_over: u64,
    jump: u64,
    cancel: u64,
}

impl Noise {
    pub(super) fn draw(seed: &mut Seed) -> Self {
        let mut one_of = |choices: &[u64]| choices[usize::try_from(seed.draw() % choices.len() as u64).unwrap()];
        Self {
            steps: usize::try_from(one_of(&[300, 600, 1_200])).unwrap(),
            submissions: usize::try_from(one_of(&[4, 12, 30])).unwrap(),
            store_faults: one_of(&[0, 30, 150]),
            call_failures: one_of(&[0, 100, 350]),
            answered_again: one_of(&[0, 100, 400]),
            crash: one_of(&[0, 2, 12]),
            take_over: one_of(&[0, 2, 12]),
            jump: one_of(&[0, 2, 6]),
            cancel: one_of(&[0, 2]),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Settle,
    Orphan,
    Answer,
    Advance,
    Submit,
    Repeat,
    Look,
    Crash,
    Boot,
    TakeOver,
    Jump,
    Cancel,
    Compare,
}

impl World {
    /// Anything may happen, for as many steps as the seed says.
    pub(super) fn make_noise(&mut self) {
        self.boot(0);
        for _ in 0..self.noise.steps {
            let action = self.next_action();
            self.act(action);
            self.poll();
        }
    }

    fn next_action(&mut self) -> Action {
        let noise = self.noise.clone();
        let (living, dead) = (self.living().len(), self.nodes.len() - self.living().len());
        let if_any = |there: bool, weight: u64| if there { weight } else { 0 };
        let weights = [
            (Action::Settle, if_any(!self.disk.waiting().is_empty(), 700)),
            (Action::Orphan, if_any(!self.disk.orphans().is_empty(), 60)),
            (Action::Answer, if_any(!self.flights.is_empty(), 250)),
            (Action::Advance, 80),
            (Action::Submit, if_any(living > 0 && self.submissions.all.len() < noise.submissions, 120)),
            (Action::Repeat, if_any(living > 0 && !self.submissions.all.is_empty(), 25)),
            (Action::Look, if_any(living > 0, 60)),
            (Action::Crash, if_any(living > 0, noise.crash)),
            (Action::Boot, if_any(dead > 0, if living == 0 { 300 } else { 20 })),
            (Action::TakeOver, if_any(living > 0, noise.take_over)),
            (Action::Jump, noise.jump),
            (Action::Cancel, if_any(living > 0 && !self.submissions.runs.is_empty(), noise.cancel)),
            (Action::Compare, 40),
        ];
        let total = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.seed.between(0, total);
        for (action, weight) in weights {
            if drawn < weight {
                return action;
            }
            drawn -= weight;
        }
        Action::Advance
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Settle => {
                let waiting = self.disk.waiting();
                let ticket = waiting[self.one_of(waiting.len())];
                let fate = self.fate();
                let what = self.disk.settle(ticket, fate);
                self.say(what);
            }
            Action::Orphan => {
                let orphans = self.disk.orphans();
                let (ticket, arrives) = (orphans[self.one_of(orphans.len())], self.chance(700));
                let what = self.disk.settle_orphan(ticket, arrives);
                self.say(what);
            }
            Action::Answer => {
                let place = self.one_of(self.flights.len());
                self.answer(place, self.noise.call_failures, self.noise.answered_again);
            }
            Action::Advance => self.advance_somewhat(),
            Action::Submit => {
                let (shape, keyed) = (self.one_of(SHAPES.len()), self.chance(900));
                let number = self.submissions.add(shape, keyed);
                self.submit(number);
            }
            Action::Repeat => self.repeat(),
            Action::Look => {
                let (node, shard) = (self.some_living(), self.some_shard());
                let sweep = self.chance(400);
                if let Some(node) = self.nodes[node].as_mut().filter(|node| node.shards().contains(&shard)) {
                    if sweep { node.sweep(shard) } else { node.look(shard) }
                }
            }
            Action::Crash => {
                let node = self.some_living();
                self.crash(node);
            }
            Action::Boot => {
                let dead: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_none()).collect();
                let node = dead[self.one_of(dead.len())];
                self.boot(node);
            }
            Action::TakeOver => {
                let (node, shard) = (self.some_living(), self.some_shard());
                self.claim(node, shard);
            }
            Action::Jump => {
                let millis = [HOUR, -HOUR, 1_500, -1_500][self.one_of(4)];
                self.clock.jump(millis);
                self.say(format!("the time of day jumps by {millis} ms"));
            }
            Action::Cancel => {
                let runs: Vec<_> = self.submissions.runs.keys().copied().collect();
                let run = runs[self.one_of(runs.len())];
                self.cancel(run);
            }
            Action::Compare => self.compare(),
        }
        self.claim_at_boot();
    }

    fn fate(&mut self) -> Fate {
        if !self.chance(self.noise.store_faults) {
            return Fate::Done;
        }
        [Fate::Refused, Fate::Unknown, Fate::Late][self.one_of(3)]
    }

    fn some_living(&mut self) -> usize {
        let living = self.living();
        living[self.one_of(living.len())]
    }

    fn some_shard(&mut self) -> ShardId {
        ShardId(u16::try_from(self.seed.between(0, u64::from(SHARDS))).unwrap())
    }

    fn claim(&mut self, node: usize, shard: ShardId) {
        self.say(format!("node {node} wants shard {shard}"));
        if let Some(node) = self.nodes[node].as_mut() {
            node.claim(shard);
        }
    }

    /// A shard whose owner is dead, or that nobody ever had, is claimed by somebody, sooner or later.
    fn claim_at_boot(&mut self) {
        for shard in (0..SHARDS).map(ShardId) {
            let owner = self.disk.owner(shard);
            let alive = |boot: Boot| self.nodes[boot.node].as_ref().is_some_and(|node| node.boot == boot);
            if owner.is_none_or(|boot| !alive(boot)) && !self.living().is_empty() && self.chance(100) {
                let node = self.some_living();
                self.claim(node, shard);
            }
        }
    }

    fn advance_somewhat(&mut self) {
        let passed = self.clock.passed();
        let next = self.next_event().unwrap_or(passed).max(passed);
        let to = match self.one_of(10) {
            0..5 => next.min(passed + 400_000),
            5..9 => passed + i64::try_from(self.seed.between(1, 500)).unwrap(),
            _ => passed + i64::try_from(self.seed.between(1_000, 60_000)).unwrap(),
        };
        self.advance_to(to);
    }

    /// Sends a submission to a node that owns a shard; a client that knows no such node sends nothing.
    fn submit(&mut self, number: usize) {
        let node = self.some_living();
        let shards = self.nodes[node].as_ref().map(super::node::Node::shards).unwrap_or_default();
        if shards.is_empty() {
            return;
        }
        let (shard, now) = (shards[self.one_of(shards.len())], self.clock.now());
        let id = RunId::new(now, shard, self.seed.draw());
        let (workflow, asked) = self.submissions.asked(number, now);
        let (run, events) = Run::submit(id, &workflow, asked, SHARDS).unwrap();
        self.submissions.runs.insert(id, number);
        self.say(format!("submission {number} ({}) comes to node {node} as {id}", workflow.name));
        let key = self.submissions.idempotency(number);
        if let Some(node) = self.nodes[node].as_mut() {
            node.admit(number, run, events, key);
        }
    }

    /// A client repeats a submission under its key, whether it was told a run or not.
    fn repeat(&mut self) {
        let number = self.one_of(self.submissions.all.len());
        if self.submissions.all[number].key.is_some() {
            self.submit(number);
        }
    }

    fn cancel(&mut self, run: RunId) {
        let node = self.some_living();
        if at_once(self.disk.memory.head(run)).unwrap().is_none() {
            return;
        }
        self.say(format!("somebody asks node {node} to cancel {run}"));
        self.submissions.to_cancel.insert(run);
        if let Some(node) = self.nodes[node].as_mut() {
            node.deliver(run, Input::Cancel { by: Principal::Local, reason: None });
        }
    }

    /// Nothing fails any more: every client is told its run, and every run ends.
    pub(super) fn calm_down(&mut self) {
        self.say("calm");
        if self.nodes[0].is_none() {
            self.boot(0);
        }
        for _ in 0..CALM_STEPS {
            self.poll();
            if let Some(ticket) = self.disk.waiting().first() {
                let what = self.disk.settle(*ticket, Fate::Done);
                self.say(what);
            } else if let Some(ticket) = self.disk.orphans().first() {
                let what = self.disk.settle_orphan(*ticket, true);
                self.say(what);
            } else if !self.flights.is_empty() {
                let place = self.one_of(self.flights.len());
                self.answer(place, 0, 0);
            } else if !self.bring_to_an_end() {
                return;
            }
        }
        self.disk.breach(format!("after {CALM_STEPS} steps of calm the world has not come to its end"));
    }

    /// Does what is needed when nothing is under way; false when everything has ended.
    fn bring_to_an_end(&mut self) -> bool {
        let owned = |shard: ShardId| {
            let believed = self.nodes[0].as_ref().and_then(|node| node.epoch(shard));
            believed == Some(at_once(self.disk.memory.epoch(shard)).unwrap())
        };
        let not_owned: Vec<_> = (0..SHARDS).map(ShardId).filter(|shard| !owned(*shard)).collect();
        if !not_owned.is_empty() {
            not_owned.into_iter().for_each(|shard| self.claim(0, shard));
            return true;
        }
        // Everybody else is a zombie by now: what it still has is of no use.
        for node in 1..self.nodes.len() {
            self.crash(node);
        }
        if let Some(number) = self.submissions.untold().first() {
            self.submit(*number);
            return true;
        }
        let unfinished = at_once(self.disk.memory.counts()).unwrap();
        if unfinished.iter().all(|(state, count)| *count == 0 || state.is_end()) {
            return false;
        }
        if let Some(at) = self.next_event() {
            self.advance_to(at.max(self.clock.passed() + 1));
        }
        for shard in (0..SHARDS).map(ShardId) {
            if let Some(node) = self.nodes[0].as_mut() {
                node.look(shard);
                node.sweep(shard);
            }
        }
        true
    }
}
