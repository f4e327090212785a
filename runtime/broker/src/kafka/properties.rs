//! Which properties of librdkafka may be passed through, and which are this adapter's own.
//!
//! A list and not everything: a wrong `enable.auto.commit` would lose records without a word. Used by the settings.

use crate::BrokerError;

/// Which clients know a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// All of them.
    Any,
    /// Those that read.
    Reading,
    /// Those that write.
    Writing,
}

/// What may be passed through.
const ALLOWED: [(&str, Scope); 62] = [
    ("api.version.request.timeout.ms", Scope::Any),
    ("broker.address.family", Scope::Any),
    ("broker.address.ttl", Scope::Any),
    ("client.dns.lookup", Scope::Any),
    ("client.rack", Scope::Any),
    ("connections.max.idle.ms", Scope::Any),
    ("debug", Scope::Any),
    ("enable.metrics.push", Scope::Any),
    ("enable.ssl.certificate.verification", Scope::Any),
    ("max.in.flight", Scope::Reading),
    ("message.copy.max.bytes", Scope::Any),
    ("message.max.bytes", Scope::Any),
    ("metadata.max.age.ms", Scope::Any),
    ("metadata.recovery.rebootstrap.trigger.ms", Scope::Any),
    ("metadata.recovery.strategy", Scope::Any),
    ("reconnect.backoff.max.ms", Scope::Any),
    ("reconnect.backoff.ms", Scope::Any),
    ("receive.message.max.bytes", Scope::Any),
    ("retry.backoff.max.ms", Scope::Any),
    ("retry.backoff.ms", Scope::Any),
    ("socket.connection.setup.timeout.ms", Scope::Any),
    ("socket.keepalive.enable", Scope::Any),
    ("socket.max.fails", Scope::Any),
    ("socket.nagle.disable", Scope::Any),
    ("socket.receive.buffer.bytes", Scope::Any),
    ("socket.send.buffer.bytes", Scope::Any),
    ("socket.timeout.ms", Scope::Any),
    ("ssl.cipher.suites", Scope::Any),
    ("ssl.crl.location", Scope::Any),
    ("ssl.curves.list", Scope::Any),
    ("ssl.endpoint.identification.algorithm", Scope::Any),
    ("ssl.sigalgs.list", Scope::Any),
    ("topic.metadata.refresh.fast.interval.ms", Scope::Any),
    ("topic.metadata.refresh.interval.ms", Scope::Any),
    ("topic.metadata.refresh.sparse", Scope::Any),
    ("coordinator.query.interval.ms", Scope::Reading),
    ("fetch.error.backoff.ms", Scope::Reading),
    ("fetch.max.bytes", Scope::Reading),
    ("fetch.message.max.bytes", Scope::Reading),
    ("fetch.min.bytes", Scope::Reading),
    ("fetch.queue.backoff.ms", Scope::Reading),
    ("fetch.wait.max.ms", Scope::Reading),
    ("group.remote.assignor", Scope::Reading),
    ("heartbeat.interval.ms", Scope::Reading),
    ("max.partition.fetch.bytes", Scope::Reading),
    ("max.poll.interval.ms", Scope::Reading),
    ("queued.max.messages.kbytes", Scope::Reading),
    ("queued.min.messages", Scope::Reading),
    ("check.crcs", Scope::Reading),
    ("batch.num.messages", Scope::Writing),
    ("batch.size", Scope::Writing),
    ("compression.codec", Scope::Writing),
    ("compression.level", Scope::Writing),
    ("compression.type", Scope::Writing),
    ("max.in.flight.requests.per.connection", Scope::Writing),
    ("message.send.max.retries", Scope::Writing),
    ("partitioner", Scope::Writing),
    ("queue.buffering.backpressure.threshold", Scope::Writing),
    ("request.timeout.ms", Scope::Writing),
    ("retries", Scope::Writing),
    ("sticky.partitioning.linger.ms", Scope::Writing),
    ("topic.metadata.propagation.max.ms", Scope::Writing),
];

