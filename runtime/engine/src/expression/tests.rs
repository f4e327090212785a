//! What expressions and templates give, refuse and say, as tables.

use serde_json::json;

use super::*;
use crate::id::{Name, Namespace, RunId, ShardId};
use crate::tensor::Tensor;
use crate::time::Timestamp;
use crate::value::Map;

/// A run with a finished model step (tensor output), a skipped step and a for_each variable.
fn with_scope<T>(input: &Value, look: impl FnOnce(&Scope<'_>) -> T) -> T {
    let mut output = Map::new();
    output.insert("vector".into(), Value::Tensor(Tensor::from_f32(vec![2, 2], &[1.0, 2.0, 3.0, 4.5]).unwrap()));
    output.insert("label".into(), "ham".into());
    let output = Value::from(output);
    let steps = |name: &str| match name {
        "model" => Some(StepView { output: &output, state: "succeeded" }),
        "skipped" => Some(StepView { output: &Value::Null, state: "skipped" }),
        _ => None,
    };
    let (workflow, namespace) = (Name::new("triage").unwrap(), Namespace::default());
    let started_at = Timestamp::from_millis(1_700_000_000_000);
    let id = RunId::new(started_at, ShardId(1), 7);
    let run = RunFacts { id, started_at, workflow: &workflow, version: "3", namespace: &namespace, state: None };
    let locals = [(Arc::from("doc"), json!({"text": "hello", "n": 2}).into()), (Arc::from("index"), Value::Int(4))];
    look(&Scope { input, steps: &steps, locals: &locals, run: &run })
}

fn input() -> Value {
    json!({
        "text": "What is Motet?", "n": 3, "x": 2.5, "ok": true, "none": null, "a-b": {"c": 1},
        "items": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.2}, {"id": "c", "score": 0.7}],
        "map": {"z": 1, "m": 2, "a": 3},
    })
    .into()
}

fn evaluate(source: &str) -> Result<Value, String> {
    let expression = Expression::parse(source).map_err(|error| format!("parse: {error}"))?;
    with_scope(&input(), |scope| expression.evaluate(scope)).map_err(|failure| failure.message)
}

