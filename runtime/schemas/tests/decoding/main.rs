//! Records as real clients write them, through a real registry, to values; and what happens where that goes wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

mod faults;
mod golden;
mod random;
mod registry;

use std::sync::Arc;

use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::stream::{Decoded, Headers, Incoming, Undecoded};
use motet_schemas::RegistryDecoder;
use motet_schemas::contract::RegistryServer;
use motet_schemas::port::{RecordDecoder as _, Undecided};
use motet_schemas::registry::{ConfluentRegistry, RegistrySettings};

/// What a client needs to reach a registry that lets everybody in.
fn settings(url: &str) -> RegistrySettings {
    RegistrySettings { url: url.to_owned(), user: None, password: None, authority: None }
}

fn decoder(server: &RegistryServer) -> RegistryDecoder {
    RegistryDecoder::new(Arc::new(ConfluentRegistry::new(settings(server.url())).unwrap()))
}

fn record(value: &[u8], headers: Headers) -> Incoming {
    Incoming {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        timestamp: None,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers,
    }
}

async fn decode(decoder: &RegistryDecoder, format: Format, incoming: &Incoming) -> Result<Decoded, Undecided> {
    decoder.decode(Undecoded { key: None, value: Some(format) }, incoming).await
}

/// Bytes behind the number of their schema.
fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

fn format(name: &str) -> Format {
    let formats = [Format::Avro, Format::Protobuf, Format::JsonSchema];
    formats.into_iter().find(|format| format.as_str() == name).unwrap()
}
