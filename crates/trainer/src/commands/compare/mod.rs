//! `trainer compare RUN...`: compares runs in a table and a figure.

mod groups;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::commands::compare::groups::{GroupKey, group_key, mean_deviation};
use crate::config::time::format_seconds;
use crate::figures::comparison;
use crate::inference::evaluation::Evaluation;
use crate::process::printable::printable;
use crate::process::table::Table;
use crate::run::epoch::{Epoch, best_epoch};
use crate::run::event_log::Events;
use crate::run::image_record::ImageRecord;
use crate::run::metrics::Metrics;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs: folders, names in --out, `latest`, or a network in the program (`pretrained`, `pretrained-best`,
    /// `pretrained-cifar`)
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<String>,
    /// Run whose test accuracy the gain is relative to [default: the first dense network]
    #[arg(long, value_name = "RUN")]
    baseline: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// File of the figure, written as .svg and .png [default: comparison in --out; none with --json]
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
    /// Folder that contains the runs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// The results of one run.
#[derive(Debug, Serialize)]
struct Row {
    run: String,
    preset: String,
    parameters: usize,
    epochs: usize,
    /// Metrics of the best epoch.
    validation: Option<Metrics>,
    /// Metrics of the saved weights; `None` until the run is evaluated.
    test: Option<Metrics>,
    /// Test accuracy minus that of the baseline, in percentage points.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<f64>,
    /// Training time, summed over all processes of the run.
    seconds: Option<f64>,
    /// Mean training speed over the epochs.
    images_per_second: Option<f64>,
    seed: u64,
    /// Number of the group, from 0. The runs of a group differ in nothing but their seeds.
    group: usize,
    /// Whether the run is among the arguments before. It counts once.
    duplicate: bool,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    group_key: GroupKey,
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
            let is_evaluated = |row: &&Row| row.is_dense && row.test.is_some();
            let dense = rows.iter().find(is_evaluated);
            dense.map(|row| (row.run.clone(), row.test))
        }
        Some(run) => {
            let row = open(run)?;
            ensure!(
                row.test.is_some(),
                "{run}: not evaluated on the test split, so it cannot be the baseline"
            );
            Some((row.run, row.test))
        }
    };
    let baseline = baseline.and_then(|(name, test)| Some((name, test?)));
    if let Some((_, reference)) = &baseline {
        for row in &mut rows {
            row.gain = row
                .test
                .map(|test| 100.0 * (test.accuracy - reference.accuracy));
        }
    }
    mark_duplicates(&mut rows);
    number_groups(&mut rows);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&rows)?)?;
    } else {
        let name = baseline.map(|(name, _)| name);
        write!(out, "{}", to_text(&rows, name.as_deref()))?;
    }
    let path = match &args.figure {
        Some(path) => path.clone(),
        None if args.json => return Ok(()),
        None => args.out.join("comparison"),
    };
    let curves = distinct(&rows).map(|row| (row.run.clone(), row.history.as_slice()));
    let figure = comparison(&curves.collect::<Vec<(String, &[Epoch])>>());
    let [svg, png] = figure.save_as(&path)?;
    if !args.json {
        let [svg, png] = [svg, png].map(|path| printable(path.display()).to_string());
        writeln!(out, "figure: {svg} and {png}")?;
    }
    Ok(())
}

