//! Tests of the backend `fake`.

use serde_json::json;

use super::*;
use crate::contract::{check_text_backend, definition, request};

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let definition = definition("fake", &json!({"dimension": 8}));
    check_text_backend(&FakeBackend::new(), &definition, None, "text", &["one", "two", "three"]).await;
}

#[tokio::test]
async fn answers_have_the_size_asked_for_and_are_the_same_again() {
    let backend = FakeBackend::new();
    let model = backend.load(&definition("fake", &json!({"output_bytes": 5, "dimension": 3})), None).await.unwrap();
    let outputs = model.infer(request("text", &["ab", ""])).await.unwrap();
    assert_eq!(outputs["text"].byte_strings().unwrap(), [b"ababa", b"....."]);
    let vectors = outputs["vector"].to_f32().unwrap();
    let norm: f32 = vectors[..3].iter().map(|element| element * element).sum();
    assert!((norm - 1.0).abs() < 1e-6 && vectors[..3] != vectors[3..], "{vectors:?}");
    assert_eq!(model.infer(request("text", &["ab", ""])).await.unwrap(), outputs);
    assert_eq!((backend.batches(), backend.rows()), (2, 4));
}

#[tokio::test]
async fn failures_come_as_asked() {
    let backend = FakeBackend::new();
    let parameters = json!({"fail_every": 2, "fail_class": "rate_limited"});
    let model = backend.load(&definition("fake", &parameters), None).await.unwrap();
    let mut classes = vec![];
    for _ in 0..4 {
        classes.push(model.infer(request("text", &["a"])).await.err().map(|failure| failure.class));
    }
    let limited = Some(FailureClass::RateLimited);
    assert_eq!(classes, [None, limited, None, limited]);
    assert_eq!(model.infer(request("text", &[CRASH_INPUT])).await.unwrap_err().class, FailureClass::Internal);
}

#[tokio::test(flavor = "current_thread")]
async fn a_late_answer_is_a_timeout() {
    let model = FakeBackend::new().load(&definition("fake", &json!({"latency_ms": 3_600_000})), None).await.unwrap();
    let late = InferRequest { deadline: Instant::now() + Duration::from_millis(10), ..request("text", &["a"]) };
    assert_eq!(model.infer(late).await.unwrap_err().class, FailureClass::Timeout);
}

#[test]
fn wrong_parameters_are_refused() {
    for (parameters, expected) in [
        (json!({"latency": 1}), "did you mean 'latency_ms'?"),
        (json!({"dimension": -1}), "from 0 to"),
        (json!({"fail_class": "odd"}), "no class"),
    ] {
        let message = FakeBackend::new().check(&definition("fake", &parameters)).unwrap_err().message;
        assert!(message.contains(expected), "{message}");
    }
}
