//! The URL of a server, of sentinels or of a cluster, in the forms that users of Redis know.
//!
//! Read by hand: several hosts with ports are no host to a parser of URLs, and its own words may repeat what is a
//! password. Connects to nothing. Used by `settings`.

use std::path::PathBuf;

use super::settings::TlsFiles;
use crate::port::VolatileError;

/// Port of a server.
const SERVER_PORT: u16 = 6379;

/// Port of a sentinel.
const SENTINEL_PORT: u16 = 26379;

/// Schemes with what they mean: the shape, and whether there is TLS.
const SCHEMES: [(&str, Kind, bool); 16] = [
    ("redis", Kind::Single, false),
    ("rediss", Kind::Single, true),
    ("valkey", Kind::Single, false),
    ("valkeys", Kind::Single, true),
    ("redis-cluster", Kind::Cluster, false),
    ("rediss-cluster", Kind::Cluster, true),
    ("redis+cluster", Kind::Cluster, false),
    ("rediss+cluster", Kind::Cluster, true),
    ("valkey-cluster", Kind::Cluster, false),
    ("redis-sentinel", Kind::Sentinel, false),
    ("rediss-sentinel", Kind::Sentinel, true),
    ("redis+sentinel", Kind::Sentinel, false),
    ("rediss+sentinel", Kind::Sentinel, true),
    ("valkey-sentinel", Kind::Sentinel, false),
    ("unix", Kind::Socket, false),
    ("redis+unix", Kind::Socket, false),
];

const PARAMETERS: &str =
    "db, prefix, ca_file, cert_file, key_file, and for sentinels service, sentinel_username, sentinel_password";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Single,
    Cluster,
    Sentinel,
    Socket,
}

/// A host with its port.
pub(super) type Host = (String, u16);

/// Which servers there are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// One server.
    Single(Host),
    /// Some nodes of a cluster, at least one.
    Cluster(Vec<Host>),
    /// Some sentinels, at least one, which know the primary of a service.
    Sentinel { hosts: Vec<Host>, service: String, username: Option<String>, password: Option<String> },
    /// One server on this machine.
    Socket(PathBuf),
}

/// What a URL says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) shape: Shape,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<u8>,
    /// Present when the way is encrypted.
    pub(super) tls: Option<TlsFiles>,
}

/// The parameters of a URL.
#[derive(Default)]
struct Parameters {
    prefix: Option<String>,
    database: Option<u8>,
    service: Option<String>,
    username: Option<String>,
    password: Option<String>,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn refused<T>(text: impl Into<String>) -> Result<T, VolatileError> {
    Err(VolatileError::Refused(text.into()))
}

impl Address {
    /// The address and the prefix of keys, if there is one.
    pub(super) fn parse(text: &str) -> Result<(Self, Option<String>), VolatileError> {
        let form = "expected redis://user:password@host:6379/0";
        let Some((scheme, rest)) = text.split_once("://") else {
            return refused(format!("the URL of Redis has no scheme; {form}"));
        };
        let Some((_, kind, tls)) = SCHEMES.iter().find(|(name, ..)| *name == scheme) else {
            let known: Vec<_> = SCHEMES.iter().map(|(name, ..)| *name).collect();
            return refused(format!("the URL of Redis has an unknown scheme; {form}, or one of {}", known.join(", ")));
        };
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parameters = Parameters::read(query)?;
        if let Some(service) = fragment.filter(|name| !name.is_empty()) {
            parameters.service.get_or_insert(decoded(service)?);
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user_info, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let (username, password) = credentials(user_info)?;
        let shape = match kind {
            Kind::Socket if hosts.is_empty() && path.len() > 1 => Shape::Socket(PathBuf::from(decoded(path)?)),
            Kind::Socket => return refused("the URL of Redis names no socket; expected unix:///path/of/socket"),
            _ => network(*kind, hosts, path, &mut parameters)?,
        };
        if matches!(shape, Shape::Cluster(_)) && parameters.database.is_some_and(|database| database != 0) {
            return refused("a Redis cluster has only database 0: leave the database out of the URL");
        }
        let (prefix, database) = (parameters.prefix.take(), parameters.database);
        let tls = parameters.tls(*tls)?;
        Ok((Self { shape, username, password, database, tls }, prefix))
    }

    /// Hosts, database and service.
    pub(super) fn place(&self) -> String {
        let joined = |hosts: &[Host]| {
            let named: Vec<_> = hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            named.join(",")
        };
        let database = self.database.map_or_else(String::new, |number| format!("/{number}"));
        match &self.shape {
            Shape::Single((host, port)) => format!("{host}:{port}{database}"),
            Shape::Cluster(hosts) => format!("cluster {}", joined(hosts)),
            Shape::Sentinel { hosts, service, .. } => format!("{service}{database} of sentinels {}", joined(hosts)),
            Shape::Socket(path) => format!("{}{database}", path.display()),
        }
    }
}

/// The shape of what is reached over the network.
fn network(kind: Kind, hosts: &str, path: &str, parameters: &mut Parameters) -> Result<Shape, VolatileError> {
    let usual = if kind == Kind::Sentinel { SENTINEL_PORT } else { SERVER_PORT };
    let mut hosts = hosts.split(',').map(|host| host_of(host, usual)).collect::<Result<Vec<_>, _>>()?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(number) => parameters.database = Some(number),
            Err(_) if kind == Kind::Sentinel => parameters.service = Some(decoded(part)?),
            Err(_) => return refused("the path of the URL of Redis must be the number of a database, 0 to 255"),
        }
    }
    match kind {
        Kind::Cluster => Ok(Shape::Cluster(hosts)),
        Kind::Sentinel => {
            let Some(service) = parameters.service.take() else {
                return refused("the URL of the sentinels names no service; expected redis-sentinel://host/service");
            };
            let (username, password) = (parameters.username.take(), parameters.password.take());
            Ok(Shape::Sentinel { hosts, service, username, password })
        }
        Kind::Single | Kind::Socket if hosts.len() == 1 => Ok(Shape::Single(hosts.remove(0))),
        Kind::Single | Kind::Socket => refused(
            "the URL of Redis names several hosts: use redis-sentinel:// or redis-cluster:// for them, or name one",
        ),
    }
}

