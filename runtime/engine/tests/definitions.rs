//! Definition files as users write them: the valid ones are read whole, the broken ones tell every mistake.
//!
//! Each `definitions/broken/NAME.yaml` has a `NAME.expected`: one line per diagnostic in the order of the file,
//! `LINE:COLUMN part of the message | part of the advice`. Line and column may be left out where YAML itself is
//! broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use motet_engine::definition::{
    Call, CatchUp, Definition, Delivery, Diagnostic, Fallback, Format, GroupProtocol, LetterHeaders, Limits,
    ModelPlacement, Overlap, RecordOrder, RunEnd, Start, StreamDefinition, Topics, Workflow, json_schema,
    parse_definition_value, parse_definitions,
};
use motet_engine::id::Namespace;
use motet_engine::schema::Schema;
use motet_engine::time::Timestamp;

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// Whether a diagnostic is the expected one; a place that ends with `:` or is missing leaves the rest open.
fn fits(diagnostic: &Diagnostic, expected: &str) -> bool {
    let (left, advice) = expected.split_once('|').map_or((expected, ""), |(left, advice)| (left, advice.trim()));
    let (place, message) = match left.split_once(' ') {
        Some((place, message)) if place.starts_with(|c: char| c.is_ascii_digit()) => (place, message.trim()),
        _ => ("", left.trim()),
    };
    let at = format!("{}:{}", diagnostic.line, diagnostic.column);
    let place_fits = place.is_empty() || at == place || (place.ends_with(':') && at.starts_with(place));
    let found_advice = diagnostic.advice.as_deref().unwrap_or_default();
    place_fits && (diagnostic.message.contains(message)) && (found_advice.contains(advice))
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mut failures = Vec::new();
    let files = files("broken", "yaml");
    assert!(files.len() >= 50);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let found = parse_definitions(&name, &text).err().unwrap_or_default();
        let all = found.len() == expected.len() && found.iter().zip(&expected).all(|(found, line)| fits(found, line));
        if !all {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            failures.push(format!("expected\n  {}\nfound\n  {}\n", expected.join("\n  "), found.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_stored_document_gives_the_same_definition_and_the_same_step_indexes() {
    for file in files("valid", "yaml").into_iter().chain(files("valid", "json")) {
        let text = fs::read_to_string(&file).unwrap();
        for definition in parse_definitions("f", &text).unwrap() {
            // Through text, as stores keep it: the order of keys may change on the way.
            let stored: serde_json::Value = serde_json::from_str(&definition.document().to_string()).unwrap();
            let again = parse_definition_value(&stored).unwrap();
            assert_eq!(again.document(), definition.document());
            match (&definition, &again) {
                (Definition::Workflow(one), Definition::Workflow(two)) => {
                    assert_eq!(format!("{:?}", one.steps), format!("{:?}", two.steps));
                }
                (Definition::Model(one), Definition::Model(two)) => assert_eq!(one, two),
                (Definition::Index(one), Definition::Index(two)) => assert_eq!(one, two),
                (Definition::Schedule(one), Definition::Schedule(two)) => assert_eq!(one, two),
                (Definition::Stream(one), Definition::Stream(two)) => {
                    assert_eq!(format!("{one:?}"), format!("{two:?}"))
                }
                _ => panic!("another kind"),
            }
            let schema = Schema::compile(&json_schema(definition.identity().0).unwrap()).unwrap();
            let shape = schema.validate(&definition.document().clone().into());
            assert!(shape.is_ok(), "{}: {shape:?}", definition.identity().1);
        }
    }
}

fn valid(name: &str) -> Vec<Definition> {
    let file = files("valid", "yaml").into_iter().find(|file| file.ends_with(name)).unwrap();
    parse_definitions(name, &fs::read_to_string(file).unwrap()).unwrap()
}

fn triage() -> (Vec<Definition>, std::sync::Arc<Workflow>) {
    let definitions = valid("triage.yaml");
    let Definition::Workflow(workflow) = &definitions[0] else { panic!("not a workflow") };
    let workflow = std::sync::Arc::clone(workflow);
    (definitions, workflow)
}

#[test]
fn a_workflow_is_read_whole() {
    let (_, workflow) = triage();
    let names: Vec<&str> = workflow.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["embed", "search", "classify", "answer", "say", "read", "each", "keep"]);
    let needs = |name: &str| {
        let step = workflow.step(name).unwrap().1;
        step.needs.iter().map(|index| names[index.as_usize()]).collect::<Vec<_>>()
    };
    assert_eq!(needs("embed"), Vec::<&str>::new());
    assert_eq!(needs("search"), ["embed"]);
    assert_eq!(needs("answer"), ["search", "classify"]);
    assert_eq!(needs("each"), ["search"]);
    assert_eq!(needs("keep"), ["embed"]);
    assert_eq!((workflow.version.as_str(), workflow.timeout.unwrap().as_secs()), ("3", 3600));
    let classify = workflow.step("classify").unwrap().1;
    assert_eq!((classify.retry.max_attempts, classify.retry.max.as_secs(), classify.retry.on.len()), (4, 5, 2));
    let each = workflow.step("each").unwrap().1.for_each.as_ref().unwrap();
    assert_eq!((&*each.variable, each.max_concurrency), ("m", 8));
    assert!(matches!(&workflow.step("say").unwrap().1.fallback, Some(Fallback::Model { with: None, .. })));
    assert!(matches!(&workflow.step("read").unwrap().1.call, Call::Parse { schema: Some(_), .. }));
    assert!(workflow.output.is_some() && workflow.input_schema.is_some());
}

#[test]
fn models_and_indexes_are_read_whole() {
    let (definitions, _) = triage();
    let Definition::Model(model) = &definitions[1] else { panic!("not a model") };
    let source = model.source.as_ref().unwrap();
    assert!(source.sha256.contains_key("e5-small.safetensors"), "{source:?}");
    assert_eq!((model.batch.max, model.batch.window.as_millis(), model.batch.buckets.len()), (64, 2, 3));
    assert_eq!((model.replicas, model.timeout.as_secs(), model.queue), (2, 10, 4096));
    let labels: Vec<_> = model.placement.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("gpu", "h100"), ("zone", "eu-1")]);
    assert_eq!((model.placement.min, model.placement.max), (2, Some(5)));
    assert_eq!(definitions[2].identity(), ("Model", &"words".parse().unwrap(), Some("2")));
    let Definition::Model(words) = &definitions[2] else { panic!("not a model") };
    assert_eq!(words.placement, ModelPlacement::default());
    assert_eq!((words.placement.min, words.placement.max), (1, None));
    let Definition::Index(index) = &definitions[3] else { panic!("not an index") };
    assert_eq!((index.dimension, index.backend.as_str()), (384, "embedded"));
}

#[test]
fn waits_signals_and_limits_are_read_whole() {
    let definitions = valid("waiting.yaml");
    let Definition::Workflow(workflow) = &definitions[0] else { panic!("not a workflow") };
    let call = |name: &str| &workflow.step(name).unwrap().1.call;
    let signal = |name: &str| match call(name) {
        Call::Signal { name, schema, .. } => (name.to_string(), schema.is_some()),
        other => panic!("{other:?}"),
    };
    assert!(matches!(call("cool_down"), Call::Wait { .. }) && matches!(call("each_time"), Call::Wait { .. }));
    assert_eq!((signal("first"), signal("second")), (("first".into(), false), ("release".into(), true)));
    assert_eq!(workflow.step("third").unwrap().1.timeout.unwrap().as_secs(), 7 * 86_400);
    let limits = &workflow.limits;
    let rate = limits.limits.rate.unwrap();
    assert_eq!((limits.limits.concurrency, rate.count, rate.per.as_secs()), (Some(10), 100, 60));
    assert_eq!(limits.key.as_ref().unwrap().source().trim(), "input.customer");
    let Definition::Model(model) = &definitions[4] else { panic!("not a model") };
    assert_eq!((model.limits.concurrency, model.limits.rate.unwrap().count), (Some(2), 5));
    let (_, plain) = triage();
    assert!(plain.limits.key.is_none() && plain.limits.limits == Limits::default());
}

#[test]
fn http_calls_are_read_whole() {
    let definitions = valid("http.yaml");
    let Definition::Workflow(workflow) = &definitions[0] else { panic!("not a workflow") };
    let names: Vec<_> = workflow.steps.iter().map(|step| (&*step.name, step.call.kind())).collect();
    assert_eq!(names, ["plain", "whole", "dynamic", "given", "each"].map(|name| (name, "http")));
    let whole = workflow.step("whole").unwrap().1;
    assert_eq!(
        whole.call.with().keys().unwrap_or_default(),
        ["body", "headers", "method", "query", "timeout", "url"],
        "keys of 'with' come in their own order"
    );
    assert_eq!((whole.timeout.unwrap().as_secs(), whole.retry.max_attempts), (10, 5));
    let dynamic = workflow.step("dynamic").unwrap().1;
    assert_eq!(dynamic.needs, [workflow.step("plain").unwrap().0], "needs follow from the body");
    assert!(!workflow.step("each").unwrap().1.call.is_pure());
}

#[test]
fn schedules_are_read_whole() {
    let definitions = valid("waiting.yaml");
    let schedules: Vec<_> = definitions
        .iter()
        .filter_map(|it| match it {
            Definition::Schedule(schedule) => Some(schedule),
            _ => None,
        })
        .collect();
    let nightly = schedules[0];
    assert_eq!((nightly.workflow.as_str(), nightly.version.as_deref()), ("approval", Some("2")));
    assert_eq!((nightly.calendar.source(), nightly.calendar.zone()), ("0 3 * * *", "Europe/Berlin"));
    assert_eq!((nightly.overlap, nightly.catch_up.window().as_secs()), (Overlap::Queue, 600));
    assert_eq!((nightly.priority, nightly.tags.len(), nightly.paused), (5, 2, false));
    assert_eq!(nightly.input.to_json(), serde_json::json!({"customer": "ada", "times": []}));
    let other = schedules[1];
    assert_eq!((other.overlap, other.catch_up), (Overlap::Skip, CatchUp::Newest(std::time::Duration::from_secs(60))));
    assert_eq!((other.calendar.zone(), other.paused, other.version.as_deref()), ("UTC", true, None));
    let at = Timestamp::from_rfc3339("2026-03-01T00:00:05Z").unwrap();
    assert_eq!(other.next_after(at).unwrap().to_rfc3339().unwrap(), "2026-03-01T00:00:10Z");
}

fn streams() -> Vec<std::sync::Arc<StreamDefinition>> {
    let streams = valid("stream.yaml").into_iter().map(|it| match it {
        Definition::Stream(stream) => stream,
        other => panic!("{other:?}"),
    });
    streams.collect()
}

#[test]
fn streams_are_read_whole() {
    let streams = streams();
    let orders = &streams[0];
    assert!(matches!(&orders.topics, Topics::Named(names) if names == &["orders", "orders.eu"]));
    assert_eq!((orders.group(&Namespace::default()).as_str(), orders.version.as_deref()), ("orders", Some("3")));
    assert_eq!((orders.format.value, orders.format.key), (Some(Format::Json), Some(Format::Text)));
    assert!(orders.input.is_some() && orders.filter.is_some() && matches!(orders.ordering, RecordOrder::Key));
    assert_eq!((orders.tags.len(), orders.priority, orders.static_membership, orders.paused), (2, 5, true, true));
    assert_eq!(orders.start, Start::At(Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap()));
    assert_eq!(orders.protocol, GroupProtocol::Consumer);
    let rate = orders.limits.rate.unwrap();
    assert_eq!((rate.count, rate.per.as_millis()), (500, 1_000));
    assert_eq!(
        (orders.dead_letter.topic.as_deref(), orders.dead_letter.headers),
        (Some("orders-dlt"), LetterHeaders::Both)
    );
    let output = orders.output.as_ref().unwrap();
    let names: Vec<&str> = output.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!((output.topic.as_str(), names), ("triaged", vec!["ce_type", "kind", "state"]));
    assert_eq!((output.on.len(), output.delivery), (4, Delivery::Transactional));
}

#[test]
fn what_a_stream_does_not_say_has_a_meaning() {
    let streams = streams();
    let plain = &streams[1];
    assert!(plain.topics.takes("events") && !plain.topics.takes("events2"));
    assert_eq!(plain.group(&Namespace::default()), "motet.default.plain");
    assert_eq!((plain.format.value, plain.format.key, plain.start), (None, None, Start::Earliest));
    assert!(plain.input.is_none() && plain.output.is_none() && matches!(plain.ordering, RecordOrder::None));
    assert_eq!((plain.protocol, plain.dead_letter.headers), (GroupProtocol::Classic, LetterHeaders::Connect));
    assert_eq!((plain.dead_letter.topic.as_deref(), plain.limits.rate, plain.paused), (None, None, false));
    let many = &streams[2];
    for (topic, taken) in [("metrics.cpu", true), ("metrics.cpu2", false), ("xmetrics.cpu", false), ("metrics", false)]
    {
        assert_eq!(many.topics.takes(topic), taken, "{topic}");
    }
    assert!(matches!(&many.topics, Topics::Pattern(pattern) if pattern.subscription() == r"^(metrics\.[a-z]+)$"));
    assert!(matches!(many.ordering, RecordOrder::Value(_)));
    let output = many.output.as_ref().unwrap();
    assert_eq!(output.on, [RunEnd::Succeeded, RunEnd::Failed, RunEnd::TimedOut]);
    assert!(output.key.is_none() && output.value.is_none() && output.delivery == Delivery::Idempotent);
    assert_eq!(streams[3].limits.rate.unwrap().per.as_secs(), 10);
}

fn parameters(count: usize) -> String {
    (0..count).map(|n| format!("  p{n}: 1\n")).collect()
}

#[test]
fn bounds_hold_and_stay_short() {
    let nested = format!("kind: Model\nname: m\nbackend: x\nparameters: {}{}", "[".repeat(5000), "]".repeat(5000));
    let long = format!("# {}", "x".repeat(2 << 20));
    let many = format!("kind: Model\nname: m\nbackend: x\nparameters: {{x: [{}]}}", "1,".repeat(220_000));
    let wide: String = (0..1200).map(|n| format!("  s{n}: {{call: transform, with: 1}}\n")).collect();
    let wide = format!("kind: Workflow\nname: w\nsteps:\n{wide}");
    let wrong: String = (0..500).map(|n| format!("  s{n}: {{call: nope}}\n")).collect();
    let wrong = format!("kind: Workflow\nname: w\nsteps:\n{wrong}");
    let keys: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    let repeated = format!("kind: Model\nname: m\nbackend: x\nparameters:\n{}  p7: 1\n", parameters(50_000));
    let keys = format!("kind: Model\nname: m\nbackend: x\n{keys}");
    let expressions =
        format!("kind: Workflow\nname: w\nsteps: {{a: {{call: transform, with: [{}]}}}}", "'${ x', ".repeat(60_000));
    for (text, words) in [
        (nested, ""),
        (long, "bytes"),
        (many, "more than 200000 values"),
        (wide, "at most 1000 steps, not 1200"),
        (wrong, "no call 'nope'"),
        (keys, "no key 'k0'"),
        (repeated, "stands twice"),
        (expressions, "never closed"),
    ] {
        let found = parse_definitions("f", &text).unwrap_err();
        assert!(
            found.len() <= 100 && found.iter().any(|it| it.message.contains(words)),
            "{words}: {:?}",
            found.first()
        );
    }
}

#[test]
fn a_thousand_steps_are_read_quickly_enough() {
    let steps: String = (0..1000)
        .map(|n| {
            let with = if n == 0 { "1".to_owned() } else { format!("\"${{ steps.s{}.output }}\"", n - 1) };
            format!("  s{n}: {{call: transform, with: {with}}}\n")
        })
        .collect();
    let definitions = parse_definitions("f", &format!("kind: Workflow\nname: w\nsteps:\n{steps}")).unwrap();
    let Definition::Workflow(workflow) = &definitions[0] else { panic!("not a workflow") };
    assert_eq!(workflow.steps[999].needs, [workflow.step("s998").unwrap().0]);
}
