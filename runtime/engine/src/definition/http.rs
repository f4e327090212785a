//! Reads `call: http`: what is known of a request before any expression is evaluated.
//!
//! Never sends and never resolves a host. Used by the reader of calls; whoever sends the evaluated request reads the
//! same tables.

use std::time::Duration;

use url::Url;

use super::call::is_dynamic;
use super::diagnostic::Diagnostics;
use super::fields::{Fields, text};
use super::node::{Content, Entry, Node};
use super::waiting::has_expression;
use crate::expression::wording::{nearest, shorten};

/// The methods that a request may have.
pub const HTTP_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The schemes that a request's URL may have.
pub const HTTP_SCHEMES: [&str; 2] = ["http", "https"];

/// Headers that belong to the connection or follow from the rest of the request, so that no definition may set them.
pub const CONNECTION_HEADERS: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
];

/// Whether a text can be the name of a header: a token of RFC 9110.
#[must_use]
pub fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a text can be the value of a header: no line breaks and no other control characters.
#[must_use]
pub fn is_header_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || !b.is_ascii_control())
}

const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Checks `with` of an http call as far as it is written without expressions.
pub(super) fn check(arguments: &Fields<'_>, out: &mut Diagnostics<'_>) {
    if let Some(node) = arguments.get("method").filter(|node| !has_expression(node)) {
        check_method(node, out);
    }
    if let Some(node) = arguments.get("url") {
        check_url(node, out);
    }
    for entry in entries(arguments, "headers", out) {
        check_header(entry, out);
    }
    for entry in entries(arguments, "query", out) {
        for value in values(&entry.value) {
            check_scalar(value, &format!("the parameter '{}'", shorten(&entry.key, 60)), out);
        }
    }
    if arguments.get("timeout").is_some_and(|node| !has_expression(node)) {
        arguments.duration("timeout", Duration::from_millis(1)..=LONGEST, out);
    }
}

fn check_method(node: &Node, out: &mut Diagnostics<'_>) {
    let Some(method) = text(node, "method", out).filter(|method| !HTTP_METHODS.contains(method)) else { return };
    let upper = method.to_ascii_uppercase();
    let advice =
        match HTTP_METHODS.contains(&upper.as_str()).then_some(&*upper).or_else(|| nearest(&upper, HTTP_METHODS)) {
            Some(near) => format!("write {near}"),
            None => format!("one of {}", HTTP_METHODS.join(", ")),
        };
    out.advise(node.place, "unknown-name", format!("there is no method '{}'", shorten(method, 40)), advice);
}

fn check_url(node: &Node, out: &mut Diagnostics<'_>) {
    let Some(url) = text(node, "url", out) else { return };
    let written = url.split("${").next().unwrap_or_default();
    if let Some((scheme, _)) = written.split_once("://")
        && !HTTP_SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known))
    {
        let message = format!("'url' must begin with http:// or https://, not '{}://'", shorten(scheme, 40));
        return out.report(node.place, "bad-url", message);
    }
    if has_expression(node) {
        return;
    }
    let reason = match Url::parse(url) {
        Ok(parsed) if HTTP_SCHEMES.contains(&parsed.scheme()) => return,
        Ok(_) => "it does not begin with http:// or https://".to_owned(),
        Err(error) => error.to_string(),
    };
    let advice = "such as \"https://api.example.org/v1/items\"";
    out.advise(node.place, "bad-url", format!("'url' is no URL: {reason}"), advice);
}

/// The entries of a map that is written out; a text with an expression may become a map later.
fn entries<'n>(arguments: &Fields<'n>, key: &str, out: &mut Diagnostics<'_>) -> &'n [Entry] {
    let Some(node) = arguments.get(key).filter(|node| !is_dynamic(node)) else { return &[] };
    if node.as_map().is_none() {
        out.report(node.place, "wrong-type", format!("'{key}' must be a map, not {}", node.kind()));
    }
    node.as_map().unwrap_or_default()
}

fn check_header(entry: &Entry, out: &mut Diagnostics<'_>) {
    let name = shorten(&entry.key, 60);
    if !is_header_name(&entry.key) {
        let advice = "use letters, digits and '-'";
        out.advise(entry.key_place, "bad-name", format!("'{name}' is no name for a header"), advice);
    } else if CONNECTION_HEADERS.iter().any(|own| entry.key.eq_ignore_ascii_case(own)) {
        let advice = "remove it: it follows from the URL, the body and the connection";
        out.advise(entry.key_place, "reserved-name", format!("the header '{name}' cannot be set"), advice);
    }
    for value in values(&entry.value) {
        check_scalar(value, &format!("the header '{name}'"), out);
        if value.as_text().is_some_and(|text| !has_expression(value) && !is_header_value(text)) {
            let message = format!("the header '{name}' holds a line break or another control character");
            out.report(value.place, "bad-header", message);
        }
    }
}

/// One value, or each of a list of them.
fn values(node: &Node) -> &[Node] {
    match &node.content {
        Content::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn check_scalar(node: &Node, owner: &str, out: &mut Diagnostics<'_>) {
    if matches!(node.content, Content::Map(_) | Content::List(_)) {
        let message = format!("{owner} must be a text, a number or a boolean, not {}", node.kind());
        out.advise(node.place, "wrong-type", message, "for several values write a list of them");
    }
}
