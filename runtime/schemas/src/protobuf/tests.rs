//! Schemas and bytes of Protobuf that are wrong, large or deep; what clients write is among the golden records.

use motet_engine::definition::Format;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::port::Reference;

fn compile(text: &str, references: &[(&str, &str)]) -> Result<ProtobufSchema, String> {
    let reference = |(name, text): &(&str, &str)| Reference { name: (*name).to_owned(), text: (*text).to_owned() };
    ProtobufSchema::compile(&SchemaText {
        format: Format::Protobuf,
        text: text.to_owned(),
        references: references.iter().map(reference).collect(),
    })
}

fn read(schema: &ProtobufSchema, indexes: &[usize], bytes: &[u8]) -> Result<Json, &'static str> {
    let value = schema.decode(indexes, &Bytes::copy_from_slice(bytes));
    value.map(|value| value.to_json()).map_err(|mistake| mistake.class)
}

const TREE: &str = r#"
syntax = "proto3";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
message Tree {
  repeated Tree children = 1;
  google.protobuf.Value any = 2;
  google.protobuf.Timestamp at = 3;
  repeated int32 numbers = 4;
  map<string, Tree> named = 5;
  message Inner { message Innermost { bool yes = 1; } }
}
"#;

/// A message within a message within a message, under the field with this tag.
fn nested(tag: u8, levels: usize) -> Vec<u8> {
    let mut bytes = vec![];
    for _ in 0..levels {
        let mut length = bytes.len();
        let mut outer = vec![tag];
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn bytes_are_values() {
    let tree = compile(TREE, &[]).unwrap();
    let bare = || json!({"children": [], "numbers": [], "named": {}});
    let mut one = bare();
    one["children"] = json!([bare()]);
    let mut dated = bare();
    dated["at"] = json!("1970-01-01T00:00:01Z");
    let mut numbered = bare();
    numbered["numbers"] = json!([1, 2]);
    for (indexes, bytes, expected) in [
        (&[0][..], &b""[..], Ok(bare())),
        (&[0], b"\x0a\x00", Ok(one)),
        (&[0], b"\x1a\x02\x08\x01", Ok(dated)),
        (&[0], b"\x22\x02\x01\x02", Ok(numbered)),
        (&[0], b"\xa0\x3f\x01", Ok(bare())),
        (&[0], b"\x0a\x05", Err("invalid_protobuf")),
        (&[0], b"\x08\x01", Err("invalid_protobuf")),
        (&[0], b"\x1a\x09\x08\xff\xff\xff\xff\xff\xff\xff\x7f", Err("out_of_range")),
        (&[0], b"\x1a\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", Err("out_of_range")),
        (&[1], b"", Err("wrong_schema")),
        (&[0, 9], b"", Err("wrong_schema")),
        (&[], b"", Err("wrong_schema")),
    ] {
        assert_eq!(read(&tree, indexes, bytes), expected, "{indexes:?} {bytes:?}");
    }
}

#[test]
fn bombs_are_refused() {
    let tree = compile(TREE, &[]).unwrap();
    let mut many = vec![];
    for _ in 0..super::super::budget::MAX_VALUES {
        many.extend([0x0A, 0]);
    }
    for (what, bytes, class) in [
        ("depth", nested(0x0A, 100_000), "invalid_protobuf"),
        ("depth of a dynamic value", nested(0x12, 100_000), "invalid_protobuf"),
        ("groups within groups", vec![0x0B; 1 << 20], "invalid_protobuf"),
        ("unknown groups within groups", vec![0x7B; 1 << 20], "invalid_protobuf"),
        ("messages of no byte", many, "too_large"),
        ("a long text", vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], "invalid_protobuf"),
    ] {
        assert_eq!(read(&tree, &[0], &bytes).unwrap_err(), class, "{what}");
    }
}

#[test]
fn imports_are_references_or_known() {
    let root = r#"
        syntax = "proto3";
        import "a.proto";
        import "confluent/meta.proto";
        import "confluent/type/decimal.proto";
        message Root {
          option (confluent.message_meta) = {doc: "words", params: [{key: "a", value: "b"}]};
          A a = 1 [(confluent.field_meta).tags = "PII"];
          confluent.type.Decimal price = 2;
        }"#;
    let a = "syntax = \"proto3\"; import public \"b.proto\"; message A { B b = 1; }";
    let b = "syntax = \"proto2\"; message B { optional int32 x = 1 [default = 7]; required string y = 2; }";
    let schema = compile(root, &[("a.proto", a), ("b.proto", b)]).unwrap();
    let found = read(&schema, &[0], b"\x0a\x06\x0a\x04\x08\x01\x12\x00\x12\x06\x0a\x02\x04\xe2\x18\x02");
    assert_eq!(found, Ok(json!({"a": {"b": {"x": 1, "y": ""}}, "price": "12.50"})));
    for (text, references, words) in [
        (root, &[("a.proto", a)][..], "b.proto"),
        ("syntax = \"proto3\"; import \"/etc/passwd\"; message A {}", &[], "schema-itself.proto:1:"),
        (
            "syntax = \"proto3\"; import \"a.proto\";",
            &[("a.proto", "syntax = \"proto3\"; import \"a.proto\";")],
            "a.proto",
        ),
        ("syntax = \"proto3\"; message A { B b = 1; }", &[], "B"),
        ("message {", &[], "expected an identifier"),
    ] {
        let found = compile(text, references).unwrap_err();
        assert!(found.contains(words), "{found}");
    }
    let deep = "message A {".repeat(100_000);
    assert!(compile(&deep, &[]).unwrap_err().contains("levels deep"));
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes: Vec<u8>, indexes in prop::collection::vec(0..3usize, 0..4)) {
        let tree = compile(TREE, &[]).unwrap();
        let _ = tree.decode(&indexes, &Bytes::from(bytes));
    }

    #[test]
    fn no_text_breaks_the_parser(text in r#"(message|enum|[a-c{}=;0-9"<>,. ]|option|map|import|oneof){0,40}"#) {
        let _ = compile(&text, &[]);
    }
}
