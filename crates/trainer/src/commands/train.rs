//! `trainer train`: a run from its settings to its test accuracy.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use data::ImageDataset;
use model::Precision;
use tracing::{info, warn};

use crate::commands::flags::{DevicesFlags, NewRunFlags, SettingsFlags};
use crate::commands::progress::Progress;
use crate::config::run_config::{Config, Schedule};
use crate::device::{OpenDevice, OpenDevices, precision};
use crate::inference::evaluation::evaluate;
use crate::process::interruption::{self, Interrupted};
use crate::process::logging::{self, FILE_ONLY};
use crate::run::checkpoint::Checkpoint;
use crate::run::environment::Environment;
use crate::run::epoch::best;
use crate::run::event_log::{Event, EventLog, State};
use crate::run::images::{self, DataSplit, PictureCache, RunImages};
use crate::run::loaders::evaluation_loader;
use crate::run::lock::Lock;
use crate::run::metrics::{Metrics, table};
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::session::StopReason;
use crate::training::train::{Trained, train};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Resume a run: its folder, its name in --out, or `latest`
    ///
    /// Only flags that limit the training, schedule its checkpoints or set its precision go with this, such as
    /// --epochs
    #[arg(
        long,
        value_name = "RUN",
        conflicts_with = "run_name",
        help_heading = "Run"
    )]
    resume: Option<String>,
    #[command(flatten)]
    device: DevicesFlags,
    #[command(flatten)]
    new: NewRunFlags,
    /// What to show meanwhile
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        hide_short_help = true,
        help_heading = "Run"
    )]
    progress: Progress,
}

impl Args {
    /// Whether nothing but the result is asked for.
    pub(crate) fn is_silent(&self) -> bool {
        self.progress == Progress::None
    }
}

/// Why a run cannot be gone on with, though it could be used.
const NO_CHECKPOINT: &str = "has weights, but no checkpoint to go on from";

/// What is to be trained, and where it is kept.
struct Work {
    config: Config,
    images: RunImages,
    run: RunDir,
    /// No other process writes to the folder.
    lock: Lock,
    checkpoint: Option<Checkpoint>,
}

pub(crate) fn run(args: Args, quiet: bool) -> Result<()> {
    let style = if quiet {
        Style::Lines
    } else {
        args.progress.style()?
    };
    interruption::listen("stopping after this step")?;
    let (mut work, devices) = match &args.resume {
        Some(run) => {
            let devices = args.device.open()?;
            let work = resume(&args.new.out, run, &args.settings, &devices)?;
            (work, devices)
        }
        None => {
            // Nothing is left behind where the device does not work.
            let (config, images) = args.settings.resolve(PictureCache::Write(&args.new.out))?;
            let devices = args.device.open()?;
            precision::check(config.training.precision, &devices.found)?;
            (begin(config, images, &args.new)?, devices)
        }
    };
    logging::to_file(&work.run.log())?;
    let environment = Environment::of_this_process(&devices.to_string());
    info!(target: FILE_ONLY, "{environment}");
    for message in images::left_out(&work.images.unreadable) {
        warn!(target: FILE_ONLY, "{message}");
    }
    info!(target: FILE_ONLY, "settings:\n{}", work.config.to_toml()?);
    if let Some(process) = work.lock.killed {
        info!("process {process} ended without finishing this run");
    }

    let begun = EventLog::append(&work.run)
        .and_then(|mut journal| journal.write(&Event::Process(&environment)));
    let outcome = begun
        .and_then(|()| work.carry_out(&devices, style))
        .map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => in_run(error, &work.run),
        });
    let (state, error) = match &outcome {
        Ok(_) => (State::Finished, None),
        Err(error) if error.is::<Interrupted>() => (State::Interrupted, None),
        Err(error) => (State::Failed, Some(format!("{error:#}"))),
    };
    let end = Event::End { state, error };
    let ended = EventLog::append(&work.run).and_then(|mut journal| journal.write(&end));
    // Where both failed, the first error is the cause.
    let results = outcome?;
    info!(target: FILE_ONLY, "result:\n{results}");
    write!(std::io::stdout().lock(), "{results}")?;
    ended
}

/// A new run.
fn begin(config: Config, images: RunImages, flags: &NewRunFlags) -> Result<Work> {
    let run = flags.create(&config, |_| Ok(()))?;
    let lock = run.lock()?;
    Ok(Work {
        config,
        images,
        run,
        lock,
        checkpoint: None,
    })
}

/// A run that is there already, from its last checkpoint on.
fn resume(root: &Path, run: &str, flags: &SettingsFlags, devices: &OpenDevices) -> Result<Work> {
    let run = RunDir::open(root, run)?;
    // Before the lock, so that nothing is written to a run that is not a training.
    ensure!(
        run.has_checkpoints() || !run.has_model(),
        "{}: {NO_CHECKPOINT}",
        run.path().display()
    );
    reopen(run.clone(), flags, devices).map_err(|error| in_run(error, &run))
}

