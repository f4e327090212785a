//! A broker that wants to know who is there, over encrypted connections; secrets come from files and are never shown.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_broker::contract::service;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::topics::{Topics, record};

use super::until_runs;

const WORKFLOW: &str = "
kind: Workflow
name: NAME
steps: {a: {call: transform, with: {value: '${ input.text }'}}}
output: '${ steps.a.output.value }'
";

/// What a test of a safe listener needs of the shared broker.
struct Safe {
    open: String,
    listener: String,
    secret: String,
    authority: String,
}

impl Safe {
    fn find(test: &str) -> Option<Self> {
        Some(Self {
            open: service(test, "MOTET_TEST_KAFKA")?,
            listener: service(test, "MOTET_TEST_KAFKA_SASL_TLS")?,
            secret: service(test, "MOTET_TEST_KAFKA_SECRET")?,
            authority: service(test, "MOTET_TEST_KAFKA_AUTHORITY")?,
        })
    }

    /// Settings of a node that proves itself with the secret in this file.
    fn settings(&self, folder: &std::path::Path, mechanism: &str, file: &std::path::Path) -> NodeSettings {
        NodeSettings::new(folder.join("data"))
            .with("MOTET__KAFKA__BROKERS", &self.listener)
            .with("MOTET__KAFKA__SECURITY", "sasl-tls")
            .with("MOTET__KAFKA__MECHANISM", mechanism)
            .with("MOTET__KAFKA__USER", "motet")
            .with("MOTET__KAFKA__PASSWORD_FILE", &file.display().to_string())
            .with("MOTET__KAFKA__AUTHORITY", &self.authority)
            .with("MOTET__KAFKA__PROPERTIES", "fetch.wait.max.ms=50,socket.keepalive.enable=true")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_over_a_listener_that_asks_who_is_there() -> Result<()> {
    let Some(safe) = Safe::find("secured") else { return Ok(()) };
    let topics = Topics::at(&safe.open).await?;
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("password");
        std::fs::write(&file, format!("{}\n", safe.secret))?;
        let node = Node::start(safe.settings(folder.path(), mechanism, &file)).await?;
        let name = topics.grounds().fresh("secured");
        topics.create(&[(&name, 1)]).await;
        node.client().put_definition("workflows", &name, &WORKFLOW.replace("NAME", &name)).await?;
        let stream = format!("kind: Stream\nname: {name}\ntopics: [{name}]\nworkflow: {name}\nprotocol: consumer\n");
        node.client().put_definition("streams", &name, &stream).await?;
        topics.produce((0..5).map(|it| record(&name, 0, "k", format!("{{\"text\": \"{it}\"}}"))).collect()).await?;
        until_runs(&node, &name, "succeeded", 5).await?;
        ensure!(!node.log().contains(&safe.secret), "{mechanism}: the log shows the password");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_where_somebody_looks() -> Result<()> {
    let Some(safe) = Safe::find("wrong_password") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2")?;
    let node = Node::start(safe.settings(folder.path(), "scram-sha-256", &file)).await?;
    node.client().put_definition("workflows", "any", &WORKFLOW.replace("NAME", "any")).await?;
    let stream = "kind: Stream\nname: any\ntopics: [any]\nworkflow: any\n";
    node.client().put_definition("streams", "any", stream).await?;
    let told = motet_tests::waiting::until(Duration::from_secs(60), "words about the password", async || {
        let log = node.log();
        (log.contains("kafka.user") && log.contains("compare")).then_some(log)
    })
    .await?;
    ensure!(!told.contains("hunter2"), "the log shows the password");
    Ok(())
}

#[test]
fn settings_that_cannot_be_used_are_refused_at_once() -> Result<()> {
    for (name, value, part) in [
        ("MOTET__KAFKA__BROKERS", "nowhere", "host:port"),
        ("MOTET__KAFKA__SECURITY", "ssl", "sasl-tls"),
        ("MOTET__KAFKA__PROPERTIES", "enable.auto.commit=true", "positions are kept in the store"),
        ("MOTET__KAFKA__PROPERTIES", "fetch.min.bites=1", "did you mean 'fetch.min.bytes'?"),
        ("MOTET__KAFKA__AUTHORITY", "/nowhere/ca.pem", "kafka.authority"),
    ] {
        let folder = tempfile::tempdir()?;
        let output = std::process::Command::new(motet_tests::place::motet())
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .env("MOTET__KAFKA__BROKERS", "127.0.0.1:9092")
            .env(name, value)
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && words.contains(part), "{name}={value}: {words}");
    }
    Ok(())
}
