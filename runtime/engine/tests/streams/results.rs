//! What a run's end becomes: case by case.

use std::collections::BTreeMap;

use motet_engine::access::Principal;
use motet_engine::command::Command;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::Namespace;
use motet_engine::input::Input;
use motet_engine::run::Run;
use motet_engine::stream::{ResultRecord, result_record};
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use serde_json::{Value as Json, json};

use crate::{NOW, SINCE, incoming, look, started, stream, workflow};

/// One step that asks a model; the output is what it says.
const ASK: &str = "timeout: 1h\nsteps: {ask: {call: model, model: m, with: {n: '${ input.n }'}, retry: {max_attempts: 1}}}\n\
    output: '${ steps.ask.output }'";

/// How the run ends.
#[derive(Clone)]
enum End {
    Output(Value),
    Failure,
    Cancel,
    Late,
    None,
}

fn later() -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + 1_500)
}

fn ended(pairs: &[(&str, &str)], end: &End) -> Run {
    let start = started(look(&stream(""), &incoming(b"{\"n\": 1}", pairs), None));
    let (mut run, _) = start.begin(&Namespace::default(), &workflow(ASK), NOW, 64).unwrap();
    finish(&mut run, end);
    run
}

fn finish(run: &mut Run, end: &End) {
    let Some(Command::Call { id: call, .. }) = run.commands().into_iter().next() else { panic!("nothing is owed") };
    let down = || Failure::new(FailureClass::Unavailable, "down");
    let (input, at) = match end {
        End::Output(output) => (Input::CallFinished { call, outcome: Ok(output.clone()) }, later()),
        End::Failure => (Input::CallFinished { call, outcome: Err(down()) }, later()),
        End::Cancel => (Input::Cancel { by: Principal::Local, reason: Some("enough".into()) }, later()),
        End::Late => (Input::Woken, Timestamp::from_millis(NOW.as_millis() + 3_600_000)),
        End::None => return,
    };
    *run = run.decide(&input, at).unwrap().run;
}

fn texts(record: &ResultRecord) -> BTreeMap<&str, String> {
    let text =
        |value: &Option<bytes::Bytes>| String::from_utf8_lossy(value.as_deref().unwrap_or(b"<null>")).into_owned();
    record.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
}

fn data(record: &ResultRecord) -> Json {
    serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
}

fn output() -> End {
    End::Output(json!({"label": "spam", "score": 0.5}).into())
}

#[test]
fn a_result_is_a_new_event() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let pairs = [
        ("traceparent", trace),
        ("correlation-id", "abc"),
        ("ce_specversion", "1.0"),
        ("ce_id", "7"),
        ("ce_source", "/shop"),
        ("ce_type", "order.placed"),
    ];
    let definition = stream("output: {topic: out}");
    let run = ended(&pairs, &output());
    let record = result_record(&definition, &run).unwrap();
    let headers = texts(&record);
    let expected = [
        ("ce_causationid", "7"),
        ("ce_correlationid", "7"),
        ("ce_source", "/motet/default/workflows/w"),
        ("ce_specversion", "1.0"),
        ("ce_subject", &run.id().to_string()),
        ("ce_time", &later().to_rfc3339().unwrap()),
        ("ce_type", "io.motet.run.succeeded"),
        ("content-type", "application/json"),
        ("correlation-id", "abc"),
    ];
    for (name, value) in expected {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(headers.len(), expected.len() + 3, "{headers:?}");
    assert_eq!(headers["ce_id"], headers["event-id"]);
    let hex: String = record.event.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(headers["ce_id"].replace('-', ""), hex);
    assert_eq!((&headers["ce_id"][14..15], headers["ce_id"].len()), ("8", 36), "a UUID of version 8");
    assert_eq!((&headers["traceparent"][..36], &headers["traceparent"][52..]), (&trace[..36], "-01"));
    assert_ne!(headers["traceparent"], trace, "a new span of the same trace");
    assert_eq!((record.topic.as_str(), record.key.as_deref()), ("out", Some(&b"ada"[..])));
    assert_eq!(data(&record), json!({"label": "spam", "score": 0.5}));
    assert_eq!(result_record(&definition, &run), Some(record), "made again, it is the same");
}

