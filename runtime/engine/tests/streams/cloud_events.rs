//! CloudEvents on records: which are found, how they are read, and what their runs keep of them.

use motet_engine::trace::TraceContext;
use serde_json::json;

use crate::{incoming, look, started, stream, told};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json; charset=UTF-8");
const WHOLE: &str = "input: {v: '${ value }', e: '${ event }'}";

fn binary<'h>(more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let own = [("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_source", "/shop"), ("ce_type", "order.placed")];
    own.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn events_are_found_and_read() {
    let attributes = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed"});
    let with = |more: serde_json::Value| {
        let mut event = attributes.clone();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let text = |json: serde_json::Value| json.to_string().into_bytes();
    for (name, value, pairs, data, event) in [
        ("binary", b"{\"a\": 1}".to_vec(), binary(&[]), json!({"a": 1}), attributes.clone()),
        (
            "binary with everything",
            b"words".to_vec(),
            binary(&[("content-type", "text/plain"), ("ce_subject", "s"), ("ce_Odd", "x"), ("ce_id", "8")]),
            json!("words"),
            with(json!({"datacontenttype": "text/plain", "subject": "s", "id": "8"})),
        ),
        ("structured", text(with(json!({"data": {"a": 1}}))), vec![STRUCTURED], json!({"a": 1}), attributes.clone()),
        ("no data", text(attributes.clone()), vec![STRUCTURED], json!(null), attributes.clone()),
        (
            "coded data",
            text(with(json!({"data_base64": "eyJhIjoxfQ==", "n": 3, "gone": null}))),
            vec![STRUCTURED],
            json!({"a": 1}),
            with(json!({"n": 3})),
        ),
        (
            "coded text",
            text(with(json!({"data_base64": "aGk=", "datacontenttype": "text/plain"}))),
            vec![STRUCTURED],
            json!("hi"),
            with(json!({"datacontenttype": "text/plain"})),
        ),
        (
            "an old SDK",
            text(with(json!({"data": [1]}))),
            vec![("content-type", "application/json")],
            json!([1]),
            attributes.clone(),
        ),
        (
            "an old SDK with text",
            text(with(json!({"data": "hi"}))),
            vec![("content-type", "text/plain")],
            json!("hi"),
            attributes.clone(),
        ),
        ("an old SDK without a type", text(with(json!({"data": 1}))), vec![], json!(1), attributes.clone()),
    ] {
        let start = started(look(&stream(WHOLE), &incoming(&value, &pairs), None));
        assert_eq!(start.input.to_json(), json!({"v": data, "e": event}), "{name}");
        let cause = start.source.event.as_ref().unwrap();
        assert_eq!((&*cause.source, &*cause.kind), ("/shop", "order.placed"), "{name}");
        assert!(start.identity.is_some(), "{name}");
    }
}

#[test]
fn what_is_no_event_is_a_plain_record() {
    for value in [
        json!({"specversion": "1.0", "id": "7", "source": "/shop"}),
        json!({"specversion": 1, "id": "7", "source": "/shop", "type": "t"}),
        json!({"specversion": "0.3", "id": "7", "source": "/shop", "type": "t"}),
        json!([{"specversion": "1.0", "id": "7", "source": "/shop", "type": "t"}]),
    ] {
        let start = started(look(&stream(WHOLE), &incoming(value.to_string().as_bytes(), &[]), None));
        assert_eq!(start.input.to_json(), json!({"v": value, "e": null}));
        assert!(start.source.event.is_none() && start.identity.is_none());
    }
    let event = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "t"}).to_string();
    let as_text = started(look(&stream("format: text"), &incoming(event.as_bytes(), &[]), None));
    assert_eq!(as_text.input.as_str(), Some(event.as_str()), "a stream of texts looks into none");
}

#[test]
fn broken_events_are_dead_letters() {
    let event = |more: &str| format!(r#"{{"specversion": "1.0", "id": "7", "source": "/s", "type": "t"{more}}}"#);
    for (value, pairs, expected) in [
        ("[]", vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        ("{", vec![STRUCTURED], "VALUE_CONVERTER invalid_json"),
        (r#"{"id": "7"}"#, vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event("").replace("\"7\"", "\"\""), vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event("").replace("\"1.0\"", "\"0.3\""), vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event(r#", "data_base64": "%""#), vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event(r#", "data_base64": 1"#), vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event(r#", "data": 1, "data_base64": "aGk=""#), vec![STRUCTURED], "VALUE_CONVERTER invalid_event"),
        (&event(r#", "data_base64": "aGk=""#), vec![STRUCTURED], "VALUE_CONVERTER invalid_json"),
        ("[]", vec![("content-type", "application/cloudevents-batch+json")], "VALUE_CONVERTER invalid_event"),
        ("x", vec![("content-type", "application/cloudevents+avro")], "VALUE_CONVERTER invalid_event"),
        ("1", vec![("ce_id", "7")], "HEADER_CONVERTER invalid_event"),
        ("{", binary(&[]), "VALUE_CONVERTER invalid_json"),
    ] {
        assert_eq!(told(&look(&stream(""), &incoming(value.as_bytes(), &pairs), None)), expected, "{value} {pairs:?}");
    }
    let mut record = incoming(b"1", &binary(&[]));
    record.headers.push(("ce_subject".to_owned(), Some(bytes::Bytes::from_static(b"\xff"))));
    assert_eq!(told(&look(&stream(""), &record, None)), "HEADER_CONVERTER invalid_event");
}

#[test]
fn traces_go_on() {
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let other = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let trace = |pairs: &[(&str, &str)]| started(look(&stream(""), &incoming(b"1", pairs), None)).trace;
    let derived = trace(&[]);
    assert!(derived.trace_id != 0 && derived.span_id != 0 && !derived.sampled);
    for (pairs, expected) in [
        (vec![("traceparent", sent)], TraceContext::parse(sent).unwrap()),
        (vec![("traceparent", other), ("traceparent", sent)], TraceContext::parse(sent).unwrap()),
        (binary(&[("ce_traceparent", other)]), TraceContext::parse(other).unwrap()),
        (binary(&[("ce_traceparent", other), ("traceparent", sent)]), TraceContext::parse(sent).unwrap()),
        (vec![("traceparent", zero)], derived),
        (vec![("traceparent", "nonsense")], derived),
    ] {
        assert_eq!(trace(&pairs), expected, "{pairs:?}");
    }
}
