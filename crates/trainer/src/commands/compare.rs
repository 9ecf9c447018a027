//! `trainer compare RUN...`: several runs side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::config::time::format_seconds;
use crate::figures::compared;
use crate::inference::evaluation::Evaluation;
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::event_log::Events;
use crate::run::metrics::Metrics;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs: their folders, their names in --out, `latest`, `pretrained`, or `pretrained-best`
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<String>,
    /// The run that the others are measured against [default: the first dense network]
    #[arg(long, value_name = "RUN")]
    baseline: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The figure of their curves, without its ending, .svg and .png [default: comparison in --out,
    /// none with --json]
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
    /// Folder in which runs are looked up by name
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// A run as its folder tells of it.
#[derive(Debug, Serialize)]
struct Row {
    run: String,
    preset: String,
    parameters: usize,
    epochs: usize,
    /// Of the best epoch.
    validation: Option<Metrics>,
    /// Of the best epoch's weights; absent before the run is finished.
    test: Option<Metrics>,
    /// Test accuracy beyond that of the baseline, in percentage points.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<f64>,
    /// Of training, all its processes together.
    seconds: Option<f64>,
    images_per_second: Option<f64>,
    #[serde(skip)]
    is_dense: bool,
    #[serde(skip)]
    history: Vec<Epoch>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let open = |run: &String| Row::read(&RunDir::open(&args.out, run)?);
    let mut rows = args.runs.iter().map(open).collect::<Result<Vec<Row>>>()?;
    let baseline = match &args.baseline {
        None => {
            let judged = |row: &&Row| row.is_dense && row.test.is_some();
            let dense = rows.iter().find(judged);
            dense.map(|row| (row.run.clone(), row.test))
        }
        Some(run) => {
            let row = open(run)?;
            ensure!(
                row.test.is_some(),
                "{run}: not judged on the test split yet, so it is no baseline"
            );
            Some((row.run, row.test))
        }
    };
    let baseline = baseline.and_then(|(name, test)| Some((name, test?)));
    if let Some((_, than)) = &baseline {
        for row in &mut rows {
            row.gain = row.test.map(|test| 100.0 * (test.accuracy - than.accuracy));
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&rows)?)?;
    } else {
        let name = baseline.map(|(name, _)| name);
        write!(out, "{}", table(&rows, name.as_deref()))?;
    }
    let path = match &args.figure {
        Some(path) => path.clone(),
        None if args.json => return Ok(()),
        None => args.out.join("comparison"),
    };
    let curves = rows
        .iter()
        .map(|row| (row.run.clone(), row.history.as_slice()));
    let figure = compared(&curves.collect::<Vec<(String, &[Epoch])>>());
    let [svg, png] = figure.save_as(&path)?;
    if !args.json {
        writeln!(out, "curves in {} and {}", svg.display(), png.display())?;
    }
    Ok(())
}

impl Row {
    fn read(run: &RunDir) -> Result<Self> {
        let config = run.read_config()?;
        let history = Events::read(run)?.epochs();
        let test = Evaluation::of_run(run)?.map(|evaluation| evaluation.metrics());
        let last = history.last();
        ensure!(
            last.is_some() || test.is_some(),
            "{}: no finished epoch to compare",
            run.path().display()
        );
        let speeds: f64 = history.iter().map(|epoch| epoch.images_per_second).sum();
        Ok(Self {
            run: run.name(),
            parameters: config.model.parameters()?,
            epochs: history.len(),
            validation: best_epoch(&history).and_then(|best| best.validation),
            test,
            gain: None,
            seconds: last.map(|last| last.seconds),
            images_per_second: last.map(|_| speeds / history.len() as f64),
            is_dense: config.model.blocks.is_empty(),
            preset: config.preset,
            history,
        })
    }
}

/// The rows as text; the last column tells what is gained over the baseline.
fn table(rows: &[Row], baseline: Option<&str>) -> String {
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    let percent = |figures: &Metrics| format!("{:.2}%", 100.0 * figures.accuracy);
    let loss = |figures: &Metrics| format!("{:.4}", figures.loss);
    let mut lines = vec![
        [
            "run",
            "parameters",
            "epochs",
            "validation",
            "test",
            "loss",
            "time",
            "images/s",
            "gain",
        ]
        .map(String::from),
    ];
    for row in rows {
        lines.push([
            row.run.clone(),
            row.parameters.to_string(),
            row.epochs.to_string(),
            or_dash(row.validation.as_ref().map(percent)),
            or_dash(row.test.as_ref().map(percent)),
            or_dash(row.test.as_ref().map(loss)),
            or_dash(row.seconds.map(|time| format_seconds(time))),
            or_dash(row.images_per_second.map(|speed| format!("{speed:.0}"))),
            or_dash(row.gain.map(|gain| format!("{gain:+.2}"))),
        ]);
    }
    let mut widths = [0; 9];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells =
            line.iter()
                .zip(widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:width$}"),
                    _ => format!("{cell:>width$}"),
                });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    for (preset, accuracies) in seeds(rows) {
        let count = accuracies.len();
        let (mean, deviation) = mean_deviation(&accuracies);
        let _ = writeln!(
            text,
            "{preset}: {count} runs, test accuracy {:.3}% on average, standard deviation {:.3}",
            100.0 * mean,
            100.0 * deviation
        );
    }
    match baseline {
        Some(name) => text.push_str(&format!(
            "gain: test accuracy beyond that of {name}, in percentage points\n"
        )),
        None => text
            .push_str("gain: none without a judged dense network among the runs, or --baseline\n"),
    }
    text
}

/// Test accuracies of the presets with several judged runs, as with several seeds.
fn seeds(rows: &[Row]) -> BTreeMap<&str, Vec<f64>> {
    let mut seeds = BTreeMap::<&str, Vec<f64>>::new();
    for row in rows {
        if let Some(test) = row.test {
            seeds.entry(&row.preset).or_default().push(test.accuracy);
        }
    }
    seeds.retain(|_, accuracies| accuracies.len() > 1);
    seeds
}

/// Mean and standard deviation (of the sample) of some numbers, at least two.
fn mean_deviation(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_of_a_sample() {
        let (mean, deviation) = mean_deviation(&[2.0, 4.0, 4.0, 6.0]);
        assert_eq!(mean, 4.0);
        assert!((deviation - (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