#[test]
fn expressions_give_values() {
    for (source, expected) in [
        ("input.text", json!("What is Motet?")),
        (" input.items[1].id ", json!("b")),
        (r#"input["a-b"].c"#, json!(1)),
        ("doc.n + index", json!(6)),
        ("steps.model.output.label", json!("ham")),
        ("steps.model.state", json!("succeeded")),
        ("steps.skipped.output", json!(null)),
        ("steps.skipped", json!({"output": null, "state": "skipped"})),
        ("steps.skipped.output == null ? 'none' : 'some'", json!("none")),
        ("steps.model.output.vector", json!([[1.0, 2.0], [3.0, 4.5]])),
        ("steps.model.output.vector[1]", json!([3.0, 4.5])),
        ("steps.model.output.vector[1][0]", json!(3.0)),
        ("steps.model.output.vector.map(row, row[0])", json!([1.0, 3.0])),
        ("run.workflow + '@' + run.version + ' in ' + run.namespace", json!("triage@3 in default")),
        ("run.started_at", json!(1_700_000_000_000i64)),
        ("input.n + 1", json!(4)),
        ("input.n * 2 - 10", json!(-4)),
        ("input.x * 2.0", json!(5.0)),
        ("input.n / 2", json!(1)),
        ("input.text != 'spam' && input.n >= 3", json!(true)),
        ("input.ok ? [1, 2] : []", json!([1, 2])),
        ("{'id': input.n, 'v': [input.x]}", json!({"id": 3, "v": [2.5]})),
        ("input.items.filter(i, i.score > 0.5).map(i, i.id)", json!(["a", "c"])),
        ("input.items.exists(i, i.id == 'b')", json!(true)),
        ("input.items.all(i, i.score > 0.5)", json!(false)),
        ("input.map.map(k, k)", json!(["a", "m", "z"])),
        ("{'b': 1, 'a': 2, 'c': 3}.map(k, k)", json!(["a", "b", "c"])),
        ("size(input.items) == 3", json!(true)),
        ("input.text.size()", json!(14)),
        ("has(input.text)", json!(true)),
        ("has(input.missing)", json!(false)),
        ("has(input.none.deeper)", json!(false)),
        ("has(steps.skipped.output.label)", json!(false)),
        ("'n' in input", json!(true)),
        ("2 in [1, 2]", json!(true)),
        ("input.text.split(' ').map(w, w.lowerAscii()).join('-')", json!("what-is-motet?")),
        ("input.text.matches('^What .*[?]$')", json!(true)),
        ("['aa', 'b'].map(s, s.matches('^a+$'))", json!([true, false])),
        ("string(input.n) + int('4') .type()", json!(null)),
        ("7u", json!(7)),
        ("type(input.n) == int", json!(true)),
        ("input.items.size() > 9 || input.ok", json!(true)),
        ("input.missing.x == 1 || true", json!(true)),
        ("double(input.n) / 2.0", json!(1.5)),
        ("\"quo\\\"te\" + r'\\d'", json!("quo\"te\\d")),
    ] {
        if source.contains(".type()") {
            assert!(evaluate(source).is_err());
            continue;
        }
        assert_eq!(evaluate(source).unwrap().to_json(), expected, "{source}");
    }
}

#[test]
fn tensors_pass_through_untouched() {
    for source in [
        "steps.model.output.vector",
        "has(steps.skipped.output.vector) ? steps.skipped.output.vector : steps.model.output.vector",
        "[steps.model.output.vector][0]",
    ] {
        let value = evaluate(source);
        let is_tensor = matches!(value, Ok(Value::Tensor(_)));
        assert_eq!(is_tensor, !source.starts_with('['), "{source}: {value:?}");
    }
}

#[test]
fn failures_name_the_path_and_what_exists() {
    for (source, words) in [
        ("input.txt", vec!["'input' has no member 'txt'", "it has a-b, items", "did you mean 'text'?"]),
        ("input.items[7]", vec!["'input.items' has 3 elements", "[7]"]),
        ("input.text.deep", vec!["'input.text' is a string", "'deep'"]),
        ("steps.skipped.output.label", vec!["steps.skipped.output", "skipped?", "'label'"]),
        ("steps.later.output", vec!["'later' has no result yet"]),
        ("docs.text", vec!["no variable 'docs'", "doc, index"]),
        ("input.txt + 'x'", vec!["'input' has no member 'txt'", "in the expression"]),
        ("input.n + 'x'", vec!["'add' does not take int and string"]),
        ("input.n / 0", vec!["division by zero"]),
        ("9223372036854775807 + input.n", vec!["64 bits"]),
        ("input.items.map(i, i.nope)", vec!["no member 'nope'"]),
        ("input.items[input.n]", vec!["no element [3]"]),
        ("input.n ? 1 : 2", vec!["'?'", "an integer"]),
        ("b'x'", vec!["bytes"]),
        ("[1] + input.map", vec!["a map cannot be added"]),
        ("input.map.matches('a')", vec!["only a text can match"]),
    ] {
        let message = evaluate(source).unwrap_err();
        for word in words {
            assert!(message.contains(word), "{source}: {message}");
        }
    }
}

#[test]
fn mistakes_are_found_when_read() {
    let deep = format!("{}1{}", "(".repeat(60), ")".repeat(60));
    let chain = format!("1{}", " + 1".repeat(100));
    let long = format!("'{}'", "x".repeat(5000));
    let minus = format!("{}1", "-".repeat(3000));
    for (source, words, offset) in [
        ("", "empty", Some(0)),
        ("input.", "", None),
        ("input.text ==", "", None),
        ("input.text = 1", "", None),
        ("(input.n", "never closed", Some(0)),
        ("input.n)", "closes nothing", Some(7)),
        ("'abc", "no end quote", Some(0)),
        ("steps", "name of a step", Some(0)),
        ("steps[input.text]", "name of a step", None),
        ("steps.a.outptu", "did you mean 'output'?", Some(0)),
        ("run.idd", "did you mean 'id'?", Some(0)),
        ("lenght(input.text)", "no function 'lenght'", None),
        ("sise(input.text)", "did you mean 'size'?", None),
        ("size(input, 1)", "takes 1 arguments", None),
        ("contains('a', 'b')", "called as 'x.contains", None),
        ("input.text.matches(input.x)", "written out", None),
        ("input.text.matches('(')", "pattern", None),
        ("'a'.format([1])", "no function 'format'", None),
        ("Foo{a: 1}", "no type 'Foo'", None),
        ("has(input)", "", None),
        (&deep, "too deeply", None),
        (&chain, "levels deep", None),
        (&minus, "too deeply", None),
        (&long, "bytes", None),
        ("{'a': 1, 'a': 2}", "stands twice", None),
        ("input.x.map(1, 2)", "", None),
    ] {
        let error = Expression::parse(source).unwrap_err();
        assert!(error.message.contains(words), "{source}: {error:?}");
        assert!(offset.is_none() || error.offset == offset, "{source}: {error:?}");
    }
}

#[test]
fn the_place_of_a_syntax_error_is_known() {
    let error = Expression::parse("input.n + * 3").unwrap_err();
    assert_eq!(error.offset, Some(10), "{error:?}");
}

#[test]
fn conditions_must_be_boolean() {
    let truth = |source: &str| {
        let expression = Expression::parse(source).unwrap();
        with_scope(&input(), |scope| expression.evaluate_bool(scope))
    };
    assert_eq!(truth("input.n > 2"), Ok(true));
    let failure = truth("input.n").unwrap_err();
    assert!(failure.message.contains("gave an integer, not true or false"), "{failure}");
}

#[test]
fn no_expression_can_hang_or_grow_without_bound() {
    let big = Value::from(vec![Value::Int(1); 100_000]);
    let text = Value::from("x".repeat(1_000_000));
    let mut map = Map::new();
    map.insert("big".into(), big);
    map.insert("text".into(), text);
    let input = Value::from(map);
    let doubling = format!("['xxxxxxxxxxxxxxxx']{}", ".map(s, s + s + s + s)".repeat(12));
    let many = format!("[{}]", vec!["input.big.all(a, a > 0)"; 60].join(", "));
    let evaluate = |source: &str| {
        let expression = Expression::parse(source).unwrap();
        with_scope(&input, |scope| expression.evaluate(scope))
    };
    for source in [
        "input.big.map(a, input.big.map(b, a + b)).size()",
        "input.big.all(a, input.big.exists(b, b == 2))",
        &doubling,
        "input.text.split('').map(c, input.text).size()",
        "input.text.replace('x', input.text)",
        "input in input.big",
        &many,
        "input.big.map(a, 'x').join(input.text)",
        "input.text.split('').map(c, c + c).join('').split('').map(c, c + c).join(input.text)",
    ] {
        let failure = evaluate(source).unwrap_err();
        assert!(failure.message.contains("estimated"), "{source}: {failure}");
    }
    assert_eq!(evaluate("input.big.map(a, a + 1).size()").unwrap(), Value::Int(100_000));
    assert_eq!(evaluate("input.big.filter(a, a > 1).size()").unwrap(), Value::Int(0));
    assert_eq!(evaluate("input.text.size()").unwrap(), Value::Int(1_000_000));
}

#[test]
fn references_are_extracted() {
    let source =
        "steps.a.output.x > 1 && input.text != '' && [1].exists(v, v == steps['b'].output[index]) && run.id != ''";
    let expression = Expression::parse(source).unwrap();
    let references = expression.references();
    let names = |set: &BTreeSet<Arc<str>>| set.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&references.steps), ["a", "b"]);
    assert_eq!(names(&references.input_members), ["text"]);
    assert_eq!(names(&references.locals), ["index"]);
    assert!(references.input && references.run);
}

