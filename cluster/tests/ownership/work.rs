//! What nodes do with shards that they serve, what the leader does, and what they hear of each other.
//!
//! A part of the world.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use motet_cluster::shards::{Event, Member, Members, Planning};
use motet_engine::id::{Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_store::StoreError;
use motet_store::port::{
    Admission, Append, Assignment, Entry, HeadChange, HeadState, LeaseStore, RunStore, ShardStore, Term,
};

use crate::node::Served;
use crate::world::{What, World, now};

fn run_of(shard: ShardId) -> RunId {
    RunId::new(Timestamp::from_millis(1_000), shard, 1)
}

fn entry(seq: u64) -> Entry {
    Entry { seq: Seq(seq), count: 1, at: Timestamp::from_millis(1_000), payload: Bytes::from_static(b"e") }
}

pub(crate) fn planner() -> Name {
    Name::new("planner").unwrap()
}

impl World {
    /// A run in every shard, to write to.
    pub(crate) fn admit_runs(&mut self) {
        for shard in (0..self.settings.shards).map(ShardId) {
            now(self.store.admit(Admission {
                run: run_of(shard),
                namespace: Namespace::default(),
                workflow: Name::new("w").unwrap(),
                version: "1".to_owned(),
                tags: vec![],
                entry: entry(1),
                head: HeadChange { state: HeadState::Running, wake_at: None, leaves_line: false },
                idempotency: None,
                outbox: vec![],
                line: None,
            }));
        }
    }

    /// Nodes write to what they serve, awake or with what they sent before they stood still.
    pub(crate) fn scribble(&mut self) {
        let all: Vec<_> = self
            .nodes
            .iter()
            .flat_map(|(boot, node)| node.serving.iter().map(|(shard, served)| (*boot, *shard, *served)))
            .collect();
        if let Some((boot, shard, served)) = self.random.pick(&all).copied() {
            let delay = if self.noise && self.random.percent(10) {
                self.random.millis(0, 5_000)
            } else {
                self.random.millis(0, 5)
            };
            let carries_life = self.random.percent(50);
            self.after(delay, What::Write { boot, shard, served, carries_life });
        }
        let pause = self.random.millis(10, 60);
        self.after(pause, What::Scribble);
    }

    pub(crate) fn write(&mut self, boot: u64, shard: ShardId, served: Served, carries_life: bool) {
        match self.append(shard, served, carries_life) {
            Ok(()) => {}
            Err(StoreError::Fenced { .. } | StoreError::IncarnationFenced(_)) => {
                self.refused += 1;
                self.tell(boot, Event::Doubt);
            }
            Err(other) => self.breach(format!("a write failed: {other}")),
        }
    }

    /// Whoever writes owns the shard at this moment, and is the one to whom the epoch was given.
    pub(crate) fn append(&mut self, shard: ShardId, served: Served, carries_life: bool) -> Result<(), StoreError> {
        let seq = self.next_seq[usize::from(shard.0)];
        let append = Append {
            run: run_of(shard),
            epoch: served.epoch,
            incarnation: carries_life.then_some(served.life),
            entry: entry(seq),
            head: None,
            outbox: vec![],
        };
        self.store.append(append).now_or_never().unwrap()?;
        self.accepted += 1;
        self.next_seq[usize::from(shard.0)] += 1;
        let row = now(self.store.shards(shard.0 + 1, None)).1.pop().unwrap();
        let owner = row.owner.as_ref().map(|owner| owner.incarnation);
        if owner != Some(served.life) || row.epoch != served.epoch {
            self.breach(format!(
                "{} wrote to shard {shard} under epoch {}, but the row is {row:?}",
                served.life, served.epoch
            ));
        }
        Ok(())
    }

    /// What a node tells of itself reaches the others sooner or later.
    pub(crate) fn tell_others(&mut self, boot: u64) {
        let Some(node) = self.nodes.get_mut(&boot) else { return };
        let Some(life) = node.life() else { return };
        if node.told == Some((life, node.draining)) {
            return;
        }
        node.told = Some((life, node.draining));
        self.gossip();
    }

    pub(crate) fn gossip(&mut self) {
        let member = |node: &crate::node::Node| {
            let (incarnation, draining) = node.told?;
            Some(Member { node: node.name.clone(), incarnation, weight: 1, serves_runs: true, draining, heard: true })
        };
        let members: Arc<Members> = Arc::new(self.nodes.values().filter_map(member).collect());
        self.gossips += 1;
        let number = self.gossips;
        for boot in self.nodes.keys().copied().collect::<Vec<_>>() {
            let slow = self.noise && self.random.percent(20);
            let delay = if slow { self.random.millis(0, 4_000) } else { self.random.millis(0, 400) };
            self.after(delay, What::Gossip { boot, number, members: Arc::clone(&members) });
        }
    }

    /// What is older than what was heard before counts for nothing, as in any gossip.
    pub(crate) fn hear(&mut self, boot: u64, number: u64, members: Arc<Members>) {
        if let Some(node) = self.nodes.get_mut(&boot).filter(|node| node.heard < number) {
            node.heard = number;
            node.members = Arc::clone(&members);
            self.tell(boot, Event::Members(members));
        }
    }

    /// Somebody is elected; a leader from before may not know it for a while.
    pub(crate) fn elect(&mut self) {
        let awake = self.awake();
        let pause = if self.noise { self.random.millis(500, 12_000) } else { Duration::from_secs(1) };
        self.after(pause, What::Elect);
        let led =
            self.nodes.values().any(|node| node.leads.as_ref().is_some_and(|(term, _)| *term == self.newest_term));
        if !self.noise && led {
            return;
        }
        if let Some(boot) = self.random.pick(&awake).copied() {
            // A lease of no length: the next election wins against it, as after a fault of what elects.
            let term = now(self.store.lead(&planner(), &boot.to_string(), Duration::ZERO));
            let (Some(term), Some(node)) = (term, self.nodes.get_mut(&boot)) else { return };
            node.leads = Some((term, Planning::new(self.settings.clone())));
            self.note(format_args!("{boot} leads with {term:?}"));
            self.newest_term = term;
            self.after(Duration::ZERO, What::Plan { boot, term });
        }
    }

    pub(crate) fn plan(&mut self, boot: u64, term: Term) {
        let now_at = self.now;
        let Some(node) =
            self.nodes.get_mut(&boot).filter(|node| node.leads.as_ref().is_some_and(|(its, _)| *its == term))
        else {
            return;
        };
        let pause = self.settings.plan_every;
        let reaches = !node.is_frozen(now_at) && node.cut_off_until <= now_at && self.store_away_until <= now_at;
        let mut plan = vec![];
        let mut expired = vec![];
        if reaches {
            let moment = node.moment(now_at);
            let members = Arc::clone(&node.members);
            let Some((_, planning)) = &mut node.leads else { return };
            let rows = now(self.store.shards(self.settings.shards, planning.version()));
            let lives = now(self.store.live());
            planning.learn(rows, &lives, members, moment);
            expired.extend(planning.expired());
            plan = planning.plan(moment);
        }
        for life in expired {
            self.fence(life);
        }
        if !plan.is_empty() {
            let slow = self.noise && self.random.percent(10);
            let delay = if slow { self.random.millis(0, 3_000) } else { self.random.millis(0, 10) };
            self.after(delay, What::Assign { boot, term, plan });
        }
        self.after(pause, What::Plan { boot, term });
    }

    pub(crate) fn assign(&mut self, boot: u64, term: Term, plan: &[Assignment]) {
        let leads = now(self.store.assign(&planner(), term, plan));
        self.note(format_args!("{boot} assigns {} shards under {term:?}: {leads}", plan.len()));
        if let Some(node) = self.nodes.get_mut(&boot).filter(|_| !leads) {
            node.leads = node.leads.take().filter(|(its, _)| *its != term);
        }
    }
}
