//! A workflow step answers what the model answers without Motet.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{interpreter, json, objects};

const PATIENCE: Duration = Duration::from_secs(120);

/// How far numbers may be apart: sums in another order.
const TOLERANCE: f64 = 2e-4;

const BASIC_PITCH: &str = "
kind: Model
name: basic-pitch
backend: tensorflow
source:
  uri: pypi:basic-pitch==0.4.0
  license: Apache-2.0
  sha256:
    saved_model.pb: eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9
    variables/variables.data-00000-of-00001: f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b
    variables/variables.index: 356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e
isolation: required
";

pub(super) const GUESSLANG: &str = "
kind: Model
name: guesslang
backend: tensorflow
source:
  uri: pypi:guesslang==2.2.1
  license: MIT
  sha256:
    saved_model.pb: b580961cb2c37ffb2b4d4e654540471b5359fb513f8cab51325730cc824de8f3
    variables/variables.data-00000-of-00001: b81000b7e033c2ea814b2737a9967f1b7ab58d4316f6e97b0ce01bdb38acd5a5
    variables/variables.index: c4edd3b91cb779f0a1e9f43c5bc3e3b8f9035fa61dd0f50ffc0819b459f89864
isolation: required
";

/// Asks a model in a step of a run, and without Motet.
async fn compare(node: &Node, model: &str, definition: &str, direct: &Value) -> Result<()> {
    let client = node.client().with_patience(PATIENCE);
    client.put_definition("models", model, definition).await?;
    let with: serde_json::Map<_, _> = direct["input"]
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (key.clone(), json!(format!("${{ input.{key} }}"))))
        .collect();
    let workflow = json!({
        "kind": "Workflow", "name": model,
        "steps": {"ask": {"call": "model", "model": model, "with": with, "timeout": "60s"}},
        "output": "${ steps.ask.output }",
    });
    client.put_definition("workflows", model, &workflow.to_string()).await?;
    let run = client.run(model, &direct["input"], PATIENCE).await?;
    ensure!(run["state"] == "succeeded", "{model}: {run:.600}\n{}", node.log_tail());
    for (name, expected) in direct["answer"].as_object().unwrap() {
        let found = &run["output"][name];
        let difference = difference(found, expected);
        ensure!(
            difference.is_some_and(|difference| difference < TOLERANCE),
            "{model} {name}: {difference:?}\n{}\n{}",
            short(found),
            short(expected)
        );
    }
    Ok(())
}

/// The largest difference of two numbers in the same place; none when anything else differs.
fn difference(left: &Value, right: &Value) -> Option<f64> {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).try_fold(0.0, |most: f64, (left, right)| Some(most.max(difference(left, right)?)))
        }
        (Value::Number(left), Value::Number(right)) => Some((left.as_f64()? - right.as_f64()?).abs()),
        _ => (left == right).then_some(0.0),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

#[tokio::test]
async fn saved_models_answer_as_tensorflow_does() -> Result<()> {
    let Some(python) = interpreter("saved_models_answer_as_tensorflow_does").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let wheels = motet_tests::place::workspace().join("target/services/saved-models");
    std::fs::create_dir_all(&wheels)?;
    direct(&python, &["saved", wheels.to_str().unwrap(), folder.path().to_str().unwrap()]).await?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    for (name, definition) in [("guesslang", GUESSLANG), ("basic-pitch", BASIC_PITCH)] {
        let told = json(&folder.path().join(format!("{name}.json")))?;
        compare(&node, name, definition, &told).await?;
    }
    node.check_running()
}

#[tokio::test]
async fn files_of_scikit_learn_and_keras_answer_as_they_do_alone() -> Result<()> {
    let Some(python) = interpreter("files_of_scikit_learn_and_keras_answer_as_they_do_alone").await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let place = folder.path().to_str().unwrap();
    direct(&python, &["files", place]).await?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let python = python.display();
    for (name, file, rest) in [
        (
            "digits",
            "digits.joblib",
            "outputs: [{name: predict, datatype: INT64}, {name: predict_proba, datatype: FP64, shape: [-1, 10]}]",
        ),
        ("network", "digits.keras", "memory_bytes: 3221225472"),
    ] {
        let definition = format!(
            "kind: Model\nname: {name}\nbackend: python\nsource: 'file:{place}'\nisolation: required\nparameters:\n  \
             interpreter: {python}\n  file: {file}\n  {rest}\n"
        );
        let told = json(&folder.path().join(format!("{name}.json")))?;
        compare(&node, name, &definition, &told).await?;
    }
    node.check_running()
}

#[tokio::test]
async fn a_chain_of_langchain_is_a_model() -> Result<()> {
    let Some(python) = interpreter("a_chain_of_langchain_is_a_model").await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let definition = format!(
        "kind: Model\nname: chain\nbackend: python\nsource: 'file:{}'\nisolation: required\nparameters:\n  \
         interpreter: {}\n  callable: chain:heard\n",
        objects().display(),
        python.display()
    );
    let told = json!({"input": {"input": [" one ", "two"]}, "answer": {"output": ["heard: one", "heard: two"]}});
    compare(&node, "chain", &definition, &told).await?;
    node.check_running()
}

/// Lets the models answer without Motet.
async fn direct(python: &std::path::Path, arguments: &[&str]) -> Result<()> {
    let script = objects().join("direct.py");
    let mut command = Command::new(python);
    command.arg("-B").arg(script).args(arguments).env("TF_CPP_MIN_LOG_LEVEL", "3").stdin(Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await??;
    ensure!(output.status.success(), "direct.py {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
