//! Steps that call other services: over a kill, as `why` tells it, and where an operator lets them go.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place::motet;
use motet_tests::service::Service;
use motet_tests::waiting::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

const ORDER: &str = r#"
kind: Workflow
name: order
steps:
  look: {call: http, with: {method: GET, url: "${ input.url }/items/7", query: {fields: [name, price]}}}
  pay:
    call: http
    with:
      method: POST
      url: "${ input.url }/hold/pay?token=hidden"
      body: {item: "${ steps.look.output.body.path }", amount: 5}
    timeout: 60s
    retry: {max_attempts: 1}
output: {status: "${ steps.pay.output.status }", paid: "${ steps.pay.output.body.body.amount }",
         kind: "${ steps.pay.output.headers['content-type'] }"}
"#;

#[tokio::test]
async fn a_call_under_way_is_told_by_why_and_made_again_under_the_same_key_after_a_kill() -> Result<()> {
    let (folder, service) = (tempfile::tempdir()?, Service::start().await?);
    // Without certificates, as in a bare container: what is called over http needs none.
    let nothing = folder.path().join("nothing").display().to_string();
    let settings = NodeSettings::new(folder.path().join("data"));
    let mut node = Node::start(settings.with("SSL_CERT_FILE", &nothing).with("SSL_CERT_DIR", &nothing)).await?;
    let client = node.client();
    client.put_definition("workflows", "order", ORDER).await?;
    let body = json!({"input": {"url": service.url()}});
    let run = client.post("/api/v1/workflows/order/runs", &body).await?.expect(202)?.body;
    let run = run["id"].as_str().context("no id")?.to_owned();
    let payments = || service.seen().into_iter().filter(|seen| seen.line().0 == "POST").collect::<Vec<_>>();
    until(PATIENCE, "the first payment", async || (payments().len() == 1).then_some(())).await?;
    let server = format!("http://{}", node.http());
    let why = Command::new(motet()).args(["--server", &server, "runs", "why", &run]).output()?;
    let told = String::from_utf8(why.stdout)?;
    let named = format!("waits for http 'POST {}/hold/pay' (attempt 1)", service.url());
    ensure!(told.contains(&named) && !told.contains("hidden"), "{told}");

    node.kill()?;
    node.restart().await?;
    until(PATIENCE, "the second payment", async || (payments().len() == 2).then_some(())).await?;
    service.release();
    let ended = until(PATIENCE, "the end of the run", async || {
        client.read_run(&run).await.ok().filter(|run| run["finished_at"].is_string())
    })
    .await?;
    ensure!(ended["output"] == json!({"status": 200, "paid": 5, "kind": "application/json"}), "{ended}");
    let payments = payments();
    let keys: Vec<_> = payments.iter().map(|seen| seen.header("idempotency-key")).collect();
    let key = format!("{run}/pay/0");
    ensure!(keys == [Some(&*key), Some(&*key)], "{keys:?}");
    let sent: Value = serde_json::from_slice(&payments[1].body)?;
    ensure!(sent == json!({"item": "/items/7?fields=name&fields=price", "amount": 5}), "{sent}");
    ensure!(payments.iter().all(|seen| seen.header("traceparent").is_some()), "{payments:?}");
    ensure!(client.metric("motet_egress_calls_total").await? >= 1.0, "calls are not counted");
    let log = node.log();
    ensure!(log.contains("calls over https will fail") && !log.contains("hidden"), "{log}");
    Ok(())
}

#[tokio::test]
async fn an_operator_says_where_calls_may_go() -> Result<()> {
    let (folder, service) = (tempfile::tempdir()?, Service::start().await?);
    let settings = NodeSettings::new(folder.path().join("data")).with("MOTET__EGRESS__ALLOW", "*, !127.0.0.0/8, !::1");
    let node = Node::start(settings).await?;
    let client = node.client();
    client.put_definition("workflows", "order", ORDER).await?;
    for url in [service.url(), service.url().replace("127.0.0.1", "localhost")] {
        let run = client.run("order", &json!({ "url": url }), PATIENCE).await?;
        let error = &run["error"];
        ensure!(run["state"] == "failed" && error["class"] == "denied", "{run}");
        ensure!(
            error["message"].as_str().is_some_and(|words| words.contains("is not allowed by egress.allow")),
            "{run}"
        );
    }
    ensure!(service.seen().is_empty(), "{:?}", service.seen());
    let settings = NodeSettings::new(folder.path().join("other")).with("MOTET__EGRESS__ALLOW", "10.0.0.0/33");
    let mut node = Node::prepare(settings);
    ensure!(node.restart().await.is_err(), "a list with a mistake was taken");
    ensure!(node.log().contains("egress.allow") && node.log().contains("'10.0.0.0/33'"), "{}", node.log());
    Ok(())
}
