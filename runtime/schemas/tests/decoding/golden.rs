//! Records that Confluent's Python client has written (`golden/make.py`) are the values that it was given.

use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::stream::Undecoded;
use motet_schemas::contract::RegistryServer;
use motet_schemas::port::RecordDecoder as _;
use serde_json::Value as Json;

use super::{decode, decoder, format, framed, record};

pub(super) fn golden() -> Json {
    serde_json::from_str(include_str!("../golden/records.json")).unwrap()
}

fn bytes(hex: &Json) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn what_clients_write_is_read() {
    let golden = golden();
    let server = RegistryServer::start(golden["registry"].clone()).await;
    let decoder = decoder(&server);
    let records = golden["records"].as_array().unwrap();
    assert!(records.len() >= 8);
    for golden in records.iter().chain(records) {
        let header = |(name, value): (&String, &Json)| (name.clone(), Some(Bytes::from(bytes(value))));
        let headers = golden["headers"].as_object().unwrap().iter().map(header).collect();
        let record = record(&bytes(&golden["value"]), headers);
        let decoded = decode(&decoder, format(golden["format"].as_str().unwrap()), &record).await;
        let found = decoded.unwrap_or_else(|error| panic!("{}: {error:?}", golden["name"])).value.unwrap().to_json();
        assert_eq!(found, golden["expected"], "{}", golden["name"]);
    }
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    let count = |path: &str| asked.iter().filter(|asked| asked.starts_with(path)).count();
    assert_eq!(count("/schemas/"), records.len(), "each schema is asked for once: {asked:?}");
    assert!(asked.contains(&"/subjects/golden%2Fmoney.proto/versions/1?deleted=true".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn keys_have_schemas_of_their_own() {
    let server = RegistryServer::start(golden()["registry"].clone()).await;
    let mut record = record(&framed(5, b"\x02v"), vec![]);
    record.key = Some(Bytes::from(framed(5, b"\x02k")));
    let both = Undecoded { key: Some(Format::Avro), value: Some(Format::Avro) };
    let decoded = decoder(&server).decode(both, &record).await.unwrap();
    assert_eq!((decoded.key, decoded.value), (Some("k".into()), Some("v".into())));
}
