//! Puts the layers together and finds every mistake in them.
//!
//! Never stops at the first mistake, and validates layers even where a later one wins: a wrong line in a file is wrong
//! also on the day on which nothing covers it. Used by the server through [`Settings::load`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::file::{self, Content, Node, Place};
use crate::keys::{KEYS, Key, meant_by, sections};
use crate::problem::{Origin, Problem, nearest};
use crate::settings::Settings;

/// Values from the command line, which win over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String, String)>);

impl Overrides {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key, such as `http.address`, from an option, such as `--http`, where it was given.
    #[must_use]
    pub fn set(mut self, key: &str, option: &str, value: Option<impl Into<String>>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), option.to_owned(), value.into())));
        self
    }
}

impl Settings {
    /// Settings from the defaults, a file, the environment and the command line, the later ones winning. All mistakes
    /// of all layers come back at once. Of the environment, names that start with `MOTET__` are settings; beside them
    /// `XDG_CACHE_HOME` and `HOME` say where model files are kept. Empty variables and empty keys count as not set.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<Self, Vec<Problem>> {
        let mut layers = Layers { settings: Self::default(), problems: Vec::new() };
        if let Some(path) = file {
            layers.file(path);
        }
        // In order of the names, so that the same mistakes are told in the same order.
        let environment: BTreeMap<String, String> = environment.collect();
        layers.environment(&environment);
        for (key, option, value) in overrides.0 {
            layers.named(&key, &value, Origin::CommandLine(option));
        }
        layers.check_together();
        if !layers.problems.is_empty() {
            return Err(layers.problems);
        }
        if layers.settings.models.cache_folder.is_none() {
            layers.settings.models.cache_folder = cache_folder(&environment);
        }
        Ok(layers.settings)
    }
}

/// The settings so far.
struct Layers {
    settings: Settings,
    problems: Vec<Problem>,
}

