//! `motet cluster`: the nodes together, as any of them sees them.
//!
//! Only reads. Used by operators.

use clap::Args;
use serde_json::Value;

use super::Context;
use super::failure::CliResult;
use super::output::{Output, items, text};

/// How many roles there are.
const ROLES: usize = 5;

/// Arguments of `motet cluster`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  motet cluster
  motet cluster --server http://motet-1:8080 --output json
Every node answers for all. A node is one of several when cluster.address is set.")]
pub(crate) struct ClusterArgs {}

/// Does what was asked.
pub(crate) async fn execute(context: &Context, _: ClusterArgs) -> CliResult {
    let (client, output) = (context.client()?, &context.output);
    let answer = client.get("/api/v1/cluster").await?;
    if output.is_json() { output.json(&answer) } else { show(output, &answer) }
}

fn show(output: &Output, cluster: &Value) -> CliResult {
    if cluster["alone"] == true {
        output.note(format!(
            "node '{}' runs alone; set cluster.address to make it one of several",
            text(cluster, "node")
        ));
        return Ok(());
    }
    let leader = match &cluster["leader"] {
        Value::Null => output.paint.red("nobody leads at this moment"),
        leader => format!("{} (term {})", text(leader, "node"), text(leader, "term")),
    };
    let shards = &cluster["shards"];
    output.line(format!("leader   {leader}"))?;
    let (count, unserved, moving) = (text(shards, "count"), text(shards, "unserved"), text(shards, "moving"));
    output.line(format!("shards   {count}, {unserved} unserved, {moving} moving"))?;
    if cluster["version_skew"] == true {
        output.line(output.paint.yellow("nodes run different versions: fine while an upgrade rolls, not for long"))?;
    }
    let rows = items(cluster, "nodes").iter().map(|node| {
        let left = node["lease_left_ms"].as_u64().unwrap_or_default();
        let state = match (left, node["draining"] == true) {
            (0, _) => "lost".to_owned(),
            (_, true) => "draining".to_owned(),
            _ => text(node, "state"),
        };
        let roles: Vec<_> = items(node, "roles").iter().filter_map(Value::as_str).collect();
        let roles = if roles.len() == ROLES { "all".to_owned() } else { roles.join(" ") };
        [
            text(node, "name"),
            output.paint.state(&state),
            text(node, "incarnation"),
            text(node, "address"),
            roles,
            text(node, "version"),
            text(node, "shards"),
            text(node, "coming"),
            text(node, "live_runs"),
        ]
    });
    let header = ["node", "state", "life", "address", "roles", "version", "shards", "coming", "live runs"];
    output.table(header, &[6, 7, 8], rows.collect())?;
    for node in items(cluster, "nodes") {
        let (name, why) = (text(node, "name"), text(node, "why"));
        if !why.is_empty() {
            output.note(format!("{name}: {why}"));
        }
    }
    Ok(())
}
