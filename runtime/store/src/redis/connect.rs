//! Makes clients from settings, with every timeout set: fred's own are none at all or minutes long.
//!
//! Connects to nothing itself. Used by `link` and by the listening side of `hints`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::types::Builder;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
    TcpConfig, TlsConfig, TlsConnector, TlsHostMapping, UnresponsiveConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::settings::{RedisSettings, TlsFiles};
use super::url::{Host, Shape};
use crate::port::VolatileError;

/// The first wait before connecting again, and what is added to every wait at most.
const RECONNECT_FIRST_MS: u32 = 50;
const RECONNECT_JITTER_MS: u32 = 100;

/// Questions that may wait inside a client; more fail at once.
const QUESTIONS: usize = 4096;

/// A client that is not connected yet.
pub(super) fn client(settings: &RedisSettings) -> Result<Client, VolatileError> {
    let address = &settings.address;
    let tls = address.tls.as_ref().map(tls).transpose()?;
    let config = Config {
        // A server that is away at the start is connected to later.
        fail_fast: false,
        username: address.username.clone(),
        password: address.password.clone(),
        server: server(&address.shape),
        database: address.database,
        tls,
        ..Config::default()
    };
    let patience = settings.lease_timeout.max(settings.command_timeout);
    let connection = ConnectionConfig {
        connection_timeout: settings.connect_timeout,
        internal_command_timeout: settings.connect_timeout,
        max_command_attempts: 1,
        max_command_buffer_len: QUESTIONS,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(settings.unresponsive_after),
            interval: (settings.unresponsive_after / 4).max(Duration::from_millis(10)),
        },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let at_most = u32::try_from(settings.reconnect_at_most.as_millis()).unwrap_or(u32::MAX);
    let mut policy = ReconnectPolicy::new_exponential(0, RECONNECT_FIRST_MS, at_most.max(RECONNECT_FIRST_MS), 2);
    policy.set_jitter(RECONNECT_JITTER_MS);
    Builder::from_config(config)
        .set_connection_config(connection)
        .set_performance_config(PerformanceConfig { default_command_timeout: patience, ..PerformanceConfig::default() })
        .set_policy(policy)
        .build()
        .map_err(|error| VolatileError::Refused(format!("the settings of Redis cannot be used: {}", error.details())))
}

fn server(shape: &Shape) -> ServerConfig {
    let named = |(host, port): &Host| Server::new(host.clone(), *port);
    match shape {
        Shape::Single(host) => ServerConfig::Centralized { server: named(host) },
        Shape::Cluster(hosts) => ServerConfig::Clustered {
            hosts: hosts.iter().map(named).collect(),
            policy: ClusterDiscoveryPolicy::default(),
        },
        Shape::Sentinel { hosts, service, username, password } => ServerConfig::Sentinel {
            hosts: hosts.iter().map(named).collect(),
            service_name: service.clone(),
            username: username.clone(),
            password: password.clone(),
        },
        Shape::Socket(path) => ServerConfig::Unix { path: path.clone() },
    }
}

fn tls(files: &TlsFiles) -> Result<TlsConfig, VolatileError> {
    let roots = files.authority.as_deref().map_or_else(system_roots, roots_of)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| VolatileError::Refused(format!("TLS cannot be used: {error}")))?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key_file", key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                VolatileError::Refused(format!("cert_file and key_file of the URL of Redis do not fit: {error}"))
            })?
        }
    };
    // Nodes of a cluster name themselves by address; their certificates name the host that was asked first.
    Ok(TlsConfig { connector: TlsConnector::from(config), hostnames: TlsHostMapping::DefaultHost })
}

fn system_roots() -> Result<RootCertStore, VolatileError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(VolatileError::Refused(
            "the system has no certificates of authorities: install ca-certificates, or name ca_file in the URL of \
             Redis"
                .to_owned(),
        ));
    }
    Ok(roots)
}

fn roots_of(path: &Path) -> Result<RootCertStore, VolatileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            VolatileError::Refused(format!("{} is no certificate of an authority: {error}", path.display()))
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, VolatileError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(VolatileError::Refused(format!("{} holds no certificate in PEM form", path.display()))),
        Err(error) => Err(unreadable("a certificate", path, &error)),
    }
}

fn unreadable(what: &str, path: &Path, error: &dyn std::error::Error) -> VolatileError {
    VolatileError::Refused(format!("{what} of the URL of Redis cannot be read from {}: {error}", path.display()))
}
