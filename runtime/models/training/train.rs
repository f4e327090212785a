//! Trains the support-desk classifier and embedder that this repository carries, from texts of this repository.
//!
//! Run it with `cargo run --example train_text_classifier`. The same sources and seed give the same weights. It learns
//! from `data/train.jsonl` and the articles of the sample corpus, never from the tickets or from `data/heldout.jsonl`,
//! which it reads once, at the end, to say how good the result is. With `--fold 0` to `4` it leaves out every
//! fifth training text, says how well these are understood, and writes nothing: choose settings with that.

mod evaluate;
mod learn;
mod network;
mod random;
mod texts;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use learn::Settings;
use texts::{Article, Labelled};

/// Everything the program reads.
struct Sources {
    articles: Vec<Article>,
    train: Vec<Labelled>,
    tickets: Vec<Labelled>,
    heldout: Vec<Labelled>,
    labels: Vec<String>,
}

impl Sources {
    fn read(root: &std::path::Path) -> Result<Self, String> {
        let articles: Vec<Article> = texts::read_lines(&root.join("../server/demo/articles.jsonl"))?;
        let mut labels: Vec<String> = articles.iter().map(|article| article.category.clone()).collect();
        labels.sort();
        labels.dedup();
        Ok(Self {
            train: texts::read_lines(&root.join("training/data/train.jsonl"))?,
            tickets: texts::read_lines(&root.join("../server/demo/tickets.jsonl"))?,
            heldout: texts::read_lines(&root.join("training/data/heldout.jsonl"))?,
            articles,
            labels,
        })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut fold = None;
    let mut settings = Settings::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--root" => root = PathBuf::from(value),
            "--fold" => fold = Some(value.parse::<usize>().map_err(|error| format!("--fold: {error}"))?),
            _ => settings.set(&name, &value)?,
        }
    }
    let mut sources = Sources::read(&root)?;
    let left_out = fold.map(|fold| leave_out(&mut sources.train, fold));
    println!(
        "{} articles, {} training texts, {} labels; {settings:?}",
        sources.articles.len(),
        sources.train.len(),
        sources.labels.len()
    );
    let began = Instant::now();
    let mut network = learn::learn(&sources, &settings)?;
    println!("learned in {:.1} s", began.elapsed().as_secs_f32());
    write::round_to_half(&mut network);
    if let Some(left_out) = left_out {
        evaluate::without_learning(&network, &sources, &left_out);
        evaluate::report("left-out training texts", &network, &sources, &left_out);
        return Ok(());
    }
    let heldout = evaluate::report("held-out texts", &network, &sources, &sources.heldout);
    let tickets = evaluate::report("tickets", &network, &sources, &sources.tickets);
    evaluate::without_learning(&network, &sources, &sources.tickets);
    write::write(&root.join("bundled/support-desk"), &mut network, &sources, &[heldout, tickets])
}

/// Takes every fifth text, beginning with number `fold`, out of the list.
fn leave_out(texts: &mut Vec<Labelled>, fold: usize) -> Vec<Labelled> {
    let (out, kept): (Vec<_>, Vec<_>) = texts.drain(..).enumerate().partition(|(at, _)| at % 5 == fold % 5);
    texts.extend(kept.into_iter().map(|(_, text)| text));
    out.into_iter().map(|(_, text)| text).collect()
}
