//! `trainer ensemble RUN...`: several networks judged as one.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Serialize;
use tracing::info;

use super::evaluate::JudgeFlags;
use crate::commands::flags::DeviceFlags;
use crate::inference::classifier::{Classifier, Probabilities};
use crate::inference::evaluation::Evaluation;
use crate::run::images;
use crate::run::metrics::Metrics;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs that learned the same classes: their folders, their names in --out, `latest`,
    /// `pretrained`, or `pretrained-best`
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<String>,
    #[command(flatten)]
    judge: JudgeFlags,
    #[command(flatten)]
    device: DeviceFlags,
    /// Folder in which runs are looked up by name
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// What was found of the networks, each and together.
#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Member>,
    ensemble: Evaluation,
}

/// One of the networks by itself.
#[derive(Debug, Serialize)]
struct Member {
    run: String,
    #[serde(flatten)]
    figures: Metrics,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (found, reason) = args.device.open()?;
    let open = |run: &String| {
        let run = RunDir::open(&args.out, run)?;
        let classifier = Classifier::open(&run, found.device.clone())?;
        Ok((run, classifier))
    };
    // All are opened before the first is put to work: one that is missing is told of at once.
    let members = args.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
    let (first, leader) = &members[0];
    let classes = leader.classes();
    for (run, member) in &members {
        let source = |member: &Classifier| member.config.data.source.clone();
        ensure!(
            member.classes() == classes
                && (args.judge.data.is_some() || source(member) == source(leader)),
            "{} learned {} of {}, {} learned {} of {}: judged together are runs of the same classes, \
             on the same images or those of --data",
            first.name(),
            classes.join(", "),
            source(leader),
            run.name(),
            member.classes().join(", "),
            source(member),
        );
    }
    info!("device: {found}, {reason}");
    let mut rows = Vec::new();
    let mut labels = Vec::new();
    let ensemble = Probabilities::mean(members.iter().map(|(run, classifier)| {
        let images =
            images::load_for_trained(run, &classifier.config, args.judge.data.as_deref())?.test;
        if rows.is_empty() {
            labels = images.labels().collect();
        }
        ensure!(
            images.labels().eq(labels.iter().copied()),
            "the images changed meanwhile"
        );
        let found = classifier.judge(&images, args.judge.tta)?;
        let alone = Evaluation::of_probabilities(classes, images.labels(), &found)?;
        rows.push(Member {
            run: run.name(),
            figures: alone.metrics(),
        });
        Ok(found)
    }))?;
    let report = Report {
        ensemble: Evaluation::of_probabilities(classes, labels.into_iter(), &ensemble)?,
        runs: rows,
    };
    let mut out = std::io::stdout().lock();
    if args.judge.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        return Ok(());
    }
    let width = report.runs.iter().map(|row| row.run.chars().count()).max();
    let width = width.unwrap_or(0);
    for Member { run, figures } in &report.runs {
        let percent = 100.0 * figures.accuracy;
        writeln!(out, "{run:width$}  {percent:.2}%  loss {:.4}", figures.loss)?;
    }
    writeln!(
        out,
        "\ntogether, by the mean of their probabilities\n{}",
        report.ensemble
    )?;
    Ok(())
}
