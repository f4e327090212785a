//! Models on several nodes: who answers a call, who is passed over, where a model is loaded, how it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motet_actors::message::RouteError;
use motet_cluster::members::{Member, MemberState, ModelName, Profile, Replica, Role, Roles};
use motet_engine::failure::FailureClass;
use motet_engine::id::{Name, Namespace};
use motet_engine::run::Phase;
use motet_engine::value::Value;
use motet_store::port::Incarnation;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, Peer};
use crate::world::{ECHO, PATIENCE, apply, caller, finish, output, submit, until};

type Told = watch::Receiver<BTreeMap<ModelName, Replica>>;

/// A node, what it tells of its models, and where it hears of the others.
type End = (String, Told, watch::Sender<Arc<Vec<Member>>>);

/// A node with its roles and labels.
type Described<'a> = (&'a Peer, Roles, &'a [(&'a str, &'a str)]);

/// Carries what nodes tell of themselves to all of them, as gossip does, until it is dropped.
struct Gossip {
    profiles: Arc<Mutex<BTreeMap<String, Profile>>>,
    carrying: JoinHandle<()>,
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Gossip {
    /// Between nodes with these roles and labels; returns when all have heard of all.
    async fn between(peers: &[Described<'_>]) -> Self {
        let profile = |(peer, roles, labels): &Described<'_>| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            (peer.id.to_string(), Profile { roles: *roles, labels, ..Profile::default() })
        };
        let profiles = Arc::new(Mutex::new(peers.iter().map(profile).collect::<BTreeMap<_, _>>()));
        let ends: Vec<_> =
            peers.iter().map(|(peer, ..)| (peer.id.to_string(), peer.node.models_told(), peer.heard.clone())).collect();
        let told = Arc::clone(&profiles);
        let carrying = tokio::spawn(async move {
            let mut rounds = tokio::time::interval(Duration::from_millis(10));
            loop {
                rounds.tick().await;
                let known = told.lock().unwrap().clone();
                for (own, _, heard) in &ends {
                    heard.send_replace(Arc::new(seen_by(own, &known, &ends)));
                }
            }
        });
        for (peer, ..) in peers {
            let mut heard = peer.heard.subscribe();
            heard.wait_for(|members| members.len() == peers.len()).await.unwrap();
        }
        Self { profiles, carrying }
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Profile)) {
        change(self.profiles.lock().unwrap().get_mut(node).unwrap());
    }

    /// Everybody hears that a node is no more.
    fn bury(&self, node: &str) {
        self.profiles.lock().unwrap().remove(node);
    }
}

fn seen_by(own: &str, profiles: &BTreeMap<String, Profile>, ends: &[End]) -> Vec<Member> {
    let member = |(name, told, _): &End| {
        let profile = Profile { replicas: told.borrow().clone(), ..profiles.get(name)?.clone() };
        Some(Member {
            name: name.clone(),
            incarnation: Incarnation(1),
            address: None,
            state: MemberState::Alive,
            profile,
            flaws: vec![],
            is_self: name == own,
        })
    };
    ends.iter().filter_map(member).collect()
}

