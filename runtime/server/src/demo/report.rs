//! What the demo shows, as it happens and at the end; or all of it as one JSON value.
//!
//! Never measures; `figures` does. Used by the demo.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::corpus::{Corpus, Question};
use super::definitions::Embedder;
use super::figures::{LoadFigures, Quality, StepFigures, steps};
use super::load::{Ended, Load};
use super::models::Loaded;
use super::server::DataFolder;
use crate::cli::client::Client;
use crate::cli::failure::CliResult;
use crate::cli::output::{Output, items, shorten, text};

/// Columns that the demo's own lines keep to.
const WIDTH: usize = 98;
/// Sources shown of each answer.
const SOURCES: usize = 3;

/// What became of runs that were under way when the server was stopped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Restart {
    /// Runs that the server had accepted.
    pub(crate) accepted: usize,
    /// Those that were live when it stopped.
    pub(crate) unfinished: usize,
    /// Those that succeeded in the end.
    pub(crate) succeeded: usize,
    /// Those whose answer is the one that was given before.
    pub(crate) same_answer: usize,
    /// From the stop to the end of the last one.
    pub(crate) seconds: f64,
}

/// Everything that happened.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    embedder: &'static str,
    offline_because: Option<String>,
    documents: usize,
    answers: Vec<Value>,
    models: Vec<Value>,
    steps: Vec<StepFigures>,
    loads: Vec<LoadFigures>,
    quality: Quality,
    restart: Option<Restart>,
    seconds: f64,
}

impl Report {
    /// Sums up.
    pub(crate) fn new(
        corpus: &Corpus,
        loaded: &Loaded,
        order: &[(String, String)],
        models: &Value,
        (indexed, answered): (&Load, &Load),
        restart: Option<Restart>,
        took: Duration,
    ) -> Self {
        let tickets = answered.runs.get(corpus.questions.len()..).unwrap_or_default();
        let answers = corpus.questions.iter().zip(&answered.runs).map(|(question, ended)| {
            json!({"question": question.text, "run": ended.run["id"], "output": ended.run["output"]})
        });
        Self {
            embedder: loaded.embedder.model(),
            offline_because: loaded.why_offline.clone(),
            documents: corpus.documents.len(),
            answers: answers.collect(),
            models: called(models),
            steps: steps(order, &[indexed, answered]),
            loads: vec![LoadFigures::of("index-articles", indexed), LoadFigures::of("answer", answered)],
            quality: Quality::of(&corpus.tickets, tickets),
            restart,
            seconds: took.as_secs_f64(),
        }
    }

    /// Writes the sums as tables, or everything as JSON.
    pub(crate) fn show(&self, output: &Output, data: &DataFolder) -> CliResult {
        if output.is_json() {
            return output.json(&serde_json::to_value(self)?);
        }
        heading(output, "What the models did")?;
        self.show_models(output)?;
        heading(output, "What the steps took, waiting for a batch included")?;
        self.show_steps(output)?;
        heading(output, "What the runs took, every one of them durable before it was answered")?;
        self.show_loads(output)?;
        let quality = &self.quality;
        if quality.with_article > 0 {
            heading(output, "How good the answers are, by tickets whose truth is known")?;
            let share = |part: usize, of: usize| format!("{part:>4} of {of} ({:.0} %)", percent(part, of));
            line(output, &format!("right article first     {}", share(quality.first, quality.with_article)))?;
            line(output, &format!("right article in top 5  {}", share(quality.among_five, quality.with_article)))?;
            line(output, &format!("right category          {}", share(quality.category_right, quality.with_category)))?;
        }
        output.line("")?;
        let place = data.path().display();
        let kept = if data.is_temporary() {
            "the data folder is removed now; 'motet demo --keep' leaves it and the server".to_owned()
        } else {
            format!("everything is in {place}; go on with: motet serve --data {place}")
        };
        output.line(format!("Done in {:.1} s; {kept}.", self.seconds))
    }

