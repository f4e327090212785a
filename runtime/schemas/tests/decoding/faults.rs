//! A record that is wrong is a dead letter with a reason; a registry that cannot answer is waited for.

use std::sync::Arc;

use motet_engine::definition::Format;
use motet_schemas::contract::RegistryServer;
use motet_schemas::port::Undecided;
use serde_json::json;

use super::golden::golden;
use super::{decode, decoder, framed, record};

/// What became of a record: `stage class: message` of a dead letter, or what is waited for.
fn told(undecided: Undecided) -> String {
    match undecided {
        Undecided::Dead(reason) => format!("{} {}: {}", reason.stage, reason.class, reason.message),
        Undecided::Later(words) => format!("later: {words}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_record_is_told() {
    let mut schemas = golden()["registry"].clone();
    schemas["ids"]["100"] = json!({"schema": "{\"type\": \"nothing\"}"});
    schemas["ids"]["101"] = json!({"schema": "x", "schemaType": "XML"});
    let lost = json!([{"name": "a.B", "subject": "lost", "version": 3}]);
    schemas["ids"]["102"] = json!({"schema": "\"a.B\"", "references": lost});
    let circle = json!([{"name": "circle.proto", "subject": "circle", "version": 1}]);
    let proto = "syntax = \"proto3\"; import \"circle.proto\";";
    schemas["ids"]["103"] = json!({"schema": proto, "schemaType": "PROTOBUF", "references": circle});
    schemas["subjects"]["circle/1"] = schemas["ids"]["103"].clone();
    for number in 0..100 {
        let next = json!([{"name": format!("{}", number + 1), "subject": format!("{}", number + 1), "version": 1}]);
        schemas["subjects"][format!("{number}/1")] = json!({"schema": "1", "references": next});
    }
    schemas["ids"]["104"] = json!({"schema": "1", "references": [{"name": "0", "subject": "0", "version": 1}]});
    schemas["ids"]["105"] = json!({"schema": " ".repeat((4 << 20) + 1)});
    let server = RegistryServer::start(schemas).await;
    let decoder = decoder(&server);
    for (format, value, words) in [
        (Format::Avro, &b"{\"a\": 1}"[..], "VALUE_CONVERTER unframed: it begins with the byte 123"),
        (Format::Avro, b"\x00\x00", "VALUE_CONVERTER unframed"),
        (Format::Avro, &framed(99, b""), "VALUE_CONVERTER unknown_schema: the schema registry does not know schema 99"),
        (Format::Protobuf, &framed(5, b"\x00"), "wrong_schema: schema 5 is one of avro, and the stream reads protobuf"),
        (Format::Avro, &framed(11, b"{}"), "wrong_schema: schema 11 is one of json-schema, and the stream reads avro"),
        (Format::Avro, &framed(5, b"\x04a"), "invalid_avro: it ends early"),
        (Format::Avro, &framed(2, b"\x02a"), "(schema 2)"),
        (Format::Protobuf, &framed(7, b"\x02\x12"), "wrong_schema: its schema has no message at the place 9"),
        (Format::Protobuf, &framed(7, b"\x02\x02\x08"), "invalid_protobuf"),
        (Format::JsonSchema, &framed(11, b"{\"name\": 7}"), "unfit_value: it does not fit its schema: /name"),
        (Format::JsonSchema, &framed(11, b"{"), "invalid_json"),
        (Format::Avro, &framed(100, b""), "broken_schema: schema 100 cannot be used"),
        (Format::Avro, &framed(101, b""), "broken_schema: schema 101 is of the type 'XML'"),
        (Format::Avro, &framed(102, b""), "unknown_schema: the schema registry does not know version 3 of 'lost'"),
        (Format::Protobuf, &framed(103, b"\x00"), "broken_schema: schema 103 cannot be used"),
        (Format::Avro, &framed(104, b""), "broken_schema: schema 104 refers to more than 64 schemas"),
        (Format::Avro, &framed(105, b""), "broken_schema: schema 105 cannot be used: it has 4194305 bytes"),
    ] {
        let found = told(decode(&decoder, format, &record(value, vec![])).await.unwrap_err());
        assert!(found.starts_with("VALUE_CONVERTER") && found.contains(words), "{found}");
    }
    let before = server.requests().len();
    for id in [99, 100, 101, 104] {
        decode(&decoder, Format::Avro, &record(&framed(id, b""), vec![])).await.unwrap_err();
    }
    assert_eq!(server.requests().len(), before, "what is wrong with a schema is remembered");
}

#[tokio::test]
async fn a_registry_that_cannot_answer_is_waited_for() {
    let server = RegistryServer::start(golden()["registry"].clone()).await;
    let value = record(&framed(5, b"\x02v"), vec![]);
    for (status, body, words) in [
        (0, "", "cannot be reached"),
        (
            401,
            "{\"error_code\": 401, \"message\": \"Unauthorized\"}",
            "lets nobody in (401 for schema 5): Unauthorized",
        ),
        (403, "", "registry.password"),
        (404, "<html>nothing here</html>", "no schema registry answers at registry.url"),
        (429, "", "answered 429"),
        (503, "", "answered 503"),
        (200, "<html>", "no schema registry"),
        (302, "", "answered 302"),
    ] {
        server.fail(Some((status, body)));
        let found = told(decode(&decoder(&server), Format::Avro, &value).await.unwrap_err());
        assert!(found.starts_with("later: ") && found.contains(words), "{status}: {found}");
    }
    server.fail(None);
    decode(&decoder(&server), Format::Avro, &value).await.unwrap();
}

#[tokio::test]
async fn one_that_is_away_is_not_asked_for_every_record() {
    let server = RegistryServer::start(golden()["registry"].clone()).await;
    let decoder = Arc::new(decoder(&server));
    server.fail(Some((503, "")));
    for id in 0..50 {
        let undecided = decode(&decoder, Format::Avro, &record(&framed(id, b""), vec![])).await.unwrap_err();
        assert!(matches!(undecided, Undecided::Later(_)), "{undecided:?}");
    }
    assert!(server.requests().len() < 10, "{}", server.requests().len());
}

#[tokio::test]
async fn nothing_listens_and_names_do_not_resolve() {
    let gone = RegistryServer::start(json!({})).await.url().to_owned();
    for url in [gone.as_str(), "http://registry.invalid:8081"] {
        let source = motet_schemas::registry::ConfluentRegistry::new(super::settings(url)).unwrap();
        let decoder = motet_schemas::RegistryDecoder::new(Arc::new(source));
        let value = record(&framed(5, b"\x02v"), vec![]);
        let found = told(decode(&decoder, Format::Avro, &value).await.unwrap_err());
        assert!(found.starts_with("later: the schema registry cannot be reached"), "{found}");
    }
}
