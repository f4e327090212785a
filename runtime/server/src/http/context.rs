//! Who asks, for which namespace, as part of which trace: read once per request, at the door.
//!
//! Never authenticates: without configured authentication the listeners are for local users. Used by the door, which
//! makes it, and by handlers, which take it as an argument.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use motet_actors::router::Router;
use motet_engine::access::{Caller, Principal};
use motet_engine::id::{Name, Namespace};
use motet_engine::trace::TraceContext;

use super::problem::Problem;

/// Names the tenant whose resources are meant.
pub(crate) const NAMESPACE: &str = "motet-namespace";

/// Longest `x-request-id` that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;

/// What is known of a request beside its path and body.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Who asks.
    pub(crate) caller: Caller,
}

/// What every answer carries.
pub(crate) struct Marks {
    /// Trace of the request as 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// The client's own name of the request, else the trace.
    pub(crate) request_id: HeaderValue,
    /// The trace in the layout of `traceparent`.
    pub(crate) traceresponse: HeaderValue,
}

/// Takes up the caller's trace, or starts one.
pub(crate) fn trace(headers: &HeaderMap, router: &Router) -> TraceContext {
    // Two headers of the name are none: nobody can say which one counts.
    let mut sent = headers.get_all("traceparent").iter();
    let one = sent.next().filter(|_| sent.next().is_none());
    one.and_then(|header| header.to_str().ok()).and_then(TraceContext::parse).unwrap_or_else(|| router.new_trace())
}

/// What the answer to a request of this trace carries.
pub(crate) fn marks(headers: &HeaderMap, trace: TraceContext) -> Marks {
    let traceresponse = trace.to_string();
    let trace_id = traceresponse.get(3..35).unwrap_or_default().to_owned();
    let own = headers.get("x-request-id").filter(|id| {
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(|byte| (0x21..0x7f).contains(byte))
    });
    let request_id = own.cloned().or_else(|| HeaderValue::from_str(&trace_id).ok());
    Marks {
        request_id: request_id.unwrap_or(HeaderValue::from_static("-")),
        traceresponse: HeaderValue::try_from(traceresponse).unwrap_or(HeaderValue::from_static("-")),
        trace_id,
    }
}

/// The caller behind a request.
pub(crate) fn caller(headers: &HeaderMap, trace: TraceContext) -> Result<Caller, Problem> {
    let namespace = match headers.get(NAMESPACE) {
        None => Namespace::default(),
        Some(header) => {
            let text = header.to_str().unwrap_or("\u{fffd}");
            let name = Name::new(text)
                .map_err(|error| Problem::new(400, "invalid_namespace", format!("Motet-Namespace: {error}")))?;
            Namespace(name)
        }
    };
    Ok(Caller { namespace, principal: Principal::Local, trace })
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The door puts it there; a request that came around it has no caller.
        parts.extensions.remove::<Self>().ok_or_else(|| Problem::new(500, "internal", "the request has no caller"))
    }
}