fn host_of(text: &str, usual: u16) -> Result<Host, VolatileError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(address) => {
            let Some((host, port)) = address.split_once(']') else {
                return refused("the URL of Redis has an address without its closing bracket");
            };
            (host, port.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return refused("the URL of Redis names no host; expected redis://host:6379");
    }
    // What stands there is not repeated: of a URL with a stray '@' or ':' it may be a password.
    match port.map(str::parse) {
        None => Ok((decoded(host)?, usual)),
        Some(Ok(port)) => Ok((decoded(host)?, port)),
        Some(Err(_)) => refused(
            "the URL of Redis has a port that is no number from 1 to 65535; a ':', '/' or '@' inside a password is \
             written as %3A, %2F or %40",
        ),
    }
}

type Credentials = (Option<String>, Option<String>);

fn credentials(user_info: Option<&str>) -> Result<Credentials, VolatileError> {
    let some = |text: &str| decoded(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    match user_info {
        None => Ok((None, None)),
        Some(info) => match info.split_once(':') {
            Some((user, password)) => Ok((some(user)?, some(password)?)),
            // As the command line of Redis reads it.
            None => Ok((None, some(info)?)),
        },
    }
}

fn decoded(text: &str) -> Result<String, VolatileError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return refused("the URL of Redis has a '%' that is not followed by two hexadecimal digits");
        };
        bytes.push(byte);
        rest = &after[2..];
    }
    String::from_utf8(bytes).or_else(|_| refused("a part of the URL of Redis is no text"))
}

impl Parameters {
    fn read(query: &str) -> Result<Self, VolatileError> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "db" | "database" => match value.parse() {
                    Ok(number) => found.database = Some(number),
                    Err(_) => return refused("the parameter db of the URL of Redis must be a number, 0 to 255"),
                },
                "prefix" => found.prefix = Some(value),
                "service" | "sentinelServiceName" | "sentinelMasterId" => found.service = Some(value),
                "sentinel_username" | "sentinelUsername" => found.username = Some(value),
                "sentinel_password" | "sentinelPassword" => found.password = Some(value),
                "ca_file" => found.authority = Some(value.into()),
                "cert_file" => found.certificate = Some(value.into()),
                "key_file" => found.key = Some(value.into()),
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return refused(format!(
                        "the URL of Redis has the unknown parameter '{name}'; known are {PARAMETERS}"
                    ));
                }
            }
        }
        Ok(found)
    }

    fn tls(self, wanted: bool) -> Result<Option<TlsFiles>, VolatileError> {
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return refused("the URL of Redis needs cert_file and key_file together"),
        };
        if wanted {
            return Ok(Some(TlsFiles { authority: self.authority, identity }));
        }
        if self.authority.is_some() || identity.is_some() {
            return refused("the URL of Redis names certificates, but its scheme has no TLS: use rediss://");
        }
        Ok(None)
    }
}
