//! Certificates of a test: an authority in memory that writes what it signs into a folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use motet_cluster::link::grpc::tls::TlsSettings;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The authority's own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes a certificate for these names, with its key, over what is in a folder.
    pub(crate) fn sign(&self, folder: &Path, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        replace(&folder.join("node.pem"), &signed.pem());
        replace(&folder.join("node.key"), &key.serialize_pem());
    }

    /// Certificate, key and trust of a node that trusts this authority.
    pub(crate) fn node(&self, folder: &Path, names: &[&str]) -> TlsSettings {
        std::fs::create_dir_all(folder).unwrap();
        self.sign(folder, names);
        trust(folder, &[self]);
        let in_folder = |name: &str| -> PathBuf { folder.join(name) };
        let mut settings = TlsSettings::new(in_folder("node.pem"), in_folder("node.key"), in_folder("authority.pem"));
        settings.check_every = Duration::from_millis(50);
        settings
    }
}

/// Writes whom a node trusts.
pub(crate) fn trust(folder: &Path, authorities: &[&Authority]) {
    let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
    replace(&folder.join("authority.pem"), &pem);
}

/// Writes a file at once, as those who rotate certificates do.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}
