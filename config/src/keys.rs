//! The table of all keys: path, place in the settings, and what values it takes.
//!
//! Never knows layers. Used by the loader to set values and by the display to show them. A new setting is a field, a
//! row here and a paragraph in the default file; a test holds the three together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::notation::{duration, show_duration, show_size, size};
use crate::problem::nearest;
use crate::secret::Secret;
use crate::settings::{
    LogFormat, Settings, check_labels, check_mechanism, check_properties, check_registry, check_roles, check_security,
    check_seeds,
};
use crate::store_url::StoreUrl;

/// Finds a value in the settings.
type At<T> = fn(&mut Settings) -> &mut T;

/// One key.
pub(crate) struct Key {
    /// Its path, such as `http.address`.
    pub(crate) path: &'static str,
    slot: Slot,
}

/// Where a value goes and what it may be.
enum Slot {
    Address(At<SocketAddr>),
    OptionalAddress(At<Option<SocketAddr>>),
    Count16(At<u16>, u16, u16),
    Count32(At<u32>, u32, u32),
    Count64(At<u64>, u64, u64),
    Size(At<u64>, u64, u64),
    Time(At<Duration>, Duration, Duration),
    Folder(At<PathBuf>),
    OptionalFolder(At<Option<PathBuf>>),
    Format(At<LogFormat>),
    /// A URL that may hold a password.
    Store(At<StoreUrl>),
    /// A URL of Redis, which may hold a password.
    Redis(At<Option<StoreUrl>>),
    /// A text that is never shown.
    Secret(At<Option<Secret>>),
    /// A text with its own check.
    Text(At<String>, fn(&str) -> Result<(), String>),
}

const HOUR: Duration = Duration::from_secs(3600);
const DECADE: Duration = Duration::from_secs(3653 * 24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);

const fn key(path: &'static str, slot: Slot) -> Key {
    Key { path, slot }
}