impl Layers {
    fn file(&mut self, path: &Path) {
        let whole =
            |message: String| Problem::new(Origin::File { path: path.to_owned(), line: 1, column: 1 }, "", message);
        let text = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.problems.push(whole("the file is not UTF-8 text".to_owned())),
            Err(error) => return self.problems.push(whole(format!("cannot read the file: {error}"))),
        };
        match file::read(&text) {
            Ok(node) => self.section(path, "", &node),
            Err((place, message)) => self.problems.push(Problem::new(origin(path, place), "", message)),
        }
    }

    /// What stands below a section's name; below none for the whole file.
    fn section(&mut self, path: &Path, name: &str, node: &Node) {
        let entries = match &node.content {
            Content::Nothing => return,
            Content::Map(entries) => entries,
            Content::Plain(_) | Content::Text(_) | Content::List => {
                let message = "expected a map of settings below this name";
                return self.problems.push(Problem::new(origin(path, node.place), name, message));
            }
        };
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        for (entry, place, value) in entries {
            let full = if name.is_empty() { entry.clone() } else { format!("{name}.{entry}") };
            if let Some(first) = seen.insert(entry, *place) {
                let message = format!("the key stands twice; first in line {}", first.line);
                self.problems.push(Problem::new(origin(path, *place), &full, message));
            }
            // A dotted name is the environment's way of writing; in a file it would be a second one.
            if let Some(key) = Key::find(&full).filter(|_| !name.is_empty()) {
                self.value(path, key, value);
            } else if name.is_empty() && sections().any(|section| section == full) {
                self.section(path, &full, value);
            } else {
                let section = nearest(entry, sections()).filter(|_| name.is_empty()).map(str::to_owned);
                let meant = section.or_else(|| meant_by(&full).map(str::to_owned));
                self.problems
                    .push(Problem::new(origin(path, *place), &full, "there is no such setting").suggest(meant));
            }
        }
    }

    fn value(&mut self, path: &Path, key: &'static Key, node: &Node) {
        let origin = origin(path, node.place);
        match &node.content {
            Content::Nothing => {}
            Content::Plain(text) if key.is_text() => {
                let message = format!("expected a text, found {text}; put it into quotes if it is meant");
                self.problems.push(Problem::new(origin, key.path, message));
            }
            Content::Plain(text) | Content::Text(text) => self.assign(key, text, origin),
            Content::List | Content::Map(_) => {
                self.problems.push(Problem::new(origin, key.path, "expected a single value"));
            }
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("MOTET__")) {
            let origin = Origin::Environment(name.clone());
            match KEYS.iter().find(|key| key.environment_name() == *name) {
                Some(key) => self.assign(key, value, origin),
                None => {
                    let path = name["MOTET__".len()..].to_lowercase().replace("__", ".");
                    let meant = meant_by(&path).and_then(Key::find).map(Key::environment_name);
                    self.problems.push(Problem::new(origin, path, "there is no such setting").suggest(meant));
                }
            }
        }
    }

    fn named(&mut self, path: &str, value: &str, origin: Origin) {
        match Key::find(path) {
            Some(key) => self.assign(key, value, origin),
            None => {
                let meant = meant_by(path).map(str::to_owned);
                self.problems.push(Problem::new(origin, path, "there is no such setting").suggest(meant));
            }
        }
    }

    fn assign(&mut self, key: &'static Key, text: &str, origin: Origin) {
        if text.is_empty() {
            return;
        }
        match key.assign(&mut self.settings, text) {
            Ok(()) => self.settings.origins.set(key.path, origin),
            Err(message) => self.problems.push(Problem::new(origin, key.path, message)),
        }
    }

    /// What two settings say together.
    fn check_together(&mut self) {
        let (api, grpc, admin) = (self.settings.http.address, self.settings.grpc.address, self.settings.admin.address);
        let listeners = [("http.address", api), ("grpc.address", grpc), ("admin.address", admin)];
        for (first, second) in [(0, 2), (0, 1), (1, 2)] {
            let ((first, one), (second, other)) = (listeners[first], listeners[second]);
            if one == other && one.port() != 0 {
                let message = format!("{first} and {second} are both {one}; give each its own port");
                self.conflict(second, first, message);
            }
        }
        let (live, unfinished) = (self.settings.runs.max_live, self.settings.runs.max_unfinished);
        if live > unfinished {
            let message =
                format!("runs.max_live ({live}) exceeds runs.max_unfinished ({unfinished}); live runs are unfinished");
            self.conflict("runs.max_live", "runs.max_unfinished", message);
        }
        let kafka = &self.settings.kafka;
        if kafka.security.starts_with("sasl") && kafka.user.is_empty() {
            let message = format!("kafka.security is {} but kafka.user is empty; name the user", kafka.security);
            self.conflict("kafka.security", "kafka.user", message);
        }
        let kafka = &self.settings.kafka;
        if kafka.password.is_some() && kafka.password_file.is_some() {
            let message = "kafka.password and kafka.password_file are both set; keep one".to_owned();
            self.conflict("kafka.password", "kafka.password_file", message);
        }
        let registry = &self.settings.registry;
        if registry.password.is_some() && registry.password_file.is_some() {
            let message = "registry.password and registry.password_file are both set; keep one".to_owned();
            self.conflict("registry.password", "registry.password_file", message);
        }
        let kafka = &self.settings.kafka;
        if kafka.certificate.is_some() != kafka.key.is_some() {
            let message = "kafka.certificate and kafka.key belong together; set both or none".to_owned();
            self.conflict("kafka.certificate", "kafka.key", message);
        }
    }

    /// Reports a conflict where it was made: at the first key that is not left to its default.
    fn conflict(&mut self, first: &'static str, second: &'static str, message: String) {
        let origins = &self.settings.origins;
        let key = if *origins.get(first) == Origin::Default { second } else { first };
        self.problems.push(Problem::new(origins.get(key).clone(), key, message));
    }
}

fn origin(path: &Path, place: Place) -> Origin {
    Origin::File { path: path.to_owned(), line: place.line, column: place.column }
}

/// Where the desktop standard puts caches: `$XDG_CACHE_HOME`, which must be absolute, else `.cache` in the home.
fn cache_folder(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("motet"))
}