    fn show_models(&self, output: &Output) -> CliResult {
        let rows = self.models.iter().map(|model| {
            let figures = &model["figures"];
            let number = |key: &str| text(figures, key);
            let mean = figures["mean_batch"].as_f64().unwrap_or_default();
            let busy = figures["busy_ms"].as_f64().unwrap_or_default();
            let rows = figures["rows"].as_f64().unwrap_or_default();
            let each = if rows > 0.0 { format!("{:.2}", busy / rows) } else { String::new() };
            [
                text(model, "name"),
                number("calls"),
                number("rows"),
                number("batches"),
                format!("{mean:.1}"),
                number("largest_batch"),
                number("busy_ms"),
                each,
            ]
        });
        let header = ["model", "calls", "texts", "batches", "mean batch", "largest", "busy ms", "ms a text"];
        indented(output, &output.layout(header, &[1, 2, 3, 4, 5, 6, 7], rows.collect()))
    }

    fn show_steps(&self, output: &Output) -> CliResult {
        let rows = self.steps.iter().map(|it| {
            let mean = format!("{:.1}", it.mean_ms);
            [it.workflow.clone(), it.step.clone(), it.count.to_string(), mean, format!("{:.1}", it.p99_ms)]
        });
        indented(output, &output.layout(["workflow", "step", "count", "mean ms", "p99 ms"], &[2, 3, 4], rows.collect()))
    }

    fn show_loads(&self, output: &Output) -> CliResult {
        let rows = self.loads.iter().map(|it| {
            let (seconds, rate) = (format!("{:.2}", it.seconds), format!("{:.0}", it.runs_per_second));
            let times = (format!("{:.0}", it.mean_ms), format!("{:.0}", it.p99_ms));
            [it.workflow.clone(), it.runs.to_string(), seconds, rate, times.0, times.1]
        });
        let header = ["workflow", "runs", "seconds", "runs/s", "mean ms", "p99 ms"];
        indented(output, &output.layout(header, &[1, 2, 3, 4, 5], rows.collect()))
    }
}

/// The models that did something.
fn called(models: &Value) -> Vec<Value> {
    items(models, "models").iter().filter(|model| model["figures"]["calls"].as_u64() > Some(0)).cloned().collect()
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn percent(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 }
}

fn line(output: &Output, words: &str) -> CliResult {
    if output.is_json() { Ok(()) } else { output.line(format!("  {words}")) }
}

fn indented(output: &Output, table: &str) -> CliResult {
    table.lines().try_for_each(|row| line(output, row))
}

fn heading(output: &Output, words: &str) -> CliResult {
    if output.is_json() {
        return Ok(());
    }
    output.line("")?;
    output.line(output.paint.bold(words))
}

/// What is going to happen.
pub(crate) fn title(output: &Output, corpus: &Corpus, data: &DataFolder) -> CliResult {
    let what = match corpus.files {
        0 => "a support desk that answers from its articles".to_owned(),
        files => format!("answers from {} of yours", plural(files, "file")),
    };
    if !output.is_json() {
        output.line(output.paint.bold(&format!("Motet demo: {what}")))?;
    }
    line(output, &format!("data folder  {} (the server's log: server.log)", data.path().display()))
}

/// Which models there are.
pub(crate) fn models(output: &Output, loaded: &Loaded) -> CliResult {
    let took = loaded.took.as_secs_f64();
    line(output, "classifier   support-classifier, trained by this project, in the binary")?;
    let (embedder, dimension) = (loaded.embedder.model(), loaded.dimension);
    match loaded.embedder {
        Embedder::MiniLm => line(
            output,
            &format!("embedder     {embedder}: all-MiniLM-L6-v2, {dimension} numbers a text, here after {took:.1} s"),
        ),
        Embedder::Offline => {
            line(output, &format!("embedder     {embedder}: in the binary, {dimension} numbers a text"))?;
            match loaded.why_offline.as_deref() {
                None | Some("--offline") => {
                    line(output, "             (--offline: smaller and less exact than all-MiniLM-L6-v2)")
                }
                Some(why) => {
                    let why = shorten(why, WIDTH - 15);
                    line(
                        output,
                        &output
                            .paint
                            .yellow("             all-MiniLM-L6-v2 could not be fetched; a smaller model serves:"),
                    )?;
                    line(output, &format!("             {why}"))
                }
            }
        }
    }
}

/// What was stored.
pub(crate) fn indexed(output: &Output, corpus: &Corpus, load: &Load) -> CliResult {
    let seconds = load.took.as_secs_f64();
    let documents = plural(corpus.documents.len(), if corpus.files == 0 { "article" } else { "piece" });
    let runs = plural(load.runs.len(), "concurrent run");
    heading(output, &format!("Indexed {documents} in {runs}, {seconds:.1} s"))
}

