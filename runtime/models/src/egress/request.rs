//! The request of a step: read out of its evaluated `with`, completed by what every request carries.
//!
//! Every mistake says where it is. What may be known before evaluation was checked with the definition; expressions
//! may evaluate to anything, so all of it is checked here. Never sends. Used by the egress actor and the client.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use motet_engine::definition::{CONNECTION_HEADERS, HTTP_METHODS, HTTP_SCHEMES, is_header_name, is_header_value};
use motet_engine::failure::Failure;
use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::time::span;
use motet_engine::trace::TraceContext;
use motet_engine::value::{Map, Value};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use reqwest::{Method, Url};

use crate::failure::{internal, invalid};

const KEYS: [&str; 6] = ["method", "url", "headers", "query", "body", "timeout"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const FORM: &str = "application/x-www-form-urlencoded";

/// Headers whose values are kept out of every log line that shows headers.
const SECRET: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-auth-token"),
];

/// What a request carries beside what its step says.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The same for every attempt of the call, so that the other side may recognise one that it has seen. Sent as
    /// `Idempotency-Key` with every method that changes something, unless the step names its own.
    pub key: Option<&'a str>,
    /// Sent as `traceparent`, unless the step names its own.
    pub trace: TraceContext,
    /// Longest time for the answer; the step's `with.timeout` may be shorter.
    pub timeout: Duration,
}

/// A request that can be sent.
pub struct HttpRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    timeout: Duration,
}

impl HttpRequest {
    /// Reads a request. A text as body is sent as it is, a tensor as its bytes, a map as a form where the content type
    /// says so, and everything else as JSON; the content type follows from that unless the headers name one.
    ///
    /// # Errors
    /// `Invalid` with the path of the mistake.
    pub fn read(with: &Value, terms: Terms<'_>) -> Result<Self, Failure> {
        let Value::Map(map) = with else { return Err(invalid(format!("with must be a map, got {}", with.kind()))) };
        if let Some(unknown) = map.keys().find(|key| !KEYS.contains(&&***key)) {
            return Err(invalid(format!("with has no key '{unknown}'; its keys are {}", KEYS.join(", "))));
        }
        let method = method(with)?;
        let mut url = url(with)?;
        add_query(&mut url, with.get("query"))?;
        let mut headers = headers(with.get("headers"))?;
        let body = body(with.get("body"), &mut headers)?;
        if let (false, Some(key)) = (method.is_safe(), terms.key) {
            let key = HeaderValue::from_str(key).map_err(|_| internal("the call's key is no header"))?;
            headers.entry(IDEMPOTENCY_KEY).or_insert(key);
        }
        if !headers.contains_key(TRACEPARENT)
            && let Ok(trace) = HeaderValue::from_maybe_shared(Bytes::from(terms.trace.to_string()))
        {
            headers.insert(TRACEPARENT, trace);
        }
        let timeout = timeout(with)?.map_or(terms.timeout, |timeout| timeout.min(terms.timeout));
        Ok(Self { method, url, headers, body, timeout })
    }

    /// Longest time for the answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Host and port, in whose line the request waits.
    #[must_use]
    pub fn origin(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port_or_known_default().unwrap_or_default())
    }

    /// Method and URL for people, without what may be secret: no credentials, no query.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{} {}", self.method, shown(&self.url))
    }
}

impl fmt::Debug for HttpRequest {
    /// Only what people may see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpRequest").field(&self.target()).finish()
    }
}

/// Method and URL of an evaluated `with` for people, without credentials and query; what cannot be read is a `?`.
#[must_use]
pub fn target(with: &Value) -> String {
    let method = with.get("method").and_then(Value::as_str).unwrap_or("?");
    let url = with.get("url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
    let url = url.filter(|url| HTTP_SCHEMES.contains(&url.scheme()));
    format!("{method} {}", url.map_or_else(|| "?".to_owned(), |url| shown(&url)))
}

fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn method(with: &Value) -> Result<Method, Failure> {
    let text = text(with, "method")?;
    let known = HTTP_METHODS.contains(&text).then(|| Method::from_bytes(text.as_bytes()).ok()).flatten();
    known.ok_or_else(|| invalid(format!("with.method must be one of {}, not '{}'", HTTP_METHODS.join(", "), cut(text))))
}

fn url(with: &Value) -> Result<Url, Failure> {
    // The text may hold credentials, so it is not shown.
    let mut url = Url::parse(text(with, "url")?).map_err(|error| invalid(format!("with.url is no URL: {error}")))?;
    if !HTTP_SCHEMES.contains(&url.scheme()) {
        return Err(invalid(format!("with.url must begin with http:// or https://, not '{}:'", cut(url.scheme()))));
    }
    url.set_fragment(None);
    Ok(url)
}

fn add_query(url: &mut Url, query: Option<&Value>) -> Result<(), Failure> {
    for (name, values) in named(query, "query")? {
        for value in values {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(())
}

fn headers(given: Option<&Value>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, values) in named(given, "headers")? {
        let path = || format!("with.headers.{}", cut(name));
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| is_header_name(name));
        let Some(parsed) = parsed else { return Err(invalid(format!("{} is no name for a header", path()))) };
        if CONNECTION_HEADERS.contains(&parsed.as_str()) {
            return Err(invalid(format!("{} cannot be set: it follows from the rest of the request", path())));
        }
        for value in values {
            let made = HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()));
            let Some(mut made) = made.ok().filter(|_| is_header_value(&value)) else {
                return Err(invalid(format!("{} holds a line break or another control character", path())));
            };
            made.set_sensitive(SECRET.contains(&parsed));
            headers.append(parsed.clone(), made);
        }
    }
    Ok(headers)
}

