//! Headers of dead letters, by both families of names.

use bytes::Bytes;
use motet_engine::definition::LetterHeaders;
use motet_engine::stream::{DeadReason, Headers, Letter, MAX_LETTER_MESSAGE, Stage, letter_headers};

use crate::{header, headers};

fn letter<'a>(stage: Stage, message: &'a str, headers: &'a Headers) -> Letter<'a> {
    Letter {
        stream: "orders",
        group: "motet.default.orders",
        topic: "in",
        partition: 3,
        offset: 42,
        timestamp: Some(1_800_000_000_000),
        stage: stage.as_str(),
        class: "invalid_json",
        message,
        headers,
    }
}

fn value(headers: &Headers, name: &str) -> Vec<u8> {
    let found: Vec<_> = headers.iter().filter(|(found, _)| found == name).collect();
    assert_eq!(found.len(), 1, "{name} in {headers:?}");
    found[0].1.clone().unwrap().to_vec()
}

#[test]
fn connect_writes_texts() {
    let own = headers(&[("x", "1"), ("x", "2")]);
    let found = letter_headers(&letter(Stage::ValueConverter, "it is no JSON", &own), LetterHeaders::Connect);
    assert_eq!(found[..2], own[..], "the record's own headers stay, in their order");
    for (name, expected) in [
        ("topic", "in"),
        ("partition", "3"),
        ("offset", "42"),
        ("connector.name", "orders"),
        ("task.id", "3"),
        ("stage", "VALUE_CONVERTER"),
        ("class.name", "io.motet.Stream"),
        ("exception.class.name", "invalid_json"),
        ("exception.message", "it is no JSON"),
        ("exception.stacktrace", "invalid_json: VALUE_CONVERTER: it is no JSON"),
    ] {
        assert_eq!(value(&found, &format!("__connect.errors.{name}")), expected.as_bytes(), "{name}");
    }
    assert_eq!(found.len(), 12);
}

#[test]
fn spring_writes_numbers_as_bytes() {
    let own = vec![];
    let found = letter_headers(&letter(Stage::Input, "no", &own), LetterHeaders::Spring);
    for (name, expected) in [
        ("original-topic", &b"in"[..]),
        ("original-partition", &[0, 0, 0, 3]),
        ("original-offset", &[0, 0, 0, 0, 0, 0, 0, 42]),
        ("original-timestamp", &1_800_000_000_000i64.to_be_bytes()),
        ("original-timestamp-type", b"CreateTime"),
        ("original-consumer-group", b"motet.default.orders"),
        ("exception-fqcn", b"invalid_json"),
        ("exception-cause-fqcn", b"invalid_json"),
        ("exception-message", b"no"),
    ] {
        assert_eq!(value(&found, &format!("kafka_dlt-{name}")), expected, "{name}");
    }
    let key = letter_headers(&letter(Stage::KeyConverter, "no", &own), LetterHeaders::Spring);
    assert_eq!(value(&key, "kafka_dlt-key-exception-message"), b"no");
    let timeless = Letter { timestamp: None, ..letter(Stage::Input, "no", &own) };
    assert_eq!(letter_headers(&timeless, LetterHeaders::Spring).len(), found.len() - 2);
    let both = letter_headers(&letter(Stage::Input, "no", &own), LetterHeaders::Both);
    assert_eq!(both.len(), found.len() + 10);
}

#[test]
fn a_second_failure_keeps_where_the_record_came_from_first() {
    let first = letter_headers(&letter(Stage::ValueConverter, "first", &vec![header("x", "1")]), LetterHeaders::Both);
    let again = Letter { topic: "orders-dlt", partition: 0, offset: 1, ..letter(Stage::Filter, "second", &first) };
    let second = letter_headers(&again, LetterHeaders::Both);
    assert_eq!(second.len(), first.len());
    for (name, expected) in [
        ("__connect.errors.topic", &b"in"[..]),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.stage", b"FILTER"),
        ("__connect.errors.exception.message", b"second"),
        ("kafka_dlt-original-topic", b"in"),
        ("kafka_dlt-original-partition", &[0, 0, 0, 3]),
        ("kafka_dlt-exception-message", b"second"),
        ("x", b"1"),
    ] {
        assert_eq!(value(&second, name), expected, "{name}");
    }
}

#[test]
fn messages_have_a_bound() {
    let long = "é".repeat(MAX_LETTER_MESSAGE);
    let own = vec![("n".to_owned(), None), ("b".to_owned(), Some(Bytes::from_static(b"\xff")))];
    let found = letter_headers(&letter(Stage::Crash, &long, &own), LetterHeaders::Both);
    assert_eq!(found[..2], own[..], "headers without a value and of plain bytes stay");
    let longest = found.iter().filter_map(|(_, value)| value.as_ref()).map(Bytes::len).max().unwrap();
    assert!((MAX_LETTER_MESSAGE - 3..=MAX_LETTER_MESSAGE).contains(&longest), "{longest}");
    let message = value(&found, "__connect.errors.exception.message");
    assert!(String::from_utf8(message).is_ok(), "no character is cut in two");
    assert!(DeadReason::new(Stage::Input, "expression", &long).message.len() < 2_100);
}