#[test]
fn templates_walk_trees_and_texts() {
    let template = Template::compile(&json!({
        "whole": "${ steps.model.output.vector }",
        "text": "n=${ input.n }, x=${ input.x }, items=${ input.items[0] }!",
        "escaped": "$${ input.n } costs $5 ${ 'a}b' }",
        "nested": [{"deep": "${ input.ok }"}, 7, null],
        "plain": "no { braces } here",
    }))
    .unwrap();
    assert!(!template.is_static());
    let value = with_scope(&input(), |scope| template.evaluate(scope)).unwrap();
    assert!(matches!(value.get("whole"), Some(Value::Tensor(_))));
    assert_eq!(value.get("text").unwrap().to_json(), json!("n=3, x=2.5, items={\"id\":\"a\",\"score\":0.9}!"));
    assert_eq!(value.get("escaped").unwrap().to_json(), json!("${ input.n } costs $5 a}b"));
    assert_eq!(value.get("nested").unwrap().to_json(), json!([{"deep": true}, 7, null]));
    let places: Vec<(String, usize)> =
        template.expressions().iter().map(|located| (located.pointer.to_owned(), located.offset)).collect();
    assert!(places.contains(&("/nested/0/deep".to_owned(), 2)) && places.len() == 6, "{places:?}");
    let constant = Template::compile(&json!({"a": ["$${x}", 1]})).unwrap();
    assert!(constant.is_static() && Template::constant(Value::Int(1)).is_static());
    let value = with_scope(&input(), |scope| constant.evaluate(scope)).unwrap();
    assert_eq!(value.to_json(), json!({"a": ["${x}", 1]}));
}

#[test]
fn template_mistakes_have_places_and_come_all_at_once() {
    let errors =
        Template::compile(&json!({"a": "x ${ 1 + }", "b/c": ["${ input.n"], "d": "${ sise(1) }"})).unwrap_err();
    let mut places: Vec<(&str, Option<usize>)> =
        errors.iter().map(|error| (error.pointer.as_str(), error.offset)).collect();
    places.sort_unstable();
    assert_eq!(places[1..], [("/b~1c/0", Some(0)), ("/d", Some(3))], "{errors:?}");
    assert_eq!(places[0].0, "/a");
}
