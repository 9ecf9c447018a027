//! `trainer evaluate RUN`: the test figures of a run, from its folder alone.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tracing::info;

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
        .context("the images of the run; --data names another place")?;
    let (found, learned) = (&splits.info, &config.images);
    ensure!(
        (found.height, found.width) == (learned.height, learned.width)
            && found.classes.len() <= learned.classes.len(),
        "{} has {} classes of {}x{} images, but the run learned {} of {}x{}",
        config.data.source,
        found.classes.len(),
        found.height,
        found.width,
        learned.classes.len(),
        learned.height,
        learned.width,
    );
    let path = run.model();
    let weights = fs::read(&path).with_context(|| path.display().to_string())?;
    let (found, reason) = device::open(args.device)?;
    let model = config
        .model
        .init(&found.device)?
        .with_safetensors(weights)
        .with_context(|| path.display().to_string())?;

    info!("device: {found}, {reason}");
    let loader = evaluation_loader(&config, &splits.test, &found.device);
    let evaluation = evaluate(&model, &loader, &config.images.classes, |_, _| Ok(()))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&evaluation)?)?;
    } else {
        writeln!(out, "{evaluation}")?;
    }
    Ok(())
}
