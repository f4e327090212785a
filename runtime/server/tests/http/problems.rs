//! Every refusal with its status and code.

use reqwest::Method;
use serde_json::json;

use crate::stage::{Memory, Stage};

#[tokio::test]
async fn refusals_have_their_status_and_code() {
    let stage = Stage::new(Memory::Memory).await;
    let runs = "/api/v1/workflows/pure/runs";
    let unknown = "/api/v1/runs/run_00000000000000000000000000";
    let get = |path: &str| stage.request(Method::GET, path);
    let post =
        |body: &str| stage.request(Method::POST, runs).header("content-type", "application/json").body(body.to_owned());
    let cases = [
        (get("/nothing"), 404, "unknown_route"),
        (get("/api/v1/runs/x"), 404, "not_found"),
        (get("/api/v1/workflows/%ff"), 400, "invalid_path"),
        (get("/api/v1/workflows/A"), 400, "invalid_name"),
        (get(unknown), 404, "not_found"),
        (get(&format!("{unknown}/events")), 404, "not_found"),
        (get(&format!("{unknown}/why")), 404, "not_found"),
        (stage.request(Method::POST, &format!("{unknown}/cancel")), 404, "not_found"),
        (stage.request(Method::DELETE, runs), 405, "method_not_allowed"),
        (get("/api/v1/runs?limit=0"), 400, "invalid_query"),
        (get("/api/v1/runs?limit=501"), 400, "invalid_query"),
        (get("/api/v1/runs?limit=x"), 400, "invalid_query"),
        (get("/api/v1/runs?colour=red"), 400, "invalid_query"),
        (get("/api/v1/runs?state=asleep"), 400, "invalid_query"),
        (get("/api/v1/runs?cursor=x"), 400, "invalid_query"),
        (get("/api/v1/runs?created_from=yesterday"), 400, "invalid_query"),
        (get("/api/v1/runs?workflow=A"), 400, "invalid_query"),
        (get("/api/v1/runs").header("motet-namespace", "A"), 400, "invalid_namespace"),
        (stage.request(Method::POST, &format!("{runs}?wait=soon")).json(&json!({})), 400, "invalid_query"),
        (post("{"), 400, "malformed_json"),
        (post("nonsense"), 400, "malformed_json"),
        (post("[]"), 422, "invalid"),
        (post(r#"{"inputs": 1}"#), 422, "invalid"),
        (post(r#"{"version": 1}"#), 422, "invalid"),
        (post(r#"{"priority": 1000}"#), 422, "invalid"),
        (post(r#"{"input": {"x": 1, "x": 2}}"#), 422, "invalid"),
        (post(r#"{"tags": [""]}"#), 422, "invalid"),
        (post(r#"{"version": "9"}"#), 404, "not_found"),
        (post(&format!(r#"{{"input": {}1{}}}"#, "[".repeat(200), "]".repeat(200))), 400, "too_deep"),
        (post("{}").header("idempotency-key", ""), 400, "invalid_idempotency_key"),
        (
            stage.request(Method::POST, runs).header("content-type", "text/csv").body("a,b"),
            415,
            "unsupported_media_type",
        ),
        (stage.request(Method::POST, "/api/v1/workflows/none/runs").json(&json!({})), 404, "not_found"),
    ];
    for (request, status, code) in cases {
        stage.send(request).await.problem(status, code);
    }
    let allow = stage.send(stage.request(Method::DELETE, runs)).await;
    assert_eq!(allow.header("allow"), "POST");
    stage.end().await;
}

#[tokio::test]
async fn broken_json_and_unfit_inputs_are_placed() {
    let stage = Stage::new(Memory::Memory).await;
    let path = "/api/v1/workflows/hello/runs";
    let json =
        |body: &str| stage.request(Method::POST, path).header("content-type", "application/json").body(body.to_owned());
    let broken = stage.send(json("{\n  \"input\": {,}\n}")).await.problem(400, "malformed_json");
    assert_eq!((&broken["errors"][0]["line"], &broken["errors"][0]["column"]), (&json!(2), &json!(13)));
    let unfit = stage.send(json(r#"{"input": {"name": 1}}"#)).await.problem(422, "unfit_input");
    assert_eq!(unfit["errors"][0]["pointer"], "/input/name");
    let missing = stage.send(json("{}")).await.problem(422, "unfit_input");
    assert_eq!(missing["errors"][0]["pointer"], "/input");
    stage.end().await;
}

#[tokio::test]
async fn traces_and_request_ids_are_handed_back() {
    let stage = Stage::new(Memory::Memory).await;
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let with = |name: &'static str, value: &'static str| stage.request(Method::GET, "/api/v1/node").header(name, value);
    let taken = stage.send(with("traceparent", sent)).await.expect(200);
    assert_eq!(taken.header("traceresponse").get(..35), sent.get(..35));
    assert_eq!(taken.header("x-request-id"), "0af7651916cd43dd8448eb211c80319c");
    let wrong = stage.send(with("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")).await;
    assert_ne!(wrong.header("traceresponse").get(3..35), Some("00000000000000000000000000000000"));
    assert_eq!(stage.send(with("x-request-id", "mine")).await.header("x-request-id"), "mine");
    let (first, second) = (stage.get("/api/v1/node").await, stage.get("/api/v1/node").await);
    assert_ne!(first.header("traceresponse"), second.header("traceresponse"));
    stage.end().await;
}
