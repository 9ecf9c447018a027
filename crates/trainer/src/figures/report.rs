//! The report of a run: one self-contained HTML page.

use anyhow::Result;
use askama::Template;
use model::Layer;

use crate::config::run_config::Config;
use crate::config::time::format_seconds;
use crate::figures::Figure;
use crate::figures::run_figures::{FigureOptions, RunFigures};
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::inference::labeled_prediction::Mistake;
use crate::process::printable::{printable, printable_lines};
use crate::run::environment::{Environment, quoted};
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::event_log::{Events, Import};
use crate::run::run_dir::RunDir;

/// Data of the template `report.html`.
#[derive(Template)]
#[template(path = "report.html")]
struct Report<'a> {
    run: String,
    config: &'a Config,
    settings: String,
    layers: Vec<Layer>,
    parameters: usize,
    evaluation: &'a Evaluation,
    epochs: &'a [Epoch],
    best: Option<&'a Epoch>,
    /// Training time.
    time: Option<String>,
    figures: Vec<InlineFigure<'a>>,
    /// The worst mistakes.
    mistakes: &'a [Mistake],
    processes: Vec<Environment>,
    /// Source of the initial weights, if they were imported.
    import: Option<Import>,
    /// Command that reproduces the run.
    reproduce: Option<String>,
}

/// A figure embedded in the page.
struct InlineFigure<'a> {
    name: &'a str,
    svg: String,
}

impl<'a> From<&'a Figure> for InlineFigure<'a> {
    fn from(figure: &'a Figure) -> Self {
        Self {
            name: &figure.name,
            svg: figure.drawing.to_svg(),
        }
    }
}

/// Renders the report of a run.
///
/// # Errors
/// Returns an error if the event log or the images cannot be read, or the device fails.
pub(crate) fn page(run: &RunDir, classifier: &Classifier) -> Result<String> {
    let events = Events::read(run)?;
    let epochs = &events.epochs();
    let drawn = RunFigures::draw(run, classifier, epochs, &FigureOptions::default())?;
    let config = &classifier.config;
    let import = events.import();
    let processes = events.processes();
    let report = Report {
        run: run.name(),
        config,
        settings: config.to_toml()?,
        layers: config.model.layers()?,
        parameters: config.model.parameters()?,
        evaluation: &drawn.evaluation,
        epochs,
        best: best_epoch(epochs),
        time: epochs.last().map(|last| format_seconds(last.seconds)),
        mistakes: &drawn.mistakes,
        figures: drawn.figures.iter().map(InlineFigure::from).collect(),
        reproduce: match &import {
            Some(_) => processes.first().map(|process| process.command.clone()),
            // In a checkout, the folder of the run is there.
            None if run.is_shipped() => Some(format!(
                "trainer --config artifacts/{}/config.toml",
                run.name()
            )),
            None => Some(format!(
                "trainer --config {}",
                quoted(&run.config_path().to_string_lossy())
            )),
        },
        import,
        processes,
    };
    Ok(report.render()?)
}

/// Names an image: its file, or its index in the test split.
fn image_name(mistake: &Mistake) -> String {
    match &mistake.path {
        Some(path) => path.clone(),
        None => format!("test:{}", mistake.index),
    }
}

/// Formats a probability as a percentage.
fn certainty(probability: &f32) -> String {
    percent(&f64::from(*probability))
}

/// Formats a fraction as a percentage.
fn percent(fraction: &f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}
