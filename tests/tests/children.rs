//! Models in processes of their own, against the real binary: TensorFlow, scikit-learn, Keras, LangChain; what holds
//! them, and what happens when they die.
//!
//! What the models answer without Motet is told by `children/direct.py`. Never goes on without them in CI.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "children/deaths.rs"]
mod deaths;
#[path = "children/holding.rs"]
mod holding;
#[path = "children/parity.rs"]
mod parity;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use motet_tests::python;
use motet_tests::skip::skip;
use serde_json::Value;

/// What the models in Python are made of, and TensorFlow for the direct answers.
const PACKAGES: [&str; 3] = ["tensorflow-cpu==2.21.0", "scikit-learn==1.9.1", "langchain-core==1.8.3"];

/// An interpreter with everything; none, loudly, where it cannot be installed.
async fn interpreter(test: &str) -> Result<Option<PathBuf>> {
    let modules = "sklearn, langchain_core, importlib.util; assert importlib.util.find_spec('tensorflow')";
    let installed = move || python::environment("python-models", modules, &PACKAGES);
    match tokio::task::spawn_blocking(installed).await? {
        Ok(python) => Ok(Some(python)),
        Err(reason) => {
            skip(test, &format!("TensorFlow and scikit-learn cannot be installed: {reason}"));
            Ok(None)
        }
    }
}

/// The folder of what the models in Python are.
fn objects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/children")
}

/// A definition of a model whose object is in `objects.py`.
fn object(interpreter: &Path, name: &str, input: &str, rest: &str) -> String {
    format!(
        "kind: Model\nname: {name}\nbackend: python\nsource: 'file:{}'\nparameters:\n  interpreter: {}\n  \
         callable: objects:{name}\n  inputs: [{{name: {input}}}]\n  outputs: [{{name: told}}]\n{rest}",
        objects().display(),
        interpreter.display()
    )
}

/// The process of a model: the child of the node whose second argument is its name, or which was it before.
fn process_of(node: u32, model: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let of_node =
            status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|p| p.trim() == node.to_string()));
        let lives = !status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let mut words = line.split('\0');
        of_node
            && lives
            && (words.clone().nth(2) == Some(model) || words.any(|word| word.contains(&format!(":{model}\""))))
    })
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}