#[test]
fn which_ends_are_told_and_how() {
    let every = "output: {topic: out, on: [succeeded, failed, timed_out, cancelled]}";
    let usual = "output: {topic: out}";
    let failed = json!({"error": {"class": "unavailable", "message": "down", "step": "ask"}});
    let late = json!({"error": {"class": "timeout", "message": "the run did not end within its own timeout"}});
    let cancelled = json!({"error": {"class": "cancelled", "message": "enough"}});
    for (body, end, expected) in [
        (usual, output(), Some(("succeeded", json!({"label": "spam", "score": 0.5})))),
        (usual, End::Failure, Some(("failed", failed))),
        (usual, End::Late, Some(("timed_out", late))),
        (usual, End::Cancel, None),
        (every, End::Cancel, Some(("cancelled", cancelled))),
        ("output: {topic: out, on: [failed]}", output(), None),
        (every, End::None, None),
        ("", output(), None),
    ] {
        let record = result_record(&stream(body), &ended(&[], &end));
        let found = record.as_ref().map(|record| (texts(record)["ce_type"].clone(), data(record)));
        let expected = expected.map(|(kind, data)| (format!("io.motet.run.{kind}"), data));
        assert_eq!(found, expected, "{body}");
    }
    let direct = started(look(&stream(""), &incoming(b"{\"n\": 1}", &[]), None));
    let (mut run, mut events) = direct.begin(&Namespace::default(), &workflow(ASK), NOW, 64).unwrap();
    if let motet_engine::event::Event::Submitted(submission) = &mut events[0] {
        std::sync::Arc::make_mut(submission).source = None;
    }
    run = Run::begin(run.id(), workflow(ASK), &events[0], SINCE).unwrap();
    run.apply(&motet_engine::event::Event::RunSucceeded { output: None }, NOW);
    assert_eq!(result_record(&stream(every), &run), None, "a run that no record began tells no topic");
}

