//! What goes wrong: nodes that die, stand still, come, leave and drain; stores that are away; two leaders or none.
//!
//! A part of the world.

use std::time::Duration;

use motet_cluster::shards::Event;
use motet_store::port::{LeaseStore, ShardStore};

use crate::node::Node;
use crate::world::{What, World, now};

/// Nodes at one time.
const MOST_NODES: usize = 7;

impl World {
    pub(crate) fn boot(&mut self) {
        let taken: Vec<_> = self.nodes.values().map(|node| node.name.clone()).collect();
        let Some(name) = (0..MOST_NODES).map(|slot| format!("node-{slot}")).find(|name| !taken.contains(name)) else {
            return;
        };
        self.boots += 1;
        let boot = self.boots;
        self.note(format_args!("{boot} boots as {name}"));
        self.names.insert(boot, name.clone());
        let node = Node::new(name, &self.settings, self.now, &mut self.random);
        self.nodes.insert(boot, node);
        self.tell(boot, Event::Tick);
        self.gossip();
    }

    pub(crate) fn fault(&mut self) {
        if !self.noise {
            return;
        }
        let all: Vec<_> = self.nodes.keys().copied().collect();
        let victim = self.random.pick(&all).copied();
        match (self.random.between(0, 100), victim) {
            (0..=24, Some(boot)) => self.kill(boot),
            (25..=49, _) | (_, None) => self.boot(),
            (50..=66, Some(boot)) => {
                let long = self.random.millis(200, 18_000);
                self.freeze(boot, long);
            }
            (67..=74, Some(boot)) => {
                let long = self.random.millis(500, 7_000);
                self.cut_off(boot, long);
            }
            (75..=77, _) => {
                let until = self.now + self.random.millis(300, 5_000);
                self.note(format_args!("the store is away until {until:?}"));
                self.store_away_until = until;
            }
            (78..=89, Some(boot)) => self.drain(boot),
            (_, Some(boot)) => {
                self.note(format_args!("{boot} is to leave"));
                if let Some(node) = self.nodes.get_mut(&boot) {
                    node.leaving = true;
                }
                self.tell(boot, Event::Leave);
            }
        }
        let pause = self.random.millis(100, 2_500);
        self.after(pause, What::Fault);
    }

    pub(crate) fn kill(&mut self, boot: u64) {
        self.note(format_args!("{boot} dies"));
        self.orphan(boot);
        self.nodes.remove(&boot);
    }

    fn freeze(&mut self, boot: u64, long: Duration) {
        self.note(format_args!("{boot} stands still for {long:?}"));
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        node.frozen_until = node.frozen_until.max(self.now + long);
        let rest = node.frozen_until - self.now;
        self.after(rest, What::Thaw { boot });
        if long > self.settings.lease {
            self.orphan(boot);
        }
    }

    fn cut_off(&mut self, boot: u64, long: Duration) {
        self.note(format_args!("{boot} cannot reach the store for {long:?}"));
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        node.cut_off_until = node.cut_off_until.max(self.now + long);
        if long > self.settings.lease {
            self.orphan(boot);
        }
    }

    /// From now on somebody else must take its shards, those that it has not begun to serve included.
    fn orphan(&mut self, boot: u64) {
        let Some(life) = self.nodes.get(&boot).and_then(Node::life) else { return };
        let rows = now(self.store.shards(self.settings.shards, None)).1;
        let owned = rows.iter().filter(|row| row.owner.as_ref().is_some_and(|owner| owner.incarnation == life));
        self.orphans.extend(owned.map(|row| (row.shard, self.now)));
    }

    fn drain(&mut self, boot: u64) {
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        node.draining = !node.draining;
        let draining = node.draining;
        self.note(format_args!("{boot} drains: {draining}"));
        self.tell(boot, Event::Drain(draining));
    }

    /// A node that has handed everything over ends its lease, if the store hears of it.
    pub(crate) fn leave(&mut self, boot: u64) {
        self.note(format_args!("{boot} has left"));
        let Some(node) = self.nodes.remove(&boot) else { return };
        if let Some(life) = node.life().filter(|_| self.store_away_until <= self.now) {
            now(self.store.fence(life));
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm_down(&mut self) {
        self.note(format_args!("calm"));
        self.noise = false;
        self.store_away_until = Duration::ZERO;
        while self.nodes.values().filter(|node| !node.leaving).count() < 2 {
            self.boot();
        }
        for boot in self.nodes.keys().copied().collect::<Vec<_>>() {
            let Some(node) = self.nodes.get_mut(&boot) else { continue };
            node.cut_off_until = Duration::ZERO;
            if node.is_frozen(self.now) {
                node.frozen_until = self.now;
                self.thaw(boot);
            }
            if self.nodes.get(&boot).is_some_and(|node| node.draining) {
                self.drain(boot);
            }
        }
        self.gossip();
    }
}
