//! A driver without a store or a clock: carries out what a run owes, and remembers everything that was recorded.
//!
//! Never decides what is right: the tests do.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::access::Principal;
use motet_engine::command::{Command, Work};
use motet_engine::definition::{Definition, Workflow, parse_definitions};
use motet_engine::event::{Event, Submission};
use motet_engine::failure::Failure;
use motet_engine::id::{CallId, Namespace, RunId, ShardId};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Phase, Run};
use motet_engine::time::Timestamp;
use motet_engine::trace::TraceContext;
use motet_engine::value::Value;

pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) type Script<'a> = &'a dyn Fn(CallId, &Work) -> Result<Value, Failure>;

/// The start of the names of signals that somebody sends as soon as a step waits for them.
pub(crate) const ANSWERED: &str = "answered";

pub(crate) fn workflow(body: &str) -> Arc<Workflow> {
    let yaml = format!("kind: Workflow\nname: test\n{body}");
    match parse_definitions("test.yaml", &yaml).map(|mut definitions| definitions.remove(0)) {
        Ok(Definition::Workflow(workflow)) => workflow,
        other => panic!("{other:?}\n{yaml}"),
    }
}

pub(crate) fn submission(workflow: &Workflow, input: serde_json::Value) -> Submission {
    Submission {
        namespace: Namespace::default(),
        principal: Principal::Local,
        workflow: workflow.name.clone(),
        version: workflow.version.clone(),
        input: input.into(),
        tags: vec![],
        priority: 0,
        trace: TraceContext::start(1, 1),
        at: START,
        source: None,
    }
}

/// One execution: the run, everything that was recorded, and every call that was sent, in order.
pub(crate) struct Execution {
    pub(crate) run: Run,
    pub(crate) history: Vec<(Event, Timestamp)>,
    pub(crate) sent: Vec<CallId>,
    pub(crate) now: Timestamp,
    dispatched: u64,
    signalled: u32,
}

impl Execution {
    pub(crate) fn begin(workflow: &Arc<Workflow>, input: serde_json::Value, entropy: u64) -> Self {
        let id = RunId::new(START, ShardId(1), entropy);
        let (run, events) = Run::submit(id, workflow, submission(workflow, input), 64).unwrap();
        Self::of(run, events, START)
    }

    pub(crate) fn of(run: Run, events: Vec<Event>, at: Timestamp) -> Self {
        let history = events.into_iter().map(|event| (event, at)).collect();
        Self { run, history, sent: vec![], now: at, dispatched: 0, signalled: 0 }
    }

