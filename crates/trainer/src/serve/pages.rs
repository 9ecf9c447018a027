//! The pages. Their files are embedded in the binary.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::serve::app::App;
use crate::serve::problem::Problem;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../web/", $name)))),*]
    };
}

/// The embedded files, by name.
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

/// `GET /`: the page to draw on.
pub(crate) async fn draw(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    page("index.html", &app, query.as_deref())
}

/// `GET /runs`: the table of runs.
pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    page("runs.html", &app, query.as_deref())
}

/// `GET /web/{name}`: scripts, styles and images of the pages.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    embedded(&name)
}

/// `GET /openapi.json`: the description of the API.
pub(crate) async fn openapi() -> Result<Response, Problem> {
    embedded("openapi.json")
}

fn page(name: &str, app: &App, query: Option<&str>) -> Result<Response, Problem> {
    let mut response = embedded(name)?;
    app.access.set_cookie(query, &mut response);
    Ok(response)
}

fn embedded(name: &str) -> Result<Response, Problem> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    let (name, text) = file.ok_or_else(|| Problem::not_found(format!("{name}: no such file")))?;
    let media_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/json",
    };
    Ok(([(CONTENT_TYPE, media_type)], *text).into_response())
}