/// All keys, in the order of the default file.
pub(crate) const KEYS: &[Key] = &[
    key("node.name", Slot::Text(|s| &mut s.node.name, check_name)),
    key("http.address", Slot::Address(|s| &mut s.http.address)),
    key("http.max_body_bytes", Slot::Size(|s| &mut s.http.max_body_bytes, 1 << 10, 1 << 30)),
    key("http.max_in_flight", Slot::Count32(|s| &mut s.http.max_in_flight, 1, 1_000_000)),
    key("http.requests_per_second", Slot::Count32(|s| &mut s.http.requests_per_second, 0, 10_000_000)),
    key("http.max_wait", Slot::Time(|s| &mut s.http.max_wait, Duration::ZERO, HOUR)),
    key("http.request_timeout", Slot::Time(|s| &mut s.http.request_timeout, MILLISECOND, HOUR)),
    key("grpc.address", Slot::Address(|s| &mut s.grpc.address)),
    key("admin.address", Slot::Address(|s| &mut s.admin.address)),
    key("data.folder", Slot::Folder(|s| &mut s.data.folder)),
    key("resources.folder", Slot::OptionalFolder(|s| &mut s.resources.folder)),
    key("store.url", Slot::Store(|s| &mut s.store.url)),
    key("runs.max_live", Slot::Count64(|s| &mut s.runs.max_live, 1, 100_000)),
    key("runs.max_unfinished", Slot::Count64(|s| &mut s.runs.max_unfinished, 1, 1_000_000_000)),
    key("runs.max_outbox", Slot::Count64(|s| &mut s.runs.max_outbox, 1, 1_000_000_000)),
    key("runs.shards", Slot::Count16(|s| &mut s.runs.shards, 1, 4096)),
    key("runs.retention", Slot::Time(|s| &mut s.runs.retention, Duration::ZERO, DECADE)),
    key("runs.recovery_per_second", Slot::Count32(|s| &mut s.runs.recovery_per_second, 1, 1_000_000)),
    key("models.threads", Slot::Count32(|s| &mut s.models.threads, 0, 1024)),
    key("models.cache_folder", Slot::OptionalFolder(|s| &mut s.models.cache_folder)),
    key("models.tensorflow", Slot::OptionalFolder(|s| &mut s.models.tensorflow)),
    key("models.memory_bytes", Slot::Size(|s| &mut s.models.memory_bytes, 0, 1 << 50)),
    key("cluster.address", Slot::OptionalAddress(|s| &mut s.cluster.address)),
    key("cluster.advertise", Slot::OptionalAddress(|s| &mut s.cluster.advertise)),
    key("cluster.name", Slot::Text(|s| &mut s.cluster.name, check_name)),
    key("cluster.seeds", Slot::Text(|s| &mut s.cluster.seeds, check_seeds)),
    key("cluster.roles", Slot::Text(|s| &mut s.cluster.roles, check_roles)),
    key("cluster.labels", Slot::Text(|s| &mut s.cluster.labels, check_labels)),
    key("cluster.weight", Slot::Count32(|s| &mut s.cluster.weight, 0, 1_000)),
    key("cluster.certificate", Slot::OptionalFolder(|s| &mut s.cluster.certificate)),
    key("cluster.key", Slot::OptionalFolder(|s| &mut s.cluster.key)),
    key("cluster.authority", Slot::OptionalFolder(|s| &mut s.cluster.authority)),
    key("redis.url", Slot::Redis(|s| &mut s.redis.url)),
    key("kafka.brokers", Slot::Text(|s| &mut s.kafka.brokers, check_seeds)),
    key("kafka.client_id", Slot::Text(|s| &mut s.kafka.client_id, check_name)),
    key("kafka.security", Slot::Text(|s| &mut s.kafka.security, check_security)),
    key("kafka.mechanism", Slot::Text(|s| &mut s.kafka.mechanism, check_mechanism)),
    key("kafka.user", Slot::Text(|s| &mut s.kafka.user, |_| Ok(()))),
    key("kafka.password", Slot::Secret(|s| &mut s.kafka.password)),
    key("kafka.password_file", Slot::OptionalFolder(|s| &mut s.kafka.password_file)),
    key("kafka.authority", Slot::OptionalFolder(|s| &mut s.kafka.authority)),
    key("kafka.certificate", Slot::OptionalFolder(|s| &mut s.kafka.certificate)),
    key("kafka.key", Slot::OptionalFolder(|s| &mut s.kafka.key)),
    key("kafka.key_password", Slot::Secret(|s| &mut s.kafka.key_password)),
    key("kafka.properties", Slot::Text(|s| &mut s.kafka.properties, check_properties)),
    key("registry.url", Slot::Text(|s| &mut s.registry.url, check_registry)),
    key("registry.user", Slot::Text(|s| &mut s.registry.user, |_| Ok(()))),
    key("registry.password", Slot::Secret(|s| &mut s.registry.password)),
    key("registry.password_file", Slot::OptionalFolder(|s| &mut s.registry.password_file)),
    key("registry.authority", Slot::OptionalFolder(|s| &mut s.registry.authority)),
    key("egress.allow", Slot::Text(|s| &mut s.egress.allow, check_places)),
    key("egress.max_in_flight", Slot::Count32(|s| &mut s.egress.max_in_flight, 1, 65_536)),
    key("egress.max_in_flight_per_host", Slot::Count32(|s| &mut s.egress.max_in_flight_per_host, 1, 65_536)),
    key("egress.max_answer_bytes", Slot::Size(|s| &mut s.egress.max_answer_bytes, 1 << 10, 16 << 20)),
    key("log.format", Slot::Format(|s| &mut s.log.format)),
    key("log.filter", Slot::Text(|s| &mut s.log.filter, check_filter)),
    key("shutdown.grace", Slot::Time(|s| &mut s.shutdown.grace, Duration::ZERO, HOUR)),
];

impl Key {
    /// The key of a path.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Name of the key in the environment.
    pub(crate) fn environment_name(&self) -> String {
        format!("MOTET__{}", self.path.to_uppercase().replace('.', "__"))
    }

