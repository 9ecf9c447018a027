//! The report of a run: one page that needs nothing else.

use anyhow::Result;
use askama::Template;
use model::Layer;

use crate::config::run_config::Config;
use crate::config::time::format_seconds;
use crate::figures::Figure;
use crate::figures::run_figures::{FigureOptions, RunFigures};
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::Evaluation;
use crate::run::environment::{Environment, quoted};
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::event_log::{Events, Import};
use crate::run::run_dir::RunDir;

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    run: String,
    config: &'a Config,
    settings: String,
    layers: Vec<Layer>,
    parameters: usize,
    evaluation: &'a Evaluation,
    epochs: &'a [Epoch],
    best: Option<&'a Epoch>,
    /// How long training took.
    time: Option<String>,
    figures: Vec<Inline<'a>>,
    processes: Vec<Environment>,
    /// Where its first weights came from, if not from chance.
    import: Option<Import>,
    /// The command that repeats the run.
    repeat: Option<String>,
}

/// A figure within the page.
struct Inline<'a> {
    name: &'a str,
    svg: String,
}

impl Inline<'_> {
    fn of(figure: &Figure) -> Inline<'_> {
        Inline {
            name: &figure.name,
            svg: figure.drawing.to_svg(),
        }
    }
}

/// The page of a run.
///
/// # Errors
/// When its images cannot be read, or the device fails.
pub(crate) fn page(run: &RunDir, classifier: &Classifier) -> Result<String> {
    let entries = Events::read(run)?;
    let epochs = &entries.epochs();
    let gallery = RunFigures::draw(run, classifier, epochs, &FigureOptions::default())?;
    let config = &classifier.config;
    let import = entries.import();
    let processes = entries.processes();
    let page = Page {
        run: run.name(),
        config,
        settings: config.to_toml()?,
        layers: config.model.layers()?,
        parameters: config.model.parameters()?,
        evaluation: &gallery.evaluation,
        epochs,
        best: best_epoch(epochs),
        time: epochs.last().map(|last| format_seconds(last.seconds)),
        figures: gallery.figures.iter().map(Inline::of).collect(),
        repeat: match &import {
            Some(_) => processes.first().map(|process| process.command.clone()),
            None if run.is_shipped() => Some(format!("trainer --preset {}", config.preset)),
            None => Some(format!(
                "trainer --config {}",
                quoted(&run.config_path().to_string_lossy())
            )),
        },
        import,
        processes,
    };
    Ok(page.render()?)
}

/// A fraction as a percentage.
fn percent(fraction: &f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}
