//! A broker in front of another one, one of whose transactions meets a fault; and a place where a sender stands still.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use motet_broker::BrokerError;
use motet_broker::port::{
    Bounds, Broker, Delivered, Outgoing, Place, RecordSink, RecordSource, SinkSettings, SourceSettings, Start,
    TransactionSettings, TransactionalSink,
};
use motet_engine::id::ShardId;
use motet_store::port::Store;
use tokio::sync::Semaphore;

use crate::world::PATIENCE;

/// What happens to a transaction.
#[derive(Clone)]
pub(crate) enum Fault {
    /// It is committed, and nobody hears of it.
    Silence,
    /// It is committed, and told as if that were not known.
    Doubt,
    /// Nothing of it is done, and told as if that were not known.
    Loss,
    /// It is committed, and the first shard has another owner before that is told.
    Claimed(Arc<dyn Store>),
    /// Whoever sends it stands still before it begins, until he is let go.
    Standing,
}

/// What is known of the fault.
struct Course {
    fault: Mutex<Option<Fault>>,
    met: Semaphore,
    go: Semaphore,
    /// What became of the one who stood still.
    outcome: Mutex<Option<BrokerError>>,
    over: Semaphore,
}

/// A broker whose next transaction meets a fault.
#[derive(Clone)]
pub(crate) struct FaultyBroker {
    inner: Arc<dyn Broker>,
    course: Arc<Course>,
}

impl FaultyBroker {
    pub(crate) fn new(inner: Arc<dyn Broker>, fault: Fault) -> Self {
        let closed = || Semaphore::new(0);
        let (fault, outcome) = (Mutex::new(Some(fault)), Mutex::default());
        Self { inner, course: Arc::new(Course { fault, met: closed(), go: closed(), outcome, over: closed() }) }
    }

    /// Resolves when the fault has come to pass.
    pub(crate) async fn met(&self) {
        tokio::time::timeout(PATIENCE, self.course.met.acquire()).await.unwrap().unwrap().forget();
    }

    /// Lets the one who stands still go on; the error that he meets.
    pub(crate) async fn let_go(&self) -> Option<BrokerError> {
        self.course.go.add_permits(1);
        tokio::time::timeout(PATIENCE, self.course.over.acquire()).await.unwrap().unwrap().forget();
        self.course.outcome.lock().unwrap().take()
    }
}

struct FaultySink {
    inner: Box<dyn TransactionalSink>,
    course: Arc<Course>,
    usable: bool,
}

#[async_trait]
impl TransactionalSink for FaultySink {
    fn position(&self) -> Option<i64> {
        self.inner.position()
    }

    async fn send(&mut self, records: Vec<Outgoing>, position: i64) -> Result<Vec<Delivered>, BrokerError> {
        let fault = self.course.fault.lock().unwrap().take();
        let unknown = || Err(BrokerError::Unavailable("the connection broke".to_owned()));
        match fault {
            None => self.inner.send(records, position).await,
            Some(Fault::Silence) => {
                self.inner.send(records, position).await.unwrap();
                self.course.met.add_permits(1);
                std::future::pending().await
            }
            Some(Fault::Doubt) => {
                self.inner.send(records, position).await.unwrap();
                (self.usable, _) = (false, self.course.met.add_permits(1));
                unknown()
            }
            Some(Fault::Loss) => {
                (self.usable, _) = (false, self.course.met.add_permits(1));
                unknown()
            }
            Some(Fault::Claimed(store)) => {
                let delivered = self.inner.send(records, position).await.unwrap();
                store.claim(ShardId(0), "another").await.unwrap();
                self.course.met.add_permits(1);
                Ok(delivered)
            }
            Some(Fault::Standing) => {
                self.course.met.add_permits(1);
                self.course.go.acquire().await.unwrap().forget();
                let outcome = self.inner.send(records, position).await;
                *self.course.outcome.lock().unwrap() = outcome.as_ref().err().cloned();
                self.course.over.add_permits(1);
                outcome
            }
        }
    }

    fn is_usable(&self) -> bool {
        self.usable && self.inner.is_usable()
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Broker for FaultyBroker {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn subscribe(&self, settings: SourceSettings) -> Result<Box<dyn RecordSource>, BrokerError> {
        self.inner.subscribe(settings).await
    }

    async fn sink(&self, settings: SinkSettings) -> Result<Arc<dyn RecordSink>, BrokerError> {
        self.inner.sink(settings).await
    }

    async fn transactional_sink(
        &self,
        settings: TransactionSettings,
    ) -> Result<Box<dyn TransactionalSink>, BrokerError> {
        let inner = self.inner.transactional_sink(settings).await?;
        Ok(Box::new(FaultySink { inner, course: Arc::clone(&self.course), usable: true }))
    }

    async fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError> {
        self.inner.offset_for(place, start).await
    }

    async fn bounds(&self, place: &Place) -> Result<Bounds, BrokerError> {
        self.inner.bounds(place).await
    }

    async fn origin(&self, topic: &str) -> Result<String, BrokerError> {
        self.inner.origin(topic).await
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        self.inner.partitions(topic).await
    }
}
