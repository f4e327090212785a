//! Reads how a model is served: warm-up, circuit breaker, fallback, cached responses.
//!
//! Never serves: the model's actor and the router do. Used by the reader of models.

use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::node::{Content, Node};
use crate::id::Name;
use crate::value::Value;

pub(super) const BREAKER_KEYS: [&str; 2] = ["failures", "pause"];
pub(super) const CACHE_KEYS: [&str; 2] = ["ttl", "max_bytes"];
/// Most samples of a warm-up.
pub(super) const MAX_SAMPLES: usize = 16;
/// Most failures in a row that a breaker may wait for.
pub(super) const MAX_FAILURES: i64 = 1_000;
/// Bounds of the bytes of cached responses.
pub(super) const CACHE_BYTES: (i64, i64) = (1 << 10, 1 << 40);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_secs(31 * 24 * 3600);

/// How a model is served.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServingPolicy {
    /// Calls whose answers are waited for, and thrown away, before a copy takes others.
    pub warm_up: Vec<Value>,
    /// When calls are refused at once because others failed.
    pub breaker: Option<BreakerPolicy>,
    /// The model that answers when this one cannot.
    pub fallback: Option<Name>,
    /// Responses that are kept for equal calls.
    pub cache: Option<CachePolicy>,
}

/// When calls are refused at once because others failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Batches in a row that must fail, at least 1.
    pub failures: u32,
    /// How long calls are refused before one batch is tried again; longer each time that it fails too.
    pub pause: Duration,
}

/// Responses that are kept for equal calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long one is kept.
    pub ttl: Duration,
    /// Bytes of all that a node keeps in memory.
    pub max_bytes: u64,
}

/// How a model is served.
pub(super) fn of_model(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> ServingPolicy {
    let fallback = owner.name("fallback", out);
    if let (Some(node), Some(fallback)) = (owner.get("fallback"), &fallback)
        && owner
            .get("name")
            .is_some_and(|name| matches!(&name.content, Content::Text(name) if *name == fallback.as_str()))
    {
        out.report(node.place, "self-reference", "a model cannot be its own fallback".to_owned());
    }
    let warm_up = owner.get("warm_up").map(|node| samples(node, out)).unwrap_or_default();
    ServingPolicy { warm_up, breaker: breaker(owner, out), fallback, cache: cache(owner, out) }
}

fn samples(node: &Node, out: &mut Diagnostics<'_>) -> Vec<Value> {
    let Content::List(samples) = &node.content else {
        out.report(node.place, "wrong-type", format!("'warm_up' must be a list of inputs, not {}", node.kind()));
        return vec![];
    };
    if samples.len() > MAX_SAMPLES {
        out.report(node.place, "too-large", format!("'warm_up' may have at most {MAX_SAMPLES} samples"));
    }
    let of_sample = |sample: &Node, out: &mut Diagnostics<'_>| {
        if !matches!(sample.content, Content::Map(_)) {
            let words = format!("a sample is a map of inputs, such as 'text: hello', not {}", sample.kind());
            out.report(sample.place, "wrong-type", words);
        }
        Value::from(sample.to_json())
    };
    samples.iter().take(MAX_SAMPLES).map(|sample| of_sample(sample, out)).collect()
}

fn breaker(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<BreakerPolicy> {
    let entry = owner.entry("breaker")?;
    let fields = Fields::open(&entry.value, "'breaker'", entry.key_place, &BREAKER_KEYS, |_| None, out)?;
    let failures = fields.integer("failures", 1..=MAX_FAILURES, out).unwrap_or(5);
    let pause = fields.duration("pause", SHORTEST_PAUSE..=LONGEST_PAUSE, out).unwrap_or(Duration::from_secs(5));
    Some(BreakerPolicy { failures: u32::try_from(failures).ok()?, pause })
}

fn cache(owner: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<CachePolicy> {
    let entry = owner.entry("cache")?;
    let fields = Fields::open(&entry.value, "'cache'", entry.key_place, &CACHE_KEYS, |_| None, out)?;
    let ttl = fields.duration("ttl", SHORTEST_TTL..=LONGEST_TTL, out).unwrap_or(Duration::from_secs(3600));
    let max_bytes = fields.integer("max_bytes", CACHE_BYTES.0..=CACHE_BYTES.1, out).unwrap_or(64 << 20);
    Some(CachePolicy { ttl, max_bytes: max_bytes.unsigned_abs() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::definition::document::parse_definitions;
    use crate::definition::{Definition, ModelDefinition};

    fn parse(rest: &str) -> Result<ModelDefinition, String> {
        let parsed = parse_definitions("m.yaml", &format!("kind: Model\nname: m\nbackend: fake\n{rest}"));
        match parsed.map_err(|errors| format!("{errors:?}"))?.remove(0) {
            Definition::Model(model) => Ok(Arc::unwrap_or_clone(model)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn what_is_said_is_read_and_the_rest_has_defaults() {
        assert_eq!(parse("").unwrap().serving, ServingPolicy::default());
        let full = "warm_up: [{text: a}]\nbreaker: {}\nfallback: other\ncache: {ttl: 2m}\n";
        let serving = parse(full).unwrap().serving;
        assert_eq!(serving.warm_up.len(), 1);
        assert_eq!(serving.breaker, Some(BreakerPolicy { failures: 5, pause: Duration::from_secs(5) }));
        assert_eq!(serving.fallback.unwrap().as_str(), "other");
        assert_eq!(serving.cache, Some(CachePolicy { ttl: Duration::from_secs(120), max_bytes: 64 << 20 }));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for (rest, words) in [
            ("fallback: m\n", "its own fallback"),
            ("warm_up: {text: a}\n", "must be a list of inputs"),
            ("warm_up: [a]\n", "a sample is a map"),
            ("breaker: {failures: 0}\n", "failures"),
            ("cache: {ttl: 1ms}\n", "ttl"),
            ("cache: {tll: 1m}\n", "tll"),
            ("isolation: some\n", "isolation"),
        ] {
            let told = parse(rest).unwrap_err();
            assert!(told.contains(words), "{rest}: {told}");
        }
    }
}
