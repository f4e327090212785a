//! Starting, waiting for, finding, reading and cancelling runs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{Memory, STORES, Stage};

#[tokio::test]
async fn a_submission_is_durable_and_can_be_waited_for() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        for (workflow, input, output) in [
            ("pure", json!({"x": 21}), json!({"doubled": 42})),
            ("hello", json!({"name": "Ada"}), json!({"text": "Hello Ada"})),
        ] {
            let path = format!("/api/v1/workflows/{workflow}/runs");
            let body = json!({"input": input, "tags": ["a", "b"], "priority": 3, "version": "1"});
            let reply = stage.post(&format!("{path}?wait=30s"), &body).await.expect(200);
            let run = reply.json();
            assert_eq!(reply.header("location"), format!("/api/v1/runs/{}", run["id"].as_str().unwrap()));
            assert_eq!(
                (&run["state"], &run["output"], &run["input"], &run["error"]),
                (&json!("succeeded"), &output, &input, &Value::Null)
            );
            assert_eq!((&run["tags"], &run["priority"], &run["version"]), (&json!(["a", "b"]), &json!(3), &json!("1")));
            assert_eq!((&run["namespace"], &run["workflow"]), (&json!("default"), &json!(workflow)));
            for time in ["created_at", "finished_at"] {
                assert!(run[time].as_str().unwrap().ends_with('Z'), "{run}");
            }
            let (_, step) = run["steps"].as_object().unwrap().iter().next().unwrap();
            assert_eq!(step["state"], "succeeded");
            assert!(step["started_at"].is_string() && step["finished_at"].is_string() && step["attempts"].is_u64());
            assert_eq!(stage.get(reply.header("location")).await.expect(200).json(), run);
        }
        let accepted = stage.post("/api/v1/workflows/pure/runs", &json!({"input": {"x": 1}})).await.expect(202);
        stage.get(accepted.header("location")).await.expect(200);
        stage.end().await;
    }
}

#[tokio::test]
async fn a_wait_that_expires_answers_with_the_run_as_it_stands() {
    let stage = Stage::new(Memory::Memory).await;
    let run = stage.post("/api/v1/workflows/stuck/runs?wait=10ms", &json!({})).await.expect(202).json();
    assert_eq!((&run["state"], &run["output"], &run["finished_at"]), (&json!("running"), &Value::Null, &Value::Null));
    assert_eq!(run["steps"]["wait"]["state"], "running");
    stage.end().await;
}

#[tokio::test]
async fn a_wait_is_cut_to_what_the_node_allows() {
    let cut = |settings: &mut motet_config::Settings| settings.http.max_wait = std::time::Duration::ZERO;
    let stage = Stage::with(Memory::Memory, cut).await;
    stage.post("/api/v1/workflows/stuck/runs?wait=60m", &json!({})).await.expect(202);
    stage.end().await;
}

#[tokio::test]
async fn a_repetition_with_the_same_key_gives_the_same_run() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let path = "/api/v1/workflows/pure/runs?wait=30s";
        let keyed = |key: &str, x: i64| {
            stage.request(Method::POST, path).header("idempotency-key", key).json(&json!({"input": {"x": x}}))
        };
        let first = stage.send(keyed("k-1", 1)).await.expect(200);
        assert_eq!(first.header("idempotency-replayed"), "");
        for same in ["k-1", "\"k-1\""] {
            let again = stage.send(keyed(same, 1)).await.expect(200);
            assert_eq!(again.header("idempotency-replayed"), "true");
            assert_eq!(again.json(), first.json());
        }
        let reused = stage.send(keyed("k-1", 2)).await.problem(422, "idempotency_key_reused");
        assert_eq!(reused["run"], first.json()["id"]);
        let other = stage.send(keyed("k-2", 1)).await.expect(200);
        assert_ne!(other.json()["id"], first.json()["id"]);
        // Keys of one tenant are not seen by another.
        let namespaced = stage.send(keyed("k-1", 1).header("motet-namespace", "other")).await;
        namespaced.problem(404, "not_found");
        stage.end().await;
    }
}