/// What is this adapter's own, and why or where it is set instead.
const OWNED: [(&str, &str); 44] = [
    ("acks", "a record counts as written when all brokers that must have it have it"),
    ("allow.auto.create.topics", "a topic that is not there is told, not made"),
    ("auto.commit.interval.ms", "positions are kept in the store"),
    (
        "auto.offset.reset",
        "reading begins where the store says, or at the stream's `start`; nothing is skipped silently",
    ),
    ("bootstrap.servers", "set kafka.brokers"),
    ("client.id", "set kafka.client_id"),
    ("delivery.timeout.ms", "the relay of results sets it"),
    ("enable.auto.commit", "positions are kept in the store, together with the runs that follow from them"),
    ("enable.auto.offset.store", "positions are kept in the store, together with the runs that follow from them"),
    ("enable.gapless.guarantee", "the relay of results keeps the order by itself"),
    ("enable.idempotence", "records are always written once"),
    ("enable.partition.eof", "the ends of partitions are seen by their positions"),
    ("enable.random.seed", "the process needs no other seed"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "it proves nothing"),
    ("enabled_events", "the adapter listens to what it needs"),
    ("group.id", "set `group` of the stream"),
    ("group.instance.id", "set the instance of the node"),
    ("group.protocol", "set the group protocol of the stream"),
    ("group.protocol.type", "there is no other one"),
    ("isolation.level", "records of transactions that were aborted must not begin runs"),
    ("linger.ms", "the relay of results sets it"),
    ("log.queue", "logs go to the log of the process"),
    ("log_level", "set the level of the process's log"),
    ("message.timeout.ms", "the relay of results sets it"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("partition.assignment.strategy", "members agree cooperatively"),
    ("plugin.library.paths", "no code is loaded"),
    ("queue.buffering.max.kbytes", "the relay of results bounds its queue"),
    ("queue.buffering.max.messages", "the relay of results bounds its queue"),
    ("queue.buffering.max.ms", "the relay of results sets it"),
    ("request.required.acks", "a record counts as written when all brokers that must have it have it"),
    ("sasl.mechanism", "set kafka.mechanism"),
    ("sasl.mechanisms", "set kafka.mechanism"),
    ("sasl.password", "set kafka.password"),
    ("sasl.username", "set kafka.user"),
    ("security.protocol", "set kafka.security"),
    ("session.timeout.ms", "set the session of the stream"),
    ("ssl.ca.location", "set kafka.authority"),
    ("ssl.ca.pem", "set kafka.authority"),
    ("ssl.certificate.location", "set kafka.certificate"),
    ("ssl.key.location", "set kafka.key"),
    ("ssl.key.password", "set kafka.key_password"),
    ("statistics.interval.ms", "the adapter asks for what its metrics need"),
    ("transactional.id", "the relay of results sets it"),
];

/// Whether a property may be passed through.
///
/// # Errors
/// Tells why not: it is this adapter's own, or unknown, and then which one may be meant.
pub(super) fn check(name: &str) -> Result<(), BrokerError> {
    if ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
        return Ok(());
    }
    let text = match OWNED.iter().find(|(owned, _)| *owned == name) {
        Some((_, why)) => format!("kafka.properties cannot have '{name}': {why}"),
        None => {
            let names = ALLOWED.iter().map(|(name, _)| *name).chain(OWNED.iter().map(|(name, _)| *name));
            let near = names.max_by(|one, other| near(one, name).total_cmp(&near(other, name)));
            let near = near.filter(|candidate| near_enough(candidate, name));
            let advice = near.map_or("it is not one that can be passed through".to_owned(), |near| {
                format!("did you mean '{near}'?")
            });
            format!("kafka.properties has '{}'; {advice}", name.escape_debug())
        }
    };
    Err(BrokerError::Setting(text))
}

fn near(one: &str, other: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(one, other)
}

fn near_enough(one: &str, other: &str) -> bool {
    near(one, other) > 0.6
}

/// Whether clients of this scope know a property.
pub(super) fn fits(name: &str, scope: Scope) -> bool {
    ALLOWED.iter().any(|(allowed, of)| *allowed == name && (*of == Scope::Any || *of == scope))
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    #[test]
    fn every_name_is_one_of_librdkafka() {
        let names = ALLOWED.iter().map(|(name, _)| name).chain(OWNED.iter().map(|(name, _)| name));
        for name in names {
            let mut config = ClientConfig::new();
            config.set(*name, "\u{1}");
            // Whatever it thinks of the value: a name that it does not know is told apart.
            if let Err(KafkaError::ClientConfig(outcome, why, ..)) = config.create_native_config() {
                assert_ne!(outcome, RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, "{name}: {why}");
            }
        }
    }

    #[test]
    fn no_name_is_both() {
        for (name, _) in ALLOWED {
            assert!(!OWNED.iter().any(|(owned, _)| *owned == name), "{name}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (name, part) in [
            ("enable.auto.commit", "positions are kept in the store"),
            ("auto.offset.reset", "nothing is skipped silently"),
            ("group.id", "`group` of the stream"),
            ("fetch.min.byte", "did you mean 'fetch.min.bytes'?"),
            ("enable.auto.comit", "did you mean 'enable.auto.commit'?"),
            ("zookeeper.connect", "not one that can be passed through"),
            ("", "not one that can be passed through"),
        ] {
            let refused = check(name).unwrap_err().to_string();
            assert!(refused.contains(part), "{name}: {refused}");
        }
        assert_eq!(check("client.rack"), Ok(()));
        assert!(fits("client.rack", Scope::Writing) && fits("batch.size", Scope::Writing));
        assert!(!fits("batch.size", Scope::Reading));
    }
}
