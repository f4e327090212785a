//! Schemas and bytes of Avro that are wrong, large or deep; what clients write is among the golden records.

use motet_engine::definition::Format;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::port::Reference;

fn compile(schema: &Json, references: &[&Json]) -> Result<AvroSchema, String> {
    let reference = |text: &&Json| Reference { name: String::new(), text: text.to_string() };
    AvroSchema::compile(&SchemaText {
        format: Format::Avro,
        text: schema.to_string(),
        references: references.iter().map(reference).collect(),
    })
}

fn read(schema: &Json, bytes: &[u8]) -> Result<Json, &'static str> {
    let value = compile(schema, &[]).unwrap().decode(&Bytes::copy_from_slice(bytes));
    value.map(|value| value.to_json()).map_err(|mistake| mistake.class)
}

/// A record whose only field is itself or nothing.
fn chain() -> Json {
    json!({"type": "record", "name": "Chain", "fields": [{"name": "next", "type": ["null", "Chain"]}]})
}

#[test]
fn bytes_are_values() {
    let day = json!({"type": "int", "logicalType": "date"});
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2});
    let duration = json!({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"});
    let list = json!({"type": "array", "items": "int"});
    for (schema, bytes, expected) in [
        (json!("long"), &b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], Ok(json!(i64::MAX))),
        (json!("long"), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok(json!(i64::MIN))),
        (json!("int"), b"\x01", Ok(json!(-1))),
        (json!("int"), b"\xfe\xff\xff\xff\x1f", Err("invalid_avro")),
        (json!("long"), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err("invalid_avro")),
        (json!("boolean"), b"\x02", Err("invalid_avro")),
        (json!("string"), b"\x04ab", Ok(json!("ab"))),
        (json!("string"), b"\x04a", Err("invalid_avro")),
        (json!("string"), b"\x02\xff", Err("invalid_avro")),
        (json!("string"), b"\x01", Err("invalid_avro")),
        (json!("null"), b"", Ok(json!(null))),
        (json!("null"), b"\x00", Err("invalid_avro")),
        (json!(["null", "int"]), b"\x02\x04", Ok(json!(2))),
        (json!(["null", "int"]), b"\x04\x04", Err("invalid_avro")),
        (json!({"type": "enum", "name": "E", "symbols": ["A"]}), b"\x00", Ok(json!("A"))),
        (json!({"type": "enum", "name": "E", "symbols": ["A"]}), b"\x01", Err("invalid_avro")),
        (list.clone(), b"\x04\x02\x04\x02\x06\x00", Ok(json!([1, 2, 3]))),
        (list.clone(), b"\x03\x04\x02\x04\x00", Ok(json!([1, 2]))),
        (list.clone(), b"\x04\x02", Err("invalid_avro")),
        (list, b"\x01\x02", Err("invalid_avro")),
        (json!({"type": "map", "values": "int"}), b"\x02\x02k\x02\x00", Ok(json!({"k": 1}))),
        (day.clone(), b"\x00", Ok(json!("1970-01-01"))),
        (day, b"\xfe\xff\xff\xff\x0f", Err("out_of_range")),
        (decimal, b"\x04\x04\xe2", Ok(json!("12.50"))),
        (duration, b"\x01\0\0\0\x02\0\0\0\x03\0\0\0", Ok(json!({"months": 1, "days": 2, "milliseconds": 3}))),
        (chain(), b"\x02\x02\x00", Ok(json!({"next": {"next": {"next": null}}}))),
    ] {
        assert_eq!(read(&schema, bytes), expected, "{schema} {bytes:?}");
    }
}

