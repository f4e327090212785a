//! What every request passes: trace, limits, time; and what every answer carries: marks, metrics, problems rendered.
//!
//! Never looks into bodies. One per connection, made by the listener.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::MatchedPath;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::Response;
use tower::{BoxError, Service};
use tracing::Instrument as _;

use super::context::{self, Context, Marks};
use super::dialect::Dialect;
use super::problem::{Place, Problem};
use super::{App, Surface};

/// The entrance of one connection.
#[derive(Clone)]
pub(crate) struct Door {
    app: Arc<App>,
    routes: axum::Router,
    surface: Surface,
    /// Set once the connection has brought a request.
    used: Arc<AtomicBool>,
}

/// The route that a request took, for metrics; put into answers by the routes.
#[derive(Clone)]
pub(crate) struct Route(pub(crate) MatchedPath);

impl Door {
    /// The entrance to a surface.
    pub(crate) fn new(app: Arc<App>, routes: axum::Router, surface: Surface) -> Self {
        Self { app, routes, surface, used: Arc::default() }
    }

    /// The same entrance for another connection.
    pub(crate) fn for_connection(&self) -> Self {
        Self { used: Arc::default(), ..self.clone() }
    }

    /// Set once the connection has brought a request.
    pub(crate) fn used(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.used)
    }

    async fn enter(self, mut request: Request<Body>) -> Response {
        let begun = Instant::now();
        let trace = context::trace(request.headers(), &self.app.router);
        let marks = context::marks(request.headers(), trace);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let dialect = Dialect::of(self.surface, &path);
        let place = Place { instance: &path, trace_id: &marks.trace_id };
        let passed = match context::caller(request.headers(), trace) {
            Ok(caller) => {
                request.extensions_mut().insert(Context { caller });
                let span = tracing::info_span!("request", trace_id = marks.trace_id);
                self.pass(request).instrument(span).await
            }
            Err(problem) => Err(problem),
        };
        let mut response = match passed {
            Ok(response) => response,
            Err(problem) => dialect.render(&problem, &place),
        };
        let route = response.extensions_mut().remove::<Route>();
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            // What the router itself found out, such as the methods of a path, stays.
            let allow = response.headers_mut().remove(header::ALLOW);
            response = dialect.render(&problem, &place);
            if let Some(allow) = allow {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            tracing::debug!(%method, path, status = response.status().as_u16(), code = problem.code(), "refused");
        }
        count(route.as_ref(), &method, &response, begun);
        mark(&mut response, marks);
        response
    }

    /// Applies the limits and hands the request to its handler.
    async fn pass(mut self, request: Request<Body>) -> Result<Response, Problem> {
        // Whoever asks how the node does must hear it when everything else is refused.
        let watched = self.surface == Surface::Admin || matches!(request.uri().path(), "/metrics") || {
            request.uri().path().starts_with("/health/") || request.uri().path().starts_with("/v2/health/")
        };
        let _permit = if watched { None } else { Some(self.app.limits.enter()?) };
        let waits = request.uri().query().is_some_and(|query| query.contains("wait="));
        let most = self.app.request_timeout + if waits { self.app.max_wait } else { Duration::ZERO };
        match tokio::time::timeout(most, self.routes.call(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(never)) => match never {},
            Err(_) => {
                let words = format!("the request took longer than {most:?} (http.request_timeout)");
                Err(Problem::new(504, "timeout", words))
            }
        }
    }
}

fn mark(response: &mut Response, marks: Marks) {
    let headers = response.headers_mut();
    headers.insert("x-request-id", marks.request_id);
    headers.insert("traceresponse", marks.traceresponse);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn count(route: Option<&Route>, method: &Method, response: &Response, begun: Instant) {
    // What matches no route must not become a label: paths are unbounded.
    let route = route.map_or("none", |route| route.0.as_str());
    let method = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::HEAD => "HEAD",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let status = response.status();
    metrics::counter!(
        "motet_http_requests_total",
        "route" => route.to_owned(), "method" => method, "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("motet_http_request_seconds", "route" => route.to_owned())
        .record(begun.elapsed().as_secs_f64());
}

impl<B> Service<Request<B>> for Door
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.used.store(true, Ordering::Relaxed);
        let door = self.clone();
        Box::pin(async move { Ok(door.enter(request.map(Body::new)).await) })
    }
}
