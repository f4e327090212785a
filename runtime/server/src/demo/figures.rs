//! Sums of what happened: batches of models, times of steps, runs per second, how many answers were right.
//!
//! Never prints. Used by the demo's report.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::corpus::Question;
use super::load::{Ended, Load};
use crate::cli::span_ms;

/// Places of the answer's sources.
const TOP: usize = 5;

/// How good the answers to questions with a known truth are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Quality {
    /// Questions with a known article.
    pub(crate) with_article: usize,
    /// Those whose first source it was.
    pub(crate) first: usize,
    /// Those among whose sources it was.
    pub(crate) among_five: usize,
    /// Questions with a known category.
    pub(crate) with_category: usize,
    /// Those that were put into it.
    pub(crate) category_right: usize,
}

impl Quality {
    /// Compares answers with the truth, where there is one.
    pub(crate) fn of(questions: &[Question], answers: &[Ended]) -> Self {
        let mut quality = Self::default();
        for (question, ended) in questions.iter().zip(answers) {
            let output = &ended.run["output"];
            if let Some(article) = question.article.as_deref() {
                let sources = output["sources"].as_array().map_or(&[][..], Vec::as_slice);
                let place = sources.iter().take(TOP).position(|source| source["id"] == article);
                quality.with_article += 1;
                quality.first += usize::from(place == Some(0));
                quality.among_five += usize::from(place.is_some());
            }
            if let Some(category) = question.category.as_deref() {
                quality.with_category += 1;
                quality.category_right += usize::from(output["category"] == category);
            }
        }
        quality
    }
}

/// How long one step of a workflow took, over many runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StepFigures {
    /// Workflow of the step.
    pub(crate) workflow: String,
    /// Name of the step.
    pub(crate) step: String,
    /// How often it ran.
    pub(crate) count: usize,
    /// Mean of its times, waiting for batches included.
    pub(crate) mean_ms: f64,
    /// Time that all but one of a hundred stayed below.
    pub(crate) p99_ms: f64,
}

/// The named steps of workflows, over all runs.
pub(crate) fn steps(order: &[(String, String)], loads: &[&Load]) -> Vec<StepFigures> {
    let runs: Vec<&Value> = loads.iter().flat_map(|load| &load.runs).map(|ended| &ended.run).collect();
    let figures = order.iter().filter_map(|(workflow, step)| {
        let own = runs.iter().filter(|run| run["workflow"] == workflow.as_str());
        let mut times: Vec<f64> =
            own.filter_map(|run| span_ms(&run["steps"][step.as_str()], "started_at", "finished_at")).collect();
        let (mean_ms, p99_ms, count) = spread(&mut times)?;
        Some(StepFigures { workflow: workflow.clone(), step: step.clone(), count, mean_ms, p99_ms })
    });
    figures.collect()
}

/// Mean, 99th percentile and number of times; none of none.
fn spread(times: &mut [f64]) -> Option<(f64, f64, usize)> {
    times.sort_by(f64::total_cmp);
    let count = times.len();
    let rank = (count * 99).div_ceil(100).checked_sub(1)?;
    Some((times.iter().sum::<f64>() / count as f64, times[rank], count))
}

/// How fast one load was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LoadFigures {
    /// Workflow of the runs.
    pub(crate) workflow: String,
    /// How many.
    pub(crate) runs: usize,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Runs ended per second.
    pub(crate) runs_per_second: f64,
    /// Mean time from request to answer.
    pub(crate) mean_ms: f64,
    /// Time that all but one of a hundred requests stayed below.
    pub(crate) p99_ms: f64,
}

impl LoadFigures {
    /// The figures of a load.
    pub(crate) fn of(workflow: &str, load: &Load) -> Self {
        let millis = |took: Duration| took.as_secs_f64() * 1000.0;
        let mut times: Vec<f64> = load.runs.iter().map(|ended| millis(ended.took)).collect();
        let (mean_ms, p99_ms, runs) = spread(&mut times).unwrap_or_default();
        let seconds = load.took.as_secs_f64().max(1e-9);
        Self { workflow: workflow.to_owned(), runs, seconds, runs_per_second: runs as f64 / seconds, mean_ms, p99_ms }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_compared_with_the_truth() {
        let question = |article: Option<&str>, category: Option<&str>| Question {
            id: "q".to_owned(),
            text: "?".to_owned(),
            category: category.map(str::to_owned),
            article: article.map(str::to_owned),
        };
        let answer = |category: &str, sources: &[&str]| {
            let sources: Vec<Value> = sources.iter().map(|id| json!({"id": id})).collect();
            Ended { run: json!({"output": {"category": category, "sources": sources}}), took: Duration::ZERO }
        };
        let questions = [question(Some("a"), Some("x")), question(Some("b"), None), question(None, Some("y"))];
        let answers = [answer("x", &["a", "b"]), answer("x", &["a", "b"]), answer("z", &[])];
        let expected = Quality { with_article: 2, first: 1, among_five: 2, with_category: 2, category_right: 1 };
        assert_eq!(Quality::of(&questions, &answers), expected);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(spread(&mut times), Some((50.5, 99.0, 100)));
        assert_eq!(spread(&mut [7.0]), Some((7.0, 7.0, 1)));
        assert_eq!(spread(&mut []), None);
    }

    #[test]
    fn steps_come_in_the_order_of_their_workflow() {
        let run = json!({"workflow": "answer", "steps": {
            "b": {"started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:00:00.010Z"},
            "a": {"started_at": "2026-01-01T00:00:00.010Z", "finished_at": "2026-01-01T00:00:00.030Z"},
            "skipped": {"started_at": null},
        }});
        let load = Load { runs: vec![Ended { run, took: Duration::ZERO }], took: Duration::from_secs(1) };
        let order = ["b", "a", "skipped"].map(|step| ("answer".to_owned(), step.to_owned()));
        let found = steps(&order, &[&load]);
        let found: Vec<(&str, f64)> = found.iter().map(|it| (it.step.as_str(), it.mean_ms.round())).collect();
        assert_eq!(found, [("b", 10.0), ("a", 20.0)]);
    }
}
