//! A client of the real binary's API, as an application would be one.
//!
//! Never retries: a test that repeats a request says so itself. Used by every suite that talks to a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::waiting::looks;

/// Longest time of one request; more than any `?wait=` of the tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as JSON, or as a text where it is none.
    pub body: Value,
}

impl Reply {
    /// The same, if the status is the one expected.
    ///
    /// # Errors
    /// When it is another one; with the body.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.body);
        Ok(self)
    }
}

/// Whether a run got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// The node promised the run of this id.
    Accepted(String),
    /// The node refused before anything was promised.
    Refused(StatusCode),
    /// The answer was lost: the run may exist or not.
    Unknown,
}

/// A client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    http: SocketAddr,
    admin: SocketAddr,
    inner: reqwest::Client,
}

impl Client {
    /// A client of the node that listens here.
    ///
    /// # Panics
    /// When the client cannot be made.
    #[must_use]
    pub fn new(http: SocketAddr, admin: SocketAddr) -> Self {
        let inner = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        Self { http, admin, inner }
    }

    /// The same that waits at most this long for an answer, as an application does that has another node to ask.
    ///
    /// # Panics
    /// When the client cannot be made.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        let inner = reqwest::Client::builder().timeout(patience).no_proxy().build().unwrap();
        Self { inner, ..*self }
    }

    /// A request to the API.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.inner.request(method, format!("http://{}{path}", self.http))
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn send(&self, request: RequestBuilder) -> Result<Reply> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Reply { status, headers, body })
    }

    /// Reads a path of the API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts JSON to a path of the API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Puts a definition in YAML.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn put_definition(&self, kind: &str, name: &str, yaml: &str) -> Result<Reply> {
        let path = format!("/api/v1/{kind}/{name}");
        let request = self.request(Method::PUT, &path).header(CONTENT_TYPE, "application/yaml").body(yaml.to_owned());
        let reply = self.send(request).await?;
        ensure!(reply.status.is_success(), "PUT {path}: {} {}", reply.status, reply.body);
        Ok(reply)
    }

    /// Deletes what was put, a schedule or a stream.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn delete_definition(&self, kind: &str, name: &str) -> Result<()> {
        let path = format!("/api/v1/{kind}/{name}");
        let reply = self.send(self.request(Method::DELETE, &path)).await?;
        ensure!(reply.status.is_success(), "DELETE {path}: {} {}", reply.status, reply.body);
        Ok(())
    }

    /// Submits a run under an idempotency key and tells what was promised.
    pub async fn submit(&self, workflow: &str, input: &Value, key: &str) -> Submission {
        let path = format!("/api/v1/workflows/{workflow}/runs");
        let request = self.request(Method::POST, &path).header("idempotency-key", key);
        match self.send(request.json(&json!({ "input": input }))).await {
            Err(_) => Submission::Unknown,
            Ok(reply) if reply.status.is_success() => match reply.body["id"].as_str() {
                Some(id) => Submission::Accepted(id.to_owned()),
                None => Submission::Unknown,
            },
            // What the server could not finish may have been written all the same.
            Ok(reply) if matches!(reply.status.as_u16(), 500 | 504) => Submission::Unknown,
            Ok(reply) => Submission::Refused(reply.status),
        }
    }

    /// Submits a run and waits for its end in the same request.
    ///
    /// # Errors
    /// When the run has not ended within the wait.
    pub async fn run(&self, workflow: &str, input: &Value, wait: Duration) -> Result<Value> {
        let path = format!("/api/v1/workflows/{workflow}/runs?wait={}s", wait.as_secs());
        Ok(self.post(&path, &json!({ "input": input })).await?.expect(200)?.body)
    }

    /// Reads a run.
    ///
    /// # Errors
    /// When there is no such run, or no answer.
    pub async fn read_run(&self, id: &str) -> Result<Value> {
        Ok(self.get(&format!("/api/v1/runs/{id}")).await?.expect(200)?.body)
    }

    /// Reads every event of a run, page after page.
    ///
    /// # Errors
    /// When there is no such run, or no answer.
    pub async fn events(&self, id: &str) -> Result<Vec<Value>> {
        let mut events: Vec<Value> = vec![];
        loop {
            let path = format!("/api/v1/runs/{id}/events?last_event_id={}", events.len());
            let request = self.request(Method::GET, &path).header(ACCEPT, "application/json");
            let mut page = self.send(request).await?.expect(200)?.body;
            let Value::Array(part) = page["events"].take() else { bail!("no events in {page}") };
            let over = part.is_empty() || page["complete"] == true;
            events.extend(part);
            if over {
                return Ok(events);
            }
        }
    }

    /// Whether the node says that it is ready.
    pub async fn is_ready(&self) -> bool {
        self.readiness().await == Some(StatusCode::OK)
    }

    /// Waits until the node is ready.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub async fn until_ready(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut looks = looks();
        while !self.is_ready().await {
            ensure!(begun.elapsed() < limit, "the node is not ready after {} s", limit.as_secs());
            looks.tick().await;
        }
        Ok(())
    }

    /// What the node says about its readiness; none while it does not listen.
    pub async fn readiness(&self) -> Option<StatusCode> {
        let url = format!("http://{}/health/ready", self.admin);
        self.inner.get(url).send().await.ok().map(|response| response.status())
    }

    /// The value of a metric, summed over its labels.
    ///
    /// # Errors
    /// When there is no answer, or no such metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        self.metric_with(name, &[]).await
    }

    /// The same over those of its labels that say `labels`, such as `side="redis"`.
    ///
    /// # Errors
    /// As [`Client::metric`].
    pub async fn metric_with(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.inner.get(format!("http://{}/metrics", self.admin)).send().await?.text().await?;
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .peekable();
        values.peek().with_context(|| format!("there is no metric {name}"))?;
        Ok(values.sum())
    }
}
