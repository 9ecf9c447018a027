//! `trainer ensemble RUN...`: several networks evaluated as one, by the mean of their probabilities.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use data::ImageDataset;
use data::digest::sha256_hex;
use serde::Serialize;
use tracing::info;

use crate::commands::evaluate::{EvaluationFlags, test_images};
use crate::commands::flags::DeviceFlags;
use crate::inference::classifier::{Classifier, Probabilities};
use crate::inference::evaluation::Evaluation;
use crate::process::table::Table;
use crate::run::metrics::Metrics;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs with the same classes: their folders, their names in --out, `latest`, or a network in the program
    /// (`pretrained`, `pretrained-best`, `pretrained-cifar`)
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<String>,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    #[command(flatten)]
    device: DeviceFlags,
    /// Folder in which runs are looked up by name
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// The result as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Member>,
    ensemble: Evaluation,
}

/// The metrics of one network alone.
#[derive(Debug, Serialize)]
struct Member {
    run: String,
    #[serde(flatten)]
    metrics: Metrics,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let EvaluationFlags { json, data, tta } = args.evaluation;
    let (device, reason) = args.device.open()?;
    let open = |run: &String| {
        let run = RunDir::open(&args.out, run)?;
        let classifier = Classifier::open(&run, device.device.clone())?;
        Ok((run, classifier))
    };
    // A run that cannot be opened is reported before the first evaluation.
    let members = args.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
    check_same_classes(&members)?;
    info!("device: {device}, {reason}");

    let classes = members[0].1.classes();
    let mut rows = Vec::new();
    let mut labels = Vec::new();
    let mut identity = String::new();
    let ensemble = Probabilities::mean(members.iter().map(|(run, classifier)| {
        let images = test_images(run, &classifier.config, data.as_deref())?;
        let found = identity_of(&images)?;
        if rows.is_empty() {
            labels = images.labels().collect();
            identity.clone_from(&found);
        }
        ensure!(
            found == identity,
            "{}: its test images differ from those of {}; evaluate all runs on the same images with --data",
            run.name(),
            members[0].0.name()
        );
        let predictions = classifier.predict_split(&images, tta)?;
        let alone = Evaluation::of_probabilities(classes, images.labels(), &predictions)?;
        rows.push(Member {
            run: run.name(),
            metrics: alone.metrics(),
        });
        Ok::<_, anyhow::Error>(predictions)
    }))?;
    let report = Report {
        ensemble: Evaluation::of_probabilities(classes, labels.into_iter(), &ensemble)?,
        runs: rows,
    };
    let mut out = std::io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        false => write!(out, "{}", text(&report))?,
    }
    Ok(())
}

/// Checks that all runs have the classes of the first one.
fn check_same_classes(members: &[(RunDir, Classifier)]) -> Result<()> {
    let (first, leader) = &members[0];
    for (run, member) in members {
        ensure!(
            member.classes() == leader.classes(),
            "{} was trained on the classes {}, {} on {}: an ensemble needs the same classes",
            first.name(),
            leader.classes().join(", "),
            run.name(),
            member.classes().join(", "),
        );
    }
    Ok(())
}

/// Returns a digest of the labels and of the files of the images, or of their pixels if they have no files of
/// their own: two networks may see pictures in different sizes.
///
/// # Errors
/// Returns an error if an image cannot be read.
fn identity_of(images: &ImageDataset) -> Result<String> {
    let Some(files) = images.files() else {
        return Ok(images.sha256()?);
    };
    let labeled = files.zip(images.labels());
    let lines = labeled.map(|(file, label)| format!("{label} {}\n", file.sha256));
    Ok(sha256_hex(lines))
}

fn text(report: &Report) -> String {
    let mut table = Table::new(["run", "accuracy", "loss"]);
    for Member { run, metrics } in &report.runs {
        table.row([
            run.clone(),
            format!("{:.2}%", 100.0 * metrics.accuracy),
            format!("{:.4}", metrics.loss),
        ]);
    }
    let ensemble = &report.ensemble;
    format!("{table}\n\nensemble, by the mean of the probabilities\n{ensemble}\n")
}
