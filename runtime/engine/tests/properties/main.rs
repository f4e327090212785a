//! Random and mutated definitions, expressions, prompts, texts and values: nothing panics, hangs or grows.
//!
//! Starts from the kept texts in `corpus/` and `definitions/`; failures that were once found are kept in
//! `proptest-regressions/` and tried first. `MOTET_FUZZ_CASES` sets the cases of each property.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

mod generators;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use motet_engine::definition::{ParseFormat, parse_definition_value, parse_definitions};
use motet_engine::expression::{Expression, RunFacts, Scope, StepView, Template};
use motet_engine::id::{Name, Namespace, RunId, ShardId};
use motet_engine::parse::Pattern;
use motet_engine::prompt::{MAX_OUTPUT, PromptTemplate};
use motet_engine::schema::Schema;
use motet_engine::tensor::Tensor;
use motet_engine::time::Timestamp;
use motet_engine::value::{Map, Value};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value as Json, json};

use generators::*;

/// No single case may take longer, in the slowest profile on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);
/// No value that an expression makes may be larger.
const LARGEST: usize = 64 << 20;

fn config(share: u32) -> ProptestConfig {
    let cases = std::env::var("MOTET_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4096u32);
    ProptestConfig {
        cases: (cases / share).max(1),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/proptest-regressions/properties.txt",
        ))),
        max_shrink_time: 10_000,
        ..ProptestConfig::default()
    }
}

/// Runs something in a scope with values of every kind, some of them large.
fn with_scope<T>(look: impl FnOnce(&Scope<'_>) -> T) -> T {
    static INPUT: LazyLock<Value> = LazyLock::new(|| {
        let items: Vec<Json> = (0..200).map(|n| json!({"id": format!("id{n}"), "score": f64::from(n) / 7.0})).collect();
        let big: Vec<i64> = (0..20_000).collect();
        json!({"text": "some words in a row ".repeat(50), "big": big, "items": items, "n": 3, "ok": true, "map": {"k": 1, "j": [2]}})
            .into()
    });
    let mut output = Map::new();
    output.insert("vector".into(), Value::Tensor(Tensor::from_f32(vec![50, 4], &[0.5; 200]).unwrap()));
    output.insert("items".into(), json!([{"x": 1}]).into());
    let output = Value::from(output);
    let steps = |name: &str| match name {
        "a" => Some(StepView { output: &output, state: "succeeded" }),
        "b" => Some(StepView { output: &Value::Null, state: "skipped" }),
        _ => None,
    };
    let (workflow, namespace) = (Name::new("w").unwrap(), Namespace::default());
    let started_at = Timestamp::from_millis(1);
    let id = RunId::new(started_at, ShardId(1), 7);
    let run = RunFacts { id, started_at, workflow: &workflow, version: "1", namespace: &namespace, state: None };
    let locals = [(Arc::from("item"), json!({"id": "i"}).into()), (Arc::from("index"), Value::Int(4))];
    look(&Scope { input: &INPUT, steps: &steps, locals: &locals, run: &run })
}

/// Fails when a case takes too long.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < LONGEST, "took {:?}: {what}", start.elapsed());
    result
}

fn read_definitions(text: &str) {
    timed(text, || match parse_definitions("f", text) {
        Ok(definitions) => {
            for definition in definitions {
                let again = parse_definition_value(definition.document());
                assert!(again.is_ok(), "{:?}", again.err());
            }
        }
        Err(found) => {
            assert!(!found.is_empty() && found.len() <= 100);
            let lines = text.matches(['\n', '\r']).count() + 2;
            assert!(found.iter().all(|it| it.line >= 1 && it.line <= lines && it.column >= 1), "{found:?}");
        }
    });
}

fn evaluate(source: &str) {
    timed(source, || {
        let Ok(expression) = Expression::parse(source) else { return };
        let (one, two) = with_scope(|scope| (expression.evaluate(scope), expression.evaluate(scope)));
        assert_eq!(format!("{one:?}"), format!("{two:?}"), "not deterministic: {source}");
        match one {
            Ok(value) => assert!(value.size() < LARGEST),
            Err(failure) => assert!(failure.message.len() < 2_000, "{}", failure.message.len()),
        }
    });
}

