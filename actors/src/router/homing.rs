//! Calls of vector indexes on a node among others: each index has one home, which is written down once.
//!
//! The vectors of an embedded index lie in a folder of one node. So its calls go there and wait for it, and never find
//! an empty index elsewhere; which node it is stands in the store, as a lead that is held for good. Never moves an
//! index. Used by the router.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use motet_cluster::members::{Member, Role};
use motet_cluster::rendezvous::{Contender, Item, successor};
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_store::StoreError;
use motet_vectors::port::IndexStats;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::{Router, system_caller};
use crate::address::Address;
use crate::message::{Answer, Ask, IndexAsk, RouteError};
use crate::models::Asker;
use crate::peers::{Missed, Peers};
use crate::wire::Question;

/// For good.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// First and longest pause before a home that does not answer is asked again; jittered.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a node among others knows of the homes of indexes.
pub struct Homes {
    /// Whether this node may become one: it has the role `vectors`.
    takes: bool,
    known: DashMap<(Namespace, Name), Arc<str>>,
}

impl Homes {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(takes: bool) -> Self {
        Self { takes, known: DashMap::new() }
    }
}

impl Router {
    /// Asks an index at its home, and waits at most `patience` for the answer, also while its home is away: a call
    /// changes nothing when it is made twice.
    pub(super) async fn ask_index(
        &self,
        peers: &Peers,
        question: Question,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        let Address::Index(namespace, name) = &question.to else {
            return Err(RouteError::Undecodable(format!("{} is no index", question.to)));
        };
        let deadline = Instant::now() + patience;
        let (mut pause, longest) = PAUSES;
        let mut packed = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let home = self.home_of_index(peers, namespace, name).await?;
            if *home == *peers.me.as_str() {
                let Question { caller, to, ask } = &question;
                return self.ask_here(caller, to, ask.clone(), left, Asker::Own).await;
            }
            let payload = match &packed {
                Some(payload) => bytes::Bytes::clone(payload),
                None => packed.insert(peers.packed(&question).await?).clone(),
            };
            let why = match peers.ask_node(&home, &question, payload, left).await {
                Ok(answer) => return Ok(answer),
                Err(Missed::For(error)) => return Err(error),
                Err(Missed::Elsewhere(error)) => error,
            };
            let wait = pause.mul_f64(0.5 + self.entropy.fraction());
            if Instant::now() + wait >= deadline {
                let words = format!("index '{name}' is on node '{home}', which does not answer: {why}");
                return Err(Failure::new(FailureClass::Unavailable, words).into());
            }
            sleep(wait).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// What an index holds, at its home.
    ///
    /// # Errors
    /// When it does not exist, cannot be opened, or its home does not answer within `patience`.
    pub async fn index_stats(
        &self,
        namespace: &Namespace,
        name: &Name,
        patience: Duration,
    ) -> Result<IndexStats, RouteError> {
        let (caller, to) = (system_caller(namespace.clone()), Address::Index(namespace.clone(), name.clone()));
        let unreadable = |why: String| RouteError::Undecodable(why);
        match self.ask(&caller, &to, Ask::Index(IndexAsk::Stats), patience).await? {
            Answer::Output(output) => {
                serde_json::from_value(output.to_json()).map_err(|error| unreadable(error.to_string()))
            }
            _ => Err(unreadable("an answer of another kind".to_owned())),
        }
    }

    /// Answers a call of an index that another node takes to be here.
    pub(super) async fn answer_for_index(
        &self,
        peers: &Peers,
        question: &Question,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        let Address::Index(namespace, name) = &question.to else { return Err(RouteError::NotOwner) };
        let home = self.home_of_index(peers, namespace, name).await?;
        if *home != *peers.me.as_str() {
            return Err(RouteError::Moved(home.to_string()));
        }
        self.ask_here(&question.caller, &question.to, question.ask.clone(), patience, Asker::Peer).await
    }

    /// The node that has an index; this one, from now on, when nobody has it yet and this node may.
    async fn home_of_index(&self, peers: &Peers, namespace: &Namespace, name: &Name) -> Result<Arc<str>, RouteError> {
        let key = (namespace.clone(), name.clone());
        if let Some(home) = peers.homes.known.get(&key) {
            return Ok(Arc::clone(&home));
        }
        // What does not exist must not get a home.
        self.catalog.index(namespace, name).await.map_err(|error| crate::indexes::not_to_be_had(name, &error))?;
        let role = role(namespace, name)?;
        let home = match peers.store.leader(&role).await.map_err(unread)? {
            Some(leader) => leader.holder,
            None if peers.homes.takes => {
                let me = peers.me.as_str();
                match peers.store.lead(&role, me, FOR_GOOD).await.map_err(unread)? {
                    Some(_) => me.to_owned(),
                    // Somebody else was faster.
                    None => {
                        let leader = peers.store.leader(&role).await.map_err(unread)?;
                        leader.ok_or(RouteError::NotOwner)?.holder
                    }
                }
            }
            // It takes the index when it is asked; until then another one may as well.
            None => return self.choose_home(peers, namespace, name),
        };
        let home: Arc<str> = home.into();
        peers.homes.known.insert(key, Arc::clone(&home));
        Ok(home)
    }

    fn choose_home(&self, peers: &Peers, namespace: &Namespace, name: &Name) -> Result<Arc<str>, RouteError> {
        let members = peers.members.borrow().clone();
        // This node has not the role, whatever is still heard of it.
        let fits = |member: &&Member| !member.is_self && member.takes(Role::Vectors);
        let contenders: Vec<_> = members.iter().filter(fits).map(|member| Contender::new(&member.name, 1)).collect();
        let chosen = successor(Item::named(&[namespace.0.as_str(), name.as_str()]), &contenders);
        chosen.map(|chosen| chosen.name().clone()).ok_or_else(|| {
            let words = format!("no node that lives has the role 'vectors', which index '{name}' needs");
            Failure::new(FailureClass::Unavailable, words).into()
        })
    }
}

/// Under which its home leads an index. Names may be longer than what a role takes.
fn role(namespace: &Namespace, name: &Name) -> Result<Name, RouteError> {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Name::new(&format!("index-{hex}")).map_err(|error| Failure::new(FailureClass::Internal, error.to_string()).into())
}

fn unread(error: StoreError) -> RouteError {
    Failure::new(FailureClass::Unavailable, format!("the home of an index cannot be read: {error}")).into()
}
