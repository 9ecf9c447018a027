//! `/api/runs`: the runs, their settings, metrics and reports.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;

use crate::config::run_config::Config;
use crate::figures::report;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::run::epoch::best_epoch;
use crate::run::event_log::{End, Events, State as EndState};
use crate::run::metrics::Metrics;
use crate::run::run_dir::RunDir;
use crate::serve::app::App;
use crate::serve::model::{LayerRow, layers};
use crate::serve::problem::Problem;

/// The styles and images of the report are inline.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                             base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A row of the table of runs.
#[derive(Debug, Serialize)]
pub(crate) struct RunRow {
    id: String,
    preset: String,
    about: String,
    data: String,
    /// `running`, `finished`, `interrupted`, or `failed`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Number of completed epochs.
    epochs: usize,
    /// Number of epochs in the settings.
    epochs_total: usize,
    /// The validation metrics of the best epoch.
    validation: Option<Metrics>,
    /// The metrics of the stored evaluation.
    test: Option<Metrics>,
    parameters: usize,
}

/// The details of a run.
#[derive(Debug, Serialize)]
struct RunDetail {
    #[serde(flatten)]
    row: RunRow,
    /// The configuration, in TOML.
    settings: String,
    layers: Vec<LayerRow>,
    evaluation: Option<Evaluation>,
}

/// `GET /api/runs`: all runs, the newest first.
pub(crate) async fn runs(State(app): State<Arc<App>>) -> Result<Json<Vec<RunRow>>, Problem> {
    let pool = app.pool.clone();
    pool.run(move || {
        let runs = RunDir::list(&app.root).map_err(Problem::internal)?;
        let row = |run: &RunDir| row(run, run.read_config()?, Evaluation::of_run(run)?.as_ref());
        // Skips runs that are damaged, or that are removed at this moment.
        Ok(Json(runs.iter().filter_map(|run| row(run).ok()).collect()))
    })
    .await
}

/// `GET /api/runs/{id}`: the details of a run.
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let pool = app.pool.clone();
    pool.run(move || {
        let run = find(&app, &id)?;
        let config = run.read_config().map_err(Problem::internal)?;
        let evaluation = Evaluation::of_run(&run).map_err(Problem::internal)?;
        let detail = RunDetail {
            settings: config.to_toml().map_err(Problem::internal)?,
            layers: layers(&config)?,
            row: row(&run, config, evaluation.as_ref()).map_err(Problem::internal)?,
            evaluation,
        };
        Ok(Json(detail).into_response())
    })
    .await
}

/// `GET /api/runs/{id}/metrics`: the event log of a run.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Events>, Problem> {
    let pool = app.pool.clone();
    pool.run(move || {
        let run = find(&app, &id)?;
        Events::read(&run).map(Json).map_err(Problem::internal)
    })
    .await
}

/// `GET /runs/{id}/report`: the page that `trainer report` writes.
pub(crate) async fn report_page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let pool = app.slow_pool.clone();
    pool.run(move || {
        let run = find(&app, &id)?;
        let page = Classifier::open(&run, app.classifier.device.clone())
            .and_then(|classifier| report::page(&run, &classifier))
            .map_err(Problem::internal)?;
        Ok(([(CONTENT_SECURITY_POLICY, REPORT_POLICY)], Html(page)).into_response())
    })
    .await
}

/// Returns the run of a name. A path is never a name.
///
/// # Errors
/// Returns a problem if there is no such run.
pub(crate) fn find(app: &App, id: &str) -> Result<RunDir, Problem> {
    RunDir::named(&app.root, id).ok_or_else(|| Problem::not_found(format!("{id}: no such run")))
}

fn row(run: &RunDir, config: Config, test: Option<&Evaluation>) -> anyhow::Result<RunRow> {
    // Queried before the events: a run that ends in between is still reported as running.
    let is_running = run.is_locked();
    let events = Events::read(run)?;
    let epochs = events.epochs();
    let (state, error) = match events.end() {
        _ if is_running => ("running", None),
        Some(End {
            state: EndState::Finished,
            ..
        }) => ("finished", None),
        Some(End {
            state: EndState::Failed,
            error,
        }) => ("failed", error),
        // Interrupted by the user, or killed.
        _ => ("interrupted", None),
    };
    Ok(RunRow {
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
