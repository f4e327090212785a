//! The first minutes of a user: define, run, read, make mistakes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::json;

pub(super) const MODEL: &str = "kind: Model\nname: echo\nbackend: fake\n";
pub(super) const WORKFLOW: &str = r#"
kind: Workflow
name: hello
version: "1"
input: {schema: {type: object, required: [name], properties: {name: {type: string}}}}
steps:
  greet: {call: model, model: echo, with: {text: "Hello ${ input.name }"}}
output: {text: "${ steps.greet.output.text }"}
"#;

async fn ready_node(folder: &tempfile::TempDir) -> Result<Node> {
    let node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    node.client().put_definition("models", "echo", MODEL).await?;
    node.client().put_definition("workflows", "hello", WORKFLOW).await?;
    Ok(node)
}

#[tokio::test]
async fn a_run_goes_from_submission_to_output() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = ready_node(&folder).await?;
    let client = node.client();
    let submitted =
        client.post("/api/v1/workflows/hello/runs", &json!({ "input": { "name": "Ada" } })).await?.expect(202)?;
    let id = submitted.body["id"].as_str().context("no id")?.to_owned();
    let location = submitted.headers.get(LOCATION).context("no Location")?.to_str()?;
    ensure!(location.ends_with(&id), "{location}");

    let done = client.run("hello", &json!({ "name": "Grace" }), Duration::from_secs(10)).await?;
    ensure!(done["state"] == "succeeded" && done["output"]["text"] == "Hello Grace", "{done}");
    let read = client.read_run(done["id"].as_str().context("no id")?).await?;
    ensure!(read["output"] == done["output"] && read["steps"]["greet"]["output"]["text"] == "Hello Grace", "{read}");
    let events = client.events(done["id"].as_str().context("no id")?).await?;
    motet_tests::history::check_wire(&events).map_err(anyhow::Error::msg)?;

    // Everything is still there after a stop and a start.
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    node.restart().await?;
    ensure!(client.read_run(done["id"].as_str().context("no id")?).await? == read, "the run reads otherwise now");
    client.get(&format!("/api/v1/runs/{id}")).await?.expect(200)?;
    let listed = client.get("/api/v1/runs").await?.expect(200)?.body.to_string();
    ensure!(listed.contains(&id), "{listed}");
    Ok(())
}

#[tokio::test]
async fn mistakes_are_told_as_problems() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = ready_node(&folder).await?;
    let client = node.client();
    let put = |text: &'static str| {
        client.request(Method::PUT, "/api/v1/workflows/wrong").header(CONTENT_TYPE, "application/yaml").body(text)
    };
    let runs = "/api/v1/workflows/hello/runs";
    let keyed = |name: &str| {
        client.request(Method::POST, runs).header("idempotency-key", "k").json(&json!({ "input": { "name": name } }))
    };
    client.send(keyed("Ada")).await?.expect(202)?;
    let cases = [
        ("unknown key", put("kind: Workflow\nname: wrong\nstepz: {}\n"), vec![400, 422]),
        ("no YAML", put("kind: [\n"), vec![400, 422]),
        (
            "other content",
            client
                .request(Method::PUT, "/api/v1/workflows/hello")
                .header(CONTENT_TYPE, "application/yaml")
                .body(WORKFLOW.replace("Hello", "Good day")),
            vec![409],
        ),
        (
            "input that does not fit",
            client.request(Method::POST, runs).json(&json!({ "input": { "name": 1 } })),
            vec![400, 422],
        ),
        (
            "body that is no JSON",
            client.request(Method::POST, runs).header(CONTENT_TYPE, "application/json").body("{"),
            vec![400],
        ),
        ("key for another request", keyed("Grace"), vec![422]),
        ("unknown workflow", client.request(Method::POST, "/api/v1/workflows/none/runs").json(&json!({})), vec![404]),
        ("unknown run", client.request(Method::GET, "/api/v1/runs/run_00000000000000000000000000"), vec![404]),
        ("unknown path", client.request(Method::GET, "/api/v1/nothing"), vec![404]),
        ("wrong method", client.request(Method::DELETE, runs), vec![405]),
    ];
    for (what, request, expected) in cases {
        let reply = client.send(request).await?;
        ensure!(expected.contains(&reply.status.as_u16()), "{what}: {} {}", reply.status, reply.body);
        let kind = reply.headers.get(CONTENT_TYPE).map(|value| value.to_str()).transpose()?.unwrap_or_default();
        ensure!(kind.starts_with("application/problem+json"), "{what}: {kind}");
        ensure!(reply.body["status"] == reply.status.as_u16(), "{what}: {}", reply.body);
        ensure!(reply.body["title"].is_string(), "{what}: {}", reply.body);
    }
    Ok(())
}
