//! Putting, reading, listing and checking definitions, and calling models.

use motet_config::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{Memory, STORES, Stage};

const FLOW: &str = "kind: Workflow\nname: flow\nversion: '1'\nsteps:\n  a: {call: transform, with: {v: 1}}\n";

#[tokio::test]
async fn a_version_never_changes() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let put = stage.put("workflows/flow", FLOW).await.expect(201).json();
        assert_eq!(put, json!({"kind": "workflow", "name": "flow", "version": "1", "created": true}));
        assert_eq!(stage.put("workflows/flow", FLOW).await.expect(200).json()["created"], false);
        stage.put("workflows/flow", &FLOW.replace("v: 1", "v: 2")).await.problem(409, "version_taken");
        stage.put("workflows/flow", &FLOW.replace("'1'", "'2'").replace("v: 1", "v: 2")).await.expect(201);
        let newest = stage.get("/api/v1/workflows/flow").await.expect(200).json();
        let first = stage.get("/api/v1/workflows/flow?version=1").await.expect(200).json();
        assert_eq!((&newest["version"], &first["version"]), (&json!("2"), &json!("1")));
        assert_eq!(first["document"]["steps"]["a"]["with"]["v"], 1);
        stage.get("/api/v1/workflows/flow?version=9").await.problem(404, "not_found");
        let run = stage.post("/api/v1/workflows/flow/runs?wait=30s", &json!({"version": "1"})).await.expect(200);
        assert_eq!(run.json()["output"]["a"]["v"], 1);
        let listed = stage.get("/api/v1/workflows").await.expect(200).json();
        let names: Vec<_> = listed["workflows"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        assert_eq!(names, ["flow", "hello", "later", "pure", "stuck"]);
        stage.end().await;
    }
}

#[tokio::test]
async fn a_definition_comes_as_yaml_or_json() {
    let stage = Stage::new(Memory::Memory).await;
    let document = json!({"kind": "Workflow", "name": "flow", "version": "1",
        "steps": {"a": {"call": "transform", "with": {"v": 1}}}});
    let put = |kind: Option<&str>, body: String| {
        let request = stage.request(Method::PUT, "/api/v1/workflows/flow").body(body);
        match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        }
    };
    stage.send(put(Some("application/json"), document.to_string())).await.expect(201);
    for kind in [None, Some("application/yaml"), Some("text/yaml; charset=utf-8"), Some("text/plain")] {
        stage.send(put(kind, FLOW.into())).await.expect(200);
    }
    let form = put(Some("application/x-www-form-urlencoded"), FLOW.into());
    stage.send(form).await.problem(415, "unsupported_media_type");
    let raw = stage.request(Method::PUT, "/api/v1/workflows/flow").body(vec![b'k', 0xff]);
    stage.send(raw).await.problem(400, "not_utf8");
    stage.end().await;
}

