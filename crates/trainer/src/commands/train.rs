//! `trainer train`: a run from its settings to its test accuracy.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use data::ImageDataset;

use crate::config::Config;
use crate::device::{self, Request};
use crate::epochs::End;
use crate::evaluation::evaluate;
use crate::flags::SettingsFlags;
use crate::progress::Progress;
use crate::run_dir::{DEFAULT_ROOT, RunDir};
use crate::tally::Figures;
use crate::training::{Parts, Trained, evaluation_loader, train};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
    /// auto, cpu, or one that `trainer devices` lists: flex, wgpu:1, ...
    #[arg(long, default_value = "auto", help_heading = "How to run")]
    device: Request,
    /// Folder in which the run's folder is made
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT, help_heading = "How to run")]
    out: PathBuf,
    /// Name of the run's folder [default: PRESET-NUMBER]
    #[arg(long, value_name = "NAME", help_heading = "How to run")]
    run_name: Option<String>,
    /// What to show meanwhile
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        help_heading = "How to run"
    )]
    progress: Progress,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let style = args.progress.style()?;
    let (config, splits) = args.settings.resolve()?;
    let (train_images, validation) = config.data.divide(&splits.train, config.training.seed)?;
    let parts = Parts {
        train: train_images,
        validation,
        test: splits.test,
    };
    let (found, reason) = device::open(args.device)?;
    let run = RunDir::create(&args.out, &config.preset, args.run_name.as_deref())?;
    run.write(&run.config(), config.to_toml()?.as_bytes())?;

    style.note(heading(&config, &parts)?);
    style.note(format_args!("device: {found}, {reason}"));
    style.note(format_args!("run: {}", run.path().display()));
    let trained = train(&config, &parts, &found.device, &run, style)
        .with_context(|| format!("run {}", run.path().display()))?;

    let judge = |split, images: &ImageDataset| {
        style.note(format_args!(
            "evaluating on {split}: {} images",
            images.len()
        ));
        let loader = evaluation_loader(&config, images, &found.device);
        let classes = &config.images.classes;
        evaluate(&trained.model, &loader, classes, |_, _| Ok(()))
    };
    let learned = judge("train", &parts.train)?.figures();
    let test = judge("test", &parts.test)?;
    let json = serde_json::to_string_pretty(&test)?;
    run.write(&run.evaluation(), json.as_bytes())?;
    let results = [
        ("train", Some(learned)),
        ("validation", trained.validation),
        ("test", Some(test.figures())),
    ];
    print(&config, &trained, &results, &run)
}

/// What is about to happen.
fn heading(config: &Config, parts: &Parts) -> Result<String> {
    let training = &config.training;
    let images = &config.images;
    Ok(format!(
        "{}: {} parameters, {:?} at {}, {} epochs of batch {}, seed {}\n\
         {}: {} training, {} validation, {} test images of {}x{}, {} classes",
        config.preset,
        config.model.parameters()?,
        training.optimizer,
        training.learning_rate,
        training.epochs,
        training.batch_size,
        training.seed,
        images.name,
        parts.train.len(),
        parts.validation.len(),
        parts.test.len(),
        images.height,
        images.width,
        images.classes.len(),
    ))
}

/// The result, on standard output.
fn print(
    config: &Config,
    trained: &Trained,
    results: &[(&str, Option<Figures>)],
    run: &RunDir,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:10}    loss  accuracy", "")?;
    for (split, figures) in results {
        if let Some(Figures { loss, accuracy }) = figures {
            writeln!(out, "{split:10}  {loss:.4}    {:.2}%", 100.0 * accuracy)?;
        }
    }
    let chosen = match config.data.validation {
        0.0 => "the last: there is no validation split",
        _ => "by validation accuracy",
    };
    let ended = match trained.end {
        End::Epochs => "",
        End::Steps => ", ended by --max-steps",
        End::Stopped => ", stopped in the dashboard",
    };
    writeln!(
        out,
        "best epoch  {} of {}, {chosen}{ended}",
        trained.best_epoch,
        trained.epochs.len()
    )?;
    writeln!(out, "saved in    {}", run.path().display())?;
    Ok(())
}
