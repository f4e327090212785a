//! What every backend must do, as one test that is run over each of them.
//!
//! Used by the tests of the backends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use motet_engine::definition::{BatchPolicy, Isolation, Limits, ModelDefinition, ModelPlacement, ServingPolicy};
use motet_engine::failure::FailureClass;
use motet_engine::tensor::Tensor;
use motet_engine::value::Value;

use crate::call::{check, decode, encode, split};
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
        isolation: Isolation::default(),
        serving: ServingPolicy::default(),
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

/// A request for what `inputs` hold, with a deadline that does not matter.
pub(crate) fn asking(inputs: Tensors, rows: usize) -> InferRequest {
    InferRequest { inputs, rows, deadline: Instant::now() + Duration::from_secs(60) }
}

/// The contract of [`ModelBackend`] and [`LoadedModel`] over a model that takes texts as `input`.
pub(crate) async fn check_text_backend(
    backend: &dyn ModelBackend,
    definition: &ModelDefinition,
    artefact: Option<PathBuf>,
    input: &str,
    texts: &[&str],
) {
    check_backend(backend, definition, artefact, &request(input, texts).inputs, texts.len()).await;
}

/// The contract over a model that takes `inputs`, which have `rows` rows.
pub(crate) async fn check_backend(
    backend: &dyn ModelBackend,
    definition: &ModelDefinition,
    artefact: Option<PathBuf>,
    inputs: &Tensors,
    rows: usize,
) {
    assert_eq!(backend.name(), definition.backend);
    backend.check(definition).unwrap();
    let model = backend.load(definition, artefact).await.unwrap();
    model.health().await.unwrap();
    check_answers(&*model, inputs, rows).await;
    check_refusals(&*model, inputs, rows).await;
    model.unload().await;
    let failure = model.infer(asking(inputs.clone(), rows)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable, "after unload: {failure}");
    assert!(model.health().await.is_err(), "an unloaded model is not healthy");
    model.unload().await;
}

async fn check_answers(model: &dyn LoadedModel, inputs: &Tensors, rows: usize) {
    let together = model.infer(asking(inputs.clone(), rows)).await.unwrap();
    let mut as_input = model.signature().clone();
    as_input.inputs = as_input.outputs.clone();
    check(&as_input, &together, rows).unwrap();
    let nothing = split(inputs, &[0, rows]).unwrap().remove(0);
    let empty = model.infer(asking(nothing, 0)).await.unwrap();
    check(&as_input, &empty, 0).unwrap();
    let chunks: Vec<_> = model.infer_stream(asking(inputs.clone(), rows)).collect().await;
    assert_eq!(chunks, [Ok(together.clone())]);
    let ones = vec![1; rows];
    for (row, (alone, expected)) in
        split(inputs, &ones).unwrap().into_iter().zip(split(&together, &ones).unwrap()).enumerate()
    {
        // Written as a step would write it: one item, without a dimension for rows.
        let call = encode(model.signature(), &decode(alone, true)).unwrap();
        assert!(call.single && model.length(&call.inputs) < 1_000_000);
        let outputs = model.infer(asking(call.inputs, 1)).await.unwrap();
        let Value::Map(decoded) = decode(outputs.clone(), true) else { panic!("an answer is a map") };
        assert_eq!(decoded.len(), model.signature().outputs.len());
        check(&as_input, &outputs, 1).unwrap();
        assert_near(&outputs, &expected, row);
    }
}

/// A row has the same answer alone and within a batch, but for the last digits of sums in another order.
fn assert_near(alone: &Tensors, within: &Tensors, row: usize) {
    for (name, alone) in alone {
        let within = &within[name];
        match (alone.to_f32(), within.to_f32()) {
            (Some(alone), Some(within)) => {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
                assert!(alone.len() == within.len() && alone.iter().zip(&within).all(near), "{name} of row {row}");
            }
            _ => assert_eq!(alone, within, "{name} of row {row}"),
        }
    }
}

async fn check_refusals(model: &dyn LoadedModel, inputs: &Tensors, rows: usize) {
    let asked = || asking(inputs.clone(), rows);
    let passed = InferRequest { deadline: Instant::now(), ..asked() };
    let failure = model.infer(passed).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Timeout, "a passed deadline: {failure}");
    let renamed = inputs.iter().map(|(name, tensor)| (format!("no-such-{name}"), tensor.clone())).collect();
    for wrong in [
        InferRequest { inputs: renamed, ..asked() },
        InferRequest { rows: rows + 1, ..asked() },
        InferRequest { inputs: Tensors::new(), ..asked() },
    ] {
        let failure = model.infer(wrong).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid, "{failure}");
    }
    model.health().await.unwrap();
}
