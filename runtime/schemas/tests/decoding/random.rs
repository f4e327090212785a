//! No bytes whatever break the decoder: random ones, and those of clients with some of them changed.

use std::sync::Arc;
use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::definition::Format;
use motet_schemas::RegistryDecoder;
use motet_schemas::port::{Reference, SchemaKey, SchemaSource, SchemaText, SourceError};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::golden::golden;
use super::{decode, format, framed, record};

/// The registry of the golden records, without a network in between.
struct Memory(Json);

#[async_trait]
impl SchemaSource for Memory {
    async fn schema(&self, key: SchemaKey) -> Result<SchemaText, SourceError> {
        let found = &self.0["ids"][key.to_string()];
        let text = found["schema"].as_str().ok_or_else(|| SourceError::Unknown(key.to_string()))?.to_owned();
        let format = match found["schemaType"].as_str() {
            Some("PROTOBUF") => Format::Protobuf,
            Some(_) => Format::JsonSchema,
            None => Format::Avro,
        };
        let referred = found["references"].as_array().cloned().unwrap_or_default();
        let references = referred
            .iter()
            .map(|reference| {
                let place = format!("{}/{}", reference["subject"].as_str().unwrap(), reference["version"]);
                let text = self.0["subjects"][place]["schema"].as_str().unwrap().to_owned();
                Reference { name: reference["name"].as_str().unwrap().to_owned(), text }
            })
            .collect();
        Ok(SchemaText { format, text, references })
    }
}

fn decoder() -> &'static (tokio::runtime::Runtime, RegistryDecoder) {
    static DECODER: OnceLock<(tokio::runtime::Runtime, RegistryDecoder)> = OnceLock::new();
    DECODER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        (runtime, RegistryDecoder::new(Arc::new(Memory(golden()["registry"].clone()))))
    })
}

/// Decodes in each format; a panic within would be told as one.
fn check(value: &[u8]) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (runtime, decoder) = decoder();
    for format in [Format::Avro, Format::Protobuf, Format::JsonSchema] {
        let decoded = runtime.block_on(decode(decoder, format, &record(value, vec![])));
        assert!(!format!("{decoded:?}").contains("broke the reader"), "{decoded:?}");
    }
}

fn golden_values() -> Vec<(Format, Vec<u8>)> {
    let hex =
        |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let golden = golden();
    let records = golden["records"].as_array().unwrap();
    let plain = records.iter().filter(|record| record["headers"].as_object().unwrap().is_empty());
    plain.map(|record| (format(record["format"].as_str().unwrap()), hex(record["value"].as_str().unwrap()))).collect()
}

proptest! {
    #[test]
    fn random_bytes_break_nothing(id in 0..13u32, body: Vec<u8>) {
        check(&framed(id, &body));
        check(&body);
    }

    #[test]
    fn changed_records_break_nothing(
        which in 0..6usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        extra: Vec<u8>,
    ) {
        let values = golden_values();
        let (_, mut value) = values[which % values.len()].clone();
        for (place, byte) in changes {
            let place = place.index(value.len() - 5) + 5;
            value[place] = byte;
        }
        check(&value);
        value.truncate(cut.index(value.len()).max(5));
        check(&value);
        value.extend(&extra);
        check(&value);
    }
}

#[test]
fn records_that_were_not_changed_are_read() {
    let (runtime, decoder) = decoder();
    let values = golden_values();
    assert_eq!(values.len(), 6);
    for (format, value) in values {
        let mut record = record(&value, vec![]);
        record.key = Some(Bytes::new());
        runtime.block_on(decode(decoder, format, &record)).unwrap();
    }
}
