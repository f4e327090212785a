//! The world of one simulation: nodes, clients, models and a store, and the order in which things happen to them.
//!
//! Every choice is drawn from one seed, and everything runs on the caller's thread, so one seed is one history. First
//! there is noise, in which anything may fail at any point; then calm, in which everything must come to its end. Used
//! by `simulate`.

use std::collections::BTreeSet;
use std::sync::Arc;

use motet_actors::catalog::Catalog;
use motet_engine::command::Work;
use motet_engine::definition::Definition;
use motet_engine::definition::document::parse_definitions;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{CallId, Namespace, RunId, ShardId};
use motet_engine::input::Input;
use motet_engine::value::Value;
use serde_json::json;

use super::actions::Noise;
use super::clock::VirtualClock;
use super::disk::{Boot, Disk, at_once};
use super::node::{Effect, Node};
use super::shapes::SHAPES;
use super::store::GatedStore;
use super::submissions::Submissions;
use super::verdict;
use crate::seed::Seed;

/// Slices into which the runs of a simulation are divided.
pub(super) const SHARDS: u16 = 3;

/// Most calls in flight; past it the oldest that was answered already is forgotten.
const FLIGHTS: usize = 400;

/// A call that was sent.
pub(super) struct Flight {
    pub(super) by: Boot,
    pub(super) run: RunId,
    pub(super) call: CallId,
    work: Work,
    sure: bool,
    pub(super) deadline: i64,
    /// Whether its run was told an outcome already, be it that it took too long.
    pub(super) told: bool,
}

/// Everything that there is.
pub(super) struct World {
    pub(super) seed: Seed,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) disk: Arc<Disk>,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) boots: Vec<u32>,
    pub(super) flights: Vec<Flight>,
    pub(super) submissions: Submissions,
    pub(super) noise: Noise,
    pub(super) log: Vec<String>,
    pub(super) sent: BTreeSet<(RunId, CallId)>,
    pub(super) crashes: u64,
}

impl World {
    pub(super) fn new(number: u64) -> Self {
        let mut seed = Seed::new(number);
        let noise = Noise::draw(&mut seed);
        let (clock, disk) = (Arc::new(VirtualClock::default()), Arc::new(Disk::default()));
        let nodes = usize::try_from(seed.between(1, 4)).unwrap();
        let mut world = Self {
            seed,
            clock,
            disk,
            nodes: (0..nodes).map(|_| None).collect(),
            boots: vec![0; nodes],
            flights: vec![],
            submissions: Submissions::new(),
            noise,
            log: vec![],
            sent: BTreeSet::new(),
            crashes: 0,
        };
        world.submissions.workflows = SHAPES.iter().map(|shape| world.define(&shape.document())).collect();
        world
    }

    fn define(&self, document: &str) -> Arc<motet_engine::definition::Workflow> {
        let definition = parse_definitions("simulated.yaml", document).unwrap().remove(0);
        let store = Arc::new(GatedStore { disk: Arc::clone(&self.disk), by: Boot { node: 0, number: 0 } });
        let catalog = Catalog::new(store, Arc::clone(&self.clock) as _);
        at_once(catalog.put(&Namespace::default(), &definition)).unwrap();
        let Definition::Workflow(workflow) = definition else { panic!("{document} is no workflow") };
        workflow
    }

    pub(super) fn say(&mut self, what: impl Into<String>) {
        let line = format!("{:>9} {}", self.clock.passed(), what.into());
        self.log.push(line);
    }

