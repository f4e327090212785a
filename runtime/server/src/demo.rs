//! `motet demo`: a support desk on real models, durably, through the real server and its HTTP API.
//!
//! Does nothing that a user could not do with the same requests. Used by the command line.

mod chunk;
mod corpus;
mod definitions;
mod figures;
mod load;
mod models;
mod report;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use motet_engine::definition::ModelDefinition;
use motet_server::shutdown::Signals;

use self::corpus::{Corpus, Question};
use self::load::Load;
use self::models::Loaded;
use self::report::{Report, Restart};
use self::server::{DataFolder, DemoServer};
use crate::cli::Context;
use crate::cli::failure::{CliError, CliResult};
use crate::cli::output::Output;

/// Tickets that are unfinished when the server is stopped.
const RESTARTED: usize = 32;

/// Arguments of `motet demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
What it does: starts a server on free ports with a folder of its own, fetches an embedding model (91 MB, once), indexes
160 support articles, answers 8 questions and 160 tickets at one time, stops the server in the middle of work and
starts it again. Everything goes over the HTTP API that you would use.

Your own files are read in pieces of about 120 words, cut where paragraphs and sentences end, each beginning with the
last sentence of the one before.

Examples:
  motet demo
  motet demo --question 'How do I move my sensor to another room?'
  motet demo --folder ~/notes --question 'What did we decide about backups?'
  motet demo --keep                       leave the server running, and say how to talk to it
  motet demo --offline --output json      without network, for scripts")]
pub(crate) struct DemoArgs {
    /// Index your own .txt and .md files instead of the sample articles.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Ask this instead of the sample questions. May be repeated.
    #[arg(long, value_name = "TEXT")]
    question: Vec<String>,
    /// Leave the server running until Ctrl-C, and its folder where it is.
    #[arg(long)]
    keep: bool,
    /// Use the small embedding model that the binary carries; fetch nothing.
    #[arg(long)]
    offline: bool,
    /// Work in this folder and leave it; by default a temporary one that is removed.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The embedding model that the demo fetches.
pub(crate) fn embedding_model() -> CliResult<Arc<ModelDefinition>> {
    definitions::model(definitions::Embedder::MiniLm.model())
}

/// Runs the demo; Ctrl-C ends it and cleans up.
pub(crate) async fn execute(context: &Context, args: DemoArgs) -> CliResult {
    let corpus = match &args.folder {
        Some(folder) => Corpus::folder(folder, &args.question)?,
        None => Corpus::sample(&args.question)?,
    };
    let mut signals =
        Signals::listen().map_err(|error| CliError::failed(format!("cannot listen for Ctrl-C: {error:#}")))?;
    let mut data = DataFolder::open(args.data)?;
    if args.keep {
        data.keep();
    }
    server::log_to(&data.log())?;
    let show = Box::pin(show(&context.output, &corpus, &data, args.offline));
    let server = tokio::select! {
        server = show => server?,
        signal = signals.next() => return Err(CliError::failed(format!("ended by {signal}"))),
    };
    if args.keep {
        report::how_to_go_on(&context.output, server.client(), &data)?;
        signals.next().await;
    }
    server.stop().await
}

/// The whole show; gives the server that still runs.
async fn show(output: &Output, corpus: &Corpus, data: &DataFolder, offline: bool) -> CliResult<DemoServer> {
    let began = Instant::now();
    report::title(output, corpus, data)?;
    let server = DemoServer::start(data).await?;
    let loaded = models::load(server.client(), output, offline).await?;
    report::models(output, &loaded)?;
    let pipeline = definitions::pipeline(loaded.embedder, loaded.dimension)?;
    for definition in &pipeline {
        server.client().put(&crate::cli::definitions::path(definition), definition.document()).await?;
    }
    let indexed = load::index(server.client(), output, loaded.embedder, corpus).await?;
    report::indexed(output, corpus, &indexed)?;
    let all: Vec<Question> = corpus.questions.iter().chain(&corpus.tickets).cloned().collect();
    let answered = load::answer(server.client(), output, loaded.embedder, corpus, all.iter()).await?;
    report::answered(output, corpus, &answered)?;
    let models = server.client().get("/api/v1/models").await?;
    let (server, restart) = restart(output, server, corpus, data, &loaded, &answered).await?;
    let order = definitions::steps(&pipeline);
    let loads = (&indexed, &answered);
    let report = Report::new(corpus, &loaded, &order, &models, loads, restart, began.elapsed());
    report.show(output, data)?;
    Ok(server)
}

/// Stops the server in the middle of work, starts it again, and waits for what it had promised.
async fn restart(
    output: &Output,
    server: DemoServer,
    corpus: &Corpus,
    data: &DataFolder,
    loaded: &Loaded,
    before: &Load,
) -> CliResult<(DemoServer, Option<Restart>)> {
    if corpus.tickets.is_empty() {
        return Ok((server, None));
    }
    let tickets = &corpus.tickets[..RESTARTED.min(corpus.tickets.len())];
    let ids = load::submit(server.client(), loaded.embedder, corpus, tickets.iter()).await?;
    let unfinished = server.interrupt().await?;
    let began = Instant::now();
    let server = DemoServer::start(data).await?;
    let runs = load::wait_all(server.client(), &ids).await?;
    // The same questions were answered before the server was stopped: the answers must be the same.
    let earlier = before.runs.iter().skip(corpus.questions.len());
    let same = runs.iter().zip(earlier).filter(|(now, then)| now["output"]["answer"] == then.run["output"]["answer"]);
    let restart = Restart {
        accepted: ids.len(),
        unfinished,
        succeeded: runs.iter().filter(|run| run["state"] == "succeeded").count(),
        same_answer: same.count(),
        seconds: began.elapsed().as_secs_f64(),
    };
    report::restarted(output, &restart)?;
    Ok((server, Some(restart)))
}