    pub(crate) fn input(&mut self, input: &Input) -> Result<(), Rejection> {
        let decision = self.run.decide(input, self.now)?;
        for event in decision.events {
            self.run.apply(&event, self.now);
            self.history.push((event, self.now));
        }
        assert_eq!(self.run, decision.run, "the decision's copy is the run after its events");
        Ok(())
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    pub(crate) fn signal(&mut self, name: &str, id: &str, payload: serde_json::Value) -> Result<(), Rejection> {
        let payload = payload.into();
        self.input(&Input::Signal { name: name.into(), payload, id: id.into(), by: Principal::Local })
    }

    pub(crate) fn pause(&mut self) -> Result<(), Rejection> {
        self.input(&Input::Pause { by: Principal::Local, reason: Some("look".into()) })
    }

    pub(crate) fn resume(&mut self) -> Result<(), Rejection> {
        self.input(&Input::Resume { by: Principal::Local })
    }

    pub(crate) fn retry(&mut self, from: Option<&str>) -> Result<(), Rejection> {
        self.input(&Input::Retry { from: from.map(Into::into), by: Principal::Local })
    }

    /// Sends what is owed and was not sent, and answers the lowest call that was; false when there is none.
    pub(crate) fn answer(&mut self, script: Script<'_>) -> bool {
        for (serial, command) in self.run.calls_after(self.dispatched).collect::<Vec<_>>() {
            self.dispatched = serial;
            let Command::Call { id, .. } = command else { panic!("{command:?}") };
            self.sent.push(id);
        }
        // A call that was sent is answered whether the run is paused by then or not.
        let owed = self.sent.iter().copied().filter(|call| self.run.owes(*call)).min();
        let Some(call) = owed else { return false };
        let work = self.work(call);
        self.pass(Duration::from_millis(1));
        self.input(&Input::CallFinished { call, outcome: script(call, &work) }).unwrap();
        true
    }

    fn work(&self, call: CallId) -> Work {
        let mut running = self.run.clone();
        if running.is_paused() {
            running.apply(&Event::Resumed { by: Principal::Local }, self.now);
        }
        let found = running.commands().into_iter().find_map(|command| match command {
            Command::Call { id, work, .. } if id == call => Some(work),
            _ => None,
        });
        found.unwrap()
    }

    /// Answers a call, or sends a signal that is waited for, or lets the time of the next wake-up come; false when
    /// there is nothing to do.
    pub(crate) fn step(&mut self, script: Script<'_>) -> bool {
        if self.answer(script) {
            return true;
        }
        let awaited = self.run.waits(usize::MAX).into_iter().filter_map(|wait| wait.signal);
        let answered = awaited.map(str::to_owned).find(|name| name.starts_with(ANSWERED));
        if let Some(name) = answered.filter(|_| !self.run.is_paused()) {
            self.send(&name).unwrap();
            return true;
        }
        let Some(wake) = self.run.next_wake() else { return false };
        self.now = self.now.max(wake);
        self.input(&Input::Woken).unwrap();
        true
    }

    /// Sends a signal whose payload depends on its name alone.
    pub(crate) fn send(&mut self, name: &str) -> Result<(), Rejection> {
        self.signalled += 1;
        let id = self.signalled.to_string();
        self.signal(name, &id, serde_json::json!({"said": name}))
    }

    pub(crate) fn steps(&mut self, script: Script<'_>, most: usize) {
        for _ in 0..most {
            if self.run.phase().is_end() || !self.step(script) {
                return;
            }
        }
    }

    /// Forgets everything but the first `kept` events and comes back the way a node does.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.history.truncate(kept.max(1));
        self.run = replay(self.run.id(), self.run.workflow(), &self.history);
        self.dispatched = 0;
        self.sent.clear();
        let woken = self.input(&Input::Woken);
        assert!(matches!(woken, Ok(()) | Err(Rejection::NotDue | Rejection::Ended)), "{woken:?}");
    }

    pub(crate) fn finish(&mut self, script: Script<'_>) {
        self.steps(script, 10_000);
        assert!(self.run.phase().is_end(), "stuck: {:?}", self.run.state());
        assert!(self.run.commands().is_empty(), "an ended run owes nothing");
        let count = |kinds: &[&str]| self.history.iter().filter(|(event, _)| kinds.contains(&event.kind())).count();
        let ends = count(&["run_succeeded", "run_failed", "run_cancelled", "run_timed_out"]);
        assert_eq!(ends, 1 + count(&["retried"]), "a run ends once each time: {:?}", self.history);
    }

    pub(crate) fn outcome(&self) -> (Phase, Option<Value>, Option<String>) {
        let failure = self.run.state().failure.as_ref().map(|failure| failure.failure.message.clone());
        (self.run.phase(), self.run.output(), failure)
    }

    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.history.iter().map(|(event, _)| event.kind()).collect()
    }

    pub(crate) fn output(&self) -> serde_json::Value {
        self.run.output().map(|output| output.to_json()).unwrap_or_default()
    }
}

pub(crate) fn replay(id: RunId, workflow: &Arc<Workflow>, history: &[(Event, Timestamp)]) -> Run {
    let (first, at) = &history[0];
    let mut run = Run::begin(id, Arc::clone(workflow), first, *at).unwrap();
    history[1..].iter().for_each(|(event, at)| run.apply(event, *at));
    run
}

pub(crate) fn echo(_: CallId, work: &Work) -> Result<Value, Failure> {
    let (Work::Model { with, .. } | Work::VectorQuery { with } | Work::VectorUpsert { with } | Work::Http { with }) =
        work;
    Ok(with.clone())
}

pub(crate) fn run_to_end(body: &str, input: serde_json::Value) -> Execution {
    let mut execution = Execution::begin(&workflow(body), input, 7);
    execution.finish(&echo);
    execution
}
