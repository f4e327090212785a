//! Health, metrics, the node's own figures, its description, and how it starts and stops.

use std::collections::BTreeSet;
use std::time::Duration;

use motet_config::Settings;
use motet_server::bootstrap;
use serde_json::json;

use crate::stage::{Memory, Stage};

#[tokio::test]
async fn health_is_on_both_listeners() {
    let stage = Stage::new(Memory::Memory).await;
    for path in ["/health/live", "/health/ready"] {
        stage.get(path).await.expect(200);
        stage.admin(path).await.expect(200);
    }
    stage.admin("/api/v1/runs").await.problem(404, "unknown_route");
    stage.server.node().close();
    stage.get("/health/live").await.expect(200);
    stage.get("/health/ready").await.problem(503, "stopping");
    stage.post("/api/v1/workflows/pure/runs", &json!({"input": {"x": 1}})).await.problem(503, "stopping");
    stage.end().await;
}

#[tokio::test]
async fn metrics_are_described_and_have_no_run_in_their_labels() {
    let stage = Stage::new(Memory::Memory).await;
    let path = "/api/v1/workflows/hello/runs?wait=30s";
    let run = stage.post(path, &json!({"input": {"name": "x"}})).await.expect(200).json();
    stage.get(&format!("/api/v1/runs/{}", run["id"].as_str().unwrap())).await.expect(200);
    let reply = stage.admin("/metrics").await.expect(200);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(!reply.text.contains("run_0"), "{}", reply.text);
    let families: BTreeSet<&str> = reply
        .text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect();
    for family in &families {
        for kind in ["HELP", "TYPE"] {
            assert!(reply.text.contains(&format!("# {kind} {family} ")), "{kind} of {family}");
        }
    }
    for family in [
        "motet_http_request_seconds",
        "motet_http_requests_total",
        "motet_runs_submitted_total",
        "motet_runs_live",
        "motet_model_batch_rows",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(families.contains(family), "{family}: {families:?}");
    }
    assert!(reply.text.contains("route=\"/api/v1/runs/{id}\""), "{}", reply.text);
    for bound in ["motet_http_request_seconds_bucket{route=\"/api/v1/runs/{id}\",le=\"0.001\"}", "le=\"256\"}"] {
        assert!(reply.text.contains(bound), "{bound}: {}", reply.text);
    }
    stage.end().await;
}

#[tokio::test]
async fn the_node_tells_what_it_is_and_does() {
    let stage = Stage::new(Memory::Sqlite).await;
    let id = stage.stuck().await;
    let node = stage.get("/api/v1/node").await.expect(200).json();
    assert_eq!((&node["open"], &node["runs"]["unfinished"]), (&json!(true), &json!(1)));
    assert!(node["store"]["fault"].is_null() && node["store"]["events"].as_u64().unwrap() > 0, "{node}");
    let actors = stage.get("/api/v1/actors?limit=1000").await.expect(200).json();
    assert_eq!((&actors["counts"]["run"], &actors["counts"]["model"]), (&json!(1), &json!(3)));
    let mut lines = actors["actors"].as_array().unwrap().iter();
    assert!(lines.any(|line| line["actor"] == format!("run/{id}")), "{actors}");
    stage.end().await;
}

#[tokio::test]
async fn the_description_names_every_route_once() {
    let stage = Stage::new(Memory::Memory).await;
    let document = stage.get("/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
        }
    }
    assert_eq!(ids.len(), 46, "{ids:?}");
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    stage.end().await;
}

fn settings(folder: &std::path::Path) -> Settings {
    let mut settings = Settings::default();
    settings.data.folder = folder.join("data");
    settings.resources.folder = Some(folder.join("resources"));
    settings.http.address.set_port(0);
    settings.grpc.address.set_port(0);
    settings.admin.address.set_port(0);
    settings
}

#[tokio::test]
async fn a_folder_of_definitions_is_loaded_with_all_mistakes_told() {
    let folder = tempfile::tempdir().unwrap();
    let deeper = folder.path().join("resources/deeper");
    std::fs::create_dir_all(&deeper).unwrap();
    let good = "kind: Workflow\nname: flow\nversion: '1'\nsteps:\n  a: {call: transform, with: {v: 1}}\n";
    std::fs::write(deeper.join("flow.yml"), good).unwrap();
    std::fs::write(deeper.join("notes.txt"), "not a definition").unwrap();
    std::fs::write(deeper.join(".hidden.yaml"), "not: read").unwrap();
    let server = Box::pin(bootstrap::start(settings(folder.path()))).await.unwrap();
    let list = reqwest::get(format!("http://{}/api/v1/workflows", server.http_address())).await.unwrap();
    assert!(list.text().await.unwrap().contains("\"flow\""));
    server.stop(Duration::ZERO).await.unwrap();

    for name in ["a.yaml", "b.json"] {
        std::fs::write(deeper.join(name), "kind: Workflow\nname: flow\nstepz: 1\n").unwrap();
    }
    let error = Box::pin(bootstrap::start(settings(folder.path()))).await.err().unwrap().to_string();
    assert!(error.contains("a.yaml:3:1") && error.contains("b.json:3:1"), "{error}");

    for name in ["a.yaml", "b.json"] {
        std::fs::remove_file(deeper.join(name)).unwrap();
    }
    std::fs::write(deeper.join("flow.yml"), good.replace("v: 1", "v: 2")).unwrap();
    let error = Box::pin(bootstrap::start(settings(folder.path()))).await.err().unwrap().to_string();
    assert!(error.contains("flow.yml") && error.contains("raise 'version'"), "{error}");
}

#[tokio::test]
async fn a_stop_lets_runs_end_and_hands_the_rest_back() {
    let stage = Stage::new(Memory::Sqlite).await;
    let waiting = stage.request(reqwest::Method::POST, "/api/v1/workflows/stuck/runs?wait=60s").json(&json!({}));
    let waiting = tokio::spawn(waiting.send());
    while stage.server.router().runs().live() < 1 {
        tokio::task::yield_now().await;
    }
    let address = stage.server.http_address();
    assert_eq!(stage.server.stop(Duration::from_millis(200)).await.unwrap(), 1);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    // The waiting client gets an answer or an end of its connection, never silence.
    let _ = waiting.await.unwrap();
}

#[tokio::test]
async fn an_unknown_store_is_told() {
    for (url, words) in [("mysql://x", "no store 'mysql:'"), ("memory", "no scheme"), ("memory:x", "no store")] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        settings.resources.folder = None;
        settings.store.url = url.into();
        let error = Box::pin(bootstrap::start(settings)).await.err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}