#[test]
fn the_stream_says_how_a_result_looks() {
    let bytes = |bytes: &'static [u8]| {
        let data = bytes::Bytes::from_static(bytes);
        let tensor = motet_engine::tensor::Tensor::new(motet_engine::tensor::Datatype::Uint8, vec![data.len()], data);
        End::Output(Value::Tensor(tensor.unwrap()))
    };
    for (body, end, key, kind, value) in [
        ("value: '${ output.label }'", output(), Some("ada"), "text/plain; charset=utf-8", "spam"),
        ("value: '${ output.score }', key: '${ output.label }'", output(), Some("spam"), "application/json", "0.5"),
        ("key: '${ null }'", output(), None, "application/json", r#"{"label":"spam","score":0.5}"#),
        ("key: {a: '${ input.n }'}", End::Output(Value::Null), Some(r#"{"a":1}"#), "application/json", "null"),
        ("value: '${ output }'", bytes(b"raw"), Some("ada"), "application/octet-stream", "raw"),
        (
            "value: {id: '${ run.state }', w: '${ run.workflow }', k: '${ key }', o: '${ record.offset }', e: '${ event }'}",
            output(),
            Some("ada"),
            "application/json",
            r#"{"e":null,"id":"succeeded","k":"ada","o":42,"w":"w"}"#,
        ),
        ("value: '${ error.class }'", End::Failure, Some("ada"), "text/plain; charset=utf-8", "unavailable"),
        ("value: '${ error == null }'", output(), Some("ada"), "application/json", "true"),
    ] {
        let record = result_record(&stream(&format!("output: {{topic: out, {body}}}")), &ended(&[], &end)).unwrap();
        let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(record.key.as_ref().map(text).as_deref(), key, "{body}");
        assert_eq!(
            (texts(&record)["content-type"].as_str(), text(record.value.as_ref().unwrap()).as_str()),
            (kind, value)
        );
    }
    let headers = "headers: {kind: '${ output.label }', ce_type: mine, none: '${ null }', correlation-id: '${ run.id }', \
                   content-type: application/x-mine}";
    let definition = stream(&format!("output: {{topic: out, {headers}}}"));
    let run = ended(&[("correlation-id", "abc")], &output());
    let record = result_record(&definition, &run).unwrap();
    let found = texts(&record);
    assert_eq!(found["correlation-id"], run.id().to_string());
    let names = ["kind", "ce_type", "none", "content-type"].map(|name| found[name].as_str());
    assert_eq!(names, ["spam", "mine", "<null>", "application/x-mine"]);
    assert_eq!(found.len(), record.headers.len(), "no header stands twice");
}

#[test]
fn a_mistake_in_the_output_loses_no_result() {
    for (body, end, kept) in [
        ("key: '${ output.nothing }'", output(), json!({"output": {"label": "spam", "score": 0.5}})),
        ("value: '${ output.nothing }'", output(), json!({"output": {"label": "spam", "score": 0.5}})),
        ("headers: {x: '${ output.nothing }'}", output(), json!({"output": {"label": "spam", "score": 0.5}})),
        (
            "value: '${ output.nothing }'",
            End::Failure,
            json!({"cause": {"class": "unavailable", "message": "down", "step": "ask"}}),
        ),
    ] {
        let record = result_record(&stream(&format!("output: {{topic: out, {body}}}")), &ended(&[], &end)).unwrap();
        let (headers, mut data) = (texts(&record), data(&record));
        assert_eq!((headers["ce_type"].as_str(), record.key.as_deref()), ("io.motet.run.failed", Some(&b"ada"[..])));
        assert!(headers["motet-output-error"].contains("output."), "{headers:?}");
        let error = data.as_object_mut().unwrap().remove("error").unwrap();
        assert_eq!(
            (&error["class"], error["message"].as_str()),
            (&json!("invalid"), Some(headers["motet-output-error"].as_str()))
        );
        assert_eq!(data, kept, "{body}");
    }
    let large = End::Output("x".repeat(9 << 20).into());
    let record =
        result_record(&stream("output: {topic: out, value: ['${ output }', '${ output }']}"), &ended(&[], &large));
    let kept = data(&record.unwrap());
    assert_eq!(kept["output"].as_str().map(str::len), Some(9 << 20));
    let items = vec![Value::Float(0.123_456_789_012_345_67); 1 << 20];
    let record = result_record(&stream("output: {topic: out}"), &ended(&[], &End::Output(items.into()))).unwrap();
    assert!(texts(&record)["motet-output-error"].contains("bytes as JSON"));
    assert!(data(&record)["output"].is_null() && record.value.unwrap().len() < 1_000, "its run can still be read");
}

#[test]
fn a_key_that_is_no_text_passes_unharmed() {
    for (body, key) in [
        ("output: {topic: out, key: '${ key }'}", &b"\xff\x00"[..]),
        ("format: {key: avro}\noutput: {topic: out, key: '${ key }'}", b"\x00text"),
        ("format: {key: json}\noutput: {topic: out, key: '${ key }'}", b"{\"a\":1}"),
        ("format: {key: bytes}\noutput: {topic: out, key: '${ key }'}", b"text"),
    ] {
        let mut record = incoming(b"{\"n\": 1}", &[]);
        record.key = Some(bytes::Bytes::copy_from_slice(key));
        let start = started(look(&stream(""), &record, None));
        let (mut run, _) = start.begin(&Namespace::default(), &workflow(ASK), NOW, 64).unwrap();
        finish(&mut run, &output());
        assert_eq!(result_record(&stream(body), &run).unwrap().key.as_deref(), Some(key), "{body}");
    }
}

#[test]
fn each_end_of_a_retried_run_is_a_result_of_its_own() {
    let definition = stream("output: {topic: out}");
    let mut run = ended(&[], &End::Failure);
    let first = result_record(&definition, &run).unwrap();
    run = run.decide(&Input::Retry { from: None, by: Principal::Local }, later()).unwrap().run;
    assert_eq!(result_record(&definition, &run), None, "it goes on");
    finish(&mut run, &output());
    let second = result_record(&definition, &run).unwrap();
    assert_ne!(first.event, second.event);
    assert_eq!(texts(&first)["ce_subject"], texts(&second)["ce_subject"]);
}
