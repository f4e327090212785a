//! The history of a run: as a stream, taken up again, and as a page.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{Memory, STORES, Stage};

/// The events of a stream: id, name, data.
fn events(text: &str) -> Vec<(u64, String, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.starts_with("id: "));
    blocks
        .map(|block| {
            let field = |name: &str| {
                let line = block.lines().find(|line| line.starts_with(name)).unwrap();
                line[name.len()..].trim().to_owned()
            };
            (field("id:").parse().unwrap(), field("event:"), serde_json::from_str(&field("data:")).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_stream_tells_everything_and_can_be_taken_up_again() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let path = "/api/v1/workflows/hello/runs?wait=30s";
        let run = stage.post(path, &json!({"input": {"name": "Ada"}})).await.expect(200).json();
        let path = format!("/api/v1/runs/{}/events", run["id"].as_str().unwrap());
        let whole = stage.get(&path).await.expect(200);
        assert_eq!(whole.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!((whole.header("cache-control"), whole.header("x-accel-buffering")), ("no-store", "no"));
        assert!(whole.text.starts_with("retry: 1000\n\n"));
        let all = events(&whole.text);
        assert!(all.iter().map(|(id, ..)| *id).eq(1..=all.len() as u64), "{all:?}");
        assert_eq!(all[0].2["input"], json!({"name": "Ada"}));
        assert_eq!((all[0].1.as_str(), all[all.len() - 1].1.as_str()), ("submitted", "run_succeeded"));
        assert!(all.iter().any(|(_, name, data)| name == "step_succeeded" && data["step"] == "greet"), "{all:?}");
        let last = all.len() as u64;
        for after in 0..last {
            let by_header = stage.request(Method::GET, &path).header("last-event-id", after);
            let by_query = stage.request(Method::GET, &format!("{path}?last_event_id={after}"));
            for request in [by_header, by_query] {
                let rest = events(&stage.send(request).await.expect(200).text);
                assert_eq!(rest, all[usize::try_from(after).unwrap()..], "after {after}");
            }
        }
        let over = stage.request(Method::GET, &path).header("last-event-id", last);
        assert_eq!(stage.send(over).await.expect(204).text, "");
        let wrong = stage.request(Method::GET, &path).header("last-event-id", "x");
        stage.send(wrong).await.problem(400, "invalid_query");
        let page = stage.send(stage.request(Method::GET, &path).header("accept", "application/json")).await;
        let page = page.expect(200).json();
        assert_eq!((page["events"].as_array().unwrap().len(), &page["complete"]), (all.len(), &json!(true)));
        stage.end().await;
    }
}

#[tokio::test]
async fn a_stream_of_a_live_run_goes_on_to_its_end() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        // One that lives, and one that waits without an actor.
        for id in [stage.stuck().await, stage.waiting().await] {
            let path = format!("/api/v1/runs/{id}/events");
            let mut response = stage.request(Method::GET, &path).send().await.unwrap();
            let mut text = String::new();
            while !text.contains("call_scheduled") {
                text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
            }
            stage.post(&format!("/api/v1/runs/{id}/cancel"), &json!({"reason": "enough"})).await.expect(200);
            while let Some(chunk) = response.chunk().await.unwrap() {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            let all = events(&text);
            let (_, name, data) = &all[all.len() - 1];
            assert_eq!((name.as_str(), &data["reason"]), ("run_cancelled", &json!("enough")));
        }
        stage.end().await;
    }
}

#[tokio::test]
async fn a_reader_who_leaves_ends_nothing_and_a_stop_ends_streams() {
    let stage = Stage::new(Memory::Memory).await;
    let id = stage.stuck().await;
    let path = format!("/api/v1/runs/{id}/events");
    drop(stage.request(Method::GET, &path).send().await.unwrap());
    assert_eq!(stage.get(&format!("/api/v1/runs/{id}")).await.expect(200).json()["state"], "running");
    let mut open = stage.request(Method::GET, &path).send().await.unwrap();
    let stopped = tokio::spawn(stage.server.stop(Duration::from_secs(1)));
    // The stream ends cleanly; the client comes back to the next server with the id that it has.
    while open.chunk().await.unwrap().is_some() {}
    assert_eq!(stopped.await.unwrap().unwrap(), 1);
}
