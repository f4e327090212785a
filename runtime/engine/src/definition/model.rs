//! Reads `kind: Model`.
//!
//! Never loads anything: the models' crate does. Used by the document reader; its batch bounds serve indexes too.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::{Fields, text};
use super::limits;
use super::node::{Content, Node};
use super::placement;
use super::serving;
use super::{BatchPolicy, Isolation, ModelDefinition, ModelSource};
use crate::expression::wording::{nearest, shorten};
use crate::value::{Map, Value};

pub(super) const KEYS: [&str; 19] = [
    "apiVersion",
    "kind",
    "name",
    "version",
    "description",
    "backend",
    "source",
    "parameters",
    "batch",
    "replicas",
    "timeout",
    "queue",
    "limits",
    "placement",
    "isolation",
    "warm_up",
    "breaker",
    "fallback",
    "cache",
];
const ISOLATIONS: [(&str, Isolation); 2] = [("best_effort", Isolation::BestEffort), ("required", Isolation::Required)];
pub(super) const BATCH_KEYS: [&str; 5] = ["max", "max_bytes", "max_length", "window", "buckets"];
pub(super) const SOURCE_KEYS: [&str; 4] = ["uri", "sha256", "license", "mirrors"];
const SCHEMES: [&str; 4] = ["file", "https", "pypi", "builtin"];
const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<ModelDefinition> {
    let fields = Fields::open(node, "a model", node.place, &KEYS, |_| None, out)?;
    fields.required("name", "a model", "such as 'name: e5-small'", out);
    fields.required("backend", "a model", "such as 'backend: burn'", out);
    fields.text("description", out);
    let (name, version) = (fields.name("name", out), fields.version(out));
    let backend = fields.name("backend", out);
    let source = fields.get("source").and_then(|node| source(node, out));
    let parameters = parameters(&fields, out);
    let batch = batch(&fields, out);
    let replicas = fields.integer("replicas", 1..=256, out).unwrap_or(1);
    let timeout = fields.duration("timeout", MILLISECOND..=Duration::from_secs(3600), out);
    let queue = fields.integer("queue", 1..=1_000_000, out).unwrap_or(1024);
    let limits = limits::of_model(&fields, out);
    let placement = placement::of_model(&fields, out);
    let isolation = fields.choice("isolation", &ISOLATIONS, out).unwrap_or_default();
    let serving = serving::of_model(&fields, out);
    Some(ModelDefinition {
        name: name?,
        version,
        backend: backend?.to_string(),
        source,
        parameters,
        batch,
        replicas: u32::try_from(replicas).ok()?,
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
        queue: u32::try_from(queue).ok()?,
        limits,
        placement,
        isolation,
        serving,
        document: node.to_json(),
    })
}

