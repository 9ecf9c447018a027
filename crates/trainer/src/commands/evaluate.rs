//! `trainer evaluate RUN`: the test figures of a run, from its folder alone.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::config::{Config, absolute_source};
use crate::device::{self, Request};
use crate::evaluation::evaluate;
use crate::run_dir::{DEFAULT_ROOT, RunDir};
use crate::training::evaluation_loader;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run's folder, its name in --out, or `latest`
    run: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Judge on the test split of this folder instead of the run's own data
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// auto, cpu, or one that `trainer devices` lists
    #[arg(long, default_value = "auto")]
    device: Request,
    /// Folder in which runs are looked up by name
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let run = RunDir::open(&args.out, &args.run)?;
    let mut config = Config::read(&run.config())?;
    if let Some(data) = &args.data {
        config.data.source = absolute_source(data)?;
    }
    let splits = config
        .data
        .load()
        .context("the data of the run; --data names another place")?;
    let (size, classes) = (
        [splits.test.height(), splits.test.width()],
        splits.info.classes.len(),
    );
    ensure!(
        size == config.model.input && classes <= config.model.classes,
        "{} has {classes} classes of {size:?} images, but the run was trained on {} of {:?}",
        config.data.source,
        config.model.classes,
        config.model.input
    );
    let path = run.model();
    let weights = fs::read(&path).with_context(|| path.display().to_string())?;
    let (found, _) = device::open(args.device)?;
    let model = config
        .model
        .init(&found.device)?
        .with_safetensors(weights)
        .with_context(|| path.display().to_string())?;

    let loader = evaluation_loader(&config, &splits.test, &found.device);
    let evaluation = evaluate(&model, &loader, &config.data.classes, |_, _| Ok(()))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&evaluation)?)?;
    } else {
        writeln!(out, "{evaluation}")?;
    }
    Ok(())
}
