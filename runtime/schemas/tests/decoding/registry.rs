//! How the registry is asked: by whom, below which path, and which settings are refused.

use std::sync::Arc;

use motet_schemas::contract::RegistryServer;
use motet_schemas::port::{SchemaKey, SchemaSource as _, SourceError};
use motet_schemas::registry::{ConfluentRegistry, RegistrySettings};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::settings;

/// Puts TLS before a registry; gives its URL and its certificate.
async fn secured(server: &RegistryServer) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let behind = server.url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust it ends the handshake.
                let Ok(mut front) = acceptor.accept(stream).await else { return };
                let mut back = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    (url, cert.pem())
}

#[tokio::test]
async fn only_who_the_authority_signed_is_trusted() {
    let server = RegistryServer::start(json!({"ids": {"1": {"schema": "\"int\""}}})).await;
    let (url, own) = secured(&server).await;
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    for (authority, trusted) in
        [(Some(format!("{other}{own}")), true), (Some(own), true), (Some(other), false), (None, false)]
    {
        let password = Some("secret".to_owned());
        let registry = ConfluentRegistry::new(RegistrySettings { authority, password, ..settings(&url) }).unwrap();
        match registry.schema(SchemaKey::Id(1)).await {
            Ok(schema) => assert!(trusted && schema.text == "\"int\""),
            Err(SourceError::Away(words)) => assert!(!trusted && words.contains("cannot be reached"), "{words}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(server.requests().len(), 2, "nothing is told to who is not trusted");
}

#[tokio::test]
async fn who_asks_is_proven() {
    let server = RegistryServer::start(json!({"ids": {"1": {"schema": "\"int\""}}})).await;
    let text = |text: &str| Some(text.to_owned());
    for (user, password, expected) in [
        (None, None, None),
        (text("ada"), text("hunter2"), text("Basic YWRhOmh1bnRlcjI=")),
        (text("ada"), None, text("Basic YWRhOg==")),
        (None, text("token"), text("Bearer token")),
    ] {
        let settings = RegistrySettings { user, password, ..settings(server.url()) };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("token"), "{shown}");
        let registry = ConfluentRegistry::new(settings).unwrap();
        registry.schema(SchemaKey::Id(1)).await.unwrap();
        assert_eq!(server.requests().pop().unwrap().authorization, expected);
        assert!(!format!("{registry:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn paths_are_kept() {
    let server = RegistryServer::start(json!({})).await;
    for path in ["/apis/ccompat/v7", "/apis/ccompat/v7/"] {
        let registry = ConfluentRegistry::new(settings(&format!("{}{path}", server.url()))).unwrap();
        registry.schema(SchemaKey::Id(7)).await.unwrap_err();
        assert_eq!(server.requests().pop().unwrap().path, "/apis/ccompat/v7/schemas/ids/7");
    }
}

#[test]
fn settings_are_checked() {
    let authority = Some("no certificate".to_owned());
    for (settings, words) in [
        (settings("registry:8081"), "registry.url"),
        (settings("ftp://registry"), "registry.url"),
        (settings("http://u:hunter2@registry"), "registry.user"),
        (RegistrySettings { authority, ..settings("https://registry") }, "registry.authority"),
        (RegistrySettings { password: Some("a\nb".to_owned()), ..settings("https://r") }, "registry.password"),
    ] {
        let found = ConfluentRegistry::new(settings).unwrap_err().to_string();
        assert!(found.contains(words) && !found.contains("hunter2"), "{found}");
    }
    let own = generate_simple_self_signed(["registry".to_owned()]).unwrap().cert.pem();
    ConfluentRegistry::new(RegistrySettings { authority: Some(own), ..settings("https://registry") }).unwrap();
}
