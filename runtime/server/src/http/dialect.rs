//! In which form a refusal goes out: clients of a compatibility surface read only their own.
//!
//! Decides nothing about refusals. Used by the door.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::Surface;
use super::problem::{Place, Problem};
use crate::grpc::refusal;

/// The form of refusals that a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// RFC 9457.
    Problem,
    /// `{"error": ".."}` of the Open Inference Protocol.
    OpenInference,
    /// A status of gRPC.
    Grpc,
}

impl Dialect {
    /// The dialect of a path.
    pub(crate) fn of(surface: Surface, path: &str) -> Self {
        match surface {
            Surface::Grpc => Self::Grpc,
            Surface::Api if path == "/v2" || path.starts_with("/v2/") => Self::OpenInference,
            Surface::Api | Surface::Admin => Self::Problem,
        }
    }

    /// The answer that clients get.
    pub(crate) fn render(self, problem: &Problem, place: &Place<'_>) -> Response {
        match self {
            Self::Problem => problem.render(place),
            Self::OpenInference => open_inference(problem),
            Self::Grpc => refusal::status(problem).into_http(),
        }
    }
}

fn open_inference(problem: &Problem) -> Response {
    let mut response = Response::new(Body::from(json!({"error": problem.detail()}).to_string()));
    *response.status_mut() = match problem.status() {
        // What does not fit is a bad request to clients of this protocol.
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = problem.pause() {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_speak_the_language_of_their_path() {
        for (surface, path, dialect) in [
            (Surface::Api, "/v2", Dialect::OpenInference),
            (Surface::Api, "/v2/models/m", Dialect::OpenInference),
            (Surface::Api, "/v2x", Dialect::Problem),
            (Surface::Api, "/api/v1/models/m/infer", Dialect::Problem),
            (Surface::Admin, "/v2", Dialect::Problem),
            (Surface::Grpc, "/v2", Dialect::Grpc),
        ] {
            assert_eq!(Dialect::of(surface, path), dialect, "{surface:?} {path}");
        }
        let place = Place { instance: "/v2", trace_id: "" };
        for (status, expected) in [(422, 400), (404, 404), (503, 503)] {
            let response = Dialect::OpenInference.render(&Problem::new(status, "x", "words").retry_after(3), &place);
            assert_eq!(response.status().as_u16(), expected);
            assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        }
    }
}
