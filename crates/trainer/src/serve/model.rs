//! `/api/model`, and the table of layers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::run_config::Config;
use crate::inference::evaluation::Evaluation;
use crate::serve::app::App;
use crate::serve::problem::Problem;

/// A row of the table of layers.
#[derive(Debug, Serialize)]
pub(crate) struct LayerRow {
    name: String,
    operation: String,
    output: Vec<usize>,
    parameters: usize,
}

/// `GET /api/model`: describes the network that predicts.
pub(crate) async fn model(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let config = &app.classifier.config;
    let evaluation = Evaluation::of_run(&app.run).map_err(Problem::internal)?;
    Ok(Json(json!({
        "run": app.run.name(),
        "preset": config.preset,
        "data": config.images.name,
        "classes": config.images.classes,
        "shape": config.images.shape(),
        "pictures": config.images.preparation.description(),
        "parameters": config.model.parameters().map_err(Problem::internal)?,
        "layers": layers(config)?,
        "accuracy": evaluation.map(|evaluation| evaluation.accuracy),
        "device": app.device,
    })))
}

/// Returns the table of layers of a network.
///
/// # Errors
/// Returns a problem if the configuration does not describe a network.
pub(crate) fn layers(config: &Config) -> Result<Vec<LayerRow>, Problem> {
    let layers = config.model.layers().map_err(Problem::internal)?;
    let row = |layer: model::Layer| LayerRow {
        name: layer.name,
        operation: layer.operation.to_string(),
        output: layer.output,
        parameters: layer.parameters,
    };
    Ok(layers.into_iter().map(row).collect())
}
