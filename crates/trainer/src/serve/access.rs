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
        let host = host(request).ok_or_else(|| Problem::bad_request("no Host header"))?;
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
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"));
            if origin.is_none_or(|(_, origin)| origin != host.as_str()) {
                return Err(Problem::cross_site());
            }
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
        host == "localhost"
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

/// Whether a request contains the token: in a header, a cookie, or the address of a page.
fn has_token(headers: &HeaderMap, query: Option<&str>, token: &str) -> bool {
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
    let parameter = token_in_query(query).map(String::from);
    [header, cookie, parameter]
        .into_iter()
        .flatten()
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
