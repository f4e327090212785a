//! Tests of who has the memory, who waits and who goes.

use super::*;
use crate::stats::ModelStats;

fn key(name: &str) -> ModelKey {
    (Namespace::default(), Name::new(name).unwrap())
}

/// A model with its history and its places for calls.
struct Model {
    key: ModelKey,
    history: Arc<History>,
    places: Arc<Semaphore>,
}

const QUEUE: usize = 8;

impl Model {
    fn new(name: &str) -> Self {
        let (key, history) = (key(name), Arc::new(History::new(ModelStats::new(name))));
        Self { key, history, places: Arc::new(Semaphore::new(QUEUE)) }
    }

    /// Reserves as one whose call waits; those that are ended are told to `ended`.
    async fn reserve(
        &self,
        residency: &Arc<Residency>,
        bytes: u64,
        end: &(dyn Fn(&Leaving) + Send + Sync),
    ) -> Result<MemoryShare, NoShare> {
        let asking = Asking { key: &self.key, bytes, history: &self.history, places: &self.places, queue: QUEUE };
        residency.reserve(asking, end).await
    }

    async fn settled(&self, residency: &Arc<Residency>, bytes: u64) -> MemoryShare {
        let share = self.reserve(residency, bytes, &|_| {}).await.unwrap();
        share.settle();
        share
    }
}

/// Ends models by dropping their shares, and keeps their names.
struct Ended {
    shares: Mutex<HashMap<String, MemoryShare>>,
    names: Mutex<Vec<String>>,
}

impl Ended {
    fn of(shares: impl IntoIterator<Item = (&'static str, MemoryShare)>) -> Self {
        let shares = shares.into_iter().map(|(name, share)| (name.to_owned(), share)).collect();
        Self { shares: Mutex::new(shares), names: Mutex::default() }
    }

    fn end(&self, leaving: &Leaving) {
        let name = leaving.key.1.to_string();
        let share = self.shares.lock().unwrap().remove(&name);
        drop(share);
        self.names.lock().unwrap().push(name);
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn shares_end_at_the_bound_and_come_back() {
    let residency = Residency::new(100);
    let (first, second, third) = (Model::new("a"), Model::new("b"), Model::new("c"));
    let a = first.settled(&residency, 60).await;
    let _b = second.settled(&residency, 40).await;
    assert_eq!(residency.taken(), 100);
    assert!(matches!(third.reserve(&residency, 1, &|_| {}).await, Err(NoShare::NotWanted)));
    let Err(NoShare::TooLarge(failure)) = third.reserve(&residency, 101, &|_| {}).await else { panic!("too large") };
    assert!(failure.message.contains("101 bytes, more than the 100"), "{failure}");
    assert!(!a.resize(61) && a.resize(10) && residency.taken() == 50, "{residency:?}");
    drop(a);
    assert_eq!(residency.taken(), 40);
    assert!(third.reserve(&residency, 60, &|_| {}).await.is_ok());
    assert!(Residency::new(0).shelf().tenants.is_empty());
    assert!(first.reserve(&Residency::new(0), u64::MAX, &|_| {}).await.is_ok(), "no bound");
}

#[tokio::test]
async fn the_model_that_is_worth_least_goes_and_no_more_than_needed() {
    let residency = Residency::new(100);
    let (hot, cold, new) = (Model::new("hot"), Model::new("cold"), Model::new("new"));
    let ended = Ended::of([("hot", hot.settled(&residency, 50).await), ("cold", cold.settled(&residency, 50).await)]);
    for _ in 0..1000 {
        hot.history.called();
    }
    cold.history.called();
    let _waits = new.history.called_for();
    let share = new.reserve(&residency, 30, &|leaving| ended.end(leaving)).await.unwrap();
    assert_eq!((ended.names(), residency.taken()), (vec!["cold".to_owned()], 80));
    assert!(residency.is_tight());
    drop(share);
}

#[tokio::test]
async fn models_that_runs_are_about_to_call_or_that_are_called_are_spared_as_long_as_patience_lasts() {
    let residency = Residency::new(100);
    let (foreseen, called, new) = (Model::new("foreseen"), Model::new("called"), Model::new("new"));
    let ended = Ended::of([
        ("foreseen", foreseen.settled(&residency, 50).await),
        ("called", called.settled(&residency, 50).await),
    ]);
    let _run = foreseen.history.foresee();
    let _call = Arc::clone(&called.places).acquire_owned().await.unwrap();
    let _waits = new.history.called_for();
    let begun = Instant::now();
    let _half = new.reserve(&residency, 50, &|leaving| ended.end(leaving)).await.unwrap();
    assert_eq!(ended.names(), ["foreseen"]);
    assert!(begun.elapsed() >= LEAST_PATIENCE);
    let begun = Instant::now();
    let other = Model::new("other");
    let _waits = other.history.called_for();
    let _other = other.reserve(&residency, 50, &|leaving| ended.end(leaving)).await.unwrap();
    assert_eq!(ended.names(), ["foreseen", "called"], "not the new one, which is not loaded yet");
    assert!(begun.elapsed() >= LEAST_PATIENCE * 2);
}

#[tokio::test]
async fn the_one_with_more_calls_goes_first_and_nobody_takes_its_room() {
    let residency = Residency::new(100);
    let [holder, many, few] = ["holder", "many", "few"].map(Model::new);
    let share = holder.settled(&residency, 60).await;
    // The holder is being called: nobody can end it before their patience is over.
    let _call = Arc::clone(&holder.places).acquire_owned().await.unwrap();
    let _waiting: Vec<_> = (0..3).map(|_| many.history.called_for()).chain([few.history.called_for()]).collect();
    let large = many.reserve(&residency, 80, &|_| {});
    tokio::pin!(large);
    assert!(futures::poll!(&mut large).is_pending());
    let small = few.reserve(&residency, 30, &|_| {});
    tokio::pin!(small);
    assert!(futures::poll!(&mut small).is_pending(), "it would fit, but the large one goes before it");
    drop(share);
    let large = large.await.unwrap();
    assert!(futures::poll!(&mut small).is_pending());
    drop(large);
    assert!(small.await.is_ok());
}
