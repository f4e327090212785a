//! What an answer comes to: the output of a step, or a failure with its class and words.
//!
//! Reads at most as much as is allowed and copies nothing that came in one piece. Never sends. Used by the client.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::value::{Map, Value};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER, SET_COOKIE};
use reqwest::{Response, StatusCode};

/// Characters of a refusal's body that its failure shows.
const SHOWN: usize = 512;

/// Bytes of a refusal's body that are read; what is longer costs the connection.
const REFUSAL_BYTES: usize = 64 << 10;

/// Why there is no output.
pub(super) enum Trouble {
    /// There is more of the body than is allowed.
    TooLarge,
    /// The body is not what it says that it is.
    Unreadable(String),
    /// The connection broke.
    Broken(reqwest::Error),
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        Self::Broken(error)
    }
}

/// The body, at most this many bytes of it.
async fn body(response: &mut Response, most: u64) -> Result<Bytes, Trouble> {
    let told = response.content_length();
    if told.is_some_and(|told| told > most) {
        return Err(Trouble::TooLarge);
    }
    let Some(first) = response.chunk().await? else { return Ok(Bytes::new()) };
    let Some(second) = response.chunk().await? else {
        return if first.len() as u64 > most { Err(Trouble::TooLarge) } else { Ok(first) };
    };
    let mut whole =
        BytesMut::with_capacity(told.and_then(|told| usize::try_from(told).ok()).unwrap_or(first.len() * 4));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if (whole.len() + chunk.len()) as u64 > most {
            return Err(Trouble::TooLarge);
        }
        whole.extend_from_slice(&chunk);
        next = response.chunk().await?;
    }
    Ok(whole.freeze())
}

/// The output of an answer whose status is no failure: `{status, headers, body}`.
pub(super) async fn output(mut response: Response, most: u64) -> Result<Value, Trouble> {
    let bytes = body(&mut response, most).await?;
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let body = value(kind, bytes).map_err(Trouble::Unreadable)?;
    let output = Map::from([
        ("status".into(), Value::Int(response.status().as_u16().into())),
        ("headers".into(), header_values(headers).into()),
        ("body".into(), body),
    ]);
    Ok(output.into())
}

/// The body by what it says that it is. What says nothing is a text if it can be one.
fn value(kind: Option<&str>, bytes: Bytes) -> Result<Value, String> {
    let Some(kind) = kind.map(str::to_ascii_lowercase) else {
        return Ok(match std::str::from_utf8(&bytes) {
            Ok("") => Value::Null,
            Ok(text) => text.into(),
            Err(_) => tensor(bytes),
        });
    };
    let (essence, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
    let essence = essence.trim();
    if essence == "application/json" || essence.ends_with("+json") {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&bytes).map_err(|error| format!("JSON that is none: {error}"));
    }
    if !is_text(essence) {
        return Ok(if bytes.is_empty() { Value::Null } else { tensor(bytes) });
    }
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    Ok(match charset.map(|charset| charset.trim_matches('"')) {
        None | Some("utf-8" | "utf8" | "us-ascii") => String::from_utf8_lossy(&bytes).as_ref().into(),
        Some("iso-8859-1" | "latin1") => bytes.iter().map(|&byte| char::from(byte)).collect::<String>().into(),
        // Guessing at another encoding would change the text without anybody noticing.
        Some(_) => tensor(bytes),
    })
}

fn is_text(essence: &str) -> bool {
    const TEXTS: [&str; 9] = [
        "application/xml",
        "application/x-ndjson",
        "application/jsonl",
        "application/javascript",
        "application/yaml",
        "application/x-yaml",
        "application/graphql",
        "application/sql",
        "application/x-www-form-urlencoded",
    ];
    essence.starts_with("text/") || essence.ends_with("+xml") || TEXTS.contains(&essence)
}

fn tensor(bytes: Bytes) -> Value {
    let shape = vec![bytes.len()];
    // One byte for each element is what UINT8 takes, so that this always fits.
    Tensor::new(Datatype::Uint8, shape, bytes).map_or(Value::Null, Value::Tensor)
}

/// Headers that stand several times are joined by commas, as RFC 9110 says; cookies, which hold commas, by line ends.
fn header_values(headers: &HeaderMap) -> Map {
    let mut map = Map::new();
    for name in headers.keys() {
        let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let first = values.next().unwrap_or_default();
        let separator = if name == SET_COOKIE { "\n" } else { ", " };
        let joined = values.fold(first.into_owned(), |joined, value| joined + separator + &value);
        map.insert(name.as_str().into(), joined.into());
    }
    map
}

/// The failure that a status means.
pub(super) async fn refusal(mut response: Response, target: &str) -> Failure {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut body = vec![];
    while body.len() < REFUSAL_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&body);
    let shown: String = text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(SHOWN).collect();
    let words = if shown.is_empty() { String::new() } else { format!(": {shown}") };
    let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    Failure { retry_after_ms, ..Failure::new(class(status), format!("{target} was answered {status}{words}")) }
}

fn class(status: StatusCode) -> FailureClass {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            FailureClass::Denied
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => FailureClass::NotFound,
        StatusCode::REQUEST_TIMEOUT => FailureClass::Timeout,
        StatusCode::TOO_MANY_REQUESTS => FailureClass::RateLimited,
        StatusCode::TOO_EARLY => FailureClass::Unavailable,
        _ if status.is_server_error() => FailureClass::Unavailable,
        _ => FailureClass::Invalid,
    }
}

/// How long the other side wants to be left alone: seconds, or a time by its own clock where it tells that.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|time| SystemTime::from(time.timestamp()));
    let now = text(DATE).and_then(moment).unwrap_or(now);
    Some(moment(asked)?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn the_wish_to_be_left_alone_is_read_in_both_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (asked, date, expected) in [
            ("3", None, Some(3)),
            (" 0 ", None, Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None, Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:27 GMT"), Some(10)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 09:49:27 GMT"), Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("yesterday"), Some(30)),
            ("soon", None, None),
            ("-1", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{asked} {date:?}");
        }
    }

    #[test]
    fn bodies_are_what_they_say_that_they_are() {
        let json = |json: serde_json::Value| Some(Value::from(json));
        let bytes = |bytes: &'static [u8]| Some(tensor(Bytes::from_static(bytes)));
        for (kind, body, expected) in [
            (Some("application/json"), &b"{\"a\": [1, 2.5]}"[..], json(serde_json::json!({"a": [1, 2.5]}))),
            (Some("Application/JSON; charset=utf-8"), b"\"x\"", json("x".into())),
            (Some("application/problem+json"), b"{}", json(serde_json::json!({}))),
            (Some("application/json"), b"", Some(Value::Null)),
            (Some("application/json"), b"{", None),
            (Some("text/plain"), b"caf\xc3\xa9", json("café".into())),
            (Some("text/html; charset=\"ISO-8859-1\""), b"caf\xe9", json("café".into())),
            (Some("text/plain; charset=shift_jis"), b"\x83\x4a", bytes(b"\x83\x4a")),
            (Some("text/plain"), b"", json("".into())),
            (Some("application/atom+xml"), b"<a/>", json("<a/>".into())),
            (Some("image/png"), b"\x89PNG", bytes(b"\x89PNG")),
            (Some("image/png"), b"", Some(Value::Null)),
            (None, b"plain", json("plain".into())),
            (None, b"\xff", bytes(b"\xff")),
            (None, b"", Some(Value::Null)),
        ] {
            assert_eq!(value(kind, Bytes::from_static(body)).ok(), expected, "{kind:?} {body:?}");
        }
    }
}
