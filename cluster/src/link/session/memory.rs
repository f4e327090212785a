//! What a session remembers of the envelopes that it took: which run, and how the others were answered.
//!
//! An envelope that comes again is never handled again: it gets the remembered answer, or a failure that says that the
//! answer is gone. Bounded in entries and bytes; the sender tells which answers it has, and those are forgotten. Used
//! by the session.

use std::collections::{BTreeMap, VecDeque};

use crate::envelope::Answer;
use crate::link::Capacity;

/// What is known of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// It is new.
    Never,
    /// It waits or is being handled.
    Running,
    /// It was answered so.
    Answered(Answer),
    /// It was answered, or the sender has given it up; the answer is gone.
    Forgotten,
}

#[derive(Debug)]
enum Entry {
    Running,
    Answered(Answer),
    Gone,
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    most: Capacity,
    entries: BTreeMap<u64, Entry>,
    /// Ids with an answer of which bytes are held, oldest first; may name some that are settled.
    heavy: VecDeque<u64>,
    bytes: usize,
    /// Lower ids without an entry were taken once.
    below: u64,
}

impl Memory {
    pub(crate) fn new(most: Capacity) -> Self {
        Self { most, entries: BTreeMap::new(), heavy: VecDeque::new(), bytes: 0, below: 0 }
    }

    /// Entries and bytes that are held.
    pub(crate) fn held(&self) -> Capacity {
        Capacity { envelopes: self.entries.len(), bytes: self.bytes }
    }

    pub(crate) fn look(&self, id: u64) -> Seen {
        match self.entries.get(&id) {
            Some(Entry::Running) => Seen::Running,
            Some(Entry::Answered(answer)) => Seen::Answered(answer.clone()),
            Some(Entry::Gone) => Seen::Forgotten,
            None if id < self.below => Seen::Forgotten,
            None => Seen::Never,
        }
    }

    /// An envelope was taken.
    pub(crate) fn begin(&mut self, id: u64) {
        self.entries.insert(id, Entry::Running);
    }

    /// It was answered. Nothing is kept of one that the sender has settled meanwhile.
    pub(crate) fn end(&mut self, id: u64, answer: Answer) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let bytes = answer.bytes();
        *entry = Entry::Answered(answer);
        if bytes > 0 {
            self.bytes += bytes;
            self.heavy.push_back(id);
        }
        self.make_room();
    }

    /// The sender has every answer below an id.
    pub(crate) fn settle(&mut self, below: u64) {
        self.below = self.below.max(below);
        while let Some(first) = self.entries.first_entry().filter(|first| *first.key() < below) {
            if let Entry::Answered(answer) = first.remove() {
                self.bytes -= answer.bytes();
            }
        }
        while self.heavy.front().is_some_and(|id| *id < below) {
            self.heavy.pop_front();
        }
    }

    fn make_room(&mut self) {
        while self.bytes > self.most.bytes {
            let Some(id) = self.heavy.pop_front() else { return };
            if let Some(entry) = self.entries.get_mut(&id)
                && let Entry::Answered(answer) = entry
            {
                self.bytes -= answer.bytes();
                *entry = Entry::Gone;
            }
        }
        if self.entries.len() <= self.most.envelopes {
            return;
        }
        // An eighth at a time: a long request at the beginning must not make every later one look at all of them.
        let some = self.entries.len() - self.most.envelopes + self.most.envelopes / 8;
        let ended = self.entries.iter().filter(|(_, entry)| !matches!(entry, Entry::Running));
        let oldest: Vec<_> = ended.map(|(id, _)| *id).take(some).collect();
        for id in oldest {
            self.below = self.below.max(id + 1);
            if let Some(Entry::Answered(answer)) = self.entries.remove(&id) {
                self.bytes -= answer.bytes();
            }
        }
        // Ids of entries that are gone would gather behind one that is not settled for long.
        let entries = &self.entries;
        self.heavy.retain(|id| entries.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer::Ack(Bytes::from(vec![7; bytes]))
    }

    #[test]
    fn an_envelope_that_comes_again_is_known() {
        let mut memory = Memory::new(Capacity { envelopes: 8, bytes: 100 });
        assert_eq!(memory.look(1), Seen::Never);
        memory.begin(1);
        assert_eq!(memory.look(1), Seen::Running);
        memory.end(1, answer(3));
        assert_eq!(memory.look(1), Seen::Answered(answer(3)));
        memory.settle(2);
        assert_eq!(memory.look(1), Seen::Forgotten);
        assert_eq!(memory.held(), Capacity::default());
    }

    #[test]
    fn what_the_sender_gave_up_is_not_kept() {
        let mut memory = Memory::new(Capacity { envelopes: 8, bytes: 100 });
        memory.begin(1);
        memory.settle(5);
        memory.end(1, answer(50));
        assert_eq!((memory.look(1), memory.held()), (Seen::Forgotten, Capacity::default()));
    }

    #[test]
    fn bytes_go_first_and_the_knowledge_stays() {
        let mut memory = Memory::new(Capacity { envelopes: 8, bytes: 100 });
        for id in 1..=3 {
            memory.begin(id);
            memory.end(id, answer(40));
        }
        let seen: Vec<_> = (1..=4).map(|id| memory.look(id)).collect();
        assert_eq!(seen, [Seen::Forgotten, Seen::Answered(answer(40)), Seen::Answered(answer(40)), Seen::Never]);
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice_and_the_bounds_hold(
            steps in proptest::collection::vec((0u8..4, 1u64..64, 0usize..60), 1..400),
        ) {
            let most = Capacity { envelopes: 16, bytes: 200 };
            let mut memory = Memory::new(most);
            let (mut next, mut begun, mut ended) = (1u64, 0u64, std::collections::BTreeSet::new());
            for (what, id, bytes) in steps {
                match what {
                    0 if next - begun > 0 => {
                        prop_assert_eq!(memory.look(next), Seen::Never);
                        memory.begin(next);
                        begun = next;
                        next += 1;
                    }
                    1 => {
                        // A running one ends.
                        if id < next && memory.look(id) == Seen::Running {
                            memory.end(id, answer(bytes));
                            ended.insert(id);
                        }
                    }
                    2 => memory.settle(id.min(next)),
                    _ => prop_assert!(id >= next || memory.look(id) != Seen::Never, "{} came again as new", id),
                }
                let running = (1..next).filter(|id| memory.look(*id) == Seen::Running).count();
                prop_assert!(memory.held().bytes <= most.bytes);
                prop_assert!(memory.held().envelopes <= most.envelopes + running);
            }
        }
    }
}
