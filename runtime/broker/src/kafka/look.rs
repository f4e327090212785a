//! Looks at the topics that are read: whether they are still the same ones, and still hold what is to be read.
//!
//! The questions are asked on their own thread; what they find stops the partition and is told as an event. Needed
//! since librdkafka says that something is not there, but not what. Used by the poll thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::query::{Asking, Questions};
use super::seat::{Reading, Shared};
use crate::BrokerError;
use crate::port::{Bounds, Place, SourceEvent};

/// Looks are this far apart at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Without a reason there is a look this often: a topic that was made anew may have grown past the position meanwhile,
/// and then nothing else would tell.
const ROUTINE: Duration = Duration::from_secs(30);

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Depth {
    /// Whether the topics are the same ones.
    Origins,
    /// Whether positions are within what the partitions hold, too.
    Bounds,
}

/// When to look next.
pub(super) struct Look {
    shared: Arc<Shared>,
    questions: Questions,
    due: Instant,
    depth: Depth,
    last: Option<Instant>,
}

/// What a look begins with.
type Seen = BTreeMap<Arc<str>, Vec<(Place, i64, Option<String>)>>;

impl Look {
    pub(super) fn new(shared: Arc<Shared>, questions: Questions) -> Self {
        Self { shared, questions, due: Instant::now() + ROUTINE, depth: Depth::Origins, last: None }
    }

    /// Something is odd: looks as soon as the last look is long enough ago.
    pub(super) fn soon(&mut self, depth: Depth) {
        let now = Instant::now();
        let earliest = self.last.map_or(now, |last| (last + PAUSE).max(now));
        self.due = self.due.min(earliest);
        self.depth = self.depth.max(depth);
    }

    /// Looks when it is time.
    pub(super) fn when_due(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        let depth = std::mem::replace(&mut self.depth, Depth::Origins);
        (self.last, self.due) = (Some(now), now + ROUTINE);
        let mut seen = Seen::new();
        for (place, seat) in &*self.shared.seats() {
            if let Some(next) = seat.next {
                let topic = Arc::clone(&place.topic);
                seen.entry(topic).or_default().push((place.clone(), next, seat.origin.clone()));
            }
        }
        if seen.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        if self.questions.post(move |asking| look(asking, &shared, seen, depth)).is_err() {
            self.depth = depth;
            self.due = now + PAUSE;
        }
    }
}

fn look(asking: &Asking, shared: &Shared, seen: Seen, depth: Depth) {
    for (topic, places) in seen {
        let origin = match asking.origin(&topic) {
            Ok(origin) => origin,
            Err(BrokerError::UnknownTopic { .. }) => {
                places.iter().for_each(|(place, ..)| gone(shared, place, "the topic was deleted"));
                continue;
            }
            // Nobody answers: whoever reads is told so elsewhere, and the next look comes.
            Err(_) => continue,
        };
        for (place, position, known) in places {
            match known {
                Some(known) if known != origin => {
                    gone(shared, &place, "the topic was deleted and another one of its name was created");
                    continue;
                }
                Some(_) => {}
                None => {
                    if let Some(seat) = shared.seats().get_mut(&place) {
                        seat.origin.get_or_insert_with(|| origin.clone());
                    }
                }
            }
            if depth == Depth::Bounds {
                compare(asking, shared, &place, position);
            }
        }
    }
}

fn compare(asking: &Asking, shared: &Shared, place: &Place, position: i64) {
    match asking.bounds(place) {
        // What librdkafka complained about is over, and it has stopped reading: it begins again where it was.
        Ok(bounds) if bounds.contain(position) => {
            let here = shared.seats().get(place).is_some_and(|seat| seat.next == Some(position));
            if here {
                shared.wish(place, |wish| wish.reading = wish.reading.or(Some(Reading::From(position))));
            }
        }
        Ok(Bounds { low, high }) => {
            let place = place.clone();
            stop(shared, &place.clone(), SourceEvent::OutOfRange { place, position, low, high });
        }
        Err(BrokerError::UnknownTopic { .. } | BrokerError::UnknownPartition { .. }) => {
            gone(shared, place, "the partition does not exist any more");
        }
        Err(error) => shared.mailbox.push(SourceEvent::Trouble(format!("{place}: {error}"))),
    }
}

fn gone(shared: &Shared, place: &Place, reason: &str) {
    stop(shared, place, SourceEvent::Gone { place: place.clone(), reason: reason.to_owned() });
}

/// Stops reading a partition that is still being read, and tells why.
fn stop(shared: &Shared, place: &Place, event: SourceEvent) {
    let reads = shared.seats().get(place).is_some_and(|seat| seat.next.is_some());
    if reads {
        shared.wish(place, |wish| wish.reading = Some(Reading::Halted));
        shared.mailbox.push(event);
    }
}
