//! What is refused at the entrance, and what ends a connection.

use std::time::Duration;

use motet_config::Settings;
use motet_server::bootstrap;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stage::{Memory, Stage, exchange};

#[tokio::test]
async fn bodies_are_bounded() {
    let stage = Stage::with(Memory::Memory, |settings| settings.http.max_body_bytes = 2048).await;
    let path = "/api/v1/workflows/pure/runs";
    let text = "x".repeat(4096);
    stage.post(path, &json!({"input": {"x": text}})).await.problem(413, "body_too_large");
    stage.put("workflows/pure", &text).await.problem(413, "body_too_large");
    // Without a length that tells beforehand.
    let chunks = futures::stream::iter((0..8).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    let request = stage.request(Method::POST, path).body(reqwest::Body::wrap_stream(chunks));
    stage.send(request).await.problem(413, "body_too_large");
    stage.post(path, &json!({"input": {"x": 1}})).await.expect(202);
    stage.end().await;
}

#[tokio::test]
async fn a_large_body_within_the_bound_is_taken() {
    let stage = Stage::new(Memory::Sqlite).await;
    let text = "x".repeat(1 << 20);
    let path = "/api/v1/workflows/hello/runs?wait=30s";
    let run = stage.post(path, &json!({"input": {"name": text}})).await.expect(200).json();
    assert_eq!(run["output"]["text"].as_str().map(str::len), Some((1 << 20) + 6));
    stage.end().await;
}

#[tokio::test]
async fn requests_at_one_time_are_bounded_but_health_is_heard() {
    // Definitions are put one by one, so one request at a time is enough to prepare the stage.
    let stage = Stage::with(Memory::Memory, |settings| settings.http.max_in_flight = 1).await;
    let id = stage.stuck().await;
    let waiting = stage.request(Method::POST, "/api/v1/workflows/stuck/runs?wait=60s").json(&json!({}));
    let waiting = tokio::spawn(waiting.send());
    // The waiting request is in once its run is there.
    while stage.server.router().runs().live() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = stage.get(&format!("/api/v1/runs/{id}")).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "overloaded");
    stage.get("/health/live").await.expect(200);
    stage.get("/health/ready").await.expect(200);
    stage.get("/metrics").await.expect(200);
    waiting.abort();
    stage.end().await;
}

#[tokio::test]
async fn requests_per_second_are_bounded() {
    let stage = Stage::with(Memory::Memory, |settings| settings.http.requests_per_second = 20).await;
    let mut refused = None;
    for _ in 0..200 {
        let reply = stage.get("/api/v1/node").await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(429, "rate_limited");
    stage.get("/health/live").await.expect(200);
    stage.end().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let short = |settings: &mut Settings| settings.http.request_timeout = Duration::from_millis(300);
    let stage = Stage::with(Memory::Memory, short).await;
    let call = stage.request(Method::POST, "/api/v1/models/stuck/infer").json(&json!({"with": {"text": "x"}}));
    stage.send(call).await.problem(504, "timeout");
    // A body that never comes holds nothing.
    let head = b"POST /api/v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\nkin";
    let answer = exchange(stage.raw().await, head).await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("\"code\":\"timeout\""), "{answer}");
    stage.end().await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_dropped() {
    let stage = Stage::new(Memory::Memory).await;
    for bytes in [&b"nonsense\r\n\r\n"[..], b"GET / HTTP/1.1\r\nbroken header\r\n\r\n"] {
        let answer = exchange(stage.raw().await, bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let answer = exchange(stage.raw().await, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    stage.end().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let stage = Stage::new(Memory::Memory).await;
    let mut stream = stage.raw().await;
    let head = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(head).await.unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            let mut part = [0; 1024];
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "{text}");
            text.push_str(std::str::from_utf8(&part[..length]).unwrap());
        }
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_taken_address_is_told_with_what_to_do() {
    let stage = Stage::new(Memory::Memory).await;
    let mut settings = Settings::default();
    settings.http.address = stage.server.http_address();
    settings.store.url = "memory:".into();
    let error = Box::pin(bootstrap::start(settings)).await.err().unwrap().to_string();
    assert!(error.contains(&stage.server.http_address().to_string()) && error.contains("--http"), "{error}");
    stage.end().await;
}
