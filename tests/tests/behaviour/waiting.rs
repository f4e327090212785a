//! Runs that wait, and runs that are steered from outside: over restarts, by HTTP and by the command line.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use motet_tests::client::Client;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place::motet;
use motet_tests::waiting::{let_pass, until};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

const APPROVAL: &str = r#"
kind: Workflow
name: approval
steps:
  ask:
    call: signal
    signal: approval
    with: {question: "May ${ input.who } have it?"}
    schema: {type: object, required: [yes], properties: {yes: {type: boolean}}}
  pause: {needs: [ask], call: wait, with: {for: "${ input.pause }"}}
output: {yes: "${ steps.ask.output.yes }", until: "${ steps.pause.output.until }"}
"#;

async fn node_with(folder: &tempfile::TempDir, definitions: &[(&str, &str, &str)]) -> Result<Node> {
    let node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    for (kind, name, yaml) in definitions {
        node.client().put_definition(kind, name, yaml).await?;
    }
    Ok(node)
}

async fn submit(client: &Client, workflow: &str, input: Value) -> Result<String> {
    let path = format!("/api/v1/workflows/{workflow}/runs");
    let reply = client.post(&path, &json!({ "input": input })).await?.expect(202)?;
    Ok(reply.body["id"].as_str().context("no id")?.to_owned())
}

/// Looks at a run until it is in this state.
async fn state(client: &Client, run: &str, state: &str) -> Result<Value> {
    until(PATIENCE, &format!("{run} to be {state}"), async || {
        client.read_run(run).await.ok().filter(|run| run["state"] == state)
    })
    .await
}

/// What the command line says to these arguments, as JSON, and how it ends.
fn cli(node: &Node, arguments: &[&str]) -> Result<(i32, Value)> {
    let server = format!("http://{}", node.http());
    let output = Command::new(motet()).args(["--server", &server, "--output", "json"]).args(arguments).output()?;
    let code = output.status.code().context("ended by a signal")?;
    Ok((code, serde_json::from_slice(&output.stdout).unwrap_or_default()))
}

#[tokio::test]
async fn a_run_waits_for_a_signal_over_a_restart_and_for_a_time_while_the_node_is_down() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = node_with(&folder, &[("workflows", "approval", APPROVAL)]).await?;
    let client = node.client();
    let run = submit(&client, "approval", json!({"who": "Ada", "pause": "2s"})).await?;
    let read = state(&client, &run, "waiting").await?;
    let waits = &read["waits_for"][0];
    ensure!(waits["signal"] == "approval" && waits["asks"]["question"] == "May Ada have it?", "{read}");
    ensure!(read["steps"]["ask"]["state"] == "waiting", "{read}");
    let why = client.get(&format!("/api/v1/runs/{run}/why")).await?.expect(200)?.body;
    ensure!(why["summary"].as_str().is_some_and(|words| words.contains("the signal 'approval'")), "{why}");
    node.kill()?;
    node.restart().await?;
    state(&client, &run, "waiting").await?;

    let signals = format!("/api/v1/runs/{run}/signals");
    for (name, payload, status, code) in
        [("nobody", json!({}), 404, "unknown_signal"), ("approval", json!({"yes": "perhaps"}), 422, "unfit_signal")]
    {
        let reply = client.post(&format!("{signals}/{name}"), &payload).await?.expect(status)?;
        ensure!(reply.body["code"] == code && reply.body["run"] == run.as_str(), "{}", reply.body);
    }
    let send = || {
        let request = client.request(Method::POST, &format!("{signals}/approval")).header("idempotency-key", "once");
        client.send(request.json(&json!({"yes": true})))
    };
    let first = send().await?.expect(202)?;
    ensure!(!first.headers.contains_key("idempotency-replayed"), "{:?}", first.headers);
    let again = send().await?.expect(202)?;
    ensure!(again.headers.contains_key("idempotency-replayed"), "{:?}", again.headers);
    let read = client.read_run(&run).await?;
    ensure!(read["steps"]["pause"]["state"] == "waiting" && read["waits_for"][0]["until"].is_string(), "{read}");
    node.stop().await?;
    let_pass(Duration::from_secs(3)).await;
    node.restart().await?;
    let read = state(&client, &run, "succeeded").await?;
    ensure!(read["output"]["yes"] == true && read["output"]["until"].is_string(), "{read}");
    client.post(&format!("{signals}/approval"), &json!({"yes": true})).await?.expect(409)?;
    Ok(())
}

