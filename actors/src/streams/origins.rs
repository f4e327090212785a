//! Which topic a name stands for, asked again before records become durable.
//!
//! A topic can be deleted and made anew between two fetches, and then its offsets mean other records although nothing
//! else tells. An answer counts only for those who had asked before the question was put, so that it is never older than
//! the records that it is about. Used by the streams of a node.

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use motet_broker::BrokerError;
use motet_broker::port::Broker;
use tokio::sync::Mutex;

/// When a question was put, and what was answered.
type Answer = (Instant, Result<Arc<str>, BrokerError>);

/// Questions by topic, one at a time for each.
#[derive(Debug, Default)]
pub(super) struct Origins {
    topics: DashMap<Arc<str>, Arc<Mutex<Option<Answer>>>>,
}

impl Origins {
    /// What the topic is, by a question put after this call. Callers that wait share one question.
    pub(super) async fn ask(&self, broker: &dyn Broker, topic: &str) -> Result<Arc<str>, BrokerError> {
        let asked = Instant::now();
        let known = match self.topics.get(topic) {
            Some(known) => Arc::clone(&known),
            None => Arc::clone(&self.topics.entry(topic.into()).or_default()),
        };
        let mut last = known.lock().await;
        if let Some((put, answer)) = &*last
            && *put >= asked
        {
            return answer.clone();
        }
        let put = Instant::now();
        let answer = broker.origin(topic).await.map(Arc::from);
        *last = Some((put, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use motet_broker::memory::MemoryBroker;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_never_older_than_its_question() {
        let (origins, broker) = (Origins::default(), MemoryBroker::new());
        assert!(matches!(origins.ask(&broker, "a").await, Err(BrokerError::UnknownTopic { .. })));
        broker.create("a", 1);
        let first = origins.ask(&broker, "a").await.unwrap();
        assert_eq!(origins.ask(&broker, "a").await.unwrap(), first);
        broker.delete("a");
        broker.create("a", 1);
        assert_ne!(origins.ask(&broker, "a").await.unwrap(), first);
        let (one, other) = tokio::join!(origins.ask(&broker, "a"), origins.ask(&broker, "a"));
        assert_eq!(one.unwrap(), other.unwrap());
    }
}
