//! What every backend must do, as one test that is run over each of them.
//!
//! Used by the tests of the backends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use motet_engine::definition::{BatchPolicy, Limits, ModelDefinition, ModelPlacement};
use motet_engine::failure::FailureClass;
use motet_engine::tensor::Tensor;
use motet_engine::value::Value;

use crate::call::{check, decode, encode};
use crate::port::{InferRequest, LoadedModel, ModelBackend, Tensors};

/// A definition with the given parameters and everything else as it comes.
pub(crate) fn definition(backend: &str, parameters: &serde_json::Value) -> ModelDefinition {
    let parameters = match Value::from(parameters.clone()) {
        Value::Map(map) => (*map).clone(),
        _ => panic!("parameters are a map"),
    };
    ModelDefinition {
        name: "tested".parse().unwrap(),
        version: "1".to_owned(),
        backend: backend.to_owned(),
        source: None,
        parameters,
        batch: BatchPolicy::default(),
        replicas: 1,
        timeout: Duration::from_secs(60),
        queue: 16,
        limits: Limits::default(),
        placement: ModelPlacement::default(),
        document: serde_json::Value::Null,
    }
}

/// A batch of texts with a deadline that does not matter.
pub(crate) fn request<T: AsRef<[u8]>>(input: &str, texts: &[T]) -> InferRequest {
    InferRequest {
        inputs: Tensors::from([(input.to_owned(), Tensor::from_strings(texts))]),
        rows: texts.len(),
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

/// The contract of [`ModelBackend`] and [`LoadedModel`] over a model that takes texts as `input`.
pub(crate) async fn check_backend(
    backend: &dyn ModelBackend,
    definition: &ModelDefinition,
    artefact: Option<PathBuf>,
    input: &str,
    texts: &[&str],
) {
    assert_eq!(backend.name(), definition.backend);
    backend.check(definition).unwrap();
    let model = backend.load(definition, artefact).await.unwrap();
    model.health().await.unwrap();
    check_answers(&*model, input, texts).await;
    check_refusals(&*model, input, texts).await;
    model.unload().await;
    let failure = model.infer(request(input, texts)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable, "after unload: {failure}");
    assert!(model.health().await.is_err(), "an unloaded model is not healthy");
    model.unload().await;
}

async fn check_answers(model: &dyn LoadedModel, input: &str, texts: &[&str]) {
    let together = model.infer(request(input, texts)).await.unwrap();
    let mut as_input = model.signature().clone();
    as_input.inputs = as_input.outputs.clone();
    check(&as_input, &together, texts.len()).unwrap();
    let empty = model.infer(request::<&str>(input, &[])).await.unwrap();
    check(&as_input, &empty, 0).unwrap();
    let chunks: Vec<_> = model.infer_stream(request(input, texts)).collect().await;
    assert_eq!(chunks, [Ok(together)]);
    let with = serde_json::json!({ input: texts[0] }).into();
    let call = encode(model.signature(), &with).unwrap();
    assert!(call.single && model.length(&call.inputs) < 1_000_000);
    let deadline = Instant::now() + Duration::from_secs(60);
    let outputs = model.infer(InferRequest { inputs: call.inputs, rows: 1, deadline }).await.unwrap();
    let Value::Map(decoded) = decode(outputs, true) else { panic!("an answer is a map") };
    assert_eq!(decoded.len(), model.signature().outputs.len());
}

async fn check_refusals(model: &dyn LoadedModel, input: &str, texts: &[&str]) {
    let passed = InferRequest { deadline: Instant::now(), ..request(input, texts) };
    let failure = model.infer(passed).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Timeout, "a passed deadline: {failure}");
    for wrong in [
        request("no-such-input", texts),
        InferRequest { rows: texts.len() + 1, ..request(input, texts) },
        InferRequest { inputs: Tensors::new(), ..request(input, texts) },
    ] {
        let failure = model.infer(wrong).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid, "{failure}");
    }
    model.health().await.unwrap();
}