fn without_models() -> Roles {
    Role::ALL.iter().map(|(role, _)| *role).filter(|role| *role != Role::Models).collect()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Calls and batches that a node has done for a model; none when it never had it.
fn done(peer: &Peer, model: &str) -> Option<(u64, u64)> {
    let view = peer.node.router().models().view(&Namespace::default(), &name(model));
    view.map(|view| (view.figures.calls, view.figures.batches))
}

fn calls(peer: &Peer, model: &str) -> u64 {
    done(peer, model).map_or(0, |(calls, _)| calls)
}

async fn infer(peer: &Peer, model: &str, text: &str) -> Result<Value, RouteError> {
    peer.node.router().infer(&caller(), &name(model), json!({"text": text}).into(), PATIENCE).await
}

/// The nodes of which a node has heard that they can answer.
fn ready(peer: &Peer, model: &str) -> BTreeSet<String> {
    let nodes = peer.node.router().model_nodes(&Namespace::default(), &name(model)).unwrap();
    nodes.into_iter().filter(|node| node.state == "ready").map(|node| node.node).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_models_has_its_calls_answered_by_one_that_has() {
    let (_cluster, [a, b]) = Cluster::with_models_on([("a", false), ("b", true)]).await;
    let _gossip = Gossip::between(&[(&a, without_models(), &[]), (&b, Roles::all(), &[])]).await;
    let invalid = "
---
kind: Model
name: refuses
backend: fake
parameters: {fail_every: 1, fail_class: invalid}
";
    apply(&a.node, &format!("{ECHO}{invalid}")).await;
    // It belongs to the other one, which was told to load it.
    until("the model is ready", async || ready(&a, "echo") == names(&["b"])).await;
    let run = submit(&a.node, "echo", json!({"text": "hello"})).await;
    assert_eq!(output(&finish(&a.node, run).await), json!("hello"));
    assert_eq!(infer(&a, "echo", "direct").await.unwrap().to_json(), json!({"text": "direct"}));
    assert_eq!((calls(&b, "echo"), done(&a, "echo")), (3, None));
    // What a model answers is final, also when it says no; what is not there is not there.
    let refused = infer(&a, "refuses", "x").await.unwrap_err().into_failure();
    assert_eq!(refused.class, FailureClass::Invalid);
    assert_eq!(done(&b, "refuses"), Some((1, 1)));
    assert!(matches!(infer(&a, "nobody", "x").await, Err(RouteError::Unknown(_))));
    // What is too large for an envelope lies in the store, where there is a run that it belongs to.
    let large = "x".repeat(3 << 19);
    let run = submit(&a.node, "echo", json!({"text": large})).await;
    assert_eq!(output(&finish(&a.node, run).await), json!(large));
    let refused = infer(&a, "echo", &large).await.unwrap_err().into_failure();
    assert_eq!(refused.class, FailureClass::Invalid);
    assert!(refused.message.contains("in a step of a run"), "{refused}");
    assert!(infer(&b, "echo", &large).await.is_ok(), "on the node itself nothing travels");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_travel_is_told_and_not_asked_for_again() {
    let (_cluster, [a, b]) = Cluster::with_models_on([("a", false), ("b", true)]).await;
    let _gossip = Gossip::between(&[(&a, without_models(), &[]), (&b, Roles::all(), &[])]).await;
    apply(&a.node, "{kind: Model, name: talks, backend: fake, parameters: {output_bytes: 1000000}}").await;
    let refused = infer(&a, "talks", "x").await.unwrap_err().into_failure();
    assert_eq!(refused.class, FailureClass::Invalid, "{refused}");
    assert!(refused.message.contains("more than fit between nodes"), "{refused}");
    assert_eq!(done(&b, "talks"), Some((1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_passed_over_before_anybody_hears_that_it_is_dead() {
    let (cluster, [a, b, c]) = Cluster::with_models_on([("a", false), ("b", true), ("c", true)]).await;
    let all = [(&a, without_models(), &[][..]), (&b, Roles::all(), &[][..]), (&c, Roles::all(), &[][..])];
    let gossip = Gossip::between(&all).await;
    apply(&a.node, &ECHO.replace("backend: fake", "backend: fake\nparameters: {latency_ms: 20}")).await;
    until("the model is ready", async || !ready(&a, "echo").is_empty()).await;
    let home = ready(&a, "echo").pop_first().unwrap();
    let (dies, stays) = if home == "b" { (b, c) } else { (c, b) };
    let mut runs = vec![];
    for number in 0..16 {
        runs.push((number, submit(&a.node, "echo", json!({"text": number.to_string()})).await));
    }
    cluster.kill(dies).await;
    assert_eq!(ready(&a, "echo"), names(&[&home]), "nobody has heard yet");
    assert_eq!(infer(&a, "echo", "late").await.unwrap().to_json(), json!({"text": "late"}));
    for (number, run) in runs {
        let run = finish(&a.node, run).await;
        assert_eq!(output(&run), json!(number.to_string()));
        assert!(run.state().steps.iter().all(|step| step.attempts() == 1), "another node is no other attempt");
    }
    assert!(calls(&stays, "echo") > 0);
    gossip.bury(&home);
    until("everybody hears of it", async || ready(&a, "echo") == names(&[stays.id.as_str()])).await;
    assert!(infer(&a, "echo", "later").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_grows_onto_more_nodes_when_there_is_no_room_and_not_beyond_its_most() {
    let (_cluster, [a, b, c]) = Cluster::with_models_on([("a", false), ("b", true), ("c", true)]).await;
    let all = [(&a, without_models(), &[][..]), (&b, Roles::all(), &[][..]), (&c, Roles::all(), &[][..])];
    let _gossip = Gossip::between(&all).await;
    let model = |name: &str, placement: &str| {
        ECHO.replace("name: echo", &format!("name: {name}")).replace("model: echo", &format!("model: {name}")).replace(
            "backend: fake",
            &format!("backend: fake\nqueue: 1\nparameters: {{latency_ms: 25}}\nplacement: {placement}"),
        )
    };
    apply(&a.node, &format!("{}---{}", model("grows", "{min: 1}"), model("stays", "{max: 1}"))).await;
    let mut last = 0;
    until("both nodes answer", async || {
        for workflow in ["grows", "stays"] {
            let mut runs = vec![];
            for _ in 0..12 {
                last += 1;
                runs.push((last, submit(&a.node, workflow, json!({"text": last.to_string()})).await));
            }
            for (number, run) in runs {
                let run = finish(&a.node, run).await;
                assert_eq!(run.phase(), Phase::Succeeded, "{:?}", run.state().failure);
                assert_eq!(output(&run), json!(number.to_string()));
                assert!(run.state().steps.iter().all(|step| step.attempts() == 1), "waiting for room is no attempt");
            }
        }
        calls(&b, "grows") > 0 && calls(&c, "grows") > 0
    })
    .await;
    let held = [&b, &c].map(|peer| calls(peer, "stays"));
    assert!(held.contains(&0) && held != [0, 0], "{held:?}");
    assert_eq!(calls(&b, "stays") + calls(&c, "stays"), calls(&b, "grows") + calls(&c, "grows"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_no_run_is_told_at_once_that_there_is_no_room() {
    let (_cluster, [a, b]) = Cluster::with_models_on([("a", false), ("b", true)]).await;
    let _gossip = Gossip::between(&[(&a, without_models(), &[]), (&b, Roles::all(), &[])]).await;
    apply(&a.node, "{kind: Model, name: slow, backend: fake, queue: 1, parameters: {latency_ms: 2000}}").await;
    until("the model is ready", async || ready(&a, "slow") == names(&["b"])).await;
    let first = infer(&a, "slow", "first");
    let second = async {
        until("the first one is there", async || {
            let full = |replica: &Replica| replica.ready && replica.spare_queue == 0;
            b.node.models_told().borrow().values().any(full)
        })
        .await;
        infer(&a, "slow", "second").await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok(), "{first:?}");
    assert!(matches!(second, Err(RouteError::Overloaded(_))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_homes_and_versions_are_kept_to() {
    let (_cluster, [a, b, c]) = Cluster::with_models_on([("a", false), ("b", true), ("c", true)]).await;
    let gpu = &[("gpu", "h100")][..];
    let gossip =
        Gossip::between(&[(&a, without_models(), gpu), (&b, Roles::all(), gpu), (&c, Roles::all(), &[])]).await;
    let yaml = "
kind: Model
name: pinned
backend: fake
placement: {labels: {gpu: h100}, min: 2}
---
kind: Model
name: nowhere
backend: fake
placement: {labels: {gpu: b200}}
---
kind: Model
name: both
backend: fake
placement: {min: 2}
";
    apply(&c.node, yaml).await;
    until("both homes have it", async || ready(&a, "both") == names(&["b", "c"])).await;
    assert_eq!(infer(&c, "pinned", "x").await.unwrap().to_json(), json!({"text": "x"}));
    assert_eq!((calls(&b, "pinned"), done(&c, "pinned"), done(&a, "pinned")), (1, None, None));
    let refused = infer(&b, "nowhere", "x").await.unwrap_err().into_failure();
    assert_eq!(refused.class, FailureClass::Unavailable);
    for part in ["labels gpu=b200", "'a' has not that role", "'b' is not gpu=b200", "'c' is not gpu=b200"] {
        assert!(refused.message.contains(part), "{refused}");
    }
    // The newest version answers on every node, whoever put it.
    apply(
        &a.node,
        "{kind: Model, name: both, version: 2, backend: fake, parameters: {output_bytes: 3}, placement: {min: 2}}",
    )
    .await;
    for peer in [&a, &b, &c] {
        until("the new version answers", async || {
            infer(peer, "both", "abcdef").await.is_ok_and(|output| output.to_json() == json!({"text": "abc"}))
        })
        .await;
    }
    // A node that gives its work away gets no more of it, not even from itself.
    let before = calls(&b, "both");
    gossip.change("b", |profile| profile.draining = true);
    let drains = |members: &Arc<Vec<Member>>| members.iter().any(|member| member.profile.draining);
    for peer in [&a, &b] {
        peer.heard.subscribe().wait_for(drains).await.unwrap();
        assert!(infer(peer, "both", "abcdef").await.is_ok());
    }
    assert_eq!(calls(&b, "both"), before);
}