fn reopen(run: RunDir, flags: &SettingsFlags, devices: &OpenDevices) -> Result<Work> {
    let lock = run.lock()?;
    let path = run.config();
    let begun = run.read_config()?;
    let images =
        images::load(&begun, PictureCache::Write(&run.root())).context("the images of the run")?;
    ensure!(
        images.info.is_same_data(&begun.images),
        "{}: the images are not those that the run began with",
        begun.data.source
    );
    let checkpoint = match run.list_checkpoints()?.pop() {
        None if run.has_model() => bail!(NO_CHECKPOINT),
        None => None,
        Some((_, path)) => Some(Checkpoint::read(&path).with_context(|| {
            let path = path.display();
            format!("{path}: cannot go on from it, remove it to go on from the one before")
        })?),
    };
    if let Some(checkpoint) = &checkpoint {
        begun
            .check_continues(&checkpoint.config)
            .with_context(|| format!("{}: edited since the run began", path.display()))?;
    }
    let config = flags.extend(&begun)?;
    precision::check(config.training.precision, &devices.found)?;
    if config != begun {
        run.write(&path, config.to_toml()?.as_bytes())?;
    }
    Ok(Work {
        config,
        images,
        run,
        lock,
        checkpoint,
    })
}

impl Work {
    /// Trains and judges: the result as it is printed.
    fn carry_out(&mut self, devices: &OpenDevices, style: Style) -> Result<String> {
        let checkpoint = self.checkpoint.take();
        let Self {
            config,
            images,
            run,
            ..
        } = self;
        let split = &images.split;
        info!("{}", heading(config, split)?);
        info!("device: {devices}, {}", devices.reason);
        if devices.found.iter().any(OpenDevice::is_gpu) {
            info!(
                "a GPU's first run of a network measures its kernels; later ones know the fastest"
            );
        }
        let is_cpu = |found: &OpenDevice| kernels::is_cpu(&found.device);
        if config.training.precision != Precision::F32 && devices.found.iter().any(is_cpu) {
            info!("16 bits are slower than 32 on a CPU, whose own kernels are of 32");
        }
        info!("run: {}", run.path().display());
        if let Some(Checkpoint { position, .. }) = &checkpoint {
            let epochs = position.epochs.len();
            let steps = position.steps;
            if epochs >= config.training.epochs {
                info!("trained to its end, step {steps}, already; --epochs adds more");
            } else {
                info!("resuming in epoch {} after step {steps}", epochs + 1);
            }
        }
        let trained = train(config, split, &devices.found, run, style, checkpoint)?;
        if trained.stop_reason == StopReason::Interrupted {
            let steps = trained.position.steps;
            return Err(interrupted(run, &format!("after step {steps}")));
        }
        let model = trained
            .model
            .as_ref()
            .context("ended before its first step; raise --max-time")?;

        let judge = |split, images: &ImageDataset| {
            info!("evaluating on {split}: {} images", images.len());
            let loader = evaluation_loader(config, images, &devices.main().device);
            evaluate(model, &loader, &config.images.classes, |_| {
                if interruption::is_requested() {
                    return Err(interrupted(run, "after training, before it was judged"));
                }
                Ok(())
            })
        };
        let learned = match config.training.report_train {
            true => Some(judge("train", &split.train)?.metrics()),
            false => None,
        };
        let test = judge("test", &split.test)?;
        test.write(run)?;
        let validation = best(&trained.position.epochs).and_then(|best| best.validation);
        let splits = [
            ("train", learned),
            ("validation", validation),
            ("test", Some(test.metrics())),
        ];
        Ok(results(config, &trained, &splits, run))
    }
}

/// What the user reads who stopped the program.
fn interrupted(run: &RunDir, when: &str) -> Error {
    let path = run.path().display();
    Interrupted(format!(
        "stopped {when}; go on with: trainer --resume {path}"
    ))
    .into()
}

/// An error of a run, with what was saved before.
fn in_run(error: Error, run: &RunDir) -> Error {
    let checkpoints = run.list_checkpoints().unwrap_or_default();
    let good = checkpoints
        .iter()
        .rev()
        .find(|(_, path)| Checkpoint::read(path).is_ok());
    let saved = match good {
        Some((_, path)) => format!("last good checkpoint {}", path.display()),
        None => "no good checkpoint".into(),
    };
    error.context(format!("run {} ({saved})", run.path().display()))
}

/// What is about to happen.
fn heading(config: &Config, split: &DataSplit) -> Result<String> {
    let training = &config.training;
    let images = &config.images;
    Ok(format!(
        "{}: {} parameters, {:?} at {}{}, {} epochs of batch {}, seed {}\n\
         {}: {} training, {} validation, {} test images of {}x{}, {} classes",
        config.preset,
        config.model.parameters()?,
        training.optimizer,
        training.learning_rate,
        match training.schedule {
            Schedule::Constant => "",
            Schedule::Cosine => " (cosine)",
            Schedule::OneCycle => " (one-cycle)",
            Schedule::Step => " (step)",
            Schedule::Plateau => " (plateau)",
        },
        training.epochs,
        training.batch_size,
        training.seed,
        images.name,
        split.train.len(),
        split.validation.len(),
        split.test.len(),
        images.height,
        images.width,
        images.classes.len(),
    ))
}

/// The result, on standard output.
fn results(
    config: &Config,
    trained: &Trained,
    splits: &[(&str, Option<Metrics>)],
    run: &RunDir,
) -> String {
    let mut text = table(splits);
    let chosen = match config.data.validation {
        0.0 => "the last: there is no validation split",
        _ => "by validation accuracy",
    };
    let ended = match trained.stop_reason {
        StopReason::Epochs | StopReason::Interrupted => "",
        StopReason::EarlyStopping => ", ended by --early-stopping",
        StopReason::MaxSteps => ", ended by --max-steps",
        StopReason::MaxTime => ", ended by --max-time",
    };
    let best = best(&trained.position.epochs).map_or(0, |best| best.number);
    let of = trained.position.epochs.len();
    let _ = writeln!(text, "best epoch  {best} of {of}, {chosen}{ended}");
    let _ = writeln!(text, "saved in    {}", run.path().display());
    text
}
