//! Certificates of the link: read from files, read again when those change, and names proven by them.
//!
//! Both sides show a certificate that the cluster's authority signed; a node's name must be among the names in its
//! certificate. Connections that live keep what they began with. Never logs a key. Used by `grpc`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::envelope::NodeId;
use crate::link::LinkError;

/// The files and what is asked of them. A node is both client and server: a certificate that names its uses must name
/// both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// This node's certificate and what stands between it and the authority, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The authorities whose certificates are accepted, as PEM.
    pub authority: PathBuf,
    /// Whether a node's name must be among the DNS names of its certificate. Without it every certificate of the
    /// authority may claim every name.
    pub require_identity: bool,
    /// Time between two looks at the files.
    pub check_every: Duration,
}

impl TlsSettings {
    /// Files with identities required, looked at every 10 seconds.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf, authority: PathBuf) -> Self {
        Self { certificate, key, authority, require_identity: true, check_every: Duration::from_secs(10) }
    }
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

/// What was made of them.
#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The certificates in use.
pub(crate) struct Certificates {
    settings: TlsSettings,
    configs: RwLock<Configs>,
    read: tokio::sync::Mutex<Files>,
}

/// Ends a watch when it is dropped.
pub(crate) struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Certificates {
    pub(crate) async fn load(settings: TlsSettings) -> Result<Arc<Self>, LinkError> {
        let read = read(&settings).await?;
        let configs = configs(&settings, &read)?;
        Ok(Arc::new(Self { settings, configs: RwLock::new(configs), read: tokio::sync::Mutex::new(read) }))
    }

    fn configs(&self) -> Configs {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For connections that come in from now on.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.configs().server
    }

    /// For connections that are made from now on.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.configs().client
    }

    /// Looks at the files from time to time until the watch is dropped.
    pub(crate) fn watch(self: Arc<Self>) -> Watching {
        Watching(tokio::spawn(async move {
            let mut looks = interval(self.settings.check_every);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                self.look_again().await;
            }
        }))
    }

    /// Takes changed files. Those that cannot be used change nothing: they may be half written.
    async fn look_again(&self) {
        let mut last = self.read.lock().await;
        let taken = match read(&self.settings).await {
            Ok(found) if found == *last => return,
            Ok(found) => configs(&self.settings, &found).map(|configs| (found, configs)),
            Err(error) => Err(error),
        };
        match taken {
            Ok((found, configs)) => {
                *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
                *last = found;
                metrics::counter!("motet_link_certificates_loaded_total").increment(1);
                tracing::info!("the link's certificates were loaded again");
            }
            Err(error) => {
                tracing::warn!(%error, "the link's certificates changed and cannot be used; the old ones stay")
            }
        }
    }

    /// Whether a certificate belongs to a node of this name.
    pub(crate) fn prove(&self, node: &NodeId, certificate: Option<&CertificateDer<'_>>) -> Result<(), String> {
        if !self.settings.require_identity {
            return Ok(());
        }
        let certificate = certificate.ok_or_else(|| format!("'{node}' showed no certificate"))?;
        let named = ServerName::try_from(node.as_str().to_owned())
            .map_err(|_| format!("'{node}' can be no name in a certificate"))?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
        verify_server_name(&parsed, &named).map_err(|_| {
            format!("the certificate shown by '{node}' is not for that name: its DNS names must include the node's")
        })
    }
}

async fn read(settings: &TlsSettings) -> Result<Files, LinkError> {
    let of = async |path: &Path| {
        let failed = |error| LinkError::Setup(format!("{} cannot be read: {error}", path.display()));
        tokio::fs::read(path).await.map_err(failed)
    };
    Ok(Files {
        certificate: of(&settings.certificate).await?,
        key: of(&settings.key).await?,
        authority: of(&settings.authority).await?,
    })
}

fn configs(settings: &TlsSettings, files: &Files) -> Result<Configs, LinkError> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        LinkError::Setup(format!("{} cannot be used: {error}", path.display()))
    };
    let certificates = |path: &Path, pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, LinkError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| wrong(path, &error))?;
        if found.is_empty() { Err(wrong(path, &"it holds no certificate")) } else { Ok(found) }
    };
    let chain = certificates(&settings.certificate, &files.certificate)?;
    let key = || PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| wrong(&settings.key, &error));
    let mut roots = RootCertStore::empty();
    for authority in certificates(&settings.authority, &files.authority)? {
        roots.add(authority).map_err(|error| wrong(&settings.authority, &error))?;
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
    let unusable = |error: &dyn std::fmt::Display| wrong(&settings.certificate, error);
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| wrong(&settings.authority, &error))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key()?)
        .map_err(|error| unusable(&error))?;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
        .with_client_auth_cert(chain, key()?)
        .map_err(|error| unusable(&error))?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}

/// Checks that the authority signed a server's certificate, and leaves its name to [`Certificates::prove`]: gossip does
/// not know beforehand who is at an address.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
