//! Random workflows over every kind of step, and what may happen to their runs on the way.
//!
//! Never checks anything: the properties do.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use motet_engine::command::Work;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::CallId;
use motet_engine::value::Value;
use proptest::prelude::*;

use crate::execution::{ANSWERED, Execution};

/// A random step: what it calls, what it needs among the steps before it, and what surrounds it.
#[derive(Debug, Clone)]
pub(crate) struct RandomStep {
    kind: u8,
    needs: Vec<prop::sample::Index>,
    condition: u8,
    attempts: u8,
    fallback: u8,
    items: u8,
}

pub(crate) fn random_steps() -> impl Strategy<Value = Vec<RandomStep>> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let step = (0u8..9, needs, 0u8..6, 1u8..4, 0u8..4, 0u8..5);
    let step = step.prop_map(|(kind, needs, condition, attempts, fallback, items)| RandomStep {
        kind,
        needs,
        condition,
        attempts,
        fallback,
        items,
    });
    prop::collection::vec(step, 1..8)
}

/// Kinds 0 and 1 are pure, 2 to 4 call, 5 and 6 wait for a time, 7 and 8 for a signal; 4, 6 and 8 do so for each item.
pub(crate) fn to_body(steps: &[RandomStep]) -> String {
    let mut yaml = String::from("steps:\n");
    for (place, step) in steps.iter().enumerate() {
        let needs: BTreeSet<_> =
            step.needs.iter().filter(|_| place > 0).map(|need| format!("s{}", need.index(place.max(1)))).collect();
        let needs = needs.into_iter().collect::<Vec<_>>().join(", ");
        // Some signals nobody sends: the patience for them ends. Two steps may wait for one.
        let signal = if step.attempts == 3 { "silent".to_owned() } else { format!("{ANSWERED}-{}", step.attempts) };
        let call = match step.kind {
            0 => "transform".to_owned(),
            1 => "prompt\n    template: 'n={{ n }}'".to_owned(),
            2 if step.attempts == 2 => "http".to_owned(),
            2 => "vector.query".to_owned(),
            3 | 4 => "model\n    model: main".to_owned(),
            5 | 6 => "wait".to_owned(),
            _ => format!("signal\n    signal: {signal}\n    timeout: {}s", place + 1),
        };
        let with = match step.kind {
            2 if step.attempts == 2 => "{method: GET, url: 'http://h/'}".to_owned(),
            2 => "{index: i, vector: [1, 2]}".to_owned(),
            // A fixed time, so that the output does not depend on when the wait began.
            5 | 6 => format!("{{until: '1970-01-01T00:16:4{place}Z'}}"),
            _ => "{n: '${ input.n }'}".to_owned(),
        };
        writeln!(yaml, "  s{place}:\n    call: {call}\n    needs: [{needs}]\n    with: {with}").unwrap();
        match step.condition {
            0 => yaml.push_str("    if: 'input.n > 1'\n"),
            1 => yaml.push_str("    if: 'input.n < 1'\n"),
            _ => {}
        }
        if matches!(step.kind, 4 | 6 | 8) {
            let items = (0..step.items).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
            writeln!(yaml, "    for_each: '${{ [{items}] }}'\n    as: x\n    max_concurrency: 2").unwrap();
        }
        if (2..5).contains(&step.kind) {
            writeln!(yaml, "    retry: {{max_attempts: {}, backoff: {{initial: 10ms}}}}", step.attempts).unwrap();
        }
        match (step.fallback, step.kind) {
            (0 | 1, 5 | 6) => {}
            (0, _) => yaml.push_str("    fallback: {output: 'spare'}\n"),
            (1, 3 | 4 | 7 | 8) => yaml.push_str("    fallback: {model: spare}\n"),
            _ => {}
        }
    }
    yaml
}

/// Success or failure by the call alone, so that every execution meets the same world.
pub(crate) fn scripted(seed: u64) -> impl Fn(CallId, &Work) -> Result<Value, Failure> {
    move |call, _| {
        let mut mixed = seed ^ u64::from(call.step.0) << 40 ^ u64::from(call.item) << 20 ^ u64::from(call.attempt);
        mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40;
        match mixed % 8 {
            0 | 1 => Err(Failure::new(FailureClass::Unavailable, format!("down at {call}"))),
            2 if call.attempt > 1 => Err(Failure::new(FailureClass::Invalid, format!("bad at {call}"))),
            _ => Ok(Value::from(format!("{}.{}", call.step.0, call.item))),
        }
    }
}

/// What may happen to a run beside its own course.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Steps(u8),
    Pause,
    Resume,
    Signal(u8),
    Retry(Option<u8>),
    Crash(u8),
}

pub(crate) fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (1u8..8).prop_map(Happening::Steps),
        1 => Just(Happening::Pause),
        1 => Just(Happening::Resume),
        1 => (1u8..4).prop_map(Happening::Signal),
        1 => prop::option::of(0u8..8).prop_map(Happening::Retry),
    ];
    prop::collection::vec(one, 0..12)
}

/// What changes no outcome: standing still, signals that come early, and crashes that lose the last few events.
pub(crate) fn disturbances() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        3 => (1u8..8).prop_map(Happening::Steps),
        1 => Just(Happening::Pause),
        1 => Just(Happening::Resume),
        1 => (1u8..3).prop_map(Happening::Signal),
        1 => (0u8..4).prop_map(Happening::Crash),
    ];
    prop::collection::vec(one, 0..12)
}

impl Execution {
    /// Lets it happen; what the run turns down changes nothing.
    pub(crate) fn happen(&mut self, happening: &Happening, script: crate::execution::Script<'_>) {
        let before = self.run.clone();
        let taken = match happening {
            Happening::Steps(most) => {
                self.steps(script, usize::from(*most));
                Ok(())
            }
            Happening::Pause => self.pause(),
            Happening::Resume => self.resume(),
            Happening::Signal(name) => self.send(&format!("{ANSWERED}-{name}")),
            Happening::Retry(from) => self.retry(from.map(|place| format!("s{place}")).as_deref()),
            Happening::Crash(lost) => {
                self.crash(self.history.len().saturating_sub(usize::from(*lost)));
                Ok(())
            }
        };
        if taken.is_err() {
            assert_eq!(self.run, before);
        }
    }

    /// Goes on when the run stands still.
    pub(crate) fn unpause(&mut self) {
        if self.run.is_paused() {
            self.resume().unwrap();
        }
    }
}
