//! A plan in the making: where every shard is meant to be, and how much every node has.
//!
//! Used by the planner.

use std::collections::HashMap;

use motet_engine::id::ShardId;
use motet_store::port::ShardRow;

use super::Situation;
use crate::shards::contender::Contender;

/// A node in the making of a plan.
struct Seat {
    /// Shards that are meant to be its own.
    load: u64,
    /// Past this it is overloaded.
    most: u64,
    /// Its fair share, rounded down.
    share: u64,
    /// Below this it starves: three quarters of its share. So much lower than the share that nodes do not begin to
    /// starve because another one goes.
    least: u64,
    /// Whether it gets nothing new.
    closed: bool,
    /// Whether it starved: then it is filled up to its share.
    hungry: bool,
}

impl Seat {
    fn wants_more(&self) -> bool {
        self.hungry && self.load < self.share
    }
}

/// A shard in the making of a plan.
struct Piece {
    /// The node that is meant to own it.
    seat: Option<usize>,
    /// Whether a live node owns it that may not any more.
    drained: bool,
    /// Whether a move is under way.
    moving: bool,
}

/// A plan in the making.
pub(super) struct Board<'a> {
    nodes: &'a [Contender],
    rows: &'a [ShardRow],
    seats: Vec<Seat>,
    pieces: Vec<Piece>,
    /// Moves that may still be begun.
    moves: usize,
}

impl<'a> Board<'a> {
    pub(super) fn new(situation: &Situation<'a>) -> Self {
        let nodes = situation.nodes;
        let by_name: HashMap<&str, usize> =
            nodes.iter().enumerate().map(|(seat, node)| (&**node.name(), seat)).collect();
        let shards = situation.rows.len() as u64;
        let weights: u64 = nodes.iter().map(|node| u64::from(node.weight())).sum();
        let seat = |node: &Contender| {
            let weighed = shards * u64::from(node.weight());
            let percent = u64::from(situation.limits.load_percent.max(100));
            Seat {
                load: 0,
                most: (weighed * percent).div_ceil(weights * 100),
                share: weighed / weights,
                least: weighed * 3 / (weights * 4),
                closed: (situation.closed)(node.name()),
                hungry: false,
            }
        };
        let mut seats: Vec<Seat> = nodes.iter().map(seat).collect();
        let mut under_way = 0;
        let piece = |row: &ShardRow| {
            let owner = row.owner.as_ref().filter(|owner| (situation.lives)(owner.incarnation));
            let owning = owner.and_then(|owner| by_name.get(owner.node.as_str()).copied());
            let wanted = row.target.as_deref().and_then(|target| by_name.get(target).copied());
            let seat = wanted.or(owning);
            let moving = owner.is_some() && wanted.is_some() && wanted != owning;
            under_way += usize::from(moving);
            if let Some(seat) = seat {
                seats[seat].load += 1;
            }
            Piece { seat, drained: owner.is_some() && seat.is_none(), moving }
        };
        let pieces = situation.rows.iter().map(piece).collect();
        let moves = situation.limits.moves.saturating_sub(under_way);
        Self { nodes, rows: situation.rows, seats, pieces, moves }
    }

    /// Places what nobody serves.
    pub(super) fn place_orphans(&mut self) {
        let orphans: Vec<_> =
            (0..self.pieces.len()).filter(|at| self.pieces[*at].seat.is_none() && !self.pieces[*at].drained).collect();
        self.place(&orphans);
    }

    /// Places what live nodes serve that may not any more.
    pub(super) fn empty_drained(&mut self) {
        let mut drained: Vec<_> = (0..self.pieces.len()).filter(|at| self.pieces[*at].drained).collect();
        drained.truncate(self.moves);
        self.moves -= drained.len();
        self.place(&drained);
    }

    /// Places pieces by rendezvous order below the bound; when so few are left that the starving need all of them,
    /// only those are considered, so that nothing else need move afterwards.
    fn place(&mut self, places: &[usize]) {
        for (done, at) in places.iter().enumerate() {
            let missing: u64 =
                self.seats.iter().filter(|seat| !seat.closed).map(|seat| seat.least.saturating_sub(seat.load)).sum();
            let needed = missing >= (places.len() - done) as u64 && missing > 0;
            let fits = |seat: &Seat| if needed { seat.load < seat.least } else { seat.load < seat.most };
            if let Some(seat) = self.first(self.shard(*at), fits) {
                self.sit(*at, seat);
            }
        }
    }

