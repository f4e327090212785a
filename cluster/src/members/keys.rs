//! A node's profile as the keys and values that gossip carries, and back.
//!
//! Trusts nothing that it reads: what makes no sense becomes a flaw, and keys that it does not know are left to newer
//! versions. Used by `members` for what this node tells and by `view` for what others tell.

use std::collections::BTreeMap;
use std::fmt::Display;

use motet_engine::id::{Name, Namespace};
use serde::de::DeserializeOwned;

use super::MemberError;
use super::member::{Capacity, MAX_REPLICAS, ModelName, Profile, Role, Roles};

/// Longest value, in bytes: gossip must fit into datagrams.
const VALUE_BYTES: usize = 16 << 10;

const LABELS: usize = 64;
const LABEL_KEY_CHARS: usize = 63;
const LABEL_VALUE_CHARS: usize = 255;
const TEXT_CHARS: usize = 255;
const HEAVIEST: f64 = 1_000.0;

/// Flaws that are kept of one node; a nonsense node has any number.
const FLAWS: usize = 8;

const ROLES: &str = "roles";
const LABELS_KEY: &str = "labels";
const CAPACITY: &str = "capacity";
const LOAD: &str = "load";
const VERSION: &str = "version";
const HTTP: &str = "http";
const DRAINING: &str = "draining";
const MODEL: &str = "model/";

/// What this node tells; refuses what others would not believe.
pub(super) fn written(profile: &Profile) -> Result<BTreeMap<String, String>, MemberError> {
    let mut flaws = Flaws::default();
    check(profile, &mut flaws);
    if let Some(flaw) = flaws.0.into_iter().next() {
        return Err(MemberError::Profile(flaw));
    }
    let roles: Vec<_> = profile.roles.iter().map(Role::as_str).collect();
    let mut pairs = BTreeMap::from([
        (ROLES.to_owned(), roles.join(",")),
        (LABELS_KEY.to_owned(), json(&profile.labels)?),
        (CAPACITY.to_owned(), json(&profile.capacity)?),
        (LOAD.to_owned(), json(&profile.load)?),
        (VERSION.to_owned(), json(&profile.version)?),
        (DRAINING.to_owned(), profile.draining.to_string()),
    ]);
    pairs.extend(profile.http.iter().map(|address| (HTTP.to_owned(), address.clone())));
    for (model, replica) in &profile.replicas {
        pairs.insert(format!("{MODEL}{}/{}", model.namespace, model.name), json(replica)?);
    }
    if let Some((key, _)) = pairs.iter().find(|(_, value)| value.len() > VALUE_BYTES) {
        return Err(MemberError::Profile(format!("{key} is longer than {VALUE_BYTES} bytes")));
    }
    Ok(pairs)
}

fn json(value: &impl serde::Serialize) -> Result<String, MemberError> {
    serde_json::to_string(value).map_err(|error| MemberError::Profile(error.to_string()))
}

/// What a node told, and what of it makes no sense. What is missing has not arrived yet.
pub(super) fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> (Profile, Vec<String>) {
    let (mut profile, mut flaws) = (Profile::default(), Flaws::default());
    for (key, value) in pairs {
        if value.len() > VALUE_BYTES {
            flaws.add(format_args!("{} is longer than {VALUE_BYTES} bytes", shown(key)));
            continue;
        }
        match key {
            ROLES => profile.roles = roles(value),
            LABELS_KEY => flaws.take(key, value, &mut profile.labels),
            CAPACITY => flaws.take(key, value, &mut profile.capacity),
            LOAD => flaws.take(key, value, &mut profile.load),
            VERSION => flaws.take(key, value, &mut profile.version),
            HTTP => profile.http = Some(value.to_owned()),
            DRAINING => flaws.take(key, value, &mut profile.draining),
            _ => replica(key, value, &mut profile, &mut flaws),
        }
    }
    check(&profile, &mut flaws);
    if !flaws.0.is_empty() {
        sanitize(&mut profile);
    }
    (profile, flaws.0)
}

/// Roles that this version does not know belong to newer ones.
fn roles(value: &str) -> Roles {
    value.split(',').filter_map(|name| name.parse().ok()).collect()
}

fn replica(key: &str, value: &str, profile: &mut Profile, flaws: &mut Flaws) {
    let Some(model) = key.strip_prefix(MODEL) else { return };
    let named = model.split_once('/').and_then(|(namespace, name)| {
        Some(ModelName { namespace: Namespace(Name::new(namespace).ok()?), name: Name::new(name).ok()? })
    });
    let Some(named) = named else { return flaws.add(format_args!("{} names no model", shown(key))) };
    if profile.replicas.len() < MAX_REPLICAS {
        let mut replica = Default::default();
        flaws.take(key, value, &mut replica);
        profile.replicas.insert(named, replica);
    } else {
        flaws.add(format_args!("it has more than {MAX_REPLICAS} models"));
    }
}

