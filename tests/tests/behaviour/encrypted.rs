//! A node and its PostgreSQL speak TLS: with a server that proves itself, and never with one that does not.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use motet_tests::faults::postgres::PostgresServer;
use motet_tests::node::{self, Node, NodeSettings};
use motet_tests::place;
use motet_tests::skip::skip;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority and, in `folder`, its own certificate as PEM.
fn authority(folder: &Path, name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(folder.join(name), issuer.pem())?;
    Ok(issuer)
}

#[tokio::test]
async fn the_way_to_the_database_is_encrypted_and_its_server_must_prove_itself() -> Result<()> {
    let test = "the_way_to_the_database_is_encrypted_and_its_server_must_prove_itself";
    if !PostgresServer::is_installed() {
        skip(test, "PostgreSQL is not installed: tests/services/services install");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    let (good, _) = (authority(folder.path(), "good.pem")?, authority(folder.path(), "other.pem")?);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &good)?;
    let server = PostgresServer::start(&folder.path().join("postgres"), vec![]).await?;
    server.encrypt(&certificate.pem(), &key.serialize_pem()).await?;

    let at = format!("localhost:{}", server.address().port());
    let url = |authority: &str| {
        let url = server.url(server.address()).replace(&server.address().to_string(), &at);
        format!("{url}?sslmode=verify-full&sslrootcert={}", folder.path().join(authority).display())
    };
    node::migrate(&url("good.pem"))?;
    let mut node =
        Node::start(NodeSettings::new(folder.path().join("data")).with("MOTET__STORE__URL", &url("good.pem"))).await?;
    let client = node.client();
    client.put_definition("models", "echo", super::first_use::MODEL).await?;
    client.put_definition("workflows", "hello", super::first_use::WORKFLOW).await?;
    let done = client.run("hello", &serde_json::json!({"name": "Ada"}), std::time::Duration::from_secs(10)).await?;
    ensure!(done["state"] == "succeeded", "{done}");
    ensure!(node.stop().await?.success(), "{}", node.log_tail());

    // Signed by somebody else, or by nobody that is asked for: refused with a reason, and without the password.
    let by_address = url("good.pem").replace("localhost", "127.0.0.1");
    for (wrong, word) in [(url("other.pem"), "certificate"), (by_address, "certificate")] {
        let refused = Command::new(place::motet()).arg("migrate").env("MOTET__STORE__URL", &wrong).output()?;
        let words = String::from_utf8_lossy(&refused.stderr).to_lowercase();
        ensure!(!refused.status.success() && words.contains(word), "{words}");
        let secret = wrong.split([':', '@']).nth(2).context("no password")?;
        ensure!(!words.contains(secret), "the password is shown: {words}");
    }
    Ok(())
}
