//! The routes, and the layers around all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use crate::serve::app::App;
use crate::serve::connections::CLIENT_TIMEOUT;
use crate::serve::problem::Problem;
use crate::serve::{events, middleware, model, pages, predict, runs, samples};

/// Maximum time until the response to a request begins.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the router of all pages and API endpoints.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(pages::draw))
        .route("/runs", get(pages::runs))
        .route("/runs/{id}/report", get(runs::report_page))
        .route("/web/{name}", get(pages::file))
        .route("/openapi.json", get(pages::openapi))
        .route(
            "/healthz",
            get(|| async { Json(json!({ "status": "ok" })) }),
        )
        .route("/metrics", get(metrics))
        .route("/api/model", get(model::model))
        .route("/api/predict", post(predict::predict))
        .route("/api/inspect", post(predict::inspect))
        .route("/api/samples", get(samples::samples))
        .route("/api/mistakes", get(samples::mistakes))
        .route("/api/runs", get(runs::runs))
        .route("/api/runs/{id}", get(runs::run))
        .route("/api/runs/{id}/metrics", get(runs::metrics))
        .route("/api/runs/{id}/events", get(events::events))
        .fallback(async || Problem::not_found("no such page"))
        .method_not_allowed_fallback(async || {
            let detail = "this page does not support the method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(CatchPanicLayer::custom(|_| {
            Problem::internal("internal error").into_response()
        }))
        .layer(RequestBodyTimeoutLayer::new(CLIENT_TIMEOUT))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            RESPONSE_TIMEOUT,
        ))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app),
            middleware::handle,
        ))
        .with_state(app)
}

/// `GET /metrics`: metrics in Prometheus's text format.
async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, media_type)], app.metrics.to_text())
}