const MODELS: &str = "kind: Model\nname: flaky\nbackend: fake\nparameters: {fail_every: 2, fail_class: unavailable}\n";
const FRAGILE: &str = r#"
kind: Workflow
name: fragile
steps:
  one: {call: model, model: flaky, with: {text: "${ input.text }"}}
  two: {call: model, model: flaky, with: {text: "${ steps.one.output.text }!"}, retry: {max_attempts: 1}}
output: {text: "${ steps.two.output.text }"}
"#;

#[tokio::test]
async fn runs_are_paused_retried_and_forked_by_http() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let definitions =
        [("workflows", "approval", APPROVAL), ("models", "flaky", MODELS), ("workflows", "fragile", FRAGILE)];
    let mut node = node_with(&folder, &definitions).await?;
    let client = node.client();
    let post =
        async |run: &str, verb: &str, body: Value| client.post(&format!("/api/v1/runs/{run}/{verb}"), &body).await;
    let code = |reply: &motet_tests::client::Reply, code: &str| -> Result<()> {
        ensure!(reply.body["code"] == code, "{}", reply.body);
        Ok(())
    };

    let run = submit(&client, "approval", json!({"who": "Ada", "pause": "10ms"})).await?;
    code(&post(&run, "resume", json!({})).await?.expect(409)?, "run_not_paused")?;
    let paused = post(&run, "pause", json!({"reason": "look"})).await?.expect(200)?.body;
    ensure!(paused["state"] == "paused" && paused["paused"]["reason"] == "look", "{paused}");
    code(&post(&run, "pause", json!({})).await?.expect(409)?, "run_paused")?;
    post(&run, "signals/approval", json!({"yes": false})).await?.expect(202)?;
    node.kill()?;
    node.restart().await?;
    let read = client.read_run(&run).await?;
    ensure!(read["state"] == "paused" && read["steps"]["ask"]["state"] == "waiting", "{read}");
    code(&post(&run, "retry", json!({})).await?.expect(409)?, "run_not_ended")?;
    post(&run, "resume", json!({})).await?.expect(200)?;
    let read = state(&client, &run, "succeeded").await?;
    ensure!(read["output"]["yes"] == false, "{read}");
    code(&post(&run, "retry", json!({})).await?.expect(409)?, "nothing_to_retry")?;

    let run = submit(&client, "fragile", json!({"text": "a"})).await?;
    let failed = state(&client, &run, "failed").await?;
    ensure!(failed["error"]["step"] == "two", "{failed}");
    code(&post(&run, "retry", json!({"from": "three"})).await?.expect(422)?, "unknown_step")?;
    post(&run, "retry", json!({})).await?.expect(202)?;
    let read = state(&client, &run, "succeeded").await?;
    ensure!(read["output"]["text"] == "a!" && read["steps"]["two"]["attempts"] == 2, "{read}");

    let history = client.events(&run).await?;
    let kinds: Vec<&str> = history.iter().filter_map(|event| event["type"].as_str()).collect();
    let place = kinds.iter().position(|kind| *kind == "run_failed").context("no failure")?;
    ensure!(kinds[place + 1] == "retried" && kinds.last() == Some(&"run_succeeded"), "{kinds:?}");

    code(&post(&run, "fork", json!({"from": "three"})).await?.expect(422)?, "unknown_step")?;
    let fork = post(&run, "fork", json!({"from": "two", "outputs": {"one": {"text": "b"}}})).await?.expect(202)?;
    let forked = fork.body["id"].as_str().context("no id")?;
    ensure!(fork.body["forked_from"] == run.as_str() && forked != run, "{}", fork.body);
    until(PATIENCE, "the end of the fork", async || {
        client.read_run(forked).await.ok().filter(|run| !run["finished_at"].is_null())
    })
    .await?;
    ensure!(client.read_run(&run).await? == read, "the run that was forked stands as it stood");
    let history = client.events(forked).await?;
    ensure!(history[1]["type"] == "forked" && history[1]["forked_from"] == run.as_str(), "{}", history[1]);
    Ok(())
}

