//! Nodes that prove themselves to each other: mutual TLS, certificates that change while nodes run, strangers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::node::NodeSettings;
use motet_tests::waiting::until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;

use super::nodes::{Nodes, PATIENCE, SHARDS, ask, define, nodes, write_secret};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<Authority> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Writes a certificate of a node, its key and the authority.
fn issue(folder: &Path, node: &str, by: &Authority) -> Result<()> {
    let mut params = CertificateParams::new(vec![node.to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, by)?;
    std::fs::write(folder.join(format!("{node}.pem")), certificate.pem())?;
    std::fs::write(folder.join(format!("{node}.authority.pem")), by.pem())?;
    write_secret(&folder.join(format!("{node}.key")), &key.serialize_pem())
}

/// A node that proves itself with what `issue` wrote.
fn proven(settings: NodeSettings, folder: &Path, node: &str) -> NodeSettings {
    let file = |what: &str| folder.join(format!("{node}.{what}")).display().to_string();
    settings
        .with("MOTET__CLUSTER__CERTIFICATE", &file("pem"))
        .with("MOTET__CLUSTER__KEY", &file("key"))
        .with("MOTET__CLUSTER__AUTHORITY", &file("authority.pem"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_prove_themselves_and_take_new_certificates_without_a_restart() -> Result<()> {
    let test = "nodes_prove_themselves_and_take_new_certificates_without_a_restart";
    let Some(mut cluster) = Nodes::begin(test).await? else { return Ok(()) };
    let (ours, theirs) = (authority()?, authority()?);
    let folder = cluster.folder.path().to_owned();
    for (node, by) in [("node-0", &ours), ("node-1", &ours), ("stranger", &theirs)] {
        issue(&folder, node, by)?;
        // A stranger would own shards if a lease were enough; it has the role that owns none, and asks as a node does.
        let roles = if node == "stranger" { "api" } else { "api,runs,models" };
        let settings = |settings: NodeSettings| proven(settings, &folder, node).with("MOTET__CLUSTER__ROLES", roles);
        cluster.add(node, settings).await?;
    }
    cluster.until_everybody_serves(2).await?;
    define(&cluster).await?;
    let alive = cluster.until_seen(0, "the nodes hear of each other", "node-1", |node| node["state"] == "alive");
    alive.await?;
    crossing(&cluster).await?;

    // New keys, signed by the same authority, in the same files; old connections end, and new ones use them.
    for node in ["node-0", "node-1"] {
        issue(&folder, node, &ours)?;
    }
    cluster.nodes[1].kill()?;
    cluster.nodes[1].restart().await?;
    cluster.until_everybody_serves(2).await?;
    crossing(&cluster).await?;

    // What a stranger says is heard by nobody, however long it lives in the same database.
    let view = cluster.seen_by(0).await?;
    let stranger = nodes(&view).iter().find(|node| node["name"] == "stranger").cloned().unwrap_or_default();
    ensure!(stranger["state"] != "alive" && stranger["roles"] == json!([]) && stranger["shards"] == 0, "{view}");
    let asked = cluster.client(2).run("hello", &json!({"name": "Eve"}), Duration::from_secs(2)).await;
    ensure!(asked.is_err() || asked.is_ok_and(|run| run["state"] != "failed"), "a run of a stranger's failed");
    Ok(())
}

/// Runs that begin at one node and are answered through the other, until both directions were used.
async fn crossing(cluster: &Nodes) -> Result<()> {
    for number in 0..SHARDS {
        let (here, there) = (cluster.client((number % 2) as usize), cluster.client(((number + 1) % 2) as usize));
        let run = ask(&here).await?;
        there.post(&format!("/api/v1/runs/{run}/signals/answer"), &json!({"number": number})).await?.expect(202)?;
        let done = until(PATIENCE, "the run ends", async || {
            let run = there.read_run(&run).await.ok()?;
            (run["state"] == "succeeded").then_some(run)
        });
        ensure!(done.await?["output"]["number"] == number, "{run}");
    }
    Ok(())
}
