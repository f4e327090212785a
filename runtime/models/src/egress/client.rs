//! The client behind [`HttpCaller`]: one pool of connections for the node, by reqwest.
//!
//! Resolves names itself, so that only addresses that are allowed are connected to. Speaks HTTP/1.1 over kept
//! connections with TCP_NODELAY. Never follows a redirect, asks a proxy or sends a request twice. Used by the egress
//! actor.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::Value;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use tokio::sync::OnceCell;

use super::allow::{AllowList, Refused};
use super::answer::{self, Trouble};
use super::{HttpCaller, HttpRequest};
use crate::failure::{internal, invalid, timeout, unavailable};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that nobody used for so long is closed: shorter than most servers keep theirs.
const IDLE: Duration = Duration::from_secs(50);

/// Calls other services over HTTP.
#[derive(Debug)]
pub struct ReqwestCaller {
    allow: Arc<AllowList>,
    max_answer_bytes: u64,
    /// Made for the first call: reading the system's certificates would delay every start.
    client: OnceCell<Client>,
}

impl ReqwestCaller {
    /// A client that goes where it is allowed and takes bodies of at most so many bytes.
    #[must_use]
    pub fn new(allow: AllowList, max_answer_bytes: u64) -> Self {
        Self { allow: Arc::new(allow), max_answer_bytes, client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&Client, Failure> {
        let make = || async {
            let resolver = Arc::new(GuardedResolver { allow: Arc::clone(&self.allow) });
            tokio::task::spawn_blocking(move || client(resolver))
                .await
                .map_err(|error| internal(format!("no client for HTTP calls: {error}")))?
        };
        self.client.get_or_try_init(make).await
    }

    async fn send(&self, request: HttpRequest, target: &str) -> Result<Value, Failure> {
        // A host that is an address is connected to without being resolved.
        if let Some(address) = address(&request) {
            let checked = self.allow.check(request.url.host_str().unwrap_or_default(), address);
            checked.map_err(|refused| denied(target, &refused))?;
        }
        let mut builder = self.client().await?.request(request.method, request.url).headers(request.headers);
        if let Some(body) = request.body {
            builder = builder.body(body);
        }
        let response = builder.send().await.map_err(|error| failure(&error, target))?;
        if response.status().as_u16() >= 400 {
            return Err(answer::refusal(response, target).await);
        }
        match answer::output(response, self.max_answer_bytes).await {
            Ok(output) => Ok(output),
            Err(Trouble::Unreadable(words)) => Err(invalid(format!("{target} was answered with {words}"))),
            Err(Trouble::Broken(error)) => Err(failure(&error, target)),
            Err(Trouble::TooLarge) => Err(invalid(format!(
                "{target} was answered with more than the {} bytes that egress.max_answer_bytes allows",
                self.max_answer_bytes
            ))),
        }
    }
}

#[async_trait]
impl HttpCaller for ReqwestCaller {
    async fn call(&self, request: HttpRequest, deadline: Instant) -> Result<Value, Failure> {
        let (target, patience) = (request.target(), request.timeout());
        let sent = tokio::time::timeout_at(deadline.into(), self.send(request, &target)).await;
        sent.unwrap_or_else(|_| Err(timeout(format!("{target} gave no answer within {patience:?}"))))
    }
}

fn client(resolver: Arc<GuardedResolver>) -> Result<Client, Failure> {
    settings(Arc::clone(&resolver))
        .build()
        .or_else(|error| {
            // A bare container has none, and what it calls over http needs none.
            tracing::warn!(
                reason = root_cause(&error),
                "no certificates to check others by: calls over https will fail"
            );
            settings(resolver).tls_certs_only([]).build()
        })
        .map_err(|error| internal(format!("no client for HTTP calls: {}", root_cause(&error))))
}

fn settings(resolver: Arc<GuardedResolver>) -> ClientBuilder {
    Client::builder()
        .dns_resolver(resolver)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        // A proxy would resolve names by itself, past the list.
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .referer(false)
        .user_agent(concat!("motet/", env!("CARGO_PKG_VERSION")))
}

/// The innermost cause: the words around it would hold the whole URL.
fn root_cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| "the request is broken".to_owned(), ToString::to_string)
}

fn address(request: &HttpRequest) -> Option<IpAddr> {
    // The parser of URLs has brought every notation of an address into the usual one.
    let host = request.url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Resolves names as the system does, and gives only the addresses that are allowed.
#[derive(Debug)]
struct GuardedResolver {
    allow: Arc<AllowList>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.allow);
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await?;
            let (mut allowed, mut refusal) = (Vec::<SocketAddr>::new(), None);
            for address in found {
                match allow.check(host, address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(refused) => refusal = Some(refused),
                }
            }
            match refusal {
                Some(refused) if allowed.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

fn denied(target: &str, refused: &Refused) -> Failure {
    Failure::new(FailureClass::Denied, format!("{target} was not sent: {refused}"))
}

/// What a failure without an answer means.
fn failure(error: &reqwest::Error, target: &str) -> Failure {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    if let Some(refused) = causes.find_map(|cause| cause.downcast_ref::<Refused>()) {
        return denied(target, refused);
    }
    let reason = root_cause(error);
    if error.is_builder() {
        invalid(format!("{target} cannot be sent: {reason}"))
    } else if error.is_connect() {
        unavailable(format!("{target} cannot be sent, there is no connection: {reason}"))
    } else {
        unavailable(format!("{target} was not answered, the connection broke: {reason}"))
    }
}
