//! Requests to the store: when they arrive, what becomes of them, and when their answers come, if they do.
//!
//! A part of the world.

use std::time::Duration;

use motet_cluster::shards::{Answer, Call, Event, Look};
use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, LeaseStore, MapVersion, ShardRow, ShardStore};

use crate::world::{What, World, now};

impl World {
    pub(crate) fn send(&mut self, boot: u64, number: u64, call: Call) {
        let timeout = self.settings.call_timeout;
        let failed = Event::Answered { number, answer: Answer::Failed };
        self.after(timeout, What::Tell { boot, event: failed });
        let cut_off = self.nodes.get(&boot).is_some_and(|node| node.cut_off_until > self.now);
        if cut_off || (self.noise && self.random.percent(2)) {
            return;
        }
        let delay = self.delay();
        self.after(delay, What::Arrive { boot, number, call });
    }

    /// How long something is on its way: mostly a moment, sometimes longer than anybody waits for it.
    fn delay(&mut self) -> Duration {
        match self.random.between(0, 100) {
            0 if self.noise => self.random.millis(0, 4_000),
            1..=4 if self.noise => self.random.millis(10, 600),
            _ => self.random.millis(0, 8),
        }
    }

    pub(crate) fn arrive(&mut self, boot: u64, number: u64, call: Call) {
        if self.store_away_until > self.now {
            return;
        }
        let lease = self.settings.lease;
        let answer = match call {
            Call::Register => Answer::Registered(self.register(boot)),
            Call::Renew(life) => Answer::Renewed(now(self.store.renew(life, lease))),
            Call::Look(after) => {
                let (version, rows) = now(self.store.shards(self.settings.shards, after));
                let pause = if self.noise { self.random.millis(0, 20) } else { Duration::ZERO };
                self.after(pause, What::ReadLives { boot, number, version, rows });
                return;
            }
            Call::Fence(life) => Answer::Fenced(self.fence(life)),
            Call::Take(asked, life) => Answer::Taken(self.take(&asked, life)),
            Call::Release(asked, life) => Answer::Released(now(self.store.release(&asked, life))),
        };
        self.answer(boot, number, answer);
    }

    pub(crate) fn read_lives(&mut self, boot: u64, number: u64, version: MapVersion, rows: Vec<ShardRow>) {
        let lives = now(self.store.live());
        self.answer(boot, number, Answer::Looked(Look { version, rows, lives }));
    }

    fn answer(&mut self, boot: u64, number: u64, answer: Answer) {
        if self.noise && self.random.percent(2) {
            return;
        }
        let times = if self.noise && self.random.percent(3) { 2 } else { 1 };
        for _ in 0..times {
            let delay = self.delay();
            let event = Event::Answered { number, answer: answer.clone() };
            self.after(delay, What::Tell { boot, event });
        }
    }

    fn register(&mut self, boot: u64) -> Incarnation {
        // A request of a node that died meanwhile arrives all the same; its successor has the same name.
        let Some(name) = self.names.get(&boot).cloned() else { return Incarnation(0) };
        let life = now(self.store.register(&name, "", self.settings.lease));
        let relied_on = self.nodes.values().filter(|node| node.name == name).filter_map(|node| node.life());
        self.surprised.extend(relied_on);
        self.boot_of.insert(life, boot);
        self.note(format_args!("{boot} registers as {life}"));
        life
    }

    /// A life may be fenced only when nobody who is awake relies on it: nodes stop before their lease is over.
    pub(crate) fn fence(&mut self, life: Incarnation) -> bool {
        let over = now(self.store.fence_expired(life));
        if over {
            let boot = self.boot_of.get(&life).copied().unwrap_or_default();
            let relies =
                self.nodes.get(&boot).is_some_and(|node| !node.is_frozen(self.now) && node.life() == Some(life));
            if relies && !self.surprised.contains(&life) {
                self.breach(format!("{life} was fenced while boot {boot}, awake, relied on it"));
            }
        }
        over
    }

    /// Nobody loses a shard that it serves, unless it stands still.
    fn take(&mut self, asked: &[(ShardId, Epoch)], life: Incarnation) -> Vec<(ShardId, Epoch)> {
        let taken = now(self.store.take(asked, life));
        for (shard, epoch) in &taken {
            let loser = self.nodes.iter().find(|(_, node)| {
                let served = node.serving.get(shard);
                !node.is_frozen(self.now)
                    && served.is_some_and(|served| served.epoch < *epoch && !self.surprised.contains(&served.life))
            });
            if let Some((boot, _)) = loser {
                let boot = *boot;
                self.breach(format!("shard {shard} was taken with epoch {epoch} while boot {boot}, awake, served it"));
            }
        }
        taken
    }
}