#[tokio::test]
async fn every_mistake_has_its_place() {
    let stage = Stage::new(Memory::Memory).await;
    let wrong = "kind: Workflow\nname: flow\nversion: '1'\nstepz: {}\nsteps:\n  a: {cal: transform, with: {v: 1}}\n";
    for reply in [
        stage.put("workflows/flow", wrong).await,
        stage.send(stage.request(Method::POST, "/api/v1/check").body(wrong)).await,
    ] {
        let problem = reply.problem(422, "invalid_definition");
        let errors = problem["errors"].as_array().unwrap();
        assert!(errors.len() >= 2, "{problem}");
        assert!(errors.iter().all(|error| error["line"].is_u64() && error["column"].is_u64()), "{problem}");
        assert!(errors.iter().any(|error| error["line"] == 4), "{problem}");
        assert!(errors.iter().any(|error| error["line"] == 6 && error["advice"].is_string()), "{problem}");
    }
    stage.put("workflows/flow", &FLOW.replace("name: flow", "name: other")).await.problem(422, "name_mismatch");
    stage.put("models/flow", FLOW).await.problem(422, "name_mismatch");
    stage
        .put("workflows/flow", &format!("{FLOW}---\n{}", FLOW.replace("name: flow", "name: b")))
        .await
        .problem(422, "invalid_definition");
    stage.put("models/m", "kind: Model\nname: m\nbackend: abacus\n").await.problem(422, "invalid");
    stage.put("workflows/UPPER", FLOW).await.problem(400, "invalid_name");
    let deep = format!("kind: Workflow\nname: flow\nsteps: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    stage.put("workflows/flow", &deep).await.problem(422, "invalid_definition");
    stage.end().await;
}

#[tokio::test]
async fn streams_are_put_changed_shown_and_deleted() {
    for memory in STORES {
        // Nobody answers there, which harms no definition.
        let stage = Stage::with(memory, |settings| settings.kafka.brokers = "127.0.0.1:1".to_owned()).await;
        let orders = "kind: Stream\nname: orders\ntopics: [orders]\nworkflow: triage\n";
        let put = stage.put("streams/orders", orders).await.expect(201).json();
        assert_eq!(put, json!({"kind": "stream", "name": "orders", "version": "1", "created": true}));
        assert_eq!(stage.put("streams/orders", orders).await.expect(200).json()["created"], false);
        let paused = stage.put("streams/orders", &format!("{orders}paused: true\n")).await.expect(201).json();
        assert_eq!(paused["version"], "2");
        let shown = stage.get("/api/v1/streams/orders").await.expect(200).json();
        assert_eq!((&shown["kind"], &shown["version"]), (&json!("stream"), &json!("2")));
        assert_eq!(shown["document"]["topics"], json!(["orders"]));
        let first = stage.get("/api/v1/streams/orders?version=1").await.expect(200).json();
        assert_eq!(first["document"]["paused"], Value::Null);
        let listed = stage.get("/api/v1/streams").await.expect(200).json();
        assert_eq!(listed["streams"].as_array().map(Vec::len), Some(1));
        let loops = stage.put("streams/orders", &format!("{orders}output: {{topic: orders}}\n")).await;
        assert_eq!(loops.problem(422, "invalid_definition")["errors"][0]["line"], 5);
        let delete = || stage.send(stage.request(Method::DELETE, "/api/v1/streams/orders"));
        delete().await.expect(204);
        delete().await.problem(404, "not_found");
        stage.get("/api/v1/streams/orders").await.problem(404, "not_found");
        assert_eq!(stage.get("/api/v1/streams").await.expect(200).json()["streams"], json!([]));
        stage.end().await;
    }
}

#[tokio::test]
async fn streams_are_refused_where_no_broker_is_set() {
    let stage = Stage::new(STORES[0]).await;
    let refused = stage.put("streams/orders", "kind: Stream\nname: orders\ntopics: [orders]\nworkflow: triage\n").await;
    let detail = refused.problem(422, "invalid")["detail"].clone();
    assert!(detail.as_str().unwrap().contains("set kafka.brokers"), "{detail}");
    stage.end().await;
}

#[tokio::test]
async fn formats_with_schemas_are_refused_where_no_registry_is_set() {
    let avro = "kind: Stream\nname: orders\ntopics: [orders]\nworkflow: triage\nformat: {key: avro}\n";
    let broker = |settings: &mut Settings| settings.kafka.brokers = "127.0.0.1:1".to_owned();
    let stage = Stage::with(STORES[0], broker).await;
    let refused = stage.put("streams/orders", avro).await.problem(422, "invalid")["detail"].clone();
    assert!(refused.as_str().unwrap().contains("set registry.url"), "{refused}");
    stage.end().await;
    // Nobody answers there, which harms no definition.
    let stage = Stage::with(STORES[0], |settings| {
        broker(settings);
        settings.registry.url = "http://127.0.0.1:1".to_owned();
    })
    .await;
    stage.put("streams/orders", avro).await.expect(201);
    stage.end().await;
}

#[tokio::test]
async fn a_check_stores_nothing() {
    let stage = Stage::new(Memory::Memory).await;
    let both = format!("{FLOW}---\nkind: Index\nname: kb\nbackend: embedded\ndimension: 3\nmetric: cosine\n");
    let checked = stage.send(stage.request(Method::POST, "/api/v1/check").body(both)).await.expect(200).json();
    assert_eq!(checked["valid"], true);
    assert_eq!(checked["definitions"][0], json!({"kind": "workflow", "name": "flow", "version": "1"}));
    assert_eq!(checked["definitions"][1]["kind"], "index");
    stage.get("/api/v1/workflows/flow").await.problem(404, "not_found");
    let backend = "kind: Model\nname: m\nbackend: abacus\n";
    let refused = stage.send(stage.request(Method::POST, "/api/v1/check").body(backend)).await;
    assert_eq!(refused.problem(422, "invalid_definition")["errors"][0]["code"], "backend");
    stage.end().await;
}

#[tokio::test]
async fn models_and_indexes_show_how_they_do() {
    for memory in STORES {
        let stage = Stage::new(memory).await;
        let with = |text: &str| json!({"with": {"text": text}});
        let output = stage.post("/api/v1/models/echo/infer", &with("hi")).await.expect(200).json();
        assert_eq!(output, json!({"output": {"text": "hi"}}));
        let model = stage.get("/api/v1/models/echo").await.expect(200).json();
        assert_eq!((&model["state"], &model["backend"]), (&json!("ready"), &json!("fake")));
        assert_eq!(model["figures"]["calls"], 1);
        assert_eq!(model["signature"]["inputs"][0]["name"], "text");
        assert_eq!(stage.get("/api/v1/models").await.expect(200).json()["models"].as_array().unwrap().len(), 3);
        stage.post("/api/v1/models/none/infer", &with("hi")).await.problem(404, "not_found");
        stage.post("/api/v1/models/echo/infer", &json!({"with": {"txt": 1}})).await.problem(422, "invalid");
        stage.post("/api/v1/models/echo/infer", &json!({})).await.problem(422, "invalid");

        let index = "kind: Index\nname: kb\nbackend: embedded\ndimension: 3\nmetric: cosine\n";
        stage.put("indexes/kb", index).await.expect(201);
        let shown = stage.get("/api/v1/indexes/kb").await.expect(200).json();
        assert_eq!(
            (&shown["dimension"], &shown["vectors"], &shown["metric"]),
            (&json!(3), &json!(0), &json!("cosine"))
        );
        let listed = stage.get("/api/v1/indexes").await.expect(200).json();
        assert_eq!(listed["indexes"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed["workflows"], Value::Null);
        stage.end().await;
    }
}