#[test]
fn bombs_are_refused() {
    let nulls = json!({"type": "array", "items": "null"});
    // A block that announces 2^60 values of no byte, and many blocks of a million each.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0];
    let million = [0x80, 0x80, 0x7A];
    let empty = json!({"type": "array", "items": {"type": "record", "name": "R", "fields": []}});
    let endless = json!({"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]});
    let mut wide = json!("null");
    for level in 0..30 {
        let field = |name: &str, kind: &Json| json!({"name": name, "type": kind});
        let name = format!("R{level}");
        let first = field("a", &wide);
        let again = if level == 0 { json!("null") } else { json!(format!("R{}", level - 1)) };
        wide = json!({"type": "record", "name": name, "fields": [first, field("b", &again)]});
    }
    for (what, schema, bytes, class) in [
        ("one huge block", &nulls, huge.to_vec(), "too_large"),
        ("many blocks", &nulls, million.repeat(1_000), "too_large"),
        ("items of no byte", &empty, million.repeat(1_000), "too_large"),
        ("a long text", &json!("string"), huge.to_vec(), "invalid_avro"),
        ("depth", &chain(), vec![2; 1 << 20], "too_deep"),
        ("a record that is itself", &endless, vec![], "too_deep"),
        ("a record that doubles", &wide, vec![], "too_large"),
    ] {
        assert_eq!(read(schema, &bytes).unwrap_err(), class, "{what}");
    }
}

#[test]
fn references_are_found_whatever_their_order() {
    let root = json!({"type": "record", "name": "a.Root", "fields": [{"name": "x", "type": "b.Middle"}]});
    let middle = json!({"type": "record", "name": "b.Middle", "fields": [{"name": "y", "type": "Leaf"}]});
    let leaf = json!({"type": "enum", "name": "Leaf", "namespace": "b", "symbols": ["L"]});
    for references in [[&middle, &leaf], [&leaf, &middle]] {
        let schema = compile(&root, &references).unwrap();
        let value = schema.decode(&Bytes::from_static(b"\x00")).unwrap();
        assert_eq!(value.to_json(), json!({"x": {"y": "L"}}));
    }
    let choice = compile(&json!(["a.Root", "b.Leaf"]), &[&root, &middle, &leaf]).unwrap();
    assert_eq!(choice.decode(&Bytes::from_static(b"\x02\x00")).unwrap().to_json(), json!("L"));
    for (schema, references) in [
        (&root, &[&middle][..]),
        (&json!({"type": "nothing"}), &[]),
        (&json!({"type": "fixed", "name": "F"}), &[]),
        (&json!({"type": "bytes", "logicalType": "decimal", "precision": 9999, "scale": 9998}), &[]),
    ] {
        assert!(compile(schema, references).is_err(), "{schema}");
    }
}

/// A schema of any shape, a few levels deep.
fn schemas() -> impl Strategy<Value = Json> {
    let leaf = prop::sample::select(vec![
        json!("null"),
        json!("boolean"),
        json!("int"),
        json!("long"),
        json!("float"),
        json!("double"),
        json!("bytes"),
        json!("string"),
        json!({"type": "long", "logicalType": "timestamp-micros"}),
        json!({"type": "int", "logicalType": "time-millis"}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}),
        json!({"type": "bytes", "logicalType": "big-decimal"}),
        json!({"type": "string", "logicalType": "uuid"}),
    ]);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.clone().prop_map(|values| json!({"type": "map", "values": values})),
            (prop::collection::vec(inner, 0..4), any::<u32>()).prop_map(|(kinds, name)| {
                let field = |(place, kind): (usize, Json)| json!({"name": format!("f{place}"), "type": kind});
                let mut fields: Vec<Json> = kinds.into_iter().enumerate().map(field).collect();
                fields.push(json!({"name": "again", "type": ["null", format!("R{name}")]}));
                json!({"type": "record", "name": format!("R{name}"), "fields": fields})
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(schema in schemas(), bytes: Vec<u8>) {
        if let Ok(schema) = compile(&schema, &[]) {
            let _ = schema.decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in r#"[\[\]{}:,"a-z]{0,60}"#) {
        let _ = AvroSchema::compile(&SchemaText { format: Format::Avro, text, references: vec![] });
    }
}
