//! The requests to a schema registry, by reqwest.
//!
//! Never shows what it proves itself by. Used by the registry.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder, Response, Url};
use tokio::sync::OnceCell;

use super::answer::{Registered, refusal};
use super::{RegistryError, RegistrySettings};
use crate::compiled::MAX_SCHEMA_BYTES;
use crate::port::SourceError;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer in bytes: a schema, quoted, and what is said about it.
const MAX_ANSWER: usize = 2 * MAX_SCHEMA_BYTES;

/// What registries answer with.
const MEDIA_TYPES: &str =
    "application/vnd.schemaregistry.v1+json, application/vnd.schemaregistry+json, application/json";

/// Asks one registry.
pub(super) struct Client {
    base: Url,
    proof: Option<HeaderValue>,
    authority: Vec<Certificate>,
    /// Made for the first request: reading the system's certificates would delay every start.
    http: OnceCell<reqwest::Client>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        let refuse = |words: String| RegistryError(words);
        let base = Url::parse(&settings.url).map_err(|error| refuse(format!("registry.url is no URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(refuse("registry.url is no URL of http or https".to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            let words = "registry.url names a user; put it into registry.user and its password into registry.password";
            return Err(refuse(words.to_owned()));
        }
        let proof = proof(&settings)?;
        let authority = match &settings.authority {
            Some(pem) => Certificate::from_pem_bundle(pem.as_bytes())
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or_else(|| refuse("registry.authority holds no certificate in PEM".to_owned()))?,
            None => vec![],
        };
        Ok(Self { base, proof, authority, http: OnceCell::new() })
    }

    /// Asks for what lies below a path.
    pub(super) async fn get(&self, what: &str, path: &[&str]) -> Result<Registered, SourceError> {
        let response = self.send(path).await?;
        let status = response.status().as_u16();
        let body = body(what, response).await?;
        if !(200..300).contains(&status) {
            return Err(refusal(what, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            SourceError::Away(format!("what answers at registry.url is no schema registry ({what}: {error})"))
        })
    }

    async fn send(&self, path: &[&str]) -> Result<Response, SourceError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if path[0] == "subjects" {
            // What was deleted softly is still referred to by schemas that were not.
            url.query_pairs_mut().append_pair("deleted", "true");
        }
        let mut request = self.http().await?.get(url).header(ACCEPT, MEDIA_TYPES);
        if let Some(proof) = &self.proof {
            request = request.header(AUTHORIZATION, proof.clone());
        }
        request.send().await.map_err(|error| away(&error))
    }

    async fn http(&self) -> Result<&reqwest::Client, SourceError> {
        let make = || async {
            let authority = self.authority.clone();
            let made = tokio::task::spawn_blocking(move || build(authority)).await;
            let failed = |words: String| SourceError::Away(format!("no client for the schema registry: {words}"));
            made.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(root_cause(&error)))
        };
        self.http.get_or_try_init(make).await
    }
}

fn build(authority: Vec<Certificate>) -> Result<reqwest::Client, reqwest::Error> {
    if !authority.is_empty() {
        return builder().tls_certs_only(authority).build();
    }
    builder().build().or_else(|error| {
        // A bare container has none, and a registry that is reached over http needs none.
        tracing::warn!(
            reason = root_cause(&error),
            "no certificates to check others by: a schema registry over https needs registry.authority"
        );
        builder().tls_certs_only([]).build()
    })
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .referer(false)
        .user_agent(concat!("motet/", env!("CARGO_PKG_VERSION")))
}

/// What proves who asks.
fn proof(settings: &RegistrySettings) -> Result<Option<HeaderValue>, RegistryError> {
    let text = match (&settings.user, &settings.password) {
        (Some(user), password) => {
            let pair = format!("{user}:{}", password.as_deref().unwrap_or_default());
            format!("Basic {}", base64(&pair))
        }
        (None, Some(token)) => format!("Bearer {token}"),
        (None, None) => return Ok(None),
    };
    let mut proof = HeaderValue::from_str(&text)
        .map_err(|_| RegistryError("registry.password holds a character that no token has".to_owned()))?;
    proof.set_sensitive(true);
    Ok(Some(proof))
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The whole answer, as long as it is within its bound.
async fn body(what: &str, mut response: Response) -> Result<Vec<u8>, SourceError> {
    let mut body = vec![];
    while let Some(chunk) = response.chunk().await.map_err(|error| away(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            let words = format!("the schema registry answered with more than {MAX_ANSWER} bytes for {what}");
            return Err(SourceError::Unusable(words));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn away(error: &reqwest::Error) -> SourceError {
    let reason = if error.is_timeout() { "no answer in time".to_owned() } else { root_cause(error) };
    SourceError::Away(format!("the schema registry cannot be reached: {reason}"))
}

/// The innermost cause: the words around it would hold the whole URL.
fn root_cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| "the request is broken".to_owned(), ToString::to_string)
}
