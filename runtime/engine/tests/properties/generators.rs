//! Random and mutated definitions, expressions, prompts, texts and JSON values.
//!
//! Never checks anything: the properties do.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value as Json, json};

pub(crate) fn kept(name: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

pub(crate) static DEFINITIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions");
    let mut files: Vec<_> = ["valid", "broken"]
        .iter()
        .flat_map(|kind| fs::read_dir(folder.join(kind)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension != "expected"))
        .collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
});
pub(crate) static EXPRESSIONS: LazyLock<Vec<String>> = LazyLock::new(|| kept("expressions.txt"));
pub(crate) static PROMPTS: LazyLock<Vec<String>> = LazyLock::new(|| kept("prompts.txt"));
pub(crate) static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| kept("texts.txt"));

pub(crate) const YAML_PIECES: [&str; 40] = [
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    ": ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "\"",
    "'",
    "|",
    ">",
    "|-\n",
    "&a ",
    "*a",
    "!!str ",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "~",
    "\t",
    "\u{feff}",
    "${ ",
    " }",
    "$${",
    "kind: Workflow\n",
    "name: w\n",
    "steps:\n",
    "call: model",
    "with: ",
    "needs: [a]",
    "<<: ",
    "0x1F",
    "1e999",
    ".inf",
    "é😀",
];
pub(crate) const EXPRESSION_PIECES: [&str; 44] = [
    "input",
    "steps",
    "run",
    "index",
    "item",
    "a",
    ".",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "&&",
    "||",
    "==",
    "!=",
    "<=",
    ">",
    " in ",
    "has(",
    ".map(x, ",
    ".filter(x, ",
    ".all(x, ",
    ".join(",
    ".split(",
    ".replace(",
    "'t'",
    "\"",
    "1",
    "2.5",
    "9223372036854775807",
    "true",
    "null",
    ".matches('a+')",
];
pub(crate) const PROMPT_PIECES: [&str; 32] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-%}",
    "{{-",
    " name ",
    " docs ",
    " n ",
    " x ",
    ".text",
    "[0]",
    "|",
    "tojson",
    "join(',')",
    "upper",
    "for d in docs",
    "endfor",
    "if n > 1",
    "else",
    "endif",
    "set a = a ~ a",
    "range(99999)",
    " * 99999",
    " ~ ",
    "'t'",
    "\"",
    "(",
    ")",
    "\n",
];

/// A text with some characters removed, doubled, swapped for pieces, or cut off.
pub(crate) fn mutated(texts: &'static [String], pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    (select(texts), vec((any::<prop::sample::Index>(), select(pieces), 0u8..5), 0..8)).prop_map(|(text, edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, piece, edit) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + 1 + usize::from(edit)).min(chars.len());
            match edit {
                0 => drop(chars.drain(at..end)),
                1 => drop(chars.splice(at..at, piece.chars())),
                2 => drop(chars.splice(at..end, piece.chars())),
                3 => {
                    let copied: Vec<char> = chars[at..].iter().take(200).copied().collect();
                    drop(chars.splice(at..at, copied));
                }
                _ => chars.truncate(at.max(chars.len() / 2)),
            }
        }
        chars.into_iter().collect()
    })
}

pub(crate) fn soup(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    vec(prop_oneof![8 => select(pieces).prop_map(str::to_owned), 1 => ".{0,6}"], 0..most).prop_map(|all| all.concat())
}

/// Expressions by their grammar, so that many of them are evaluated.
pub(crate) fn grammatical() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "input",
        "input.text",
        "input.big",
        "input.items",
        "input.n",
        "steps.a.output.vector",
        "steps.a.output",
        "steps.b.output",
        "run.id",
        "item",
        "index",
        "1",
        "2.5",
        "'text'",
        "true",
        "null",
        "[]",
        "{}",
        "x",
        "input.map",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operators = vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"];
        let methods = vec!["map", "filter", "all", "exists", "exists_one"];
        let calls = vec!["join", "split", "contains", "startsWith", "indexOf", "substring"];
        prop_oneof![
            (inner.clone(), select(operators), inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), select(methods), inner.clone()).prop_map(|(a, method, b)| format!("{a}.{method}(x, {b})")),
            (inner.clone(), select(calls), inner.clone()).prop_map(|(a, call, b)| format!("{a}.{call}({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, 'l': [{b}, {a}]}}")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a}.replace({b}, {c})")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("string({a})")),
            inner.prop_map(|a| format!("!{a}")),
        ]
    })
}

/// Values that mean something somewhere in a definition.
#[rustfmt::skip]
const WORDS: &[&str] = &["model", "prompt", "parse", "transform", "vector.query", "vector.upsert", "http", "POST", "5s", "a", "b", "json", "regex", "#", "#/$defs/a", "string", "object", "(?<a>x)", "{{ a }}", "https://example.org/a", "Workflow", "Model", "Index", "motet/v1"];

/// Keys that mean something somewhere in a definition.
#[rustfmt::skip]
const KEYS: &[&str] = &["kind", "name", "steps", "call", "with", "model", "template", "format", "pattern", "schema", "needs", "if", "for_each", "as", "retry", "backoff", "on", "timeout", "fallback", "output", "input", "index", "vector", "text", "method", "url", "headers", "query", "body", "a", "b", "version", "source", "uri", "sha256", "batch", "dimension", "metric", "properties", "items", "$ref", "$defs", "anyOf", "not", "type", "pattern", "additionalProperties", "required", "step_order", "enum", "prefixItems"];

pub(crate) fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-3i64..70_000).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        select(&*EXPRESSIONS).prop_map(|source| json!(format!("${{ {source} }}"))),
        select(WORDS).prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
    ];
    let keys = select(KEYS);
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Json::from),
            vec((keys.clone(), inner), 0..8)
                .prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Json>()),
        ]
    })
}
