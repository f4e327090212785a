//! The leader's plan: which node shall own which shard.
//!
//! Pure: the same situation gives the same plan on every node. A shard stays where it is unless its node may not have
//! it any more, has more than its bound, or another one has far too little; where it goes is decided by rendezvous
//! order. So a plan that was carried out leaves nothing to plan. Never looks at clocks and never writes. Used by the
//! leader's loop.

mod board;
#[cfg(test)]
mod tests;

use motet_engine::id::ShardId;
use motet_store::port::{Incarnation, ShardRow};

use super::contender::Contender;
use board::Board;

/// How far loads may differ and how much may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanLimits {
    /// Most shards of a node, in percent of its fair share, rounded up; at least 100.
    pub load_percent: u32,
    /// Moves between live nodes that may be under way at once, those of earlier plans included.
    pub moves: usize,
}

/// What a plan is made from.
pub struct Situation<'a> {
    /// The nodes that may own shards, each name once.
    pub nodes: &'a [Contender],
    /// All shards as the table has them.
    pub rows: &'a [ShardRow],
    /// Whether an owner lives; the shards of one that does not are placed at once, without a bound on moves.
    pub lives: &'a dyn Fn(Incarnation) -> bool,
    /// Whether a node gets nothing new, by its name; what it has stays its own.
    pub closed: &'a dyn Fn(&str) -> bool,
    /// Whether nodes neither came nor went lately; until then only shards that nobody serves are placed, and moves to
    /// nodes that are gone are called off.
    pub settled: bool,
    /// The bounds.
    pub limits: PlanLimits,
}

/// The shards whose target must change, with the new one, in order. Empty when there is no node.
#[must_use]
pub fn plan<'a>(situation: &Situation<'a>) -> Vec<(ShardId, &'a Contender)> {
    let mut board = Board::new(situation);
    board.place_orphans();
    if situation.settled {
        board.empty_drained();
        board.relieve_overloaded();
        board.feed_starving();
    }
    board.changes()
}
