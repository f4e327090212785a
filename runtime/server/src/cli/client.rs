//! The server as the command line sees it: requests over HTTP, problem reports turned into words.
//!
//! Never retries: a script that wants to can tell by the exit code. Used by every command that asks a server, and by
//! the demo.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::failure::{CliError, CliResult, Exit};

/// Longest time to get a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time of an ordinary request.
const REQUEST: Duration = Duration::from_secs(30);

/// A server at an address.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

/// An answer: its status and its body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status of the answer.
    pub(crate) status: u16,
    /// Body; null where there was none.
    pub(crate) body: Value,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`.
    pub(crate) fn new(base: &str) -> CliResult<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let base = if base.contains("://") { base } else { format!("http://{base}") };
        reqwest::Url::parse(&base).map_err(|error| {
            CliError::usage(format!("'{base}' is no address of a server: {error}"))
                .advise("write it as http://HOST:PORT, in --server or in MOTET_SERVER")
        })?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("motet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CliError::failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { base, http })
    }

    /// The address that requests go to.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).header("accept", "application/json")
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> CliResult<Value> {
        Ok(self.send(self.request(Method::GET, path).timeout(REQUEST)).await?.body)
    }

    /// Puts a definition.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> CliResult<Answer> {
        self.send(self.request(Method::PUT, path).timeout(REQUEST).json(body)).await
    }

    /// Deletes.
    pub(crate) async fn delete(&self, path: &str) -> CliResult<Answer> {
        self.send(self.request(Method::DELETE, path).timeout(REQUEST)).await
    }

    /// Asks for something to be done; `patience` is added to the ordinary time of a request.
    pub(crate) async fn post(&self, path: &str, body: &Value, patience: Duration) -> CliResult<Answer> {
        self.send(self.request(Method::POST, path).timeout(REQUEST + patience).json(body)).await
    }

    /// The same with a key under which the server does it only once.
    pub(crate) async fn post_once(&self, path: &str, body: &Value, patience: Duration, key: &str) -> CliResult<Answer> {
        let request = self.request(Method::POST, path).timeout(REQUEST + patience);
        self.send(request.header("idempotency-key", key).json(body)).await
    }

    /// Opens a stream of events after the one of number `last`; none when there is nothing more to come.
    pub(crate) async fn stream(&self, path: &str, last: Option<&str>) -> CliResult<Option<Response>> {
        let mut request = self.http.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            _ => Err(problem(response).await),
        }
    }

    async fn send(&self, request: RequestBuilder) -> CliResult<Answer> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem(response).await);
        }
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|_| self.not_motet())?
        };
        Ok(Answer { status: status.as_u16(), body })
    }

    fn not_motet(&self) -> CliError {
        CliError::new(Exit::Unreachable, format!("{} answers, but not like a motet server", self.base))
            .advise("check --server or MOTET_SERVER")
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        if error.is_timeout() && !error.is_connect() {
            return CliError::new(Exit::Unreachable, format!("{} did not answer in time", self.base))
                .advise("see how it does with: motet models list");
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        CliError::new(Exit::Unreachable, format!("cannot reach a server at {}: {cause}", self.base))
            .advise("start one with 'motet serve', or name another with --server URL or MOTET_SERVER")
    }
}

/// A refusal in words: the problem report that the server wrote (RFC 9457), or its status where it wrote none.
async fn problem(response: Response) -> CliError {
    let status = response.status();
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.bytes().await.unwrap_or_default();
    let report: Value = serde_json::from_slice(&body).unwrap_or_default();
    refusal(status, &report, retry_after.as_deref())
}

fn refusal(status: StatusCode, report: &Value, retry_after: Option<&str>) -> CliError {
    let exit = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        _ if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE => Exit::Failed,
        _ => Exit::Refused,
    };
    let said = |key: &str| report[key].as_str().filter(|text| !text.is_empty());
    let message = match (said("title"), said("detail")) {
        (_, Some(detail)) => detail.to_owned(),
        (Some(title), None) => title.to_owned(),
        (None, None) => format!("the server answered {status}"),
    };
    let details = report["errors"].as_array().map_or_else(Vec::new, |errors| errors.iter().map(detail).collect());
    let error = CliError::new(exit, message).with_details(details);
    match (said("advice"), retry_after, status) {
        (Some(advice), ..) => error.advise(advice),
        (None, Some(seconds), _) => error.advise(format!("the same again in {seconds} s")),
        (None, None, StatusCode::NOT_FOUND) => {
            error.advise("see what there is with: motet runs list, motet models list, motet schedules list")
        }
        _ => error,
    }
}

/// One entry of a report's `errors`: a mistake in a definition, or in a body.
fn detail(entry: &Value) -> String {
    let words = ["detail", "message"].iter().find_map(|key| entry[*key].as_str()).unwrap_or("is wrong");
    let place = match (entry["line"].as_u64(), entry["pointer"].as_str()) {
        (Some(line), _) if line > 0 => format!("line {line}, column {}: ", entry["column"].as_u64().unwrap_or(1)),
        (_, Some(pointer)) => format!("{pointer}: "),
        _ => String::new(),
    };
    let advice = entry["advice"].as_str().map_or_else(String::new, |advice| format!(" ({advice})"));
    format!("{place}{words}{advice}")
}

/// A name as a part of a path.
pub(crate) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::failure::Told;

    fn told(error: CliError) -> Told {
        match error {
            CliError::Told(told) => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn problem_reports_become_words_and_exit_codes() {
        let report = json!({"title": "Unprocessable", "detail": "the input does not fit", "errors": [
            {"pointer": "#/input/text", "detail": "is missing"},
            {"line": 3, "column": 5, "message": "unknown key 'cal'", "advice": "did you mean 'call'?"},
        ]});
        let found = told(refusal(StatusCode::UNPROCESSABLE_ENTITY, &report, None));
        assert_eq!(found.message, "the input does not fit");
        assert_eq!(
            found.details,
            ["#/input/text: is missing", "line 3, column 5: unknown key 'cal' (did you mean 'call'?)"]
        );
        assert_eq!(found.exit, Exit::Refused);
        for (status, report, retry, exit, words) in [
            (404, json!({"detail": "no run r"}), None, Exit::NotFound, "no run r"),
            (429, json!({"title": "Too many"}), Some("2"), Exit::Refused, "Too many"),
            (503, json!(null), None, Exit::Refused, "the server answered 503 Service Unavailable"),
            (500, json!({"title": "Broken"}), None, Exit::Failed, "Broken"),
        ] {
            let found = told(refusal(StatusCode::from_u16(status).unwrap(), &report, retry));
            assert_eq!((found.exit, found.message.as_str()), (exit, words), "{status}");
            assert_eq!(found.advice.is_some_and(|advice| advice.contains("2 s")), retry.is_some(), "{status}");
        }
    }

    #[test]
    fn addresses_are_completed_and_checked() {
        assert_eq!(Client::new("localhost:9/").unwrap().base(), "http://localhost:9");
        assert_eq!(told(Client::new("http://[").unwrap_err()).exit, Exit::Usage);
        assert_eq!(segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
