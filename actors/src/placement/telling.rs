//! What this node tells others of its models: which are ready, how much more each takes, what memory they take.
//!
//! Gossip is not free, so only what matters is told: a model that comes, goes, gets ready or fails, and room that ends,
//! begins, halves or doubles; twice a second at most. Sends nothing itself: membership does. Started by the node.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use motet_cluster::members::{ModelName, Replica};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::models::Models;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is told; it changes until this is dropped.
pub(crate) struct Telling {
    told: watch::Receiver<BTreeMap<ModelName, Replica>>,
    looking: JoinHandle<()>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Telling {
    /// Begins to look at the models of a node.
    pub(crate) fn start(models: Weak<Models>) -> Self {
        let (tell, told) = watch::channel(BTreeMap::new());
        let looking = tokio::spawn(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(models) = models.upgrade() else { return };
                let now = models.replicas();
                tell.send_if_modified(|told| match retold(told, now) {
                    Some(next) => {
                        *told = next;
                        true
                    }
                    None => false,
                });
            }
        });
        Self { told, looking }
    }

    pub(crate) fn told(&self) -> watch::Receiver<BTreeMap<ModelName, Replica>> {
        self.told.clone()
    }
}

/// What is told next; none when nothing has changed that matters. Of what has not, the old is told again, which costs
/// gossip nothing.
fn retold(
    told: &BTreeMap<ModelName, Replica>,
    now: BTreeMap<ModelName, Replica>,
) -> Option<BTreeMap<ModelName, Replica>> {
    let mut changed = told.keys().any(|model| !now.contains_key(model));
    let mut next = BTreeMap::new();
    for (model, replica) in now {
        let same = told.get(&model).filter(|told| !matters(told, &replica));
        changed |= same.is_none();
        next.insert(model, same.copied().unwrap_or(replica));
    }
    changed.then_some(next)
}

fn matters(told: &Replica, now: &Replica) -> bool {
    let standing = |it: &Replica| (it.ready, it.failed, it.memory_bytes, it.spare_queue == 0);
    let (before, after) = (u64::from(told.spare_queue), u64::from(now.spare_queue));
    standing(told) != standing(now) || (before != after && (after * 2 <= before || after >= before * 2))
}

#[cfg(test)]
mod tests {
    use motet_engine::id::{Name, Namespace};
    use proptest::prelude::*;

    use super::*;

    fn model(number: u8) -> ModelName {
        ModelName { namespace: Namespace::default(), name: Name::new(&format!("m{number}")).unwrap() }
    }

    fn ready(spare_queue: u32) -> Replica {
        Replica { spare_queue, ready: true, ..Replica::default() }
    }

    #[test]
    fn only_what_matters_is_told() {
        let loading = Replica::default();
        let failed = Replica { failed: true, ..loading };
        for (told, now, matters) in [
            (None, None, false),
            (None, Some(loading), true),
            (Some(loading), None, true),
            (Some(loading), Some(ready(10)), true),
            (Some(loading), Some(failed), true),
            (Some(ready(1_024)), Some(ready(513)), false),
            (Some(ready(1_024)), Some(ready(512)), true),
            (Some(ready(1_024)), Some(ready(0)), true),
            (Some(ready(100)), Some(ready(199)), false),
            (Some(ready(100)), Some(ready(200)), true),
            (Some(ready(0)), Some(ready(1)), true),
            (Some(ready(1)), Some(ready(1)), false),
            (Some(ready(0)), Some(ready(0)), false),
            (Some(ready(9)), Some(Replica { memory_bytes: 1, ..ready(9) }), true),
        ] {
            let map = |replica: Option<Replica>| replica.map(|it| (model(1), it)).into_iter().collect();
            let next = retold(&map(told), map(now));
            assert_eq!(next.is_some(), matters, "{told:?} to {now:?}");
            assert!(next.is_none_or(|next| next == map(now)));
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_far_from_what_is(
            steps in proptest::collection::vec(
                proptest::collection::btree_map(0u8..4, (0u32..2_000, any::<bool>()), 0..4), 1..20)
        ) {
            let mut told = BTreeMap::new();
            for step in steps {
                let now: BTreeMap<_, _> = step.into_iter().map(|(number, (spare_queue, ready))| {
                    (model(number), Replica { spare_queue, ready, ..Replica::default() })
                }).collect();
                if let Some(next) = retold(&told, now.clone()) {
                    prop_assert_ne!(&next, &told);
                    told = next;
                }
                prop_assert!(told.keys().eq(now.keys()));
                for (told, now) in told.values().zip(now.values()) {
                    prop_assert_eq!(told.ready, now.ready);
                    prop_assert_eq!(told.spare_queue == 0, now.spare_queue == 0);
                    let (a, b) = (told.spare_queue, now.spare_queue);
                    prop_assert!(a == b || (a < b * 2 && b < a * 2), "{} {}", a, b);
                }
            }
        }
    }
}
