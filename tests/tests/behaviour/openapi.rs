//! The API's description of itself is valid OpenAPI 3.1, by somebody else's judgement.
//!
//! The validator is installed with pip into the build folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place::build_folder;
use motet_tests::skip::skip;

const VALIDATOR: &str = "openapi-spec-validator>=0.9,<0.10";

/// Python with the validator; why not, where there is none.
fn validator() -> Result<PathBuf, String> {
    let folder = build_folder().join("openapi-validator");
    let python = folder.join("bin/python");
    let runs = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if runs(Command::new(&python).args(["-c", "import openapi_spec_validator"])).is_err() {
        runs(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        runs(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--timeout", "20", VALIDATOR]))?;
    }
    Ok(python)
}

#[tokio::test]
async fn the_description_is_valid() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(NodeSettings::new(folder.path().join("data"))).await?;
    let description = node.client().get("/openapi.json").await?.expect(200)?.body;
    ensure!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "not OpenAPI 3.1");
    for path in ["/api/v1/workflows/{name}/runs", "/api/v1/runs/{id}", "/api/v1/runs/{id}/events"] {
        ensure!(description["paths"][path].is_object(), "{path} is not described");
    }
    let python = match validator() {
        Ok(python) => python,
        Err(reason) => {
            skip("the_description_is_valid", &format!("the validator cannot be installed: {reason}"));
            return Ok(());
        }
    };
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, serde_json::to_vec(&description)?)?;
    let output = Command::new(python).args(["-m", "openapi_spec_validator"]).arg(&file).output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