/// What no node would tell in earnest.
fn check(profile: &Profile, flaws: &mut Flaws) {
    let long = |text: &str, most: usize| text.chars().count() > most || text.chars().any(char::is_control);
    let Capacity { cores, weight, .. } = profile.capacity;
    if !(weight > 0.0 && weight <= HEAVIEST) {
        flaws.add(format_args!("a weight of {weight} is not above 0 and up to {HEAVIEST}"));
    }
    if cores == 0 {
        flaws.add(format_args!("it has no processors"));
    }
    let (oldest, newest) = profile.version.protocol;
    if oldest > newest {
        flaws.add(format_args!("it speaks the protocol from {oldest} to {newest}"));
    }
    if long(&profile.version.binary, TEXT_CHARS) || profile.http.as_ref().is_some_and(|http| long(http, TEXT_CHARS)) {
        flaws.add(format_args!("its version or its address is longer than {TEXT_CHARS} characters, or is no text"));
    }
    if profile.labels.len() > LABELS {
        flaws.add(format_args!("it has more than {LABELS} labels"));
    }
    let strange = |(key, value): (&String, &String)| {
        key.is_empty() || long(key, LABEL_KEY_CHARS) || long(value, LABEL_VALUE_CHARS)
    };
    if profile.labels.iter().any(strange) {
        flaws.add(format_args!(
            "labels have 1 to {LABEL_KEY_CHARS} characters, and up to {LABEL_VALUE_CHARS} in their values"
        ));
    }
    if profile.replicas.len() > MAX_REPLICAS {
        flaws.add(format_args!("it has more than {MAX_REPLICAS} models"));
    }
}

/// Takes out of a flawed profile what could hurt those who show or compute with it.
fn sanitize(profile: &mut Profile) {
    let mut flaws = Flaws::default();
    check(profile, &mut flaws);
    if flaws.0.is_empty() {
        return;
    }
    let known = std::mem::take(profile);
    *profile = Profile { roles: known.roles, load: known.load, draining: known.draining, ..Profile::default() };
}

#[derive(Default)]
struct Flaws(Vec<String>);

impl Flaws {
    fn add(&mut self, flaw: impl Display) {
        if self.0.len() < FLAWS {
            self.0.push(flaw.to_string());
        }
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, value: &str, into: &mut T) {
        match serde_json::from_str(value) {
            Ok(read) => *into = read,
            Err(_) => self.add(format_args!("{} cannot be read: {}", shown(key), shown(value))),
        }
    }
}

