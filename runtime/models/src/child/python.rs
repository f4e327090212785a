//! The backend `python`: what only Python can compute, in a sandboxed process with the user's interpreter.
//!
//! Scikit-learn and Keras files, LangChain runnables, any callable. The interpreter is asked once, here, where its
//! libraries lie; the user's code only ever runs in the process. Used by the server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;
use motet_engine::tensor::Datatype;
use motet_engine::value::Value;
use serde_json::json;
use tokio::process::Command;

use super::options::{self, ChildOptions};
use super::replica::ChildReplica;
use super::wire::Engine;
use crate::failure::{internal, invalid, timeout, unavailable};
use crate::parameters;
use crate::port::{LoadedModel, ModelBackend};

/// Name of the backend in definitions.
const NAME: &str = "python";

/// Parameters that it understands.
const PARAMETERS: [&str; 7] = ["interpreter", "callable", "file", "inputs", "outputs", "threads", "memory_bytes"];

/// The interpreter when none is named.
const INTERPRETER: &str = "python3";

/// Longest wait for an interpreter to tell where its libraries are.
const ASK_WITHIN: Duration = Duration::from_secs(20);

/// The other side of the frames.
const WORKER: &str = include_str!("worker.py");

/// Asks an interpreter where it and its libraries are.
const QUESTION: &str = "import json, sys; print(json.dumps([sys.executable, sys.prefix, sys.base_prefix, *sys.path]))";

/// Runs Python.
#[derive(Clone, Debug)]
pub struct PythonBackend {
    options: ChildOptions,
}

impl PythonBackend {
    /// A backend; no interpreter is started until a model is loaded.
    #[must_use]
    pub fn new(options: ChildOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl ModelBackend for PythonBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        parameters::check_known(definition, NAME, &PARAMETERS)?;
        parameters::threads(definition, self.options.threads)?;
        options::memory(definition)?;
        parameters::text(definition, "interpreter")?;
        declared(definition, "inputs")?;
        declared(definition, "outputs")?;
        match (parameters::text(definition, "callable")?, parameters::text(definition, "file")?) {
            (Some(callable), None) if is_callable(callable) => Ok(()),
            (Some(_), None) => Err(invalid("parameters.callable must be like 'package.module:attribute'")),
            (None, Some(file)) if Path::new(file).is_absolute() || file.split('/').any(|part| part == "..") => {
                Err(invalid("parameters.file must be a path within the source, without '..'"))
            }
            (None, Some(_)) if definition.source.is_none() => {
                Err(invalid("parameters.file needs a source that holds it"))
            }
            (None, Some(_)) => Ok(()),
            _ => Err(invalid("a model of the backend python needs either parameters.callable or parameters.file")),
        }
    }

    async fn load(
        &self,
        definition: &ModelDefinition,
        artefact: Option<PathBuf>,
    ) -> Result<Box<dyn LoadedModel>, Failure> {
        self.check(definition)?;
        let (interpreter, mut read) = ask(parameters::text(definition, "interpreter")?.unwrap_or(INTERPRETER)).await?;
        let folder = artefact.map(|folder| options::absolute(&folder)).transpose()?;
        let settings = json!({
            "folder": folder,
            "callable": parameters::text(definition, "callable")?,
            "file": parameters::text(definition, "file")?,
            "inputs": declared(definition, "inputs")?,
            "outputs": declared(definition, "outputs")?,
        });
        read.extend(folder);
        let threads = parameters::threads(definition, self.options.threads)?;
        let scratch = tempfile::Builder::new().prefix("motet-model-").tempdir();
        let scratch = scratch.map_err(|error| unavailable(format!("no folder for temporary files: {error}")))?;
        let folder = options::absolute(scratch.path())?;
        let engine = Engine::Python { interpreter, script: WORKER.to_owned(), settings, threads, scratch: folder };
        Ok(Box::new(ChildReplica::start(self.options.plan(definition, engine, read, Some(scratch))?).await?))
    }
}

fn is_callable(text: &str) -> bool {
    let is_path = |path: &str| {
        path.split('.').all(|word| {
            !word.starts_with(|first: char| first.is_ascii_digit())
                && !word.is_empty()
                && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        })
    };
    let (module, attribute) = text.split_once(':').unwrap_or((text, "x"));
    is_path(module) && is_path(attribute)
}

