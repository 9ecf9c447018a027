//! The pages and the API of `trainer serve`.

mod body;
mod connections;
mod counters;
mod guard;
mod judge;
mod live;
mod pages;
mod pixels;
mod predict;
mod problem;
mod runs;
mod samples;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use self::body::Bodies;
use self::connections::PATIENCE;
use self::counters::Counters;

pub(crate) use self::guard::{Guard, is_public};
use self::judge::Judge;
pub(crate) use self::pixels::Pixels;
use self::problem::Problem;
use self::samples::Samples;
use self::work::Workers;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::process::interruption;
use crate::run::run_dir::RunDir;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// What answers are made of.
pub(crate) struct App {
    /// The folder of runs.
    root: PathBuf,
    /// The run whose network is asked.
    run: RunDir,
    classifier: Arc<Classifier>,
    device: String,
    judge: Judge,
    bodies: Bodies,
    /// For pictures, feature maps, and files of runs.
    workers: Workers,
    /// For what takes seconds: reports, and judging the test split.
    slow: Workers,
    samples: OnceCell<Arc<Samples>>,
    counters: Arc<Counters>,
    guard: Guard,
    /// Becomes true when the server stops.
    stop: watch::Receiver<bool>,
}

/// A server that listens.
pub(crate) struct Server {
    listener: std::net::TcpListener,
    root: PathBuf,
    run: RunDir,
    classifier: Classifier,
    device: String,
    guard: Guard,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) fn bind(
        address: SocketAddr,
        root: PathBuf,
        (run, classifier): (RunDir, Classifier),
        device: String,
        guard: Guard,
    ) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address)
            .with_context(|| format!("{address}: cannot listen"))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            root,
            run,
            classifier,
            device,
            guard,
        })
    }

    /// The address it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until Ctrl-C, and then to the end what was asked before.
    ///
    /// # Errors
    /// When the system has no threads for it.
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        let outcome = runtime.block_on(self.answer());
        // Work that nobody waits for any more ends with the program.
        runtime.shutdown_background();
        outcome
    }

    async fn answer(self) -> Result<()> {
        let classifier = Arc::new(self.classifier);
        let counters = Arc::new(Counters::new());
        let judge = Judge::start(Arc::clone(&classifier), Arc::clone(&counters))
            .context("cannot start a thread")?;
        let (stop, stopped) = watch::channel(false);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let app = Arc::new(App {
            root: self.root,
            run: self.run,
            classifier,
            device: self.device,
            judge,
            bodies: Bodies::new(),
            workers: Workers::new(cores),
            slow: Workers::new(1),
            samples: OnceCell::new(),
            counters: Arc::clone(&counters),
            guard: self.guard,
            stop: stopped,
        });
        let listener = TcpListener::from_std(self.listener)?;
        let stopping = || {
            let _ = stop.send(true);
        };
        connections::answer(listener, routes(app), counters, interrupted(), stopping).await;
        Ok(())
    }
}

/// Waits for Ctrl-C.
async fn interrupted() {
    while !interruption::is_requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn routes(app: Arc<App>) -> Router {
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
        .route("/api/model", get(model))
        .route("/api/predict", post(predict::predict))
        .route("/api/inspect", post(predict::inspect))
        .route("/api/samples", get(samples::samples))
        .route("/api/mistakes", get(samples::mistakes))
        .route("/api/runs", get(runs::runs))
        .route("/api/runs/{id}", get(runs::run))
        .route("/api/runs/{id}/metrics", get(runs::metrics))
        .route("/api/runs/{id}/events", get(live::events))
        .fallback(async || Problem::missing("no such page"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(CatchPanicLayer::custom(|_| {
            Problem::failed("an error of the program").into_response()
        }))
        .layer(RequestBodyTimeoutLayer::new(PATIENCE))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            ANSWER_TIME,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            guard::guard,
        ))
        .with_state(app)
}

/// `GET /metrics`: counts, in Prometheus's text.
async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(axum::http::header::CONTENT_TYPE, kind)],
        app.counters.to_text(),
    )
}

/// `GET /api/model`: the network that is asked.
async fn model(State(app): State<Arc<App>>) -> Result<Json<serde_json::Value>, Problem> {
    let config = &app.classifier.config;
    let evaluation = Evaluation::of_run(&app.run).map_err(Problem::failed)?;
    Ok(Json(json!({
        "run": app.run.name(),
        "preset": config.preset,
        "data": config.images.name,
        "classes": config.images.classes,
        "shape": config.images.shape(),
        "pictures": config.images.preparation.description(),
        "parameters": config.model.parameters().map_err(Problem::failed)?,
        "layers": runs::layers(config)?,
        "accuracy": evaluation.map(|evaluation| evaluation.accuracy),
        "device": app.device,
    })))
}
