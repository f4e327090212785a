//! What is produced into a topic, and what is known of it: which record lies where.
//!
//! Used by the rows that count every offset.

use std::collections::BTreeMap;

use anyhow::Result;
use motet_tests::topics::{Topics, record};

/// A record by its place: its key's number, and its number among those of the key.
pub(super) type Produced = BTreeMap<(i32, i64), (usize, usize)>;

/// Records of many keys, each key's in order in one partition.
pub(super) struct Feed {
    topic: String,
    partitions: i32,
    /// How many records each key has.
    keys: Vec<usize>,
    pub(super) produced: Produced,
}

impl Feed {
    pub(super) fn new(topic: &str, partitions: i32, keys: usize) -> Self {
        Self { topic: topic.to_owned(), partitions, keys: vec![0; keys], produced: Produced::new() }
    }

    /// Produces so many records more, over all keys in turn.
    pub(super) async fn produce(&mut self, topics: &Topics, count: usize) -> Result<()> {
        let (mut records, mut marks) = (vec![], vec![]);
        for _ in 0..count {
            let key = (self.produced.len() + records.len()) % self.keys.len();
            let number = self.keys[key];
            self.keys[key] += 1;
            let partition = i32::try_from(key)? % self.partitions;
            let value = serde_json::json!({"text": format!("{key}/{number}"), "pad": "x".repeat(100)});
            records.push(record(&self.topic, partition, &format!("key-{key}"), value.to_string()));
            marks.push((partition, key, number));
        }
        for (delivered, (partition, key, number)) in topics.produce(records).await?.into_iter().zip(marks) {
            self.produced.insert((partition, delivered.offset), (key, number));
        }
        Ok(())
    }
}