    /// Moves from nodes above their bound what fits best elsewhere: to the starving first.
    pub(super) fn relieve_overloaded(&mut self) {
        self.seats.iter_mut().for_each(|seat| seat.hungry = seat.load < seat.least && !seat.closed);
        for seat in 0..self.seats.len() {
            let excess = self.seats[seat].load.saturating_sub(self.seats[seat].most);
            for _ in 0..excess {
                let Some((at, to)) = self.best_away(seat).filter(|_| self.moves > 0) else { break };
                self.moves -= 1;
                self.sit(at, to);
            }
        }
    }

    /// The piece of a node that is least dear elsewhere, and where.
    fn best_away(&self, from: usize) -> Option<(usize, usize)> {
        let hunger = self.seats.iter().any(Seat::wants_more);
        let fits = |seat: &Seat| if hunger { seat.wants_more() } else { seat.load < seat.most };
        let away = |at: usize| {
            let shard = self.shard(at);
            let to = self.first(shard, fits)?;
            Some((self.nodes[to].cost(shard) - self.nodes[from].cost(shard), at, to))
        };
        let all = self.resting(|seat| seat == from).filter_map(away);
        let best = all.min_by(|(one, a, _), (other, b, _)| one.total_cmp(other).then(a.cmp(b)));
        best.map(|(_, at, to)| (at, to))
    }

    /// Fills the nodes that starved up to their share, from those that have more than theirs.
    pub(super) fn feed_starving(&mut self) {
        for to in 0..self.seats.len() {
            if !self.seats[to].wants_more() {
                continue;
            }
            let cost = |at: usize| {
                let (shard, from) = (self.shard(at), self.pieces[at].seat.unwrap_or(to));
                (self.nodes[to].cost(shard) - self.nodes[from].cost(shard), at)
            };
            let mut wanted: Vec<(f64, usize)> = self.resting(|seat| seat != to).map(cost).collect();
            wanted.sort_by(|(one, a), (other, b)| one.total_cmp(other).then(a.cmp(b)));
            for (_, at) in wanted {
                if !self.seats[to].wants_more() || self.moves == 0 {
                    break;
                }
                let Some(from) = self.pieces[at].seat else { continue };
                if self.seats[from].load > self.seats[from].share {
                    self.moves -= 1;
                    self.sit(at, to);
                }
            }
        }
    }

    /// The pieces of some nodes that no move is under way for.
    fn resting(&self, of: impl Fn(usize) -> bool) -> impl Iterator<Item = usize> {
        let rests = move |piece: &Piece| !piece.moving && piece.seat.is_some_and(&of);
        self.pieces.iter().enumerate().filter(move |(_, piece)| rests(piece)).map(|(at, _)| at)
    }

    /// The first node in the shard's order that fits.
    fn first(&self, shard: ShardId, fits: impl Fn(&Seat) -> bool) -> Option<usize> {
        let cost = |seat: usize| (self.nodes[seat].cost(shard), seat);
        let fitting =
            (0..self.seats.len()).filter(|seat| !self.seats[*seat].closed && fits(&self.seats[*seat])).map(cost);
        let first = fitting.min_by(|(one, a), (other, b)| {
            one.total_cmp(other).then_with(|| self.nodes[*a].name().cmp(self.nodes[*b].name()))
        });
        first.map(|(_, seat)| seat)
    }

    fn sit(&mut self, at: usize, seat: usize) {
        if let Some(before) = self.pieces[at].seat.replace(seat) {
            self.seats[before].load -= 1;
        }
        self.seats[seat].load += 1;
        self.pieces[at].moving = true;
    }

    fn shard(&self, at: usize) -> ShardId {
        self.rows[at].shard
    }

    /// The rows whose target must change.
    pub(super) fn changes(&self) -> Vec<(ShardId, &'a Contender)> {
        let change = |(row, piece): (&ShardRow, &Piece)| {
            let node = &self.nodes[piece.seat?];
            let is_there = match &row.target {
                Some(target) => **target == **node.name(),
                // Nothing was ever planned for it, and nothing need be.
                None => row.owner.as_ref().is_some_and(|owner| owner.node == **node.name()),
            };
            (!is_there).then_some((row.shard, node))
        };
        self.rows.iter().zip(&self.pieces).filter_map(change).collect()
    }
}
