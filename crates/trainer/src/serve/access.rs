//! Access control: which host names, sites and tokens requests are accepted with.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use subtle::ConstantTimeEq;

use crate::serve::problem::Problem;

/// The cookie in which a browser keeps the token.
const TOKEN_COOKIE: &str = "trainer-token";

/// Decides which requests are accepted.
#[derive(Debug)]
pub(crate) struct AccessPolicy {
    /// Host names of the server, besides IP addresses and `localhost`.
    pub(crate) hosts: Vec<String>,
    /// The token that requests must contain, if any.
    pub(crate) token: Option<String>,
}

impl AccessPolicy {
    /// Checks the host, the origin and the token of a request.
    ///
    /// # Errors
    /// Returns the problem to respond with if the request is refused.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let host = host(request)?;
        // Prevents DNS rebinding: a page of another site, whose name resolves to this server, sends
        // that name.
        if !self.is_known_host(host.host()) {
            let status = StatusCode::MISDIRECTED_REQUEST;
            let detail = format!(
                "unknown host {}; --host NAME adds a name of this server",
                host.host()
            );
            return Err(Problem::new(status, detail));
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        if !origins.all(|origin| is_origin_of(origin, &host)) {
            return Err(Problem::cross_site());
        }
        // Requests for images and scripts have no Origin header, but browsers send Sec-Fetch-Site.
        let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let is_cross_site = matches!(header("sec-fetch-site"), Some(b"cross-site" | b"same-site"));
        if is_cross_site && header("sec-fetch-mode") != Some(b"navigate") {
            return Err(Problem::cross_site());
        }
        let uri = request.uri();
        // Only the address of a page may contain the token.
        let query = uri.query().filter(|_| matches!(uri.path(), "/" | "/runs"));
        match &self.token {
            Some(token) if uri.path() != "/healthz" && !has_token(headers, query, token) => {
                let detail = "the token is missing or wrong";
                Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
            }
            _ => Ok(()),
        }
    }

    fn is_known_host(&self, host: &str) -> bool {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || address.parse::<IpAddr>().is_ok()
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host))
    }

    /// Sets the token cookie if the address of the page contains the token, so that the requests of the
    /// page send it.
    pub(crate) fn set_cookie(&self, query: Option<&str>, response: &mut Response) {
        let Some(token) = &self.token else {
            return;
        };
        if token_in_query(query) == Some(token.as_str()) {
            let cookie = format!("{TOKEN_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
        }
    }
}

/// Returns the host that the request is for, with its port.
///
/// # Errors
/// Returns a problem if there is none, or not a single valid one.
fn host(request: &Request) -> Result<Authority, Problem> {
    let mut headers = request.headers().get_all(HOST).iter();
    match (headers.next(), headers.next(), request.uri().authority()) {
        (Some(host), None, _) => {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            host.ok_or_else(|| Problem::bad_request("the Host header is not a host name"))
        }
        (Some(_), Some(_), _) => Err(Problem::bad_request("more than one Host header")),
        (None, _, Some(authority)) => Ok(authority.clone()),
        (None, _, None) => Err(Problem::bad_request("no Host header")),
    }
}

/// Whether an `Origin` header names the site of `host`. Schemes and host names are case-insensitive.
fn is_origin_of(origin: &HeaderValue, host: &Authority) -> bool {
    let origin = origin.to_str().ok();
    origin
        .and_then(|origin| origin.split_once("://"))
        .is_some_and(|(scheme, origin)| {
            ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
                && origin.eq_ignore_ascii_case(host.as_str())
        })
}

/// Whether a request contains the token: in a header, a cookie, or the address of a page.
fn has_token(headers: &HeaderMap, query: Option<&str>, token: &str) -> bool {
    let credentials = headers.get(AUTHORIZATION);
    let header = credentials
        .and_then(|credentials| credentials.to_str().ok())
        .and_then(|credentials| credentials.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim_start_matches(' '));
    // A browser sends the cookies of all paths and parent domains, which may have the same name.
    let cookies = headers.get_all(COOKIE).iter();
    let cookies = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| {
            let (name, value) = cookie.trim_start_matches(' ').split_once('=')?;
            (name == TOKEN_COOKIE).then_some(value)
        });
    header
        .into_iter()
        .chain(cookies)
        .chain(token_in_query(query))
        .any(|candidate| candidate.as_bytes().ct_eq(token.as_bytes()).into())
}

/// Returns the token in the address of a page.
fn token_in_query(query: Option<&str>) -> Option<&str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
}

/// Returns a request whose address is the first line of `text`, and whose headers are the others: an input of the fuzz
/// target. `None` if it is not a request.
pub(crate) fn request_of_lines(text: &str) -> Option<Request> {
    let mut lines = text.lines();
    let mut request = Request::builder().uri(lines.next()?);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(Body::empty()).ok()
}

/// Whether other machines can reach an address.
pub(crate) fn is_public(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}