/// A name and the values that stand under it.
type Named<'v> = (&'v str, Vec<Cow<'v, str>>);

/// The entries of a map of texts; each has one value or a list of them, and null stands for none.
fn named<'v>(map: Option<&'v Value>, key: &str) -> Result<Vec<Named<'v>>, Failure> {
    let map = match map {
        None | Some(Value::Null) => return Ok(vec![]),
        Some(Value::Map(map)) => map,
        Some(other) => return Err(invalid(format!("with.{key} must be a map, got {}", other.kind()))),
    };
    let mut found = Vec::with_capacity(map.len());
    for (name, value) in map.iter() {
        let wrong = |other: &Value| {
            let words = "must be a string, a number, a boolean or a list of them";
            invalid(format!("with.{key}.{} {words}, got {}", cut(name), other.kind()))
        };
        let values = match value {
            Value::Null => continue,
            Value::List(items) => {
                items.iter().map(|item| scalar(item).ok_or_else(|| wrong(item))).collect::<Result<_, _>>()?
            }
            other => vec![scalar(other).ok_or_else(|| wrong(other))?],
        };
        found.push((&**name, values));
    }
    Ok(found)
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Int(number) => Some(number.to_string().into()),
        Value::Float(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        _ => None,
    }
}

fn body(value: Option<&Value>, headers: &mut HeaderMap) -> Result<Option<Bytes>, Failure> {
    let (bytes, kind) = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => (Bytes::copy_from_slice(text.as_bytes()), TEXT),
        Some(Value::Tensor(tensor)) => (tensor_bytes(tensor)?, OCTETS),
        Some(Value::Map(map)) if is_form(headers) => (form(map)?, HeaderValue::from_static(FORM)),
        Some(other) => {
            let json = serde_json::to_vec(other).map_err(|error| invalid(format!("with.body: {error}")))?;
            (json.into(), JSON)
        }
    };
    headers.entry(CONTENT_TYPE).or_insert(kind);
    Ok(Some(bytes))
}

fn tensor_bytes(tensor: &Tensor) -> Result<Bytes, Failure> {
    if tensor.datatype() != Datatype::Bytes {
        return Ok(tensor.data().clone());
    }
    match tensor.byte_strings().unwrap_or_default()[..] {
        [only] => Ok(tensor.data().slice_ref(only)),
        ref more => Err(invalid(format!("with.body must be one byte string, got a tensor of {}", more.len()))),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
}

fn form(map: &Map) -> Result<Bytes, Failure> {
    // The serializer of query strings is that of forms.
    let mut url = Url::parse("form:/").map_err(|error| internal(error.to_string()))?;
    let fields = Value::from(map.clone());
    for (name, values) in named(Some(&fields), "body")? {
        for value in values {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(Bytes::copy_from_slice(url.query().unwrap_or_default().as_bytes()))
}

fn timeout(with: &Value) -> Result<Option<Duration>, Failure> {
    match with.get("timeout") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match span::parse(text) {
            Some(span) if !span.is_zero() => Ok(Some(span)),
            _ => Err(invalid(format!("with.timeout must be a duration such as 5s, not '{}'", cut(text)))),
        },
        Some(other) => Err(invalid(format!("with.timeout must be a duration such as 5s, got {}", other.kind()))),
    }
}

fn text<'v>(with: &'v Value, key: &str) -> Result<&'v str, Failure> {
    match with.get(key) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(invalid(format!("with.{key} is missing"))),
        Some(other) => Err(invalid(format!("with.{key} must be a string, got {}", other.kind()))),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
