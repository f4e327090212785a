//! Downloads one file over https, going on where an earlier try ended.
//!
//! Never trusts what it gets: the caller compares digests. Used by `source`.

use std::path::Path;
use std::time::Duration;

use motet_engine::failure::{Failure, FailureClass};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::place::{is_allowed, is_loopback};
use super::{Limits, Progress, Report};
use crate::failure::{internal, invalid, unavailable};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 1 << 20;

/// Puts what the URL holds into `partial`; bytes that are there already are not asked for again.
pub(super) async fn download(url: &Url, partial: &Path, limits: &Limits, report: Report<'_>) -> Result<(), Failure> {
    let present = tokio::fs::metadata(partial).await.map_or(0, |metadata| metadata.len());
    let mut request = client(url, limits)?.get(url.clone());
    if present > 0 {
        request = request.header(RANGE, format!("bytes={present}-"));
    }
    let response = request.send().await.map_err(|error| request_failure(&error))?;
    match response.status() {
        // The earlier bytes were all that there are: nothing is left to ask for.
        StatusCode::RANGE_NOT_SATISFIABLE if complete_length(&response) == Some(present) => Ok(()),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            tokio::fs::remove_file(partial).await.map_err(|error| file_failure(partial, &error))?;
            Err(unavailable("the file has changed since the last try; it is fetched anew next time"))
        }
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(present) => {
            let file = OpenOptions::new().append(true).open(partial).await;
            store(response, file.map_err(|error| file_failure(partial, &error))?, present, limits, report).await
        }
        StatusCode::OK => {
            let file = File::create(partial).await.map_err(|error| file_failure(partial, &error))?;
            store(response, file, 0, limits, report).await
        }
        status => Err(status_failure(status)),
    }
}

async fn store(
    mut response: Response,
    mut file: File,
    mut bytes: u64,
    limits: &Limits,
    report: Report<'_>,
) -> Result<(), Failure> {
    let what = response.url().path().rsplit('/').next().unwrap_or_default().to_owned();
    let total = response.content_length().map(|rest| rest.saturating_add(bytes));
    let too_large = || invalid(format!("the file is larger than the {} bytes allowed", limits.max_bytes));
    if total.is_some_and(|total| total > limits.max_bytes) {
        return Err(too_large());
    }
    let mut reported = bytes;
    report(Progress { what: what.clone(), bytes, total });
    let stored = loop {
        match response.chunk().await {
            Ok(None) => break Ok(()),
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                if bytes > limits.max_bytes {
                    break Err(too_large());
                }
                if let Err(error) = file.write_all(&chunk).await {
                    break Err(internal(format!("what was downloaded cannot be written: {error}")));
                }
                if bytes - reported >= REPORT_BYTES {
                    reported = bytes;
                    report(Progress { what: what.clone(), bytes, total });
                }
            }
            Err(error) => break Err(request_failure(&error)),
        }
    };
    // What has come is kept also after a failure: the next try goes on from there.
    file.flush().await.map_err(|error| internal(format!("what was downloaded cannot be written: {error}")))?;
    stored?;
    report(Progress { what, bytes, total: Some(bytes) });
    Ok(())
}

fn client(url: &Url, limits: &Limits) -> Result<Client, Failure> {
    let from_loopback = is_loopback(url);
    let policy = Policy::custom(move |attempt| {
        let to_loopback = is_loopback(attempt.url());
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if !is_allowed(attempt.url()) || (to_loopback && !from_loopback) {
            attempt.error("a redirect to an address that is not allowed")
        } else {
            attempt.follow()
        }
    });
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(limits.silence)
        .timeout(limits.total)
        .redirect(policy)
        .user_agent(concat!("motet/", env!("CARGO_PKG_VERSION")));
    if from_loopback {
        // A proxy cannot reach this machine's own addresses.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| internal(format!("no client for downloads: {error}")))
}

/// The first byte of a partial answer, out of `bytes START-END/LENGTH`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The length of the whole file, out of `bytes */LENGTH`.
fn complete_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

fn request_failure(error: &reqwest::Error) -> Failure {
    use std::error::Error as _;
    let reason = std::iter::successors(error.source(), |&error| error.source()).last();
    let reason = reason.map_or_else(|| error.to_string(), ToString::to_string);
    if error.is_redirect() {
        return invalid(format!("the download was redirected wrongly: {reason}"));
    }
    let class = if error.is_timeout() { FailureClass::Timeout } else { FailureClass::Unavailable };
    Failure::new(class, format!("the download failed: {reason}"))
}

fn status_failure(status: StatusCode) -> Failure {
    let class = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => FailureClass::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureClass::Denied,
        StatusCode::TOO_MANY_REQUESTS => FailureClass::RateLimited,
        _ if status.is_server_error() => FailureClass::Unavailable,
        _ => FailureClass::Invalid,
    };
    Failure::new(class, format!("the server answered {status}"))
}

fn file_failure(path: &Path, error: &std::io::Error) -> Failure {
    internal(format!("{} cannot be written: {error}", path.display()))
}
