//! `/api/runs`: what run folders tell.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::problem::Problem;
use crate::config::run_config::Config;
use crate::figures::report;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::run::epoch::best_epoch;
use crate::run::event_log::{self, End, Events};
use crate::run::metrics::Metrics;
use crate::run::run_dir::RunDir;

/// The report has its own styles and pictures inside of it.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                             base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A run in a line.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    id: String,
    preset: String,
    about: String,
    data: String,
    /// `running`, `finished`, `interrupted`, or `failed`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Epochs that ended, of how many.
    epochs: usize,
    epochs_total: usize,
    /// Of the best epoch, on validation.
    validation: Option<Metrics>,
    test: Option<Metrics>,
    parameters: usize,
}

/// A layer of the table.
#[derive(Debug, Serialize)]
pub(crate) struct LayerRow {
    name: String,
    operation: String,
    output: Vec<usize>,
    parameters: usize,
}

/// All about a run.
#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    row: Row,
    settings: String,
    layers: Vec<LayerRow>,
    evaluation: Option<Evaluation>,
}

/// `GET /api/runs`: all runs, the newest first.
pub(crate) async fn runs(State(app): State<Arc<App>>) -> Result<Json<Vec<Row>>, Problem> {
    let workers = app.workers.clone();
    workers
        .run(move || {
            let runs = RunDir::list(&app.root).map_err(Problem::failed)?;
            // A run that is removed meanwhile, or damaged, is none.
            let found =
                |run: &RunDir| row(run, run.read_config()?, Evaluation::of_run(run)?.as_ref());
            Ok(Json(
                runs.iter().filter_map(|run| found(run).ok()).collect(),
            ))
        })
        .await
}

/// `GET /api/runs/{id}`.
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let workers = app.workers.clone();
    workers
        .run(move || {
            let run = find(&app, &id)?;
            let config = run.read_config().map_err(Problem::failed)?;
            let evaluation = Evaluation::of_run(&run).map_err(Problem::failed)?;
            let detail = Detail {
                settings: config.to_toml().map_err(Problem::failed)?,
                layers: layers(&config)?,
                row: row(&run, config, evaluation.as_ref()).map_err(Problem::failed)?,
                evaluation,
            };
            Ok(Json(detail).into_response())
        })
        .await
}

/// `GET /api/runs/{id}/metrics`: the entries of its journal.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Events>, Problem> {
    let workers = app.workers.clone();
    workers
        .run(move || {
            let run = find(&app, &id)?;
            Events::read(&run).map(Json).map_err(Problem::failed)
        })
        .await
}

/// `GET /runs/{id}/report`: the page that `trainer report` writes.
pub(crate) async fn report_page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let workers = app.slow.clone();
    workers
        .run(move || {
            let run = find(&app, &id)?;
            let page = Classifier::open(&run, app.classifier.device.clone())
                .and_then(|classifier| report::page(&run, &classifier))
                .map_err(Problem::failed)?;
            Ok(([(CONTENT_SECURITY_POLICY, REPORT_POLICY)], Html(page)).into_response())
        })
        .await
}

/// A run by its name, which is never a path.
pub(crate) fn find(app: &App, id: &str) -> Result<RunDir, Problem> {
    RunDir::named(&app.root, id).ok_or_else(|| Problem::missing(format!("{id}: no such run")))
}

pub(crate) fn layers(config: &Config) -> Result<Vec<LayerRow>, Problem> {
    let layers = config.model.layers().map_err(Problem::failed)?;
    let row = |layer: model::Layer| LayerRow {
        name: layer.name,
        operation: layer.operation.to_string(),
        output: layer.output,
        parameters: layer.parameters,
    };
    Ok(layers.into_iter().map(row).collect())
}

fn row(run: &RunDir, config: Config, test: Option<&Evaluation>) -> anyhow::Result<Row> {
    // Asked first: who finishes meanwhile runs still.
    let is_running = run.is_locked();
    let entries = Events::read(run)?;
    let epochs = entries.epochs();
    let (state, error) = match entries.end() {
        _ if is_running => ("running", None),
        Some(End {
            state: event_log::State::Finished,
            ..
        }) => ("finished", None),
        Some(End {
            state: event_log::State::Failed,
            error,
        }) => ("failed", error),
        // Killed, or stopped to go on later.
        _ => ("interrupted", None),
    };
    Ok(Row {
        id: run.name(),
        state,
        error,
        epochs: epochs.len(),
        epochs_total: config.training.epochs,
        validation: best_epoch(&epochs).and_then(|best| best.validation),
        test: test.map(Evaluation::metrics),
        parameters: config.model.parameters()?,
        preset: config.preset,
        about: config.about,
        data: config.images.name,
    })
}