fn render(source: &str) {
    timed(source, || {
        let Ok(template) = PromptTemplate::parse(source) else { return };
        let variables = json!({"name": "Ada", "n": 3, "x": {"y": [1, null]}, "docs": [{"text": "a", "score": 1}, {"text": "b"}], "a": "xy"});
        match template.render(&variables.into()) {
            Ok(text) => assert!(text.len() <= MAX_OUTPUT),
            Err(failure) => assert!(failure.message.len() < 2_000),
        }
    });
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn mutated_definitions_are_read_or_refused(text in mutated(&DEFINITIONS, &YAML_PIECES)) {
        read_definitions(&text);
    }

    #[test]
    fn random_yaml_is_read_or_refused(text in soup(&YAML_PIECES, 60)) {
        read_definitions(&text);
    }

    #[test]
    fn mutated_expressions_are_evaluated_or_refused(source in mutated(&EXPRESSIONS, &EXPRESSION_PIECES)) {
        evaluate(&source);
    }

    #[test]
    fn random_expressions_are_refused_or_evaluated(source in soup(&EXPRESSION_PIECES, 40)) {
        evaluate(&source);
    }

    #[test]
    fn mutated_prompts_are_rendered_or_refused(source in mutated(&PROMPTS, &PROMPT_PIECES)) {
        render(&source);
    }

    #[test]
    fn random_prompts_are_rendered_or_refused(source in soup(&PROMPT_PIECES, 30)) {
        render(&source);
    }

    #[test]
    fn random_documents_are_read_or_refused(document in json_value()) {
        let _ = timed("document", || parse_definition_value(&document));
        read_definitions(&document.to_string());
        let mut workflow = json!({"kind": "Workflow", "name": "w"});
        workflow["steps"] = document;
        let _ = timed("workflow", || parse_definition_value(&workflow));
    }

    #[test]
    fn random_schemas_compile_and_check_or_are_refused(document in json_value(), value in json_value()) {
        timed("schema", || {
            if let Ok(schema) = Schema::compile(&document) {
                let errors = schema.validate(&value.into()).err().unwrap_or_default();
                assert!(errors.len() <= 20);
            }
        });
    }

    #[test]
    fn random_templates_are_evaluated_or_refused(document in json_value()) {
        timed("template", || {
            let Ok(template) = Template::compile(&document) else { return };
            assert_eq!(template.is_static(), template.expressions().is_empty());
            let value = with_scope(|scope| template.evaluate(scope));
            assert!(value.is_err() || value.is_ok_and(|value| value.size() < LARGEST));
        });
    }

    #[test]
    fn random_texts_are_parsed_or_refused(text in mutated(&TEXTS, &YAML_PIECES), noise in ".{0,200}") {
        let pattern = Pattern::parse(r"(?<label>\w+): ?(?<rest>.*)").unwrap();
        for format in [ParseFormat::Json, ParseFormat::JsonLines, ParseFormat::Lines, ParseFormat::Number, ParseFormat::Regex(Box::new(pattern))] {
            for text in [&text, &noise] {
                let _ = timed(text, || format.read(text));
            }
        }
        let _ = timed(&noise, || Pattern::parse(&noise));
    }
}

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn grammatical_expressions_stay_within_their_bounds(source in grammatical()) {
        evaluate(&source);
    }
}

/// Deep and long inputs of every bracket and operator, around and beyond the bounds.
#[test]
fn deep_inputs_do_not_exhaust_the_stack() {
    for depth in [10usize, 23, 24, 25, 60, 119, 121, 500, 2_000, 20_000] {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{'a':", "}"),
            ("!", ""),
            ("-", ""),
            ("1+", ""),
            ("a.", ""),
            ("a[0].", ""),
            ("true?1:", ""),
            ("f(", ")"),
            ("a && ", ""),
            ("[1].map(x,", ")"),
            ("1 in ", ""),
            ("a.b(", ")"),
            ("a?", ":1"),
        ] {
            evaluate(&format!("{}1{}", open.repeat(depth), close.repeat(depth)));
            evaluate(&format!("{}a{}", open.repeat(depth), close.repeat(depth)));
        }
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("{", "}"), ("&a ", ""), ("!a ", "")] {
            read_definitions(&format!("kind: Model\nx: {}1{}", open.repeat(depth), close.repeat(depth)));
            read_definitions(&format!("{}1{}", open.repeat(depth), close.repeat(depth)));
        }
        for (open, close) in [
            ("{{ (", ") }}"),
            ("{{ [", "] }}"),
            ("{% if a %}", "{% endif %}"),
            ("{{ a.", "}}"),
            ("{{ -", "}}"),
            ("{{ not ", "}}"),
            ("{{ a~", "}}"),
            ("{{ a|list", "}}"),
            ("{{ a if b else ", "}}"),
        ] {
            render(&format!("{}a{}", open.repeat(depth), close.repeat(depth)));
            let (before, inner) = open.split_at(3);
            render(&format!("{before}{}a{}", inner.repeat(depth), close));
        }
        render(&format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(depth)));
        let nested = (0..depth.min(400)).fold(json!({"$ref": "#/$defs/a"}), |inner, _| json!({"not": inner}));
        let _ = timed("deep", || (Template::compile(&nested).is_err(), parse_definition_value(&nested).is_err()));
        let _ = timed("schema", || Schema::compile(&json!({"$defs": {"a": {"type": "string"}}, "not": nested})));
        assert!(nested_text(depth).is_err());
    }
}

/// JSON nested in text, as a parse step may meet it.
fn nested_text(depth: usize) -> Result<Value, String> {
    timed("nested", || ParseFormat::Json.read(&"[".repeat(depth)).map_err(|failure| failure.message))
}