/// A foreign text as it may stand in a log.
pub(super) fn shown(text: &str) -> String {
    const CHARS: usize = 60;
    let mut short: String = text.escape_debug().take(CHARS).collect();
    if text.chars().nth(CHARS).is_some() {
        short.push('…');
    }
    format!("'{short}'")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::member::{Load, Replica, Version};
    use super::*;

    fn model(namespace: &str, name: &str) -> ModelName {
        ModelName { namespace: Namespace(Name::new(namespace).unwrap()), name: Name::new(name).unwrap() }
    }

    fn profile() -> Profile {
        Profile {
            roles: [Role::Api, Role::Models].into_iter().collect(),
            labels: BTreeMap::from([("zone".to_owned(), "eu \"west\" ä".to_owned())]),
            capacity: Capacity { cores: 8, memory_bytes: 1 << 40, weight: 2.5, model_memory_bytes: 1 << 35 },
            load: Load { live_runs: 7, queue_depth: 3 },
            version: Version { binary: "1.2.3".to_owned(), protocol: (2, 4), events: 17 },
            http: Some("10.0.0.1:8080".to_owned()),
            draining: true,
            replicas: BTreeMap::from([
                (
                    model("default", "e5"),
                    Replica { spare_queue: 9, ready: true, failed: false, memory_bytes: 90 << 20 },
                ),
                (model("default", "chat"), Replica { failed: true, ..Replica::default() }),
                (model("blue", "e5"), Replica::default()),
            ]),
        }
    }

    fn reread(pairs: &BTreeMap<String, String>) -> (Profile, Vec<String>) {
        read(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    #[test]
    fn what_is_written_is_read() {
        let (read, flaws) = reread(&written(&profile()).unwrap());
        assert_eq!((read, flaws), (profile(), vec![]));
        let bare = Profile::default();
        assert_eq!(reread(&written(&bare).unwrap()), (bare, vec![]));
    }

    #[test]
    fn nonsense_is_shown_as_such() {
        for (key, value, what) in [
            ("capacity", "{}", "'capacity' cannot be read"),
            ("capacity", r#"{"cores":4,"memory_bytes":1,"weight":-1}"#, "weight of -1"),
            ("capacity", r#"{"cores":4,"memory_bytes":1,"weight":1e300}"#, "weight"),
            ("capacity", r#"{"cores":4,"memory_bytes":-1,"weight":1}"#, "cannot be read"),
            ("capacity", r#"{"cores":0,"memory_bytes":1,"weight":1}"#, "no processors"),
            ("load", "many", "'load' cannot be read: 'many'"),
            ("load", "\u{1b}[31m\n", "\\u{1b}[31m\\n"),
            ("version", r#"{"binary":"1","protocol":[3,1],"events":1}"#, "from 3 to 1"),
            ("version", "1.0", "cannot be read"),
            ("draining", "perhaps", "cannot be read"),
            ("labels", r#"{"":"x"}"#, "labels have 1 to 63"),
            ("labels", "[]", "cannot be read"),
            ("http", "a\nb", "is no text"),
            ("model/default", r#"{"spare_queue":1,"ready":true}"#, "names no model"),
            ("model/Default/E5", r#"{"spare_queue":1,"ready":true}"#, "names no model"),
            ("model/default/e5", "ready", "cannot be read"),
        ] {
            let mut pairs = written(&profile()).unwrap();
            pairs.insert(key.to_owned(), value.to_owned());
            let (read, flaws) = reread(&pairs);
            assert_eq!(flaws.len(), 1, "{key}={value}: {flaws:?}");
            assert!(flaws[0].contains(what), "{key}={value}: {flaws:?}");
            assert!(read.capacity.weight > 0.0 && read.capacity.weight <= HEAVIEST, "{read:?}");
        }
        let endless = BTreeMap::from([("labels".to_owned(), "x".repeat(VALUE_BYTES + 1))]);
        let (_, flaws) = reread(&endless);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
    }

    #[test]
    fn what_only_newer_versions_know_is_no_flaw() {
        let mut pairs = written(&profile()).unwrap();
        pairs.insert("roles".to_owned(), "api,models,oracle".to_owned());
        pairs.insert("mood".to_owned(), "fine".to_owned());
        pairs.insert("load".to_owned(), r#"{"live_runs":7,"queue_depth":3,"heat":1}"#.to_owned());
        assert_eq!(reread(&pairs), (profile(), vec![]));
    }

    #[test]
    fn what_older_versions_do_not_tell_is_no_flaw() {
        let pairs = [
            ("capacity", r#"{"cores":4,"memory_bytes":1,"weight":1}"#),
            ("model/default/e5", r#"{"spare_queue":7,"ready":true}"#),
        ];
        let (profile, flaws) = read(pairs.into_iter());
        assert_eq!(flaws, Vec::<String>::new());
        assert_eq!(profile.capacity.model_memory_bytes, 0);
        assert_eq!(
            profile.replicas[&model("default", "e5")],
            Replica { spare_queue: 7, ready: true, ..Replica::default() }
        );
    }

    #[test]
    fn what_others_would_not_believe_is_not_told() {
        let with = |change: fn(&mut Profile)| {
            let mut profile = profile();
            change(&mut profile);
            written(&profile)
        };
        for refused in [
            with(|it| it.capacity.weight = f64::NAN),
            with(|it| it.capacity.weight = 0.0),
            with(|it| it.labels = (0..99).map(|number| (number.to_string(), String::new())).collect()),
            with(|it| it.http = Some("x".repeat(300))),
            with(|it| it.version.protocol = (2, 1)),
        ] {
            assert!(matches!(refused, Err(MemberError::Profile(_))), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_can_do_harm(
            pairs in proptest::collection::btree_map(
                prop_oneof![
                    proptest::sample::select(vec![ROLES, LABELS_KEY, CAPACITY, LOAD, VERSION, HTTP, DRAINING])
                        .prop_map(str::to_owned),
                    "model/[a-z/]{0,9}",
                    ".{0,9}",
                ],
                prop_oneof![".{0,60}", r#"\{"[a-z_]{1,9}":-?[0-9e.]{1,12}\}"#, "[0-9\\[\\],-]{0,20}"],
                0..12,
            )
        ) {
            let (profile, flaws) = reread(&pairs);
            prop_assert!(flaws.len() <= FLAWS);
            prop_assert!(written(&profile).is_ok(), "{profile:?}");
        }
    }
}