fn parameters(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Map {
    let Some(node) = fields.get("parameters") else { return Map::new() };
    match Value::from(node.to_json()) {
        Value::Map(map) => map.as_ref().clone(),
        _ => {
            out.report(node.place, "wrong-type", format!("'parameters' must be a map, not {}", node.kind()));
            Map::new()
        }
    }
}

/// The bounds under `batch`.
pub(super) fn batch(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> BatchPolicy {
    let mut batch = BatchPolicy::default();
    let Some(entry) = owner.entry("batch") else { return batch };
    let Some(fields) = Fields::open(&entry.value, "'batch'", entry.key_place, &BATCH_KEYS, |_| None, out) else {
        return batch;
    };
    if let Some(max) = fields.integer("max", 1..=65_536, out) {
        batch.max = u32::try_from(max).unwrap_or(batch.max);
    }
    if let Some(bytes) = fields.integer("max_bytes", 1_024..=1 << 30, out) {
        batch.max_bytes = bytes.unsigned_abs();
    }
    if let Some(length) = fields.integer("max_length", 1..=1 << 32, out) {
        batch.max_length = length.unsigned_abs();
    }
    if let Some(window) = fields.duration("window", Duration::ZERO..=Duration::from_secs(60), out) {
        batch.window = window;
    }
    if let Some(node) = fields.get("buckets") {
        batch.buckets = buckets(node, out);
    }
    batch
}

fn buckets(node: &Node, out: &mut Diagnostics<'_>) -> Vec<u32> {
    let Content::List(items) = &node.content else {
        out.report(node.place, "wrong-type", format!("'buckets' must be a list of lengths, not {}", node.kind()));
        return vec![];
    };
    let mut buckets: Vec<u32> = Vec::with_capacity(items.len().min(256));
    for item in items {
        match item.content {
            Content::Int(length) if (1..=1 << 24).contains(&length) => {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                if buckets.last().is_some_and(|last| *last >= length) {
                    out.report(item.place, "out-of-range", "'buckets' must grow from one to the next");
                }
                buckets.push(length);
            }
            _ => out.report(item.place, "wrong-type", "each of 'buckets' must be a length of at least 1"),
        }
    }
    if buckets.len() > 256 {
        out.report(node.place, "out-of-range", "'buckets' may have at most 256 lengths");
    }
    buckets
}

fn source(node: &Node, out: &mut Diagnostics<'_>) -> Option<ModelSource> {
    if let Some(uri) = node.as_text() {
        let fits = check_uri(node, uri, out);
        if fits && (uri.starts_with("https:") || uri.starts_with("pypi:")) {
            missing_digest(node, out);
        }
        return Some(ModelSource { uri: uri.to_owned(), sha256: BTreeMap::new(), mirrors: vec![], license: None });
    }
    let fields = Fields::open(node, "'source'", node.place, &SOURCE_KEYS, |_| None, out)?;
    fields.required("uri", "'source'", "such as file:PATH, https://.., pypi:NAME==VERSION or builtin:NAME", out);
    let uri = fields.text("uri", out);
    let license = fields.text("license", out).map(str::to_owned);
    let mut mirrors = Vec::new();
    for (mirror, item) in fields.texts("mirrors", out) {
        check_uri(item, mirror, out);
        mirrors.push(mirror.to_owned());
    }
    let sha256 = fields.get("sha256").map(|digest| digests(digest, uri.unwrap_or_default(), out));
    if let (Some(uri), Some(place)) = (uri, fields.get("uri")) {
        let fits = check_uri(place, uri, out);
        let outside = |uri: &str| uri.starts_with("https:") || uri.starts_with("pypi:");
        if fits && sha256.is_none() && (outside(uri) || mirrors.iter().any(|mirror| outside(mirror))) {
            missing_digest(place, out);
        }
    }
    Some(ModelSource { uri: uri?.to_owned(), sha256: sha256.unwrap_or_default(), mirrors, license })
}

fn missing_digest(node: &Node, out: &mut Diagnostics<'_>) {
    let message = "what is downloaded needs 'sha256'";
    out.advise(node.place, "missing-key", message, "add sha256: {FILE: DIGEST} beside 'uri', as sha256sum prints it");
}

fn check_uri(node: &Node, uri: &str, out: &mut Diagnostics<'_>) -> bool {
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    let rest_fits = match scheme {
        "https" => rest.strip_prefix("//").is_some_and(|rest| rest.len() > 2 && !rest.contains(char::is_whitespace)),
        "pypi" => rest.split_once("==").is_some_and(|(name, version)| !name.is_empty() && !version.is_empty()),
        _ => !rest.is_empty(),
    };
    let known = SCHEMES.contains(&scheme);
    if known && rest_fits {
        return true;
    }
    let advice = match scheme {
        "http" => "use https".to_owned(),
        "pypi" => "write pypi:NAME==VERSION".to_owned(),
        "https" => "write https://HOST/PATH".to_owned(),
        _ if known => format!("write {scheme}:NAME"),
        _ => match nearest(scheme, SCHEMES) {
            Some(near) if uri.contains(':') => format!("did you mean '{near}:'?"),
            _ => "use file:PATH, https://.., pypi:NAME==VERSION or builtin:NAME".to_owned(),
        },
    };
    out.advise(node.place, "bad-uri", format!("'{}' is no source that is known", shorten(uri, 80)), advice);
    false
}

/// Digests by file name; one digest alone belongs to the file that the URI ends with.
fn digests(node: &Node, uri: &str, out: &mut Diagnostics<'_>) -> BTreeMap<String, String> {
    match &node.content {
        Content::Text(digest) => {
            check_digest(node, digest, out);
            if uri.starts_with("pypi:") {
                let advice = "write sha256: {FILE: DIGEST} with the file's path inside the package";
                out.advise(node.place, "wrong-type", "a package holds many files, so one digest is not enough", advice);
            }
            let path = uri.split(['?', '#']).next().unwrap_or_default();
            let file = path.rsplit(['/', ':']).next().unwrap_or_default();
            BTreeMap::from([(file.to_owned(), digest.clone())])
        }
        Content::Map(entries) => {
            let mut digests = BTreeMap::new();
            for entry in entries {
                if let Some(digest) = text(&entry.value, "each of 'sha256'", out) {
                    check_digest(&entry.value, digest, out);
                    digests.insert(entry.key.clone(), digest.to_owned());
                }
            }
            if entries.is_empty() {
                out.report(node.place, "missing-key", "'sha256' names no file");
            }
            digests
        }
        _ => {
            let message = format!("'sha256' must be a digest or a map of digests by file, not {}", node.kind());
            out.advise(node.place, "wrong-type", message, "put the digest in quotes");
            BTreeMap::new()
        }
    }
}

fn check_digest(node: &Node, digest: &str, out: &mut Diagnostics<'_>) {
    let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex {
        let message = format!("'{}' is no SHA-256: expected 64 hexadecimal digits", shorten(digest, 70));
        out.report(node.place, "bad-digest", message);
    } else if digest.bytes().any(|b| b.is_ascii_uppercase()) {
        let advice = format!("write {}", digest.to_ascii_lowercase());
        out.advise(node.place, "bad-digest", "a SHA-256 is written in lower case", advice);
    }
}