/// The answers to the questions.
pub(crate) fn answered(output: &Output, corpus: &Corpus, load: &Load) -> CliResult {
    let (questions, tickets) = (corpus.questions.len(), corpus.tickets.len());
    let beside = if tickets == 0 { String::new() } else { format!(" and {tickets} tickets at the same time") };
    let seconds = load.took.as_secs_f64();
    heading(output, &format!("Answered {}{beside}, {seconds:.1} s", plural(questions, "question")))?;
    for (place, (question, ended)) in corpus.questions.iter().zip(&load.runs).enumerate() {
        answer(output, place + 1, question, ended, corpus.files == 0)?;
    }
    Ok(())
}

fn answer(output: &Output, place: usize, question: &Question, ended: &Ended, categories: bool) -> CliResult {
    if output.is_json() {
        return Ok(());
    }
    let paint = output.paint;
    let found = &ended.run["output"];
    output.line("")?;
    for (row, words) in wrap(&question.text, WIDTH - 5).iter().enumerate() {
        let number = if row == 0 { format!("{place:>3}.") } else { " ".repeat(4) };
        output.line(format!("{number} {}", paint.bold(words)))?;
    }
    if categories {
        let sure = found["confidence"].as_f64().unwrap_or_default() * 100.0;
        output.line(format!("     {} {sure:.0} %", paint.cyan(&text(found, "category"))))?;
    }
    for source in found["sources"].as_array().into_iter().flatten().take(SOURCES) {
        let score = source["score"].as_f64().unwrap_or_default();
        let same = if source["same_category"] == true { paint.dim("  same category") } else { String::new() };
        output.line(format!("     {score:.2}  {:<64}{same}", shorten(&text(source, "title"), 64)))?;
    }
    let answer = text(found, "answer");
    let body = answer.split("\n\nFrom:").next().unwrap_or_default();
    for row in wrap(body, WIDTH - 7).iter().take(3) {
        output.line(format!("     {} {row}", paint.green("|")))?;
    }
    Ok(())
}

/// A text as rows of at most so many characters; the third row says when more follows.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + word.chars().count() <= width => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    if let [_, _, third, _, ..] = rows.as_mut_slice() {
        *third = shorten(&format!("{third} {}", "·".repeat(width)), width);
        *third = third.trim_end_matches(['·', '…', ' ']).to_owned() + " …";
    }
    rows
}

/// What became of the runs that were under way.
pub(crate) fn restarted(output: &Output, restart: &Restart) -> CliResult {
    let Restart { accepted, unfinished, succeeded, same_answer, seconds } = restart;
    heading(output, "Stopped the server in the middle of work, and started it again")?;
    line(output, &format!("{accepted} tickets accepted, {unfinished} of them unfinished when the server went away"))?;
    line(
        output,
        &format!(
            "{succeeded} of {accepted} finished {seconds:.1} s later, {same_answer} with the answer they had before"
        ),
    )
}

/// How to talk to the server that stays.
pub(crate) fn how_to_go_on(output: &Output, client: &Client, data: &DataFolder) -> CliResult {
    let base = client.base();
    let lines = [
        String::new(),
        output.paint.bold(&format!("The server stays on {base}. In another terminal:")),
        String::new(),
        "  # ask a question".to_owned(),
        format!("  curl -s '{base}/api/v1/workflows/answer/runs?wait=10s' -H 'content-type: application/json' \\"),
        "    -d '{\"input\": {\"question\": \"How do I reset my password?\"}}'".to_owned(),
        "  # follow every step of a run".to_owned(),
        format!("  motet run answer -i question='Where is my parcel?' --follow --server {base}"),
        "  # see what ran".to_owned(),
        format!("  motet runs list --limit 10 --server {base}"),
        String::new(),
        format!("Ctrl-C ends it. Everything stays in {}.", data.path().display()),
    ];
    // With JSON the words go to where they do not spoil it.
    lines.iter().try_for_each(|words| {
        if output.is_json() {
            output.note(words);
            return Ok(());
        }
        output.line(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wrapped_between_words_and_cut_after_three_rows() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        let rows = wrap("aaa bbb ccc ddd eee fff", 7);
        assert_eq!(rows[..2], ["aaa bbb", "ccc ddd"]);
        let rows = wrap("aaa bbb ccc ddd eee fff ggg", 7);
        assert!(rows[2].ends_with(" …"), "{rows:?}");
        assert!(wrap("", 7).is_empty());
    }
}