    /// Whether values are texts, for which a number in a file is a slip.
    pub(crate) fn is_text(&self) -> bool {
        matches!(
            self.slot,
            Slot::Folder(_)
                | Slot::OptionalFolder(_)
                | Slot::Format(_)
                | Slot::Store(_)
                | Slot::Redis(_)
                | Slot::Secret(_)
                | Slot::Text(..)
        )
    }

    /// Sets the value from text; or says what is expected.
    pub(crate) fn assign(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match &self.slot {
            Slot::Address(at) => *at(settings) = address(text)?,
            Slot::OptionalAddress(at) => *at(settings) = Some(address(text)?),
            Slot::Redis(at) => {
                check_redis(text)?;
                *at(settings) = Some(text.into());
            }
            Slot::Count16(at, min, max) => *at(settings) = count(text, *min, *max)?,
            Slot::Count32(at, min, max) => *at(settings) = count(text, *min, *max)?,
            Slot::Count64(at, min, max) => *at(settings) = count(text, *min, *max)?,
            Slot::Size(at, min, max) => {
                let bytes =
                    size(text).ok_or_else(|| format!("'{text}' is no size; write a whole number with a unit: 8MiB"))?;
                let shown = (show_size(bytes), show_size(*min), show_size(*max));
                *at(settings) = within(bytes, *min, *max, &shown)?;
            }
            Slot::Time(at, min, max) => {
                let time = duration(text)
                    .ok_or_else(|| format!("'{text}' is no time; write a whole number with a unit: 500ms, 30s, 5m"))?;
                let shown = (show_duration(time), show_duration(*min), show_duration(*max));
                *at(settings) = within(time, *min, *max, &shown)?;
            }
            Slot::Folder(at) => *at(settings) = folder(text)?,
            Slot::OptionalFolder(at) => *at(settings) = Some(folder(text)?),
            Slot::Format(at) => {
                *at(settings) = LogFormat::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
                    format!("'{text}' is no format; it is one of {}", LogFormat::ALL.map(LogFormat::as_str).join(", "))
                })?;
            }
            Slot::Store(at) => {
                check_store(text)?;
                *at(settings) = text.into();
            }
            Slot::Secret(at) => *at(settings) = Some(Secret::new(text)),
            Slot::Text(at, check) => {
                check(text)?;
                *at(settings) = text.to_owned();
            }
        }
        Ok(())
    }

    /// The value as it would be written; empty where there is none. Borrows mutably only because the table's places do.
    pub(crate) fn show(&self, settings: &mut Settings) -> String {
        match &self.slot {
            Slot::Address(at) => at(settings).to_string(),
            Slot::OptionalAddress(at) => at(settings).map(|address| address.to_string()).unwrap_or_default(),
            Slot::Redis(at) => at(settings).as_ref().map(ToString::to_string).unwrap_or_default(),
            Slot::Count16(at, ..) => at(settings).to_string(),
            Slot::Count32(at, ..) => at(settings).to_string(),
            Slot::Count64(at, ..) => at(settings).to_string(),
            Slot::Size(at, ..) => show_size(*at(settings)),
            Slot::Time(at, ..) => show_duration(*at(settings)),
            Slot::Folder(at) => at(settings).display().to_string(),
            Slot::OptionalFolder(at) => {
                at(settings).as_ref().map(|path| path.display().to_string()).unwrap_or_default()
            }
            Slot::Format(at) => at(settings).as_str().to_owned(),
            Slot::Store(at) => at(settings).to_string(),
            Slot::Secret(at) => at(settings).as_ref().map(ToString::to_string).unwrap_or_default(),
            Slot::Text(at, _) => at(settings).clone(),
        }
    }
}

