//! Whose turn it is in orders: of the runs of one line only the first may be worked on, and the next when it has left.
//!
//! The store knows who stands in a line and who is first; kept here is which run of each line was let in on this node,
//! and which are known to wait. A run that failed keeps its place, and with it the line stands still until somebody
//! retries it or lets it go. Used by admission, by the run actors and by recovery.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use motet_engine::id::{RunId, ShardId};
use motet_engine::run::Run;
use motet_store::StoreError;
use motet_store::port::RunHead;

use super::Runs;

/// After a failure of the store it waits this long.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Heads that are read at a time.
const PAGE: u32 = 512;

type LineKey = (ShardId, [u8; 16]);

/// What is known of a line.
#[derive(Debug, Default)]
struct Known {
    /// Who may be worked on, or stands first after its failure.
    first: Option<RunId>,
    /// Who waits behind.
    waiting: HashSet<RunId>,
    /// Whether somebody is asking the store who is first, and whether to ask once more then.
    looking: bool,
    again: bool,
}

/// The lines that have runs here.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    known: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    lines: HashMap<LineKey, Known>,
    of: HashMap<RunId, LineKey>,
}

impl Orders {
    /// Every change leaves the book whole, so a panic of another thread spoils nothing.
    fn book<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a run waits for those before it.
    pub(crate) fn is_waiting(&self, run: RunId) -> bool {
        self.book(|book| book.of.contains_key(&run))
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.book(|book| book.of.len())
    }

    /// Who is first in a line, as far as it is known.
    pub(crate) fn first(&self, shard: ShardId, line: [u8; 16]) -> Option<RunId> {
        self.book(|book| book.lines.get(&(shard, line)).and_then(|known| known.first))
    }

    /// The lines of a shard are another node's from now on.
    pub(crate) fn forget(&self, shard: ShardId) {
        self.book(|book| {
            book.lines.retain(|(of, _), _| *of != shard);
            book.of.retain(|_, (of, _)| *of != shard);
        });
    }
}

impl Book {
    /// Notes that a run waits in its line; whether the store is to be asked who is first.
    fn wait(&mut self, run: RunId, line: LineKey) -> bool {
        let known = self.lines.entry(line).or_default();
        known.waiting.insert(run);
        self.of.insert(run, line);
        known.first.is_none() && known.ask()
    }

    /// The first of a line has left it; whether the store is to be asked who is next.
    fn leave(&mut self, run: RunId, line: LineKey) -> bool {
        self.of.remove(&run);
        let Some(known) = self.lines.get_mut(&line) else { return false };
        known.waiting.remove(&run);
        if known.first.is_some_and(|first| first != run) {
            return false;
        }
        known.first = None;
        known.ask()
    }

    /// What the store said: whether to ask it once more.
    fn learn(&mut self, line: LineKey, head: Option<&RunHead>) -> bool {
        let Some(known) = self.lines.get_mut(&line) else { return false };
        if std::mem::take(&mut known.again) {
            return true;
        }
        known.looking = false;
        match head {
            Some(head) => {
                known.first = Some(head.run);
                known.waiting.remove(&head.run);
                self.of.remove(&head.run);
            }
            // Whoever waited here has left, by the store's word.
            None => {
                let gone = self.lines.remove(&line).unwrap_or_default();
                self.of.retain(|run, _| !gone.waiting.contains(run));
            }
        }
        false
    }
}

impl Known {
    /// Whether whoever notices must ask the store; otherwise somebody does, and will ask again.
    fn ask(&mut self) -> bool {
        self.again = self.looking;
        !std::mem::replace(&mut self.looking, true)
    }
}

/// The line in which a run holds a place.
fn line_of(run: &Run) -> Option<LineKey> {
    let order = run.submission().source.as_ref().and_then(|source| source.order);
    order.filter(|_| run.state().holds_line()).map(|line| (run.id().shard(), line))
}

impl Runs {
    /// Whether a run may be worked on as far as its order goes. One that may not waits until it is brought up.
    pub(crate) fn is_first(self: &Arc<Self>, run: &Run) -> bool {
        let Some(line) = line_of(run).filter(|_| !run.phase().is_end()) else { return true };
        if self.orders.first(line.0, line.1) == Some(run.id()) {
            return true;
        }
        if self.orders.book(|book| book.wait(run.id(), line)) {
            self.look(line);
        }
        false
    }

    /// Whether a run stands in an order, so that it cannot be worked on before the store was asked.
    pub(crate) fn stands_in_line(run: &Run) -> bool {
        line_of(run).is_some()
    }

    /// A run has ended, or gave its place up: whoever is next comes up.
    pub(crate) fn leave_line(self: &Arc<Self>, run: &Run) {
        let order = run.submission().source.as_ref().and_then(|source| source.order);
        let Some(order) = order.filter(|_| !run.state().holds_line()) else { return };
        let line = (run.id().shard(), order);
        if self.orders.book(|book| book.leave(run.id(), line)) {
            self.look(line);
        }
    }

    /// The runs of a shard that wait in lines, known without being loaded; for a shard that was taken over.
    pub(crate) async fn learn_lines(self: &Arc<Self>, shard: ShardId) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let heads = self.parts.store.lines(shard, after, PAGE).await?;
            let Some(last) = heads.last() else { return Ok(()) };
            after = Some(last.run);
            for head in &heads {
                let Some(line) = head.line.filter(|_| !head.state.is_end()) else { continue };
                if self.orders.book(|book| book.wait(head.run, (shard, line.line))) {
                    self.look((shard, line.line));
                }
            }
        }
    }

    /// Asks the store who is first in a line, and brings that run up.
    fn look(self: &Arc<Self>, line: LineKey) {
        let runs = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let Some(runs) = runs.upgrade() else { return };
                if runs.epoch(line.0).is_none() {
                    return runs.orders.forget(line.0);
                }
                match runs.parts.store.line_head(line.0, line.1).await {
                    Ok(head) => {
                        if runs.orders.book(|book| book.learn(line, head.as_ref())) {
                            continue;
                        }
                        if let Some(head) = head.filter(|head| !head.state.is_end()) {
                            runs.proceed(head.run).await;
                        }
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(shard = %line.0, %error, "who is next in an order cannot be read; trying again");
                        drop(runs);
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                }
            }
        });
    }
}