    /// A random one of `count`.
    pub(super) fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.seed.between(0, count as u64)).unwrap()
    }

    /// Whether something of this many per thousand happens.
    pub(super) fn chance(&mut self, per_thousand: u64) -> bool {
        self.seed.between(0, 1_000) < per_thousand
    }

    /// The nodes that live.
    pub(super) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_some()).collect()
    }

    pub(super) fn boot(&mut self, node: usize) {
        self.boots[node] += 1;
        let boot = Boot { node, number: self.boots[node] };
        self.nodes[node] = Some(Node::boot(boot, &self.disk, &self.clock));
        self.say(format!("{boot} boots"));
    }

    /// The node is gone between any two steps; its calls are forgotten or answered much later.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(dead) = self.nodes[node].take() else { return };
        self.disk.abandon(dead.boot);
        self.say(format!("{} is dead", dead.boot));
        self.crashes += 1;
        let mut flights = std::mem::take(&mut self.flights);
        flights.retain(|flight| flight.by != dead.boot || self.chance(500));
        self.flights = flights;
    }

    /// Lets every node go as far as it can and carries out what they do.
    pub(super) fn poll(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(living) = &mut self.nodes[node] else { continue };
            let (boot, effects) = (living.boot, living.poll());
            for effect in effects {
                self.carry_out(boot, effect);
            }
        }
    }

    fn carry_out(&mut self, by: Boot, effect: Effect) {
        match effect {
            Effect::Note(what) => self.say(format!("{by} {what}")),
            Effect::Stands(run) => {
                if let Err(problem) = verdict::compare(&self.disk, &run) {
                    self.disk.breach(format!("on {by} {problem}"));
                }
            }
            Effect::SendsAgain(run, call) => self.disk.breach(format!("{by} sent {call} of {run} again for no reason")),
            Effect::Cancelled(run) => {
                self.say(format!("{by} has cancelled {run}"));
                self.submissions.cancelled.insert(run);
            }
            Effect::Answer { submission, answer, run } => {
                self.say(format!("{by} answers submission {submission}: {answer:?}"));
                if let Ok(admitted) = answer {
                    self.submissions.answered(submission, run, admitted);
                }
            }
            Effect::Send { run, call, work, timeout } => {
                self.say(format!("{by} sends {run} {call}"));
                if !self.disk.owes(run, call) {
                    self.disk.breach(format!("{by} sent {call} of {run} before the event that owes it was durable"));
                }
                self.sent.insert((run, call));
                let sure = self.submissions.is_sure(run);
                let deadline = self.clock.passed() + timeout;
                if self.flights.len() >= FLIGHTS
                    && let Some(told) = self.flights.iter().position(|flight| flight.told)
                {
                    self.flights.remove(told);
                }
                self.flights.push(Flight { by, run, call, work, sure, deadline, told: false });
            }
        }
    }

    /// Answers a call, well or not; sometimes the same call is answered again later.
    pub(super) fn answer(&mut self, place: usize, failures: u64, again: u64) {
        let outcome = self.outcome(place, failures);
        let repeats = self.chance(again);
        let flight = &mut self.flights[place];
        flight.told = true;
        let (by, run, call) = (flight.by, flight.run, flight.call);
        if !repeats {
            self.flights.remove(place);
        }
        let words = outcome.as_ref().map_or_else(|failure| failure.class.to_string(), |_| "output".to_owned());
        self.say(format!("{run} {call} sent by {by} is answered: {words}"));
        self.hand_over(by, run, Input::CallFinished { call, outcome });
    }

    /// Tells the runs whose calls took too long.
    pub(super) fn expire(&mut self) {
        let passed = self.clock.passed();
        let late: Vec<usize> = (0..self.flights.len())
            .filter(|place| !self.flights[*place].told && self.flights[*place].deadline <= passed)
            .collect();
        for place in late {
            let flight = &mut self.flights[place];
            flight.told = true;
            let (by, run, call) = (flight.by, flight.run, flight.call);
            // Only the process that sent the call measures its time.
            if self.nodes[by.node].as_ref().is_some_and(|node| node.boot == by) {
                self.say(format!("{run} {call} takes too long for {by}"));
                let outcome = Err(Failure::new(FailureClass::Timeout, "no answer in time"));
                self.hand_over(by, run, Input::CallFinished { call, outcome });
            }
        }
    }

    /// Gives an outcome to the node that sent the call while that lives, else to whoever has the run.
    fn hand_over(&mut self, by: Boot, run: RunId, input: Input) {
        let of_sender = |node: &Node| node.boot == by && node.is_live(run);
        let to = self.nodes.iter().position(|node| node.as_ref().is_some_and(of_sender)).or_else(|| {
            let others =
                self.living().into_iter().filter(|node| self.nodes[*node].as_ref().is_some_and(|n| n.is_live(run)));
            let others: Vec<_> = others.collect();
            (!others.is_empty()).then(|| others[self.one_of(others.len())])
        });
        if let Some(node) = to.and_then(|node| self.nodes[node].as_mut()) {
            node.deliver(run, input);
        }
    }

    fn outcome(&mut self, place: usize, failures: u64) -> Result<Value, Failure> {
        let sure = self.flights[place].sure;
        if self.chance(failures) {
            let mut classes = FailureClass::RETRYABLE.to_vec();
            if !sure {
                classes.extend([FailureClass::Invalid, FailureClass::Denied]);
            }
            let class = classes[self.one_of(classes.len())];
            return Err(Failure::new(class, "as drawn"));
        }
        let flight = &self.flights[place];
        let (Work::Model { with, .. } | Work::VectorQuery { with } | Work::VectorUpsert { with } | Work::Http { with }) =
            &flight.work;
        let text = with.get("text").cloned().unwrap_or(Value::Null).to_json();
        // The attempt shows in the end which answer was taken.
        Ok(Value::from(json!({ "text": text, "attempt": flight.call.attempt })))
    }

    /// When, as timers count, something is due next.
    pub(super) fn next_event(&self) -> Option<i64> {
        let alarms = self.nodes.iter().flatten().filter_map(Node::next_alarm);
        let deadlines = self.flights.iter().filter(|flight| !flight.told).map(|flight| flight.deadline);
        let rows = (0..SHARDS).filter_map(|shard| {
            let at = at_once(motet_store::port::TimerStore::next_wake(&self.disk.memory, ShardId(shard))).unwrap()?;
            Some(self.clock.passed_at(at))
        });
        alarms.chain(deadlines).chain(rows).min()
    }

    /// Lets time pass and everything happen that it brings.
    pub(super) fn advance_to(&mut self, passed: i64) {
        self.clock.advance_to(passed);
        self.say("time has passed");
        self.expire();
        self.nodes.iter_mut().flatten().for_each(Node::ring);
    }

    /// Compares the runs that rest with what their journals lead to.
    pub(super) fn compare(&self) {
        for node in self.nodes.iter().flatten() {
            for run in node.resting() {
                if let Err(problem) = verdict::compare(&self.disk, run) {
                    self.disk.breach(format!("on {} {problem}", node.boot));
                }
            }
        }
    }
}
