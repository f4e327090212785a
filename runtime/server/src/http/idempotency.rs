//! `Idempotency-Key`: how clients repeat a submission safely.
//!
//! Only reads; the store keeps keys with the runs that they started. Used by `runs`.

use std::time::Duration;

use axum::http::{HeaderMap, Method};
use motet_engine::time::Timestamp;
use motet_store::port::IdempotencyKey;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// Longest key in characters.
const MAX_KEY: usize = 255;

/// Reads the key of a request, bare or quoted, and what it is for.
pub(crate) fn read(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    body: &[u8],
    now: Timestamp,
    life: Duration,
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut sent = headers.get_all("idempotency-key").iter();
    let Some(header) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(refused("the header stands twice"));
    }
    let text = header.to_str().map_err(|_| refused("it has characters beyond ASCII"))?;
    let key = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(|| refused("the closing quote is missing"))?,
        None => text,
    };
    if !(1..=MAX_KEY).contains(&key.len()) {
        return Err(refused("it must have 1 to 255 characters"));
    }
    let mut digest = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), body] {
        // Lengths between the parts, so that no two requests run into one another.
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let fingerprint = digest.finalize().into();
    Ok(Some(IdempotencyKey { key: key.to_owned(), fingerprint, expires_at: now.after(life) }))
}

fn refused(words: &str) -> Problem {
    Problem::new(400, "invalid_idempotency_key", format!("Idempotency-Key: {words}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(values: &[&str]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let now = Timestamp::from_millis(0);
        match read(&headers, &Method::POST, "/p", b"{}", now, Duration::from_secs(1)) {
            Ok(key) => Ok(key.map(|key| key.key)),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn keys_come_bare_or_quoted() {
        let longest = "k".repeat(255);
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["abc"], Ok(Some("abc"))),
            (&["\"abc\""], Ok(Some("abc"))),
            (&[longest.as_str()], Ok(Some(longest.as_str()))),
            (&[""], Err(400)),
            (&["\"\""], Err(400)),
            (&["\"abc"], Err(400)),
            (&["schlüssel"], Err(400)),
            (&["a", "b"], Err(400)),
        ] {
            assert_eq!(key(values), expected.map(|key| key.map(str::to_owned)), "{values:?}");
        }
        assert_eq!(key(&[&"k".repeat(256)]), Err(400));
    }

    #[test]
    fn the_fingerprint_covers_method_path_and_body() {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_static("k"));
        let print = |method: &Method, path, body: &[u8]| {
            let now = Timestamp::from_millis(0);
            read(&headers, method, path, body, now, Duration::ZERO).unwrap().unwrap().fingerprint
        };
        let base = print(&Method::POST, "/a", b"{}");
        assert_eq!(base, print(&Method::POST, "/a", b"{}"));
        for other in
            [print(&Method::PUT, "/a", b"{}"), print(&Method::POST, "/a{", b"}"), print(&Method::POST, "/a", b"{ }")]
        {
            assert_ne!(base, other);
        }
    }
}