#[tokio::test]
async fn runs_are_found_by_what_they_are_and_page_by_page() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let mut all = vec![];
        for number in 0..7 {
            let tag = if number % 2 == 0 { "even" } else { "odd" };
            let body = json!({"input": {"x": number}, "tags": [tag]});
            let run = stage.post("/api/v1/workflows/pure/runs?wait=30s", &body).await.expect(200).json();
            all.push(run["id"].as_str().unwrap().to_owned());
        }
        let stuck = stage.stuck().await;
        let ids = |page: &Value| -> Vec<String> {
            page["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
        };
        let (mut found, mut cursor) = (vec![], String::new());
        let mut pages = 0;
        loop {
            let page = stage.get(&format!("/api/v1/runs?limit=3{cursor}")).await.expect(200).json();
            pages += 1;
            found.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut expected: Vec<String> = all.iter().cloned().chain([stuck.clone()]).collect();
        found.sort();
        expected.sort();
        assert_eq!((found, pages), (expected, 3));
        for (filter, count) in [
            ("workflow=pure", 7),
            ("workflow=none", 0),
            ("tag=even", 4),
            ("state=succeeded", 7),
            ("state=pending,running,waiting", 1),
            ("state=failed", 0),
            ("created_from=2020-01-01T00:00:00Z", 8),
            ("created_before=2020-01-01T00:00:00Z", 0),
            ("workflow=pure&state=succeeded&tag=odd", 3),
        ] {
            let page = stage.get(&format!("/api/v1/runs?{filter}")).await.expect(200).json();
            assert_eq!(ids(&page).len(), count, "{filter}");
        }
        stage.end().await;
    }
}

#[tokio::test]
async fn a_run_is_cancelled_once() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let id = stage.stuck().await;
        let path = format!("/api/v1/runs/{id}/cancel");
        let run = stage.post(&path, &json!({"reason": "not needed"})).await.expect(200).json();
        assert_eq!(run["state"], "cancelled");
        assert_eq!((&run["error"]["class"], &run["error"]["message"]), (&json!("cancelled"), &json!("not needed")));
        stage.post(&path, &json!({})).await.problem(409, "run_ended");
        // A body is not needed.
        let other = stage.stuck().await;
        stage.send(stage.request(Method::POST, &format!("/api/v1/runs/{other}/cancel"))).await.expect(200);
        stage.end().await;
    }
}

#[tokio::test]
async fn what_a_run_waits_for_is_told() {
    let stage = Stage::new(Memory::Memory).await;
    let id = stage.stuck().await;
    let why = stage.get(&format!("/api/v1/runs/{id}/why")).await.expect(200).json();
    assert_eq!((&why["state"], &why["calls_owed"]), (&json!("running"), &json!(1)));
    let call = &why["calls"][0];
    assert_eq!((&call["step"], &call["kind"], &call["name"]), (&json!("wait"), &json!("model"), &json!("stuck")));
    assert!(why["summary"].as_str().unwrap().contains("'stuck'"), "{why}");
    assert_eq!(why["actor"]["kind"], "run");
    stage.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await.expect(200);
    let why = stage.get(&format!("/api/v1/runs/{id}/why")).await.expect(200).json();
    assert_eq!((&why["calls_owed"], &why["waits_for"]), (&json!(0), &json!([])));
    stage.end().await;
}

#[tokio::test]
async fn runs_of_another_namespace_do_not_exist() {
    let stage = Stage::new(Memory::Memory).await;
    let id = stage.stuck().await;
    for (method, path) in [
        (Method::GET, format!("/api/v1/runs/{id}")),
        (Method::GET, format!("/api/v1/runs/{id}/why")),
        (Method::GET, format!("/api/v1/runs/{id}/events")),
        (Method::POST, format!("/api/v1/runs/{id}/cancel")),
    ] {
        let request = stage.request(method, &path).header("motet-namespace", "other");
        stage.send(request).await.problem(404, "not_found");
    }
    let listed = stage.send(stage.request(Method::GET, "/api/v1/runs").header("motet-namespace", "other")).await;
    assert_eq!(listed.expect(200).json()["runs"], json!([]));
    stage.end().await;
}

#[tokio::test]
async fn a_run_that_waits_without_an_actor_is_told_and_cancelled() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let id = stage.waiting().await;
        let why = stage.get(&format!("/api/v1/runs/{id}/why")).await.expect(200).json();
        assert_eq!((&why["state"], &why["wakes"][0]["for"]), (&json!("waiting"), &json!("retry")));
        assert_eq!(why["wakes"][0]["last_error"]["class"], "unavailable");
        assert!(why["next_wake"].as_str().unwrap().ends_with('Z'), "{why}");
        let path = format!("/api/v1/runs/{id}/cancel");
        assert_eq!(stage.post(&path, &json!({})).await.expect(200).json()["state"], "cancelled");
        stage.end().await;
    }
}