/// A key that was probably meant by a path that is unknown: first among its neighbours, then by its last part anywhere.
pub(crate) fn meant_by(path: &str) -> Option<&'static str> {
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let written = path.rsplit('.').next().unwrap_or(path);
    let section = &path[..path.len() - written.len()];
    let neighbours = KEYS.iter().map(|key| key.path).filter(|known| !section.is_empty() && known.starts_with(section));
    let near = nearest(written, neighbours.map(last));
    let near = near.and_then(|name| KEYS.iter().find(|key| key.path == format!("{section}{name}")));
    near.map(|key| key.path)
        .or_else(|| nearest(path, KEYS.iter().map(|key| key.path)))
        .or_else(|| KEYS.iter().map(|key| key.path).find(|known| last(known) == written))
}

/// Names of the sections.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.path.split('.').next())
}

fn count<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: TryFrom<u64> + Into<u64> + Copy,
{
    let number: u64 = match text.parse() {
        Ok(number) => number,
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => u64::MAX,
        Err(_) => return Err(format!("'{text}' is no whole number")),
    };
    let (min, max) = (min.into(), max.into());
    let number = within(number, min, max, &(text.to_owned(), min.to_string(), max.to_string()))?;
    T::try_from(number).map_err(|_| format!("{text} is too large"))
}

fn within<T: PartialOrd>(value: T, min: T, max: T, shown: &(String, String, String)) -> Result<T, String> {
    if value < min || value > max {
        return Err(format!("{} is out of bounds; it must be {} to {}", shown.0, shown.1, shown.2));
    }
    Ok(value)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "'{text}' is no address; write an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or \
             [::1]:8080"
        )
    })
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("~/") || text.contains('\0') {
        return Err(format!("'{text}' is no path; '~' is not expanded here, so write the folder in full"));
    }
    Ok(text.into())
}

fn check_name(text: &str) -> Result<(), String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.len() > 63 || !text.bytes().all(fine) {
        return Err(format!("'{text}' is no name; use up to 63 letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}

fn check_store(text: &str) -> Result<(), String> {
    if text == "memory:" || ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(());
    }
    // What follows the scheme may hold a password.
    let scheme = text.split(':').next().unwrap_or_default();
    Err(format!("'{scheme}' is no store that this version knows; write sqlite:, sqlite:PATH, postgres:// or memory:"))
}

fn check_redis(text: &str) -> Result<(), String> {
    let known = ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
    if known.contains(&scheme) {
        return Ok(());
    }
    Err("this is no URL of Redis; write redis://host:6379, rediss:// for TLS, redis-sentinel:// or \
         redis-cluster://"
        .to_owned())
}

/// Finds slips in a list of places. What is a host and what an address is the client's to say, which has the last word.
fn check_places(text: &str) -> Result<(), String> {
    for entry in text.split(',').map(str::trim) {
        let place = entry.strip_prefix('!').unwrap_or(entry).trim_start();
        if place.is_empty() {
            return Err("an entry is empty; look for a comma too many".to_owned());
        }
        if place.contains("://") || place.contains(char::is_whitespace) {
            return Err(format!("'{place}' is no host; write such as api.example.org, *.example.org or 10.0.0.0/8"));
        }
    }
    Ok(())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Finds slips in log directives. Their full grammar belongs to the logger, which has the last word.
fn check_filter(text: &str) -> Result<(), String> {
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.contains('[')) {
        let level = match directive.rsplit_once('=') {
            Some((target, level)) if !target.is_empty() => level,
            Some(_) => return Err(format!("'{directive}' has no module before '='")),
            None if directive.is_empty() => return Err("a directive is empty; look for a comma too many".to_owned()),
            None => match nearest(&directive.to_lowercase(), LEVELS) {
                Some(_) => directive,
                None => continue,
            },
        };
        let lower = level.to_lowercase();
        if !LEVELS.contains(&lower.as_str()) && !matches!(level, "0" | "1" | "2" | "3" | "4" | "5") {
            let meant = nearest(&lower, LEVELS).map(|meant| format!("; did you mean '{meant}'?")).unwrap_or_default();
            return Err(format!("'{level}' is no level; levels are {}{meant}", LEVELS.join(", ")));
        }
    }
    Ok(())
}
