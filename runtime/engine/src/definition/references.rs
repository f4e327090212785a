//! What steps read from each other: infers `needs`, and finds references that lead nowhere or in a circle.
//!
//! Never evaluates. Used by the workflow reader once every step has been read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostic::Diagnostics;
use super::node::{Node, Place};
use crate::expression::wording::{nearest, shorten, suggestion};
use crate::expression::{Expression, References, RunFacts, Template, find_identifier, find_reference};
use crate::id::StepIndex;

/// One expression of a step or of the output, and where it is written.
pub(super) struct Site<'n> {
    node: &'n Node,
    offset: usize,
    source: String,
    references: References,
    /// Whether the variable of the step's `for_each` and `index` may be read here.
    sees_locals: bool,
}

impl<'n> Site<'n> {
    pub(super) fn new(node: &'n Node, offset: usize, expression: &Expression, sees_locals: bool) -> Self {
        Self {
            node,
            offset,
            source: expression.source().to_owned(),
            references: expression.references().clone(),
            sees_locals,
        }
    }

    /// The sites of every expression of a template that was compiled from a node.
    pub(super) fn of_template(node: &'n Node, template: &Template, sees_locals: bool) -> Vec<Self> {
        let sites = template.expressions();
        sites.iter().map(|it| Self::new(node.find(it.pointer), it.offset, it.expression, sees_locals)).collect()
    }

    fn place(&self, out: &Diagnostics<'_>, offset: Option<usize>) -> Place {
        out.inside(self.node, self.offset + offset.unwrap_or(0))
    }
}

/// What references may lead to.
pub(super) struct Names<'n> {
    /// Place of every step by name.
    pub(super) steps: BTreeMap<&'n str, StepIndex>,
    /// The input's properties when its schema allows no others.
    pub(super) input: Option<BTreeSet<&'n str>>,
}

