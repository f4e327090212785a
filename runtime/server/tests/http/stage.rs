//! A started server on free ports, the definitions that the tests use, and a client that reads answers whole.

use std::time::Duration;

use motet_config::Settings;
use motet_server::bootstrap::{self, RunningServer};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time that a test waits for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A workflow of pure steps, one that asks a model, one whose call never ends within a test, and one whose call fails
/// and is tried again long after the test: it waits without an actor.
const DEFINITIONS: [(&str, &str); 7] = [
    ("models/echo", "kind: Model\nname: echo\nbackend: fake\n"),
    ("models/stuck", "kind: Model\nname: stuck\nbackend: fake\nparameters: {latency_ms: 600000}\n"),
    (
        "workflows/pure",
        "kind: Workflow\nname: pure\nversion: '1'\nsteps:\n  copy: {call: transform, with: {value: '${ input.x }'}}\n\
         output: {doubled: '${ steps.copy.output.value * 2 }'}\n",
    ),
    (
        "workflows/hello",
        "kind: Workflow\nname: hello\nversion: '1'\n\
         input: {schema: {type: object, required: [name], properties: {name: {type: string}}}}\n\
         steps:\n  greet: {call: model, model: echo, with: {text: 'Hello ${ input.name }'}}\n\
         output: {text: '${ steps.greet.output.text }'}\n",
    ),
    (
        "workflows/stuck",
        "kind: Workflow\nname: stuck\nversion: '1'\nsteps:\n  wait: {call: model, model: stuck, with: {text: x}}\n",
    ),
    ("models/broken", "kind: Model\nname: broken\nbackend: fake\nparameters: {fail_every: 1}\n"),
    (
        "workflows/later",
        "kind: Workflow\nname: later\nversion: '1'\nsteps:\n  call: {call: model, model: broken, with: {text: x}, \
         retry: {max_attempts: 9, backoff: {initial: 24h, max: 24h}}}\n",
    ),
];

/// Which store a server has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// Nothing lasts.
    Memory,
    /// A file.
    Sqlite,
}

/// Every store.
pub(crate) const STORES: [Memory; 2] = [Memory::Memory, Memory::Sqlite];

/// A server and its client.
pub(crate) struct Stage {
    pub(crate) server: RunningServer,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header as text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The same answer when its status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// The problem, after everything that every problem has was looked at.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["trace_id"].as_str().map(str::len), Some(32));
        for member in ["title", "detail", "instance"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
        assert_eq!(body["retry_after"].is_null(), self.header("retry-after").is_empty());
        assert_eq!(self.header("traceresponse").len(), 55);
        body
    }
}

impl Stage {
    /// A server with settings of its own, and the definitions.
    pub(crate) async fn with(memory: Memory, set: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.data.folder = folder.path().join("data");
        settings.http.address.set_port(0);
        settings.grpc.address.set_port(0);
        settings.admin.address.set_port(0);
        settings.store.url = match memory {
            Memory::Memory => "memory:".into(),
            Memory::Sqlite => "sqlite:".into(),
        };
        set(&mut settings);
        let server = Box::pin(bootstrap::start(settings)).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let stage = Self { server, client, _folder: folder };
        for (path, yaml) in DEFINITIONS {
            stage.put(path, yaml).await.expect(201);
        }
        stage
    }

    /// A server as it comes.
    pub(crate) async fn new(memory: Memory) -> Self {
        Self::with(memory, |_| {}).await
    }

    /// Ends the server.
    pub(crate) async fn end(self) {
        self.server.stop(Duration::ZERO).await.unwrap();
    }

    /// A request to the API.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.server.http_address()))
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    /// Reads a path.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// Reads a path of the operators' listener.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        self.send(self.client.get(format!("http://{}{path}", self.server.admin_address()))).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Puts a definition in YAML.
    pub(crate) async fn put(&self, path: &str, yaml: &str) -> Reply {
        let request = self.request(Method::PUT, &format!("/api/v1/{path}"));
        self.send(request.header("content-type", "application/yaml").body(yaml.to_owned())).await
    }

    /// Starts a run of the workflow that does not end by itself.
    pub(crate) async fn stuck(&self) -> String {
        let reply = self.post("/api/v1/workflows/stuck/runs", &json!({})).await.expect(202);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Starts a run that waits for its next attempt, and comes back when it waits.
    pub(crate) async fn waiting(&self) -> String {
        let reply = self.post("/api/v1/workflows/later/runs", &json!({})).await.expect(202);
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        while self.get(&format!("/api/v1/runs/{id}")).await.expect(200).json()["state"] != "waiting" {}
        id
    }

    /// A connection without a client's help.
    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.server.http_address()).await.unwrap()
    }
}

/// Sends bytes and reads until the other side ends the connection.
pub(crate) async fn exchange(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut text = vec![];
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}