#[tokio::test]
async fn the_command_line_steers_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let definitions =
        [("workflows", "approval", APPROVAL), ("models", "flaky", MODELS), ("workflows", "fragile", FRAGILE)];
    let node = node_with(&folder, &definitions).await?;
    let client = node.client();
    let run = submit(&client, "approval", json!({"who": "Ada", "pause": "10ms"})).await?;
    let fragile = submit(&client, "fragile", json!({"text": "a"})).await?;
    state(&client, &fragile, "failed").await?;
    for (arguments, ends, key, expected) in [
        (vec!["runs", "pause", &run, "--reason", "look"], 0, "state", "paused"),
        (vec!["runs", "pause", &run], 5, "state", ""),
        (vec!["runs", "resume", &run], 0, "state", "waiting"),
        (vec!["runs", "signal", &run, "nobody"], 4, "state", ""),
        (vec!["runs", "signal", &run, "approval", "{}"], 5, "state", ""),
        (vec!["runs", "signal", &run, "approval", r#"{"yes": true}"#], 0, "id", &run),
        (vec!["runs", "retry", &fragile, "--from", "two"], 0, "id", &fragile),
        (vec!["runs", "fork", &run, "--from", "pause", "--set", r#"ask={"yes": false}"#], 0, "forked_from", &run),
        (vec!["runs", "show", &run], 0, "id", &run),
    ] {
        let (code, said) = cli(&node, &arguments)?;
        ensure!(code == ends, "{arguments:?} ended with {code}: {said}");
        ensure!(said[key].as_str().unwrap_or_default() == expected, "{arguments:?} said {said}");
    }
    state(&client, &run, "succeeded").await?;
    state(&client, &fragile, "succeeded").await?;
    let server = format!("http://{}", node.http());
    let arguments = ["--server", &server, "runs", "events", &fragile, "--follow"];
    let followed = String::from_utf8(Command::new(motet()).args(arguments).output()?.stdout)?;
    let events = client.events(&fragile).await?;
    ensure!(followed.lines().count() == events.len(), "{followed}");
    ensure!(followed.contains("retried") && followed.contains("run_succeeded"), "{followed}");
    Ok(())
}

const TICK: &str = "kind: Workflow\nname: tick\nsteps: {say: {call: transform, with: \"${ input.word }\"}}\n";
const SECONDLY: &str = r#"
kind: Schedule
name: each-second
workflow: tick
cron: "* * * * * *"
input: {word: tock}
tags: [clock]
catch_up: {window: 1m}
"#;

/// The seconds for which the schedule began runs, oldest first.
async fn seconds(client: &Client) -> Result<Vec<i64>> {
    let list = client.get("/api/v1/runs?tag=schedule:each-second&limit=500").await?.expect(200)?.body;
    let runs = list["runs"].as_array().context("no list")?;
    let ids = runs.iter().filter_map(|run| run["id"].as_str()?.parse::<motet_engine::id::RunId>().ok());
    let mut seconds: Vec<i64> = ids.map(|id| id.created_at().as_millis() / 1_000).collect();
    seconds.sort_unstable();
    Ok(seconds)
}

async fn at_least(client: &Client, count: usize) -> Result<Vec<i64>> {
    until(PATIENCE, &format!("{count} scheduled runs"), async || {
        seconds(client).await.ok().filter(|seconds| seconds.len() >= count)
    })
    .await
}

#[tokio::test]
async fn each_second_begins_one_run_whatever_happens_to_the_node() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = node_with(&folder, &[("workflows", "tick", TICK), ("schedules", "each-second", SECONDLY)]).await?;
    let client = node.client();
    for (kill, pause) in [(2, 0), (4, 2_500), (8, 300)] {
        at_least(&client, kill).await?;
        node.kill()?;
        let_pass(Duration::from_millis(pause)).await;
        node.restart().await?;
    }
    let found = at_least(&client, 12).await?;
    let distinct: BTreeSet<i64> = found.iter().copied().collect();
    ensure!(distinct.len() == found.len(), "a second began two runs: {found:?}");
    ensure!(found.windows(2).all(|pair| pair[1] == pair[0] + 1), "a second was left out: {found:?}");

    let (code, listed) = cli(&node, &["schedules", "list"])?;
    let state = &listed["schedules"][0]["schedule"];
    ensure!(code == 0 && state["next_at"].is_string() && state["last_run"].is_string(), "{listed}");
    let (code, _) = cli(&node, &["schedules", "pause", "each-second"])?;
    ensure!(code == 0, "pausing ended with {code}");
    until(PATIENCE, "the pause", async || {
        let shown = client.get("/api/v1/schedules/each-second").await.ok()?.body;
        (shown["schedule"]["paused"] == true && shown["schedule"]["next_at"].is_null()).then_some(())
    })
    .await?;
    let (code, _) = cli(&node, &["schedules", "delete", "each-second"])?;
    ensure!(code == 0, "deleting ended with {code}");
    client.get("/api/v1/schedules/each-second").await?.expect(404)?;
    ensure!(cli(&node, &["schedules", "show", "each-second"])?.0 == 4, "it is shown");
    let count = seconds(&client).await?.len();
    node.stop().await?;
    node.restart().await?;
    ensure!(seconds(&client).await?.len() == count, "a deleted schedule began a run");
    Ok(())
}
