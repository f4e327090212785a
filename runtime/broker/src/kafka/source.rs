//! A member of a Kafka group: its settings for librdkafka, its thread, its end.
//!
//! Never lets librdkafka keep or reset a position. Used through the port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::poll::Poller;
use super::properties::Scope;
use super::query::Questions;
use super::rebalance::SourceContext;
use super::seat::{KafkaHandle, Shared};
use super::settings::{KafkaSettings, explain};
use crate::BrokerError;
use crate::pattern::Pattern;
use crate::port::{GroupProtocol, RecordSource, SourceEvent, SourceHandle, SourceSettings, Topics};

/// Longest name of a topic.
const TOPIC_NAME: usize = 249;

/// A member of a group.
pub(super) struct KafkaSource {
    shared: Arc<Shared>,
    leave_within: Duration,
}

impl KafkaSource {
    /// Joins the group. Blocks for as long as it takes to make a client, which does not wait for brokers.
    pub(super) fn open(
        cluster: &KafkaSettings,
        settings: SourceSettings,
        questions: Questions,
    ) -> Result<Self, BrokerError> {
        let topics = subscription(&settings)?;
        let config = config(cluster, &settings)?;
        let shared = Shared::new(&settings);
        let context = SourceContext::new(Arc::clone(&shared));
        let mut consumer: BaseConsumer<SourceContext> =
            config.create_with_context(context).map_err(|error| explain(&error))?;
        let waking = Arc::downgrade(&shared);
        consumer.set_nonempty_callback(move || {
            if let Some(shared) = waking.upgrade() {
                shared.wake();
            }
        });
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| BrokerError::Setting(format!("{names:?}: {error}")))?;
        let poller = Poller::new(consumer, Arc::clone(&shared), questions, settings.group);
        std::thread::Builder::new()
            .name("motet-kafka-source".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| BrokerError::Unavailable(format!("no thread can be started: {error}")))?;
        Ok(Self { shared, leave_within: settings.leave_within })
    }
}

/// What librdkafka subscribes to.
fn subscription(settings: &SourceSettings) -> Result<Vec<String>, BrokerError> {
    if settings.group.is_empty() {
        return Err(BrokerError::Setting("the group has no name".to_owned()));
    }
    match &settings.topics {
        Topics::Named(names) if names.is_empty() => Err(BrokerError::Setting("no topic is named".to_owned())),
        Topics::Named(names) => {
            for name in names {
                let legal = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '_' | '-');
                if name.is_empty() || name.len() > TOPIC_NAME || !name.chars().all(legal) {
                    return Err(BrokerError::Setting(format!(
                        "no topic can be called '{}': letters, digits, '.', '_' and '-', at most {TOPIC_NAME}",
                        name.escape_debug()
                    )));
                }
            }
            Ok(names.clone())
        }
        Topics::Pattern(pattern) => Ok(vec![Pattern::new(pattern)?.text]),
    }
}

fn config(cluster: &KafkaSettings, settings: &SourceSettings) -> Result<ClientConfig, BrokerError> {
    let mut config = ClientConfig::new();
    // What may be changed comes first, what must be as it is comes last.
    for (name, value) in [
        // The queue is bounded by credit further up; one that is full must not make the fetcher sleep for a second.
        ("queued.max.messages.kbytes", "65536"),
        ("queued.min.messages", "20000"),
        ("fetch.queue.backoff.ms", "10"),
        ("check.crcs", "true"),
        ("max.poll.interval.ms", "300000"),
        ("topic.metadata.refresh.interval.ms", "60000"),
    ] {
        config.set(name, value);
    }
    cluster.settle(&mut config, Scope::Reading);
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Info);
    for (name, value) in [
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("allow.auto.create.topics", "false"),
        // Asked for since it keeps high watermarks fresh, also of partitions that rest.
        ("statistics.interval.ms", "5000"),
    ] {
        config.set(name, value);
    }
    config.set("group.id", &settings.group);
    if let Some(instance) = &settings.instance {
        config.set("group.instance.id", instance);
    }
    if matches!(settings.topics, Topics::Pattern(_)) {
        config.set("topic.blacklist", "^__.*");
    }
    match settings.protocol {
        GroupProtocol::Classic => {
            let session = settings.session.as_millis().clamp(1, 3_600_000);
            config.set("group.protocol", "classic").set("partition.assignment.strategy", "cooperative-sticky");
            config.set("session.timeout.ms", session.to_string());
            if config.get("heartbeat.interval.ms").is_none() {
                config.set("heartbeat.interval.ms", (session / 10).clamp(1, 3000).to_string());
            }
        }
        GroupProtocol::Consumer => {
            if config.get("heartbeat.interval.ms").is_some() {
                return Err(BrokerError::Setting(
                    "kafka.properties has 'heartbeat.interval.ms', which the brokers decide under the group protocol \
                     'consumer'; remove it, or use the protocol 'classic'"
                        .to_owned(),
                ));
            }
            config.set("group.protocol", "consumer");
        }
    }
    Ok(config)
}

#[async_trait]
impl RecordSource for KafkaSource {
    async fn next(&mut self) -> SourceEvent {
        self.shared.mailbox.next().await
    }

    fn handle(&self) -> Arc<dyn SourceHandle> {
        Arc::new(KafkaHandle(Arc::clone(&self.shared)))
    }

    async fn close(self: Box<Self>) {
        let mut ended = self.shared.ended.subscribe();
        self.shared.close();
        // The thread goes on by itself when it takes longer.
        if tokio::time::timeout(self.leave_within, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("leaving the group takes longer than {} s", self.leave_within.as_secs());
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.close();
    }
}
