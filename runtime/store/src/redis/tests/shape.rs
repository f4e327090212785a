//! The shapes in which Redis comes: with TLS, behind sentinels, as a cluster, on a socket, with users of its own.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;

async fn keeps_all_promises(url: &str, test: &str) {
    for (name, check) in VOLATILE_CHECKS {
        eprintln!("{test}: {name}");
        check(connected(settings(url, name)).await).await;
    }
}

/// An authority and what it signed for the server and for a client, as files.
fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own: what bears its issuer's name is taken for signed by itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, host) in [("server", "localhost"), ("client", "motet")] {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.pem")), signed.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_both_ends_prove_themselves() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (authority, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut arguments = vec!["--tls-port", &port, "--tls-ca-cert-file", &authority];
    arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "yes"]);
    let Some(_server) = RedisServer::start("redis tls", &arguments).await else { return };
    let base = format!("rediss://:{}@localhost:{port}/0?ca_file={authority}", RedisServer::PASSWORD);
    keeps_all_promises(&format!("{base}&cert_file={}&key_file={}", path("client.pem"), path("client.key")), "tls")
        .await;
    let without = [base.clone(), base.split('?').next().unwrap().to_owned()];
    for url in without {
        let redis = RedisVolatile::open(settings(&url, "tls")).unwrap();
        until("an attempt to connect", async || {
            let error = redis.holder(&name("planner")).await.unwrap_err();
            assert!(!redis.control.client().is_connected());
            matches!(&error, VolatileError::Unavailable(text) if text.contains("no connection"))
        })
        .await;
        redis.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_spreads_the_keys() {
    let arguments = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
    let Some(server) = RedisServer::start("redis cluster", &arguments).await else { return };
    assert_eq!(server.command("CLUSTER ADDSLOTSRANGE 0 16383").await.as_deref(), Some("+OK\r\n"));
    until("the cluster to serve", async || {
        server.command("SET x y").await.is_some_and(|answer| answer.starts_with("+OK"))
    })
    .await;
    keeps_all_promises(&format!("redis-cluster://:{}@{}", RedisServer::PASSWORD, server.address()), "cluster").await;
}

/// The lease is asked of whoever is the primary now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_primary() {
    let Some(mut first) = RedisServer::start("redis sentinel", &[]).await else { return };
    let port = first.address().port().to_string();
    let second = RedisServer::start("redis sentinel", &["--replicaof", &format!("127.0.0.1 {port}")]).await.unwrap();
    let sentinel = RedisServer::start_sentinel(&first, "motet").await;
    until("the replica to follow", async || {
        second.command("ROLE").await.is_some_and(|answer| answer.contains("connected"))
    })
    .await;
    until("the sentinel to know the replica", async || {
        sentinel.command("SENTINEL REPLICAS motet").await.is_some_and(|answer| !answer.starts_with("*0"))
    })
    .await;
    let password = RedisServer::PASSWORD;
    let url = format!("redis-sentinel://:{password}@{}/motet?sentinel_password={password}", sentinel.address());
    let redis = connected(settings(&url, "sentinel")).await;
    let claim = Claim::new(name("planner"), "one");
    assert_eq!(redis.acquire(&claim, LONG).await.unwrap(), Claimed::Mine);
    first.kill();
    until("the replica to be the primary", async || {
        second.command("ROLE").await.is_some_and(|answer| answer.contains("master"))
    })
    .await;
    until("the lease to be had again", async || redis.acquire(&claim, LONG).await.is_ok()).await;
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_and_a_user_with_few_rights_suffice() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("r.sock").display().to_string();
    let Some(server) = RedisServer::start("redis socket", &["--unixsocket", &socket]).await else { return };
    let rights = "ACL SETUSER motet on >pw resetchannels ~motet:* &motet:* \
                  +get +set +eval +pttl +pexpire +del +publish +subscribe +ping +select +info +quit";
    assert_eq!(server.command(rights).await.as_deref(), Some("+OK\r\n"));
    let redis = connected(RedisSettings::from_url(&format!("redis+unix://motet:pw@{socket}?db=0")).unwrap()).await;
    let claim = Claim::new(name("planner"), "one");
    until("an answer", async || redis.acquire(&claim, LONG).await.is_ok()).await;
    assert!(redis.renew(&claim, LONG).await.unwrap());
    redis.put(&key(1), Bytes::from_static(b"one"), LONG).await.unwrap();
    let mut hints = redis.subscribe(&name("wake")).await.unwrap();
    redis.publish(&name("wake"), Bytes::from_static(b"now")).await.unwrap();
    let heard = async { while hints.next().await != Some(Hint::Message(Bytes::from_static(b"now"))) {} };
    timeout(PATIENCE, heard).await.unwrap();
    let mut other = RedisSettings::from_url(&format!("redis+unix://motet:pw@{socket}")).unwrap();
    other.prefix = "others".to_owned();
    let other = connected(other).await;
    let refused = other.acquire(&claim, LONG).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    redis.close().await;
    other.close().await;
}