impl Row {
    fn read(run: &RunDir) -> Result<Self> {
        let config = run.read_config()?;
        let history = Events::read(run)?.epochs();
        let test = Evaluation::of_run(run)?.map(|evaluation| evaluation.metrics());
        let record = ImageRecord::read(run)?;
        let last = history.last();
        ensure!(
            last.is_some() || test.is_some(),
            "{}: no completed epoch to compare",
            run.path().display()
        );
        let speeds: f64 = history.iter().map(|epoch| epoch.images_per_second).sum();
        Ok(Self {
            seed: config.training.seed,
            group: 0,
            duplicate: false,
            path: fs::canonicalize(run.path()).unwrap_or_else(|_| run.path().into()),
            group_key: group_key(&config, history.len(), record.as_ref())?,
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

/// Marks the rows of runs that are in a row before.
fn mark_duplicates(rows: &mut [Row]) {
    let mut paths = BTreeSet::new();
    for row in rows {
        row.duplicate = !paths.insert(row.path.clone());
    }
}

/// Numbers the groups of the rows by their first run.
fn number_groups(rows: &mut [Row]) {
    let mut keys: Vec<GroupKey> = Vec::new();
    for row in rows {
        let known = keys.iter().position(|key| *key == row.group_key);
        row.group = known.unwrap_or(keys.len());
        if known.is_none() {
            keys.push(row.group_key.clone());
        }
    }
}

/// Returns the rows without duplicates.
fn distinct(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| !row.duplicate)
}

/// Formats the rows as a table, followed by statistics over the runs of each group.
fn to_text(rows: &[Row], baseline: Option<&str>) -> String {
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    let percent = |metrics: &Metrics| format!("{:.2}%", 100.0 * metrics.accuracy);
    let loss = |metrics: &Metrics| format!("{:.4}", metrics.loss);
    let mut table = Table::new([
        "run",
        "parameters",
        "epochs",
        "validation",
        "test",
        "loss",
        "time",
        "images/s",
        "gain",
    ]);
    for row in distinct(rows) {
        table.row([
            row.run.clone(),
            row.parameters.to_string(),
            row.epochs.to_string(),
            or_dash(row.validation.as_ref().map(percent)),
            or_dash(row.test.as_ref().map(percent)),
            or_dash(row.test.as_ref().map(loss)),
            or_dash(row.seconds.map(format_seconds)),
            or_dash(row.images_per_second.map(|speed| format!("{speed:.0}"))),
            or_dash(row.gain.map(|gain| format!("{gain:+.2}"))),
        ]);
    }
    let mut text = format!("{table}\n");
    for line in notes(rows) {
        let _ = writeln!(text, "{}", printable(line));
    }
    let _ = match baseline {
        Some(name) => writeln!(
            text,
            "gain: test accuracy minus that of {}, in percentage points",
            printable(name)
        ),
        None => writeln!(
            text,
            "gain: needs an evaluated dense network among the runs, or --baseline"
        ),
    };
    text
}

/// Returns a line about each duplicate, and about each group of at least two evaluated runs, such as runs with
/// several seeds.
fn notes(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in distinct(rows) {
        let count = rows.iter().filter(|other| other.path == row.path).count();
        if count > 1 {
            lines.push(format!("{}: given {count} times, counted once", row.run));
        }
    }
    let keys: BTreeSet<&GroupKey> = rows.iter().map(|row| &row.group_key).collect();
    let groups = rows.iter().map(|row| row.group + 1).max().unwrap_or(0);
    for group in 0..groups {
        let is_member = |row: &&Row| row.group == group && row.test.is_some();
        let members: Vec<&Row> = distinct(rows).filter(is_member).collect();
        if members.len() > 1 {
            let name = members[0].group_key.name(&keys);
            lines.push(statistics(&name, &members));
            lines.extend(equal_seeds(&name, &members));
        }
    }
    lines
}

/// Describes the test accuracies of a group.
fn statistics(name: &str, members: &[&Row]) -> String {
    let tests = members.iter().filter_map(|row| row.test);
    let accuracies: Vec<f64> = tests.map(|test| test.accuracy).collect();
    let (mean, deviation) = mean_deviation(&accuracies);
    format!(
        "{name}: {} runs, test accuracy {:.3}% on average, standard deviation {:.3}",
        accuracies.len(),
        100.0 * mean,
        100.0 * deviation
    )
}

/// Describes the runs of a group that have a seed in common, for each such seed.
fn equal_seeds(name: &str, members: &[&Row]) -> Vec<String> {
    let seeds: BTreeSet<u64> = members.iter().map(|row| row.seed).collect();
    let line = |seed: u64| {
        let runs = members.iter().filter(|row| row.seed == seed);
        let runs: Vec<&str> = runs.map(|row| row.run.as_str()).collect();
        (runs.len() > 1).then(|| format!("{name}: {} have the same seed {seed}", runs.join(", ")))
    };
    seeds.into_iter().filter_map(line).collect()
}