impl Names<'_> {
    /// Checks the expressions of one owner and gives the steps that they read. `own` is the step itself, `variable`
    /// the variable of its `for_each`.
    pub(super) fn check(
        &self,
        sites: &[Site<'_>],
        own: Option<&str>,
        variable: Option<&str>,
        out: &mut Diagnostics<'_>,
    ) -> BTreeSet<StepIndex> {
        let mut needs = BTreeSet::new();
        for site in sites {
            for name in &site.references.steps {
                let at = || site.place(out, find_reference(&site.source, "steps", name));
                if own == Some(&**name) {
                    let place = at();
                    out.report(place, "self-reference", format!("the step '{name}' reads its own result"));
                } else if let Some(index) = self.steps.get(&**name) {
                    needs.insert(*index);
                } else {
                    let place = at();
                    self.unknown_step(name, place, out);
                }
            }
            for name in &site.references.locals {
                let visible =
                    site.sees_locals && (variable == Some(&**name) || (variable.is_some() && &**name == "index"));
                if !visible {
                    self.unknown_variable(name, site, variable, out);
                }
            }
            self.check_input(site, out);
            if site.references.run_state {
                let place = site.place(out, find_reference(&site.source, "run", RunFacts::STATE));
                let advice = format!("it has {}", RunFacts::MEMBERS.join(", "));
                out.advise(place, "unknown-variable", "'run' has no member 'state' before it has ended", advice);
            }
        }
        needs
    }

    pub(super) fn unknown_step(&self, name: &str, place: Place, out: &mut Diagnostics<'_>) {
        let near = nearest(name, self.steps.keys().copied());
        let advice = near.map_or_else(String::new, |near| format!("did you mean '{near}'?"));
        out.advise(place, "unknown-step", format!("there is no step '{}'", shorten(name, 60)), advice);
    }

    fn unknown_variable(&self, name: &Arc<str>, site: &Site<'_>, variable: Option<&str>, out: &mut Diagnostics<'_>) {
        let visible: Vec<&str> = ["input", "steps", "run"]
            .into_iter()
            .chain(variable.into_iter().flat_map(|variable| [variable, "index"]).filter(|_| site.sees_locals))
            .collect();
        let advice = if self.steps.contains_key(&**name) {
            format!("write steps.{name}.output")
        } else if variable == Some(&**name) || (variable.is_some() && &**name == "index") {
            "the variable of for_each can be read in 'with' and 'fallback' only".to_owned()
        } else {
            match nearest(name, visible.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("there are {}; put a text in quotes", visible.join(", ")),
            }
        };
        let place = site.place(out, find_identifier(&site.source, name));
        out.advise(place, "unknown-variable", format!("there is no variable '{}'", shorten(name, 60)), advice);
    }

    fn check_input(&self, site: &Site<'_>, out: &mut Diagnostics<'_>) {
        let Some(known) = &self.input else { return };
        for member in site.references.input_members.iter().filter(|member| !known.contains(&***member)) {
            let near = suggestion(member, known.iter().copied());
            let advice = match near.strip_prefix("; ") {
                Some(near) => near.to_owned(),
                None => format!("the schema of the input has {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            let place = site.place(out, find_reference(&site.source, "input", member));
            let message = format!("the input has no property '{}'", shorten(member, 60));
            out.advise(place, "unknown-input", message, advice);
        }
    }
}

/// Checks the expressions of an owner that sees a fixed set of names and no step. `hint` may explain a name better
/// than the nearest visible one does.
pub(super) fn check_visible(
    sites: &[Site<'_>],
    visible: &[&str],
    hint: impl Fn(&str) -> Option<&'static str>,
    out: &mut Diagnostics<'_>,
) {
    for site in sites {
        let reads = &site.references;
        let roots = [("input", reads.input), ("run", reads.run), ("steps", !reads.steps.is_empty())];
        let roots = roots.into_iter().filter(|(_, is_read)| *is_read).map(|(name, _)| name);
        for name in roots.chain(reads.locals.iter().map(|name| &**name)).filter(|name| !visible.contains(name)) {
            let advice = match (hint(name), nearest(name, visible.iter().copied())) {
                (Some(hint), _) => hint.to_owned(),
                (None, Some(near)) => format!("did you mean '{near}'?"),
                (None, None) => format!("there are {}; put a text in quotes", visible.join(", ")),
            };
            let place = site.place(out, find_identifier(&site.source, name));
            out.advise(place, "unknown-variable", format!("there is no variable '{}' here", shorten(name, 60)), advice);
        }
    }
}

/// Reports every circle of steps that wait for each other, once. `needs` holds, by step, the steps it waits for.
pub(super) fn check_cycles(steps: &[(&str, Place)], needs: &[BTreeSet<StepIndex>], out: &mut Diagnostics<'_>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; steps.len()];
    for start in 0..steps.len() {
        // The path from the start to the step at hand, each with the needs still to follow.
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        let below = |step: usize| needs[step].iter().rev().map(|need| need.as_usize()).collect::<Vec<_>>();
        if marks[start] == Mark::New {
            marks[start] = Mark::Open;
            path.push((start, below(start)));
        }
        while let Some((step, rest)) = path.last_mut() {
            let step = *step;
            match rest.pop() {
                None => {
                    marks[step] = Mark::Done;
                    path.pop();
                }
                Some(next) if marks[next] == Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, below(next)));
                }
                Some(next) if marks[next] == Mark::Open => {
                    let from = path.iter().position(|(step, _)| *step == next).unwrap_or(0);
                    let circle: Vec<&str> = path[from..].iter().map(|(step, _)| steps[*step].0).collect();
                    report_cycle(steps[next].1, &circle, out);
                }
                Some(_) => {}
            }
        }
    }
}

fn report_cycle(place: Place, circle: &[&str], out: &mut Diagnostics<'_>) {
    let Some(first) = circle.first() else { return };
    let shown = circle.iter().take(12).copied().collect::<Vec<_>>().join(" -> ");
    let more = if circle.len() > 12 { " -> .." } else { "" };
    let message = format!("steps wait for each other in a circle: {shown}{more} -> {first}");
    out.advise(place, "cycle", message, "remove one of the references or 'needs'");
}
