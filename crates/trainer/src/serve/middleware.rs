//! The middleware around all routes: access control, security headers, errors, metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::serve::app::App;
use crate::serve::problem::{MEDIA_TYPE, Problem};

/// Pages load only their own scripts, styles and images.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                              img-src 'self'; connect-src 'self'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'";

/// Checks the access of a request, handles it, and records it.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_string();
    let access = app.access.check(&request);
    let mut response = match access {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        response = as_problem(response).await;
    }
    let status = response.status();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        // The report has a policy of its own.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    app.metrics
        .request(&route, status.as_u16(), start.elapsed());
    response
}

/// Converts an error response of axum, which is plain text, to a [`Problem`].
async fn as_problem(response: Response) -> Response {
    if response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|media_type| media_type == MEDIA_TYPE)
    {
        return response;
    }
    let (head, body) = response.into_parts();
    let detail = to_bytes(body, 4096).await.unwrap_or_default();
    let detail = match String::from_utf8_lossy(&detail) {
        empty if empty.is_empty() => head.status.canonical_reason().unwrap_or_default().into(),
        detail => detail,
    };
    Problem::new(head.status, detail).into_response()
}
