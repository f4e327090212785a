//! The workflows that simulated runs are made of, and what must come out of each.
//!
//! One for each way in which a run can go on or wait. Used by the world, which draws from them, and by the verdict.

use serde_json::{Value, json};

/// Tries that no simulation uses up: the outcome of such a step does not depend on the faults.
const PATIENT: &str = "retry: {max_attempts: 100, on: [unavailable, timeout, rate_limited, overloaded, internal], \
                       backoff: {initial: 10ms, factor: 2, max: 800ms}}";

/// A workflow and what is known of its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    steps: &'static str,
    /// Whether the run must succeed whatever happens; failures that retrying cannot mend are not drawn for it.
    pub(super) sure: bool,
    /// The output of a run that succeeded.
    pub(super) output: fn(&Value) -> Value,
}

fn text(input: &Value) -> String {
    input["text"].as_str().unwrap_or_default().to_owned()
}

pub(super) const SHAPES: [Shape; 10] = [
    Shape {
        name: "chain",
        steps: "
  one: {call: model, model: echo, with: {text: '${ input.text }'}, PATIENT}
  two: {call: model, model: echo, with: {text: '${ steps.one.output.text }-2'}, PATIENT}
  three: {call: model, model: echo, with: {text: '${ steps.two.output.text }-3'}, PATIENT}
output: {text: '${ steps.three.output.text }'}",
        sure: true,
        output: |input| json!({ "text": format!("{}-2-3", text(input)) }),
    },
    Shape {
        name: "diamond",
        steps: "
  top: {call: model, model: echo, with: {text: '${ input.text }'}, PATIENT}
  left: {call: model, model: echo, with: {text: '${ steps.top.output.text }l'}, PATIENT}
  middle: {call: model, model: echo, with: {text: '${ steps.top.output.text }m'}, PATIENT}
  right: {needs: [top], call: vector.query, with: {index: near, vector: [1.0, 2.0]}, PATIENT}
  end: {call: model, model: echo, with: {text: '${ steps.left.output.text }${ steps.middle.output.text }'},
        needs: [right], PATIENT}
output: {text: '${ steps.end.output.text }'}",
        sure: true,
        output: |input| json!({ "text": format!("{0}l{0}m", text(input)) }),
    },
    Shape {
        name: "items",
        steps: "
  each: {for_each: '${ input.list }', as: item, max_concurrency: 2, call: model, model: echo,
         with: {text: '${ input.text }${ item }'}, PATIENT}
  end: {needs: [each], call: model, model: echo, with: {text: end}, PATIENT}
output: {count: '${ size(steps.each.output) }', last: '${ steps.each.output[4].text }'}",
        sure: true,
        output: |input| json!({ "count": 5, "last": format!("{}4", text(input)) }),
    },
    Shape {
        name: "many",
        steps: "
  parts: {call: transform, with: {list: '${ input.list + input.list + input.list + input.list + input.list + input.list }'}}
  each: {for_each: '${ steps.parts.output.list }', as: item, call: model, model: echo,
         with: {text: '${ item }'}, PATIENT}
output: {count: '${ size(steps.each.output) }'}",
        sure: true,
        output: |_| json!({ "count": 30 }),
    },
    Shape {
        name: "patient",
        steps: "
  slow: {call: model, model: echo, with: {text: '${ input.text }'}, timeout: 3s,
         retry: {max_attempts: 100, on: [unavailable, timeout, rate_limited, overloaded, internal],
                 backoff: {initial: 20s, factor: 3, max: 10m}}}
output: {text: '${ steps.slow.output.text }'}",
        sure: true,
        output: |input| json!({ "text": text(input) }),
    },
    Shape {
        name: "large",
        steps: "
  big: {call: model, model: echo, with: {text: '${ input.large }'}, PATIENT}
  small: {needs: [big], call: model, model: echo, with: {text: '${ input.text }'}, PATIENT}
output: {length: '${ size(steps.big.output.text) }', text: '${ steps.small.output.text }'}",
        sure: true,
        output: |input| json!({ "length": 40_000, "text": text(input) }),
    },
    Shape {
        name: "pure",
        steps: "
  words: {call: transform, with: {text: '${ input.text }!'}}
output: {text: '${ steps.words.output.text }'}",
        sure: true,
        output: |input| json!({ "text": format!("{}!", text(input)) }),
    },
    Shape {
        name: "fallback",
        steps: "
  first: {call: model, model: echo, with: {text: '${ input.text }'}, retry: {max_attempts: 2, backoff: {initial: 50ms}},
          fallback: {model: spare}}
  second: {call: model, model: echo, with: {text: '${ steps.first.output.text }'}, retry: {max_attempts: 1},
           fallback: {output: {text: given}}}
output: {done: true}",
        sure: false,
        output: |_| json!({ "done": true }),
    },
    Shape {
        name: "timed",
        steps: "
  one: {call: model, model: echo, with: {text: '${ input.text }'}, timeout: 2s, PATIENT}
  two: {needs: [one], call: model, model: echo, with: {text: two}, timeout: 2s, PATIENT}
timeout: 45s
output: {text: '${ steps.one.output.text }'}",
        sure: false,
        output: |input| json!({ "text": text(input) }),
    },
    Shape {
        name: "branches",
        steps: "
  ask: {call: model, model: echo, with: {text: '${ input.text }'}, PATIENT}
  yes: {if: '${ size(steps.ask.output.text) > 3 }', call: model, model: echo, with: {text: yes}, PATIENT}
  no: {if: '${ size(steps.ask.output.text) <= 3 }', call: model, model: echo, with: {text: no}, PATIENT}
output: {text: '${ steps.ask.output.text }'}",
        sure: true,
        output: |input| json!({ "text": text(input) }),
    },
];

impl Shape {
    /// The definition as a document.
    pub(super) fn document(&self) -> String {
        let steps = self.steps.replace("PATIENT", PATIENT);
        format!("kind: Workflow\nname: {}\nversion: \"1\"\nsteps:{steps}\n", self.name)
    }

    /// The input of the `number`-th submission.
    pub(super) fn input(&self, number: usize) -> Value {
        let mut input = json!({ "text": format!("t{number}"), "list": [0, 1, 2, 3, 4] });
        if self.name == "large" {
            input["large"] = Value::String("x".repeat(40_000));
        }
        input
    }
}
