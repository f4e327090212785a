//! Decoding, filters, inputs: case by case.

use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::event::Event;
use motet_engine::id::Namespace;
use motet_engine::stream::{Decoded, MAX_INPUT_BYTES, Stage, Undecoded, Verdict, undecoded};
use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::value::Value;
use serde_json::json;

use crate::{NOW, incoming, look, started, stream, told, workflow};

#[test]
fn records_have_their_verdicts() {
    let filtered = "filter: \"${ value.kind == 'order' }\"";
    let every = "input: {v: '${ value.a }', k: '${ key }', h: '${ headers.who }', o: '${ record.offset }', \
                 p: '${ record.partition }', t: '${ record.topic }', e: '${ event }'}";
    let all = json!({"v": 1, "k": "ada", "h": "last", "o": 42, "p": 3, "t": "in", "e": null}).to_string();
    let twice = [("who", "first"), ("who", "last")];
    for (body, value, pairs, expected) in [
        ("", &b"{\"a\": [1, 2.5, null]}"[..], &[][..], r#"{"a":[1,2.5,null]}"#),
        ("", b"\"text\"", &[], r#""text""#),
        ("", b"{", &[], "VALUE_CONVERTER invalid_json"),
        ("", b"", &[], "VALUE_CONVERTER invalid_json"),
        ("", b"{\"a\": 1, \"a\": 2}", &[], "VALUE_CONVERTER invalid_json"),
        ("", b"\"\xff\"", &[], "VALUE_CONVERTER invalid_json"),
        ("", b"1e999", &[], "VALUE_CONVERTER invalid_json"),
        ("", b"plain", &[("content-type", "text/plain; charset=utf-8")], r#""plain""#),
        ("", b"{\"a\": 1}", &[("content-type", "Application/JSON")], r#"{"a":1}"#),
        ("", b"{\"a\": 1}", &[("content-type", "application/vnd.x+json")], r#"{"a":1}"#),
        ("", b"\x00\xff", &[("content-type", "application/octet-stream")], "[0,255]"),
        ("", b"{\"a\": 1}", &[("content-type", "application/x-unknown")], r#"{"a":1}"#),
        ("format: json", b"plain", &[("content-type", "text/plain")], "VALUE_CONVERTER invalid_json"),
        ("format: text", b"caf\xc3\xa9", &[], "\"caf\u{e9}\""),
        ("format: text", b"caf\xe9", &[], "VALUE_CONVERTER invalid_text"),
        ("format: bytes", b"\x01\x02", &[], "[1,2]"),
        ("format: avro", b"\x00\x00", &[], "VALUE_CONVERTER no_schema"),
        (filtered, b"{\"kind\": \"order\"}", &[], r#"{"kind":"order"}"#),
        (filtered, b"{\"kind\": \"other\"}", &[], "Filtered"),
        (filtered, b"{}", &[], "FILTER expression"),
        ("filter: '${ value }'", b"1", &[], "FILTER expression"),
        (every, b"{\"a\": 1}", &twice, &all),
        (every, b"{}", &twice, "INPUT expression"),
        ("input: {t: 'order ${ value.n }'}", b"{\"n\": 7}", &[], r#"{"t":"order 7"}"#),
        ("ordering: '${ value.customer }'", b"{}", &[], "ORDERING expression"),
    ] {
        assert_eq!(told(&look(&stream(body), &incoming(value, pairs), None)), expected, "{body} {value:?}");
    }
}

#[test]
fn keys_are_decoded_where_they_are_read_only() {
    for (body, key, expected) in [
        ("", &b"\xff"[..], "1"),
        ("input: '${ key }'", b"\xff", "KEY_CONVERTER invalid_text"),
        ("input: '${ key }'", b"ada", r#""ada""#),
        ("input: '${ key }'\nformat: {key: json}", b"{\"id\": 1}", r#"{"id":1}"#),
        ("input: '${ key }'\nformat: {key: json}", b"ada", "KEY_CONVERTER invalid_json"),
        ("input: '${ key }'\nformat: {key: bytes}", b"\xff", "[255]"),
        ("input: '${ key }'\nformat: {key: avro}", b"\xff", "KEY_CONVERTER no_schema"),
        ("format: {key: avro}", b"\xff", "1"),
    ] {
        let mut record = incoming(b"1", &[]);
        record.key = Some(Bytes::copy_from_slice(key));
        assert_eq!(told(&look(&stream(body), &record, None)), expected, "{body}");
    }
    let mut record = incoming(b"1", &[]);
    record.key = None;
    assert_eq!(told(&look(&stream("input: '${ key }'"), &record, None)), "null");
    record.key = Some(vec![7; 300 << 10].into());
    assert_eq!(told(&look(&stream(""), &record, None)), "KEY_CONVERTER too_large");
}

#[test]
fn a_tombstone_is_no_mistake_whatever_else_is_wrong() {
    for (body, pairs) in [("", &[][..]), ("format: avro", &[("content-type", "application/cloudevents-batch+json")])] {
        let mut record = incoming(b"", pairs);
        record.value = None;
        assert_eq!(told(&look(&stream(body), &record, None)), "Tombstone");
        assert_eq!(undecoded(&stream(body), &record), Undecoded::default());
    }
}

#[test]
fn what_needs_a_registry_is_told_and_taken_as_it_was_decoded() {
    let avro = stream("format: {value: avro, key: protobuf}\ninput: {v: '${ value.x }', k: '${ key }'}");
    let record = incoming(b"\x00", &[]);
    assert_eq!(undecoded(&avro, &record), Undecoded { key: Some(Format::Protobuf), value: Some(Format::Avro) });
    let decoded = Decoded { key: Some("k".into()), value: Some(json!({"x": 1}).into()) };
    assert_eq!(told(&look(&avro, &record, Some(decoded))), r#"{"k":"k","v":1}"#);
    let unread = stream("format: {value: avro, key: protobuf}");
    assert_eq!(undecoded(&unread, &record), Undecoded { key: None, value: Some(Format::Avro) });
    let event = incoming(b"{}", &[("content-type", "application/cloudevents+json")]);
    assert_eq!(undecoded(&unread, &event), Undecoded::default());
    let given = Decoded { key: None, value: Some(Value::Int(9)) };
    let ignored = look(&stream("format: json"), &incoming(b"1", &[]), Some(given));
    assert_eq!(told(&ignored), "1", "what is decoded here is decoded here");
    let deep = (0..200).fold(Value::Null, |inner, _| vec![inner].into());
    let decoded = Decoded { key: None, value: Some(deep) };
    assert_eq!(told(&look(&unread, &record, Some(decoded))), "VALUE_CONVERTER too_deep");
}

#[test]
fn inputs_that_the_journal_could_not_hold_are_refused() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    let doubled = "input: {a: '${ value }', b: '${ value }'}";
    let within = format!("input: {}'${{ value }}'{}", "[".repeat(60), "]".repeat(60));
    let zeros = format!("[{}1]", "true,".repeat(MAX_INPUT_BYTES / 6)).into_bytes();
    let text = format!("\"{}\"", "x".repeat(MAX_INPUT_BYTES / 2)).into_bytes();
    for (body, value, expected) in [
        ("", nested(100), None),
        ("", nested(127), None),
        ("", nested(128), Some("VALUE_CONVERTER too_deep")),
        ("", nested(100_000), Some("VALUE_CONVERTER too_deep")),
        (&within, nested(60), None),
        (&within, nested(100), Some("INPUT too_deep")),
        ("", zeros.clone(), None),
        (doubled, zeros, Some("INPUT too_large")),
        ("", text.clone(), None),
        (doubled, text, Some("INPUT too_large")),
    ] {
        let verdict = look(&stream(body), &incoming(&value, &[]), None);
        match expected {
            None => assert!(matches!(verdict, Verdict::Start(_)), "{body} {} bytes", value.len()),
            Some(expected) => assert_eq!(told(&verdict), expected, "{body} {} bytes", value.len()),
        }
    }
    let tensor = Tensor::new(Datatype::Uint8, vec![3], Bytes::from_static(b"abc")).unwrap();
    let plain = started(look(&stream("format: bytes"), &incoming(b"abc", &[]), None));
    assert_eq!(plain.input, Value::Tensor(tensor));
}

#[test]
fn a_run_begins_as_the_stream_says() {
    let body = "ordering: key\ntags: [a, b]\npriority: 5\ninput: {n: '${ value }'}";
    let mut record = incoming(b"7", &[("kafka_replyTopic", "back"), ("correlation-id", "c")]);
    record.headers.push(("kafka_correlationId".to_owned(), Some(Bytes::from_static(b"\xff\x00"))));
    record.headers.push(("other".to_owned(), None));
    let start = started(look(&stream(body), &record, None));
    let source = &start.source;
    assert_eq!((source.stream.as_str(), &*source.revision, source.generation), ("orders", "7", 2));
    assert_eq!((&*source.topic, source.partition, source.offset), ("in", 3, 42));
    assert_eq!((source.timestamp, source.key.as_deref()), (Some(NOW.as_millis()), Some(&b"ada"[..])));
    assert!(source.order.is_some() && source.order == start.order && source.event.is_none());
    let names: Vec<&str> = source.reply.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["correlation-id", "kafka_correlationId", "kafka_replyTopic"]);
    assert_eq!(source.reply[1].1.as_deref(), Some(&b"\xff\x00"[..]), "bytes stay as they are");
    let workflow = workflow(
        "input: {schema: {type: object, required: [n]}}\nsteps: {a: {call: model, model: m, with: {n: '${ input.n }'}}}",
    );
    let (id, trace) = (start.id, start.trace);
    let (run, events) = start.begin(&Namespace::default(), &workflow, NOW, 64).unwrap();
    let Event::Submitted(submission) = &events[0] else { panic!("{events:?}") };
    assert_eq!((run.id(), submission.trace, submission.at, submission.priority), (id, trace, NOW, 5));
    assert_eq!((submission.tags.len(), submission.source.as_ref().unwrap().offset), (2, 42));
    assert!(run.state().holds_line());
    let unfit = started(look(&stream(""), &incoming(b"{}", &[]), None));
    let reason = unfit.begin(&Namespace::default(), &workflow, NOW, 64).unwrap_err();
    assert_eq!((reason.stage, &*reason.class), (Stage::Schema, "unfit_input"));
    assert!(reason.message.contains("'w'") && reason.message.contains('n'), "{reason}");
}

#[test]
fn limits_that_count_by_a_key_do_not_tear_an_order_apart() {
    let steps = "steps: {a: {call: model, model: m, with: {}}}";
    let by_key = workflow(&format!("limits: {{concurrency: 1, key: '${{ input.n }}'}}\n{steps}"));
    let together = workflow(&format!("limits: {{concurrency: 1}}\n{steps}"));
    let shards = |ordering: &str, workflow| {
        let shard = |n: i64| {
            let start = started(look(&stream(ordering), &incoming(format!("{{\"n\": {n}}}").as_bytes(), &[]), None));
            start.begin(&Namespace::default(), workflow, NOW, 64).unwrap().0.id().shard()
        };
        (0..40).map(|n| shard(n * 7_919)).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(shards("ordering: key", &by_key), 1, "the order's shard");
    assert!(shards("", &by_key) > 1, "the shards of the limits' keys");
    assert_eq!((shards("ordering: key", &together), shards("", &together)), (1, 1), "the workflow's shard");
}