/// Declared inputs or outputs: a list of `{name, datatype, shape}`, where -1 in a shape stands for any length.
fn declared(definition: &ModelDefinition, key: &str) -> Result<Option<serde_json::Value>, Failure> {
    let Some(value) = definition.parameters.get(key) else { return Ok(None) };
    let wrong = |what: &str| invalid(format!("parameters.{key} must be a list of {{name, datatype, shape}}: {what}"));
    let Value::List(items) = value else { return Err(wrong("it is no list")) };
    let of_item = |item: &Value| -> Result<serde_json::Value, Failure> {
        let Value::Map(item) = item else { return Err(wrong("an entry is no map")) };
        let text = |key: &str| item.get(key).and_then(Value::as_str);
        let name = text("name").ok_or_else(|| wrong("an entry has no name"))?;
        let datatype = text("datatype").unwrap_or("BYTES");
        if !Datatype::ALL.iter().any(|(known, name)| *name == datatype && *known != Datatype::Bf16) {
            return Err(wrong(&format!("'{datatype}' is no datatype of Open Inference that Python has")));
        }
        let shape = match item.get("shape") {
            None => vec![None],
            Some(Value::List(lengths)) if !lengths.is_empty() => {
                let length = |length: &Value| match length {
                    Value::Int(-1) | Value::Null => Ok(None),
                    Value::Int(length @ 1..) => Ok(Some(*length)),
                    _ => Err(wrong("a shape is a list of lengths from 1, or -1 for any")),
                };
                lengths.iter().map(length).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(wrong("a shape is a list of lengths, the first of which is the row")),
        };
        Ok(json!({"name": name, "datatype": datatype, "shape": shape}))
    };
    items.iter().map(of_item).collect::<Result<Vec<_>, _>>().map(|items| Some(items.into()))
}

/// The interpreter's own path, and what it must read to live.
async fn ask(interpreter: &str) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let unusable = |why: &str| {
        invalid(format!("the interpreter '{interpreter}' cannot be used: {why}; name one in parameters.interpreter"))
    };
    let asked = Command::new(interpreter)
        .args(["-I", "-c", QUESTION])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ASK_WITHIN, asked).await;
    let output = output.map_err(|_| timeout(format!("the interpreter '{interpreter}' gave no answer in time")))?;
    let output = output.map_err(|error| unusable(&error.to_string()))?;
    if !output.status.success() {
        return Err(unusable(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let told: Vec<PathBuf> = serde_json::from_slice(&output.stdout)
        .map_err(|error| internal(format!("the interpreter '{interpreter}' answered oddly: {error}")))?;
    let Some(own) = told.first().filter(|own| own.is_absolute()).cloned() else {
        return Err(unusable("it does not know its own path"));
    };
    // A path may be a link into another place, which is what the kernel looks at.
    let places = told.iter().filter(|place| place.is_absolute());
    let read = places.flat_map(|place| [Some(place.clone()), std::fs::canonicalize(place).ok()]).flatten();
    Ok((own, read.collect()))
}

#[cfg(test)]
mod tests {
    use motet_engine::failure::FailureClass;

    use super::*;
    use crate::contract::definition;
    use crate::source::ArtefactCache;

    #[test]
    fn definitions_are_taken_or_refused() {
        let options = ChildOptions {
            worker: "motet".into(),
            artefacts: ArtefactCache::new("cache").into(),
            threads: 0,
            tensorflow: None,
        };
        let backend = PythonBackend::new(options);
        let cases = [
            (json!({"callable": "a.b:c"}), None),
            (json!({"callable": "a.b:c", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}), None),
            (json!({}), Some("either parameters.callable or parameters.file")),
            (json!({"callable": "a b"}), Some("package.module:attribute")),
            (json!({"file": "a.joblib"}), Some("needs a source")),
            (json!({"file": "../a.joblib"}), Some("within the source")),
            (json!({"callable": "a", "inputs": 3}), Some("it is no list")),
            (json!({"callable": "a", "inputs": [{"name": "x", "datatype": "BF16"}]}), Some("'BF16' is no datatype")),
            (json!({"callable": "a", "outputs": [{"name": "x", "shape": []}]}), Some("the first of which is the row")),
            (json!({"callable": "a", "memory_bytes": 1}), Some("parameters.memory_bytes")),
            (json!({"calable": "a"}), Some("did you mean 'callable'")),
        ];
        for (parameters, expected) in cases {
            let checked = backend.check(&definition(NAME, &parameters));
            match expected {
                None => checked.unwrap(),
                Some(words) => {
                    let failure = checked.unwrap_err();
                    assert_eq!(failure.class, FailureClass::Invalid);
                    assert!(failure.message.contains(words), "{parameters}: {failure}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_interpreter_that_is_none_is_told() {
        let failure = ask("/nonexistent/python").await.unwrap_err();
        assert!(failure.message.contains("parameters.interpreter"), "{failure}");
    }
}
