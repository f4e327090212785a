//! A source with somebody who reads it: begins what it is given, remembers what came.
//!
//! Used by the checks of the contract, and by tests elsewhere that look into topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;

use super::PATIENCE;
use crate::BrokerError;
use crate::port::{Batch, Broker, Place, Record, RecordSource, SourceEvent, SourceHandle, SourceSettings, Topics};

/// A source and what came out of it.
pub struct Reader {
    source: Option<Box<dyn RecordSource>>,
    /// What steers the source.
    pub handle: Arc<dyn SourceHandle>,
    /// Where each partition is begun when it is given; those that are missing are not begun.
    pub begins: BTreeMap<Place, i64>,
    /// What is had now.
    pub places: Vec<Place>,
    /// Records by partition, in the order in which they came.
    pub records: BTreeMap<Place, Vec<Record>>,
    /// Where reading of each partition goes on.
    pub next: BTreeMap<Place, i64>,
    /// Batches that are held back, so that their credit does not return.
    pub held: Vec<Batch>,
    /// Whether batches are held back.
    pub holds: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("places", &self.places).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Reader {
    /// Joins a group.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn join(broker: &Arc<dyn Broker>, settings: SourceSettings) -> Self {
        let source = broker.subscribe(settings).await.unwrap();
        let handle = source.handle();
        let (begins, records, next) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (places, held) = (vec![], vec![]);
        Self { source: Some(source), handle, begins, places, records, next, held, holds: false }
    }

    /// Joins a group for one topic, and begins each of its partitions at 0.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn of(broker: &Arc<dyn Broker>, group: &str, topic: &str, partitions: i32) -> Self {
        let mut reader = Self::join(broker, SourceSettings::new(group, Topics::Named(vec![topic.to_owned()]))).await;
        reader.begins = (0..partitions).map(|partition| (Place::new(topic, partition), 0)).collect();
        reader
    }

    /// The next event, which is remembered and acted upon; the event itself when it is neither records nor of the
    /// group nor a passing trouble.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn step(&mut self) -> Option<SourceEvent> {
        let source = self.source.as_mut().unwrap();
        let event = timeout(PATIENCE, source.next()).await.expect("an event comes");
        self.note(event)
    }

    fn note(&mut self, event: SourceEvent) -> Option<SourceEvent> {
        match event {
            SourceEvent::Assigned(places) => {
                for place in &places {
                    if let Some(offset) = self.next.get(place).or_else(|| self.begins.get(place)) {
                        self.handle.begin(place, *offset);
                    }
                }
                self.places.extend(places);
            }
            SourceEvent::Revoked { places, .. } => self.places.retain(|place| !places.contains(place)),
            SourceEvent::Records(mut batch) => {
                let known = self.records.entry(batch.place.clone()).or_default();
                known.extend(batch.records.iter().cloned());
                self.next.insert(batch.place.clone(), batch.next);
                if self.holds {
                    batch.records.clear();
                    self.held.push(batch);
                }
            }
            SourceEvent::Trouble(_) => {}
            other => return Some(other),
        }
        None
    }

    /// Takes what comes until something holds.
    ///
    /// # Panics
    /// When it does not in time, or when reading stops.
    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {self:?}");
            let source = self.source.as_mut().unwrap();
            if let Ok(event) = timeout(PATIENCE, source.next()).await
                && let Some(end) = self.note(event)
            {
                panic!("{end:?} came instead of {what}");
            }
        }
    }

    /// Takes what has come already, and waits a moment for more.
    ///
    /// # Panics
    /// When reading stops.
    pub async fn drain(&mut self, moment: std::time::Duration) {
        while let Ok(event) = timeout(moment, self.source.as_mut().unwrap().next()).await {
            if let Some(end) = self.note(event) {
                panic!("{end:?} came");
            }
        }
    }

    /// Takes what comes until an event that stops reading.
    pub async fn stop(&mut self) -> SourceEvent {
        loop {
            if let Some(event) = self.step().await {
                return event;
            }
        }
    }

    /// How many records of a partition came.
    #[must_use]
    pub fn count(&self, place: &Place) -> usize {
        self.records.get(place).map_or(0, Vec::len)
    }

    /// The values of a partition's records, as text.
    #[must_use]
    pub fn values(&self, place: &Place) -> Vec<String> {
        let text = |record: &Record| record.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        self.records.get(place).into_iter().flatten().filter_map(text).collect()
    }

    /// Leaves the group.
    pub async fn close(&mut self) {
        if let Some(source) = self.source.take() {
            source.close().await;
        }
    }

    /// Why nothing comes any more.
    ///
    /// # Panics
    /// When it is not the end.
    pub async fn end(&mut self) -> BrokerError {
        match self.stop().await {
            SourceEvent::Ended(error) => error,
            other => panic!("{other:?} is not the end"),
        }
    }
}
