//! Weighted rendezvous hashing: in which order nodes may have something that some of them are to have.
//!
//! Every node gives every item a cost that depends on nothing but their names and the node's weight; the least cost
//! wins. So everybody who knows the same nodes finds the same order, a node that goes gives what it has to all others,
//! and one that comes takes from all of them. Only exact operations on floating-point numbers are used: the order is
//! the same on every machine. Used for shards, and by the actors for models.

use std::sync::Arc;

/// Something that some of the nodes are to have: a shard, a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item(u64);

impl Item {
    /// An item that has a number.
    #[must_use]
    pub fn numbered(number: u64) -> Self {
        Self(mix(number))
    }

    /// An item that has a name of several parts, none of which holds a zero byte.
    #[must_use]
    pub fn named(parts: &[&str]) -> Self {
        let hash = parts.iter().fold(FNV_OFFSET, |hash, part| fnv(fnv(hash, part.as_bytes()), &[0]));
        Self(mix(hash))
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: stable for ever, since all versions of the program must agree.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What it would cost that a node of this name and weight has an item; the least of all nodes comes first.
#[must_use]
pub fn cost(name: &str, weight: u32, item: Item) -> f64 {
    cost_of(mix(fnv(FNV_OFFSET, name.as_bytes())), weight.max(1), item)
}

fn cost_of(key: u64, weight: u32, item: Item) -> f64 {
    // Exponentially distributed with the weight as its rate: so the least is this one's by its share of all weights.
    negative_ln(mix(key ^ item.0)) / f64::from(weight)
}

/// A node that may have items.
#[derive(Clone, PartialEq, Debug)]
pub struct Contender {
    name: Arc<str>,
    weight: u32,
    key: u64,
}

impl Contender {
    /// A node by its name, with its capacity in any unit that all nodes share; at least 1 counts.
    #[must_use]
    pub fn new(name: &str, weight: u32) -> Self {
        Self { name: name.into(), weight: weight.max(1), key: mix(fnv(FNV_OFFSET, name.as_bytes())) }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The node's capacity.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// What it would cost that this node has the item; the least of all nodes comes first.
    pub(crate) fn cost(&self, item: impl Into<Item>) -> f64 {
        cost_of(self.key, self.weight, item.into())
    }
}

/// All nodes in the order in which they may have an item.
#[must_use]
pub fn order(item: impl Into<Item>, nodes: &[Contender]) -> Vec<&Contender> {
    let item = item.into();
    let mut all: Vec<_> = nodes.iter().map(|node| (node.cost(item), node)).collect();
    all.sort_by(|(one, a), (other, b)| one.total_cmp(other).then_with(|| a.name.cmp(&b.name)));
    all.into_iter().map(|(_, node)| node).collect()
}

/// The node that comes first.
#[must_use]
pub fn successor(item: impl Into<Item>, nodes: &[Contender]) -> Option<&Contender> {
    let item = item.into();
    let costs = nodes.iter().map(|node| (node.cost(item), node));
    let first = costs.min_by(|(one, a), (other, b)| one.total_cmp(other).then_with(|| a.name.cmp(&b.name)));
    first.map(|(_, node)| node)
}

/// How many of some nodes come before one.
pub(crate) fn place_in_line<'a>(
    item: impl Into<Item>,
    node: &Contender,
    others: impl Iterator<Item = &'a Contender>,
) -> usize {
    let item = item.into();
    let own = node.cost(item);
    let before = |other: &&Contender| {
        other.cost(item).total_cmp(&own).then_with(|| other.name.cmp(&node.name)) == std::cmp::Ordering::Less
    };
    others.filter(before).count()
}

/// The finalizer of splitmix64.
pub(crate) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The negative logarithm of a hash as a fraction of 2^64, to eight digits. The library's own logarithm differs between
/// systems in its last digit, and then two nodes would differ about an order.
fn negative_ln(hash: u64) -> f64 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    let mantissa = (hash << zeros) as f64 / (1u64 << 63) as f64;
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let mut sum = 0.0;
    for divisor in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * square + 1.0 / divisor;
    }
    f64::from(zeros + 1) * std::f64::consts::LN_2 - 2.0 * t * sum
}

#[cfg(test)]
mod tests {
    use motet_engine::id::ShardId;

    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        for hash in [1, 2, 3, 0xffff, 1 << 40, 0x9e37_79b9_7f4a_7c15, u64::MAX / 3, u64::MAX / 2, u64::MAX - 5] {
            let expected = -(((hash | 1) as f64) / 2f64.powi(64)).ln();
            assert!((negative_ln(hash) - expected).abs() < 1e-7, "{hash}: {} {expected}", negative_ln(hash));
        }
    }

    /// The hash must never change: nodes of two versions would disagree about every shard.
    #[test]
    fn the_order_is_fixed_for_ever() {
        let nodes: Vec<_> = ["a", "b", "node-3", "motet-4"].map(|name| Contender::new(name, 1)).into();
        for (shard, expected) in [
            (0, ["motet-4", "node-3", "b", "a"]),
            (7, ["b", "motet-4", "a", "node-3"]),
            (4095, ["a", "motet-4", "b", "node-3"]),
        ] {
            let shard = ShardId(shard);
            let names: Vec<_> = order(shard, &nodes).iter().map(|node| node.name().to_string()).collect();
            assert_eq!(names, expected, "{shard}");
            assert_eq!(&**successor(shard, &nodes).unwrap().name(), expected[0]);
            let places = expected.map(|name| place_in_line(shard, &Contender::new(name, 1), nodes.iter()));
            assert_eq!(places, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn names_of_several_parts_are_apart_and_fixed_for_ever() {
        assert_ne!(Item::named(&["ab", "c"]), Item::named(&["a", "bc"]));
        let nodes = ["a", "b", "node-3", "motet-4"].map(|name| Contender::new(name, 1));
        for model in ["e5", "classifier", "chat"] {
            let item = Item::named(&["default", model]);
            let ordered = order(item, &nodes);
            assert!(ordered.windows(2).all(|pair| cost(pair[0].name(), 1, item) <= cost(pair[1].name(), 1, item)));
        }
        let first = |model| successor(Item::named(&["default", model]), &nodes).unwrap().name().to_string();
        assert_eq!(["e5", "classifier", "chat"].map(first), ["a", "a", "motet-4"]);
    }

    #[test]
    fn weights_are_shares() {
        let nodes: Vec<_> = (1..=4).map(|weight| Contender::new(&format!("n{weight}"), weight)).collect();
        let mut counts = [0u32; 4];
        for shard in (0..4096).map(ShardId) {
            let weight = successor(shard, &nodes).unwrap().weight();
            counts[weight as usize - 1] += 1;
        }
        for (count, weight) in counts.into_iter().zip(1u32..) {
            let share = 4096 * weight / 10;
            assert!(count.abs_diff(share) < share / 8, "{counts:?}");
        }
    }
}
