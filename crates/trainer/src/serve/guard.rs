//! Who may ask for what, and what browsers may do with the answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::App;
use super::problem::{PROBLEM, Problem};

/// Pages load their own scripts, styles and pictures, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// The cookie of a browser that knew the token.
const TOKEN_COOKIE: &str = "trainer-token";

/// What is asked of clients.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Names the server may be called by, besides addresses and `localhost`.
    pub(crate) hosts: Vec<String>,
    /// What a client must know.
    pub(crate) token: Option<String>,
}

/// Lets a request through that may pass, and counts it.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_string();
    let checked = app.guard.check(&request);
    let mut response = match checked {
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
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        // The report brings its own.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    app.counters
        .request(&route, status.as_u16(), begun.elapsed());
    response
}

/// What the library says is wrong with a request, as the API's errors are.
async fn as_problem(response: Response) -> Response {
    if response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == PROBLEM)
    {
        return response;
    }
    let (head, body) = response.into_parts();
    let detail = to_bytes(body, 4096).await.unwrap_or_default();
    let detail = match String::from_utf8_lossy(&detail) {
        none if none.is_empty() => head.status.canonical_reason().unwrap_or_default().into(),
        detail => detail,
    };
    Problem::new(head.status, detail).into_response()
}

impl Guard {
    fn check(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let host = host(request).ok_or_else(|| Problem::bad("no host is named"))?;
        // A page of another site, whose name was pointed here, says that name.
        if !self.is_known(host.host()) {
            let status = StatusCode::MISDIRECTED_REQUEST;
            let detail = format!("{} is no name of this server; --host adds one", host.host());
            return Err(Problem::new(status, detail));
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"));
            if origin.is_none_or(|(_, origin)| origin != host.as_str()) {
                return Err(Problem::foreign());
            }
        }
        // Browsers say so of what a page asks for without telling where it is from, as for pictures.
        let fetch = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let site = fetch("sec-fetch-site");
        let is_foreign = site.is_some_and(|site| site == b"cross-site" || site == b"same-site");
        if is_foreign && fetch("sec-fetch-mode") != Some(b"navigate") {
            return Err(Problem::foreign());
        }
        let uri = request.uri();
        // A browser is given the token in the address of a page.
        let query = uri.query().filter(|_| matches!(uri.path(), "/" | "/runs"));
        match &self.token {
            Some(token) if uri.path() != "/healthz" && !knows(headers, query, token) => Err(
                Problem::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong"),
            ),
            _ => Ok(()),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host))
    }
}

fn host(request: &Request) -> Option<Authority> {
    let header = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    match (header, request.uri().authority()) {
        (Some(host), _) => host.parse().ok(),
        (None, authority) => authority.cloned(),
    }
}

/// Whether a client knows the token, by a header, a cookie, or the address of the first page.
fn knows(headers: &HeaderMap, query: Option<&str>, token: &str) -> bool {
    let text = |value: &HeaderValue| value.to_str().ok().map(String::from);
    let header = headers
        .get(AUTHORIZATION)
        .and_then(text)
        .and_then(|value| value.strip_prefix("Bearer ").map(String::from));
    let cookies = headers.get_all(COOKIE).iter().filter_map(text);
    let cookie = cookies
        .flat_map(|value| value.split("; ").map(String::from).collect::<Vec<_>>())
        .find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name == TOKEN_COOKIE).then(|| value.to_string())
        });
    let parameter = in_query(query).map(String::from);
    [header, cookie, parameter]
        .into_iter()
        .flatten()
        .any(|given| given.as_bytes().ct_eq(token.as_bytes()).into())
}

/// The token in the address of a page.
fn in_query(query: Option<&str>) -> Option<&str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
}

impl Guard {
    /// Keeps the token of a page's address, so that what the page asks for brings it along.
    pub(crate) fn remember(&self, query: Option<&str>, response: &mut Response) {
        let Some(token) = &self.token else {
            return;
        };
        if in_query(query) == Some(token.as_str()) {
            let cookie = format!("{TOKEN_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
        }
    }
}

/// Whether others than this machine can reach an address.
pub(crate) fn is_public(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}
