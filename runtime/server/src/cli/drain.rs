//! `motet drain`: a node gives its shards to the others while it goes on answering.
//!
//! Any node may be asked for any other. Stops no process. Used by operators before a node is taken away.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::client::{Client, segment};
use super::failure::{CliError, CliResult, Exit};
use super::output::{items, text};
use super::run::duration;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `motet drain`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet drain motet-1              give its shards away; ends when it has none
  motet drain motet-1 --undo       let it take shards again
The node goes on answering requests. No run ends or fails by it; calls that are under way are waited for. Stopping a
node (SIGTERM) hands its shards over in the same way; draining first shows that the others can carry the load.")]
pub(crate) struct DrainArgs {
    /// Name of the node, as 'motet cluster' shows it.
    node: String,
    /// Let it take shards again.
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// How long to wait until it has no shard any more, such as 30s or 5m; 0s does not wait.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, args: DrainArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    let path = format!("/api/v1/nodes/{}/drain", segment(&args.node));
    let node = client.post(&path, &json!({"drain": !args.undo}), Duration::ZERO).await?.body;
    if args.undo {
        output.note("it is given shards again within seconds; see: motet cluster");
        return if output.is_json() { output.json(&node) } else { output.line(format!("{} takes shards", args.node)) };
    }
    let node = if args.wait.is_zero() { node } else { wait(&client, context, &args, node).await? };
    if output.is_json() {
        return output.json(&node);
    }
    match text(&node, "shards").as_str() {
        "0" => output.line(format!("{} has given its shards away and may be stopped", args.node)),
        left => output.line(format!("{} is giving away {left} shards", args.node)),
    }
}

/// Waits until the node serves no shard.
async fn wait(client: &Client, context: &Context, args: &DrainArgs, mut node: Value) -> CliResult<Value> {
    let shards = |node: &Value| node["shards"].as_u64().unwrap_or_default();
    let (begun, all) = (Instant::now(), shards(&node));
    let progress = context.output.progress("shards given away", all, false);
    while shards(&node) > 0 {
        if begun.elapsed() >= args.wait {
            return Err(CliError::new(
                Exit::StillRunning,
                format!("{} still serves {} shards", args.node, shards(&node)),
            )
            .advise("it goes on giving them away; see: motet cluster"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let cluster = client.get("/api/v1/cluster").await?;
        let found = items(&cluster, "nodes").iter().find(|other| other["name"] == args.node.as_str());
        node = found.cloned().ok_or_else(|| CliError::failed(format!("{} has gone meanwhile", args.node)))?;
        progress.set(all.saturating_sub(shards(&node)), None);
    }
    Ok(node)
}
