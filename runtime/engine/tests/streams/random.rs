//! Records at random: whatever bytes come, the verdict comes soon, is the same again, and can be acted on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use motet_engine::definition::{LetterHeaders, StreamDefinition};
use motet_engine::id::Namespace;
use motet_engine::stream::{Incoming, Letter, MAX_LETTER_MESSAGE, Verdict, letter_headers, undecoded};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;

use crate::{NOW, look, stream, workflow};

/// No single record may take longer, in the slowest profile on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

const BODIES: [&str; 7] = [
    "",
    "format: text",
    "format: {value: bytes, key: json}\ninput: {k: '${ key }', n: '${ size(value) }'}",
    "format: avro",
    "filter: '${ has(value.a) && value.a == 1 }'\nordering: '${ value.a }'",
    "input: {all: ['${ value }', '${ key }', '${ headers }', '${ record }', '${ event }']}\nordering: key",
    "filter: '${ event != null }'\ninput: 'id ${ event.id }: ${ value }'\nordering: partition",
];

const NAMES: [&str; 16] = [
    "content-type",
    "ce_id",
    "ce_source",
    "ce_specversion",
    "ce_type",
    "ce_traceparent",
    "ce_",
    "traceparent",
    "idempotency-key",
    "correlation-id",
    "kafka_correlationId",
    "kafka_replyTopic",
    "__connect.errors.topic",
    "kafka_dlt-exception-message",
    "",
    "x",
];

const VALUES: [&str; 14] = [
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "text/plain",
    "application/octet-stream",
    "1.0",
    "7",
    "",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "{\"specversion\": \"1.0\", \"id\": \"7\", \"source\": \"/s\", \"type\": \"t\", \"data\": {\"a\": 1}}",
    "{\"specversion\": \"1.0\", \"id\": \"7\", \"source\": \"/s\", \"type\": \"t\", \"data_base64\": \"aGk=\"}",
    "{\"a\": 1}",
    "[[[[1, null, \"x\"]]]]",
    "\u{feff}{}",
];

fn bytes() -> impl Strategy<Value = Bytes> {
    let open = select(vec!["[", "{\"a\":", "[{\"a\":", "\"", "[1,", "{\"specversion\":\"1.0\",\"data\":"]);
    prop_oneof![
        select(&VALUES[..]).prop_map(|text| Bytes::from_static(text.as_bytes())),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        (open, 0usize..4_000).prop_map(|(open, depth)| open.repeat(depth).into()),
        ".{0,60}".prop_map(Bytes::from),
        (select(&VALUES[..]), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.as_bytes().to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.into()
        }),
    ]
}

fn record() -> impl Strategy<Value = Incoming> {
    let name = prop_oneof![4 => select(&NAMES[..]).prop_map(str::to_owned), 1 => ".{0,12}"];
    let headers = proptest::collection::vec((name, of(bytes())), 0..8);
    let value = weighted(0.95, bytes());
    (any::<i32>(), any::<i64>(), of(any::<i64>()), of(bytes()), value, headers).prop_map(
        |(partition, offset, timestamp, key, value, headers)| Incoming {
            topic: "in".into(),
            partition,
            offset,
            timestamp,
            key,
            value,
            headers,
        },
    )
}

fn config() -> ProptestConfig {
    let cases = std::env::var("MOTET_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4096u32);
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/proptest-regressions/streams.txt"))),
        max_shrink_time: 10_000,
        ..ProptestConfig::default()
    }
}

fn check(definition: &StreamDefinition, record: &Incoming) {
    let begun = Instant::now();
    let _ = undecoded(definition, record);
    let verdict = look(definition, record, None);
    assert_eq!(verdict, look(definition, record, None), "not the same again");
    match verdict {
        Verdict::Start(start) => {
            // What was admitted must fit into a journal that can be read again.
            let packed = rmp_serde::to_vec_named(&start.source).unwrap();
            assert_eq!(rmp_serde::from_slice::<motet_engine::stream::Source>(&packed).unwrap(), *start.source);
            let packed = rmp_serde::to_vec_named(&start.input).unwrap();
            assert!(packed.len() <= 16 << 20);
            let workflow = workflow("steps: {a: {call: model, model: m, with: {}}}");
            let (id, order) = (start.id, start.order);
            let (run, _) = start.begin(&Namespace::default(), &workflow, NOW, 64).unwrap();
            assert_eq!((run.id(), run.state().holds_line()), (id, order.is_some()));
        }
        Verdict::Skip(_) => {}
        Verdict::Dead(reason) => {
            assert!(!reason.class.is_empty() && !reason.message.is_empty());
            let letter = Letter {
                stream: "orders",
                group: "g",
                topic: &record.topic,
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                stage: reason.stage.as_str(),
                class: &reason.class,
                message: &reason.message,
                headers: &record.headers,
            };
            let headers = letter_headers(&letter, LetterHeaders::Both);
            let told = headers.iter().find(|(name, _)| name == "__connect.errors.exception.message").unwrap();
            assert!(told.1.as_ref().is_some_and(|message| message.len() <= MAX_LETTER_MESSAGE));
        }
    }
    assert!(begun.elapsed() < LONGEST, "took {:?}: {record:?}", begun.elapsed());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_record_has_a_verdict(body in select(&BODIES[..]), record in record()) {
        check(&stream(body), &record);
    }
}
