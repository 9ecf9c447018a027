//! The pages, which are inside the program.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Problem;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../web/", $name)))),*]
    };
}

/// By their names.
const FILES: &[(&str, &str)] = files![
    "index.html",
    "runs.html",
    "style.css",
    "draw.js",
    "runs.js",
    "chart.js",
    "icon.svg",
    "openapi.json",
];

/// `GET /`: to draw on.
pub(crate) async fn draw(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    page("index.html", &app, query.as_deref())
}

/// `GET /runs`.
pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    page("runs.html", &app, query.as_deref())
}

/// `GET /web/{name}`: what pages load.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    found(&name)
}

/// `GET /openapi.json`: what the API takes and gives.
pub(crate) async fn openapi() -> Result<Response, Problem> {
    found("openapi.json")
}

fn page(name: &str, app: &App, query: Option<&str>) -> Result<Response, Problem> {
    let mut response = found(name)?;
    app.guard.remember(query, &mut response);
    Ok(response)
}

fn found(name: &str) -> Result<Response, Problem> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    let (name, text) = file.ok_or_else(|| Problem::missing(format!("{name}: no such file")))?;
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/json",
    };
    Ok(([(CONTENT_TYPE, kind)], *text).into_response())
}
