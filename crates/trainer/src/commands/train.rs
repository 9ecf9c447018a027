//! `trainer train`: a run from its settings to its test accuracy.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use burn::tensor::Device;
use data::ImageDataset;
use model::Precision;
use model::gradients::Freeze;
use tracing::{info, warn};

use crate::commands::flags::{DevicesFlags, NewRunFlags, SettingsFlags};
use crate::commands::progress::Progress;
use crate::config::given::Given;
use crate::config::ineffective::{Extent, ineffective};
use crate::config::run_config::{Config, Sampler, Schedule, SelectBy};
use crate::device::{OpenDevice, OpenDevices, precision};
use crate::inference::calibration::CalibrationError;
use crate::inference::classifier::{Classifier, Confidence, Probabilities};
use crate::inference::evaluation::{Evaluation, evaluate};
use crate::process::interruption::{self, Interrupted};
use crate::process::logging::{self, FILE_ONLY};
use crate::process::printable::printable;
use crate::run::checkpoint::Checkpoint;
use crate::run::class_weights::counts;
use crate::run::environment::{Environment, quoted};
use crate::run::epoch::best_epoch;
use crate::run::event_log::{Event, EventLog, Import, State};
use crate::run::image_record::ImageRecord;
use crate::run::image_source::skipped_messages;
use crate::run::images::{self, DataSplit, RunImages};
use crate::run::loaders::{evaluation_loader, steps_per_epoch, uncached_training_loader};
use crate::run::lock::Lock;
use crate::run::metrics::{Metrics, table};
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::source_network::SourceNetwork;
use crate::training::state::Training;
use crate::training::stop_reason::StopReason;
use crate::training::train::{Trained, train};
use crate::training::transfer::{Transferred, transfer};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Resume a run: its folder, its name in --out, or `latest`
    ///
    /// Only flags that limit the training, schedule its checkpoints or set its precision go with this, such as
    /// --epochs, and --data if the images have moved
    #[arg(
        long,
        value_name = "RUN",
        conflicts_with = "run_name",
        help_heading = "Run"
    )]
    resume: Option<String>,
    /// Start from the weights of a trained network: a run, or a file that describes its network
    ///
    /// The network is that of the run or file. Layers of another shape, and the last one for other classes, are
    /// initialized anew
    #[arg(
        long,
        value_name = "RUN|FILE",
        conflicts_with = "resume",
        hide_short_help = true,
        help_heading = "Run"
    )]
    init_from: Option<String>,
    #[command(flatten)]
    device: DevicesFlags,
    #[command(flatten)]
    new: NewRunFlags,
    /// How to show progress
    #[arg(
        long,
        value_name = "STYLE",
        default_value = "auto",
        hide_short_help = true,
        help_heading = "Run"
    )]
    progress: Progress,
}

impl Args {
    /// Whether only the result is printed.
    pub(crate) fn is_silent(&self) -> bool {
        self.progress == Progress::None
    }
}

/// Ratio of the numbers of images of two classes that is warned of.
const IMBALANCE: usize = 5;
/// Fewer validation images of a class are warned of.
const FEW: usize = 5;

const NO_CHECKPOINT: &str = "has weights but no checkpoint to resume from";

/// A run that this process trains.
struct ActiveRun {
    config: Config,
    images: RunImages,
    /// The settings that the user gave for a new run.
    given: Given,
    folder: RunDir,
    /// Keeps other processes from writing to the folder.
    lock: Lock,
    /// Where to resume from; `None` to start from fresh weights.
    checkpoint: Option<Checkpoint>,
}

pub(crate) fn run(args: Args, quiet: bool) -> Result<()> {
    let style = if quiet {
        Style::Lines
    } else {
        args.progress.style()?
    };
    interruption::listen("stopping after this step")?;
    let (mut run, devices) = match &args.resume {
        Some(name) => {
            let devices = args.device.open()?;
            let run = resume(&args.new.out, name, &args.settings, &devices)?;
            (run, devices)
        }
        None => {
            // Before the folder is created, so that nothing is left behind if a device fails.
            let devices = args.device.open()?;
            let run = match &args.init_from {
                Some(source) => start_from(source, &args, &devices)?,
                None => start(&args, &devices)?,
            };
            (run, devices)
        }
    };
    let environment = Environment::of_this_process(&devices.to_string());
    run.log_start(&environment)?;
    let folder = run.folder.clone();
    let log = |event: &Event<'_>| EventLog::append(&folder)?.write(event);
    let outcome = log(&Event::Process(&environment))
        .and_then(|()| run.train_and_evaluate(&devices, style))
        .map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => with_run_context(error, &run.folder),
        });
    let (state, error) = match &outcome {
        Ok(_) => (State::Finished, None),
        Err(error) if error.is::<Interrupted>() => (State::Interrupted, None),
        Err(error) => (State::Failed, Some(format!("{error:#}"))),
    };
    let logged = log(&Event::End { state, error });
    // If both failed, the first error is the cause.
    let results = outcome?;
    info!(target: FILE_ONLY, lines = %results, "result:");
    write!(std::io::stdout().lock(), "{results}")?;
    logged
}

/// Starts a run with fresh weights.
fn start(args: &Args, devices: &OpenDevices) -> Result<ActiveRun> {
    let cache = PictureCache::Write(&args.new.out);
    let (config, images, given) = args.settings.resolve(cache)?;
    precision::check(config.training.precision, &devices.all)?;
    ensure!(
        config.training.freeze == Freeze::None,
        "training.freeze keeps the weights of a trained network: name it with --init-from"
    );
    create(config, images, given, &args.new, None)
}

/// Starts a run with the weights of another run, or of a file.
fn start_from(name: &str, args: &Args, devices: &OpenDevices) -> Result<ActiveRun> {
    let device = &devices.main().device;
    let source = SourceNetwork::open(&args.new.out, name, device)?;
    let mut settings = args.settings.settings_with(source.settings()?)?;
    settings.resize_images();
    let given = settings.given().clone();
    let (config, images) = images::resolve(settings, PictureCache::Write(&args.new.out))?;
    precision::check(config.training.precision, &devices.all)?;
    let Transferred { model, notes } = transfer(&config, &source, &device.clone().autodiff())?;
    info!("weights of {}", printable(&source.origin.file));
    for note in notes {
        info!("{note}");
    }
    let checkpoint = Training::with_model(&config, model).checkpoint(&config)?;
    create(
        config,
        images,
        given,
        &args.new,
        Some((checkpoint, &source.origin)),
    )
}

/// Creates the folder of a new run, with a checkpoint before the first step if it starts from other weights.
fn create(
    config: Config,
    images: RunImages,
    given: Given,
    flags: &NewRunFlags,
    initial: Option<(Checkpoint, &Import)>,
) -> Result<ActiveRun> {
    let record = images.record(&config.images.classes)?;
    warn_of_duplicates(&record);
    warn_of_imbalance(&config, &images);
    let folder = flags.create(&config, |run| {
        record.write(run)?;
        match &initial {
            Some((checkpoint, origin)) => {
                run.write_checkpoint(0, &checkpoint.to_bytes()?, None)?;
                EventLog::append(run)?.write(&Event::Import(origin))
            }
            None => Ok(()),
        }
    })?;
    let lock = folder.lock()?;
    Ok(ActiveRun {
        config,
        images,
        given,
        folder,
        lock,
        checkpoint: initial.map(|(checkpoint, _)| checkpoint),
    })
}

/// Opens an existing run at its last checkpoint.
fn resume(
    root: &Path,
    name: &str,
    flags: &SettingsFlags,
    devices: &OpenDevices,
) -> Result<ActiveRun> {
    let folder = RunDir::open(root, name)?;
    // Before the lock, so that nothing is written to a run that cannot be resumed.
    ensure!(
        folder.has_checkpoints() || !folder.has_model(),
        "{}: {NO_CHECKPOINT}",
        folder.path().display()
    );
    open_at_checkpoint(folder.clone(), flags, devices)
        .map_err(|error| with_run_context(error, &folder))
}

fn open_at_checkpoint(
    folder: RunDir,
    flags: &SettingsFlags,
    devices: &OpenDevices,
) -> Result<ActiveRun> {
    let lock = folder.lock()?;
    let path = folder.config_path();
    let begun = folder.read_config()?;
    let config = flags.extend(&begun)?;
    let images = RunImages::load(&folder, &config, PictureCache::Write(&folder.root()))
        .context("the images of the run; if they have moved, name their folder with --data")?;
    let checkpoint = match folder.list_checkpoints()?.pop() {
        None if folder.has_model() => bail!(NO_CHECKPOINT),
        None => None,
        Some((_, path)) => Some(Checkpoint::read(&path).with_context(|| {
            let path = path.display();
            format!("{path}: cannot resume from it; remove it to resume from the previous one")
        })?),
    };
    if let Some(checkpoint) = &checkpoint {
        begun
            .check_continues(&checkpoint.config)
            .with_context(|| format!("{}: edited since the run began", path.display()))?;
    }
    precision::check(config.training.precision, &devices.all)?;
    if config != begun {
        folder.write(&path, config.to_toml()?.as_bytes())?;
    }
    Ok(ActiveRun {
        config,
        images,
        given: Given::default(),
        folder,
        lock,
        checkpoint,
    })
}

/// Warns if test images are training images too.
fn warn_of_duplicates(record: &ImageRecord) {
    let duplicates = record.duplicates();
    if let Some((test, training)) = duplicates.first() {
        warn!(
            "{} test pictures have the content of training pictures, such as {test} and {training}: the test \
             accuracy is too high",
            duplicates.len()
        );
    }
}

/// Warns of classes with few training images, and of classes with few validation images.
fn warn_of_imbalance(config: &Config, images: &RunImages) {
    let classes = &config.images.classes;
    let DataSplit {
        train, validation, ..
    } = &images.split;
    let counts = counts(train, classes.len());
    let most = (0..classes.len()).max_by_key(|&class| counts[class]);
    let least = (0..classes.len()).min_by_key(|&class| counts[class]);
    let is_countered =
        config.training.class_weights.is_some() || config.data.sampler == Sampler::Balanced;
    if let (Some(most), Some(least), false) = (most, least, is_countered)
        && counts[most] >= IMBALANCE * counts[least].max(1)
    {
        warn!(
            "{} training images of class {}, but {} of {}: --class-weights balanced or --sampler balanced makes the \
             classes count equally, and --select-by balanced-accuracy chooses the epoch",
            counts[most],
            printable(&classes[most]),
            counts[least],
            printable(&classes[least])
        );
    }
    let counts = self::counts(validation, classes.len());
    if let Some(class) = counts.iter().position(|count| *count < FEW)
        && !validation.is_empty()
    {
        warn!(
            "{} validation images of class {}: the choice of the best epoch is uncertain",
            counts[class],
            printable(&classes[class])
        );
    }
}

impl ActiveRun {
    /// Opens the log file of the run and writes the circumstances of this process to it.
    fn log_start(&self, environment: &Environment) -> Result<()> {
        logging::to_file(&self.folder.log_path())?;
        info!(target: FILE_ONLY, lines = %environment);
        for message in skipped_messages(&self.images.unreadable) {
            warn!(target: FILE_ONLY, "{message}");
        }
        info!(target: FILE_ONLY, lines = %self.config.to_toml()?, "settings:");
        if let Some(process) = self.lock.killed {
            info!("process {process} exited without finishing this run");
        }
        Ok(())
    }

    /// Trains the network and evaluates it, and returns the results as text.
    fn train_and_evaluate(&mut self, devices: &OpenDevices, style: Style) -> Result<String> {
        let checkpoint = self.checkpoint.take();
        self.announce(devices, checkpoint.as_ref())?;
        let Self {
            config,
            images,
            folder,
            ..
        } = &*self;
        let split = &images.split;
        let trained = train(config, split, &devices.all, folder, style, checkpoint)?;
        if trained.stop_reason == StopReason::Interrupted {
            let steps = trained.position.steps;
            return Err(interrupted(folder, &format!("after step {steps}")));
        }
        let model = trained
            .model
            .as_ref()
            .context("ended before its first step; raise --max-time")?;

        // A run without verdicts is complete.
        let confidence = self.measure_confidence(devices).unwrap_or_else(|error| {
            warn!("no verdicts on predictions: {error:#}");
            None
        });
        let temperature = confidence.map(|confidence| confidence.temperature);
        let evaluate_split = |name, images: &ImageDataset| {
            info!("evaluating on {name}: {} images", images.len());
            let loader = evaluation_loader(config, images, &devices.main().device)?;
            let mut predictions = Vec::with_capacity(images.len());
            let evaluation = evaluate(model, &loader, &config.images.classes, |batch| {
                if interruption::is_requested() {
                    return Err(interrupted(folder, "after training, before its evaluation"));
                }
                predictions.extend(Probabilities::from_logits(batch.logits)?);
                Ok(())
            })?;
            let labels = images.labels().map(usize::from);
            let error = CalibrationError::of(predictions.iter().zip(labels), temperature);
            anyhow::Ok(Evaluation {
                calibration_error: Some(error),
                ..evaluation
            })
        };
        let train_metrics = match config.training.report_train {
            true => Some(evaluate_split("train", &split.train)?.metrics()),
            false => None,
        };
        let test = evaluate_split("test", &split.test)?;
        test.write(folder)?;
        let validation = best_epoch(&trained.position.epochs).and_then(|best| best.validation);
        let metrics = [
            ("train", train_metrics),
            ("validation", validation),
            ("test", Some(test.metrics())),
        ];
        Ok(results(config, &trained, &metrics, folder))
    }

    /// Measures what verdicts on predictions need.
    fn measure_confidence(&self, devices: &OpenDevices) -> Result<Option<Confidence>> {
        let device = devices.main().device.clone();
        let classifier = Classifier::open(&self.folder, device)?;
        classifier.measure_confidence(&self.folder, &self.images.split)
    }

    /// Logs what is trained, on which device, and from which step.
    fn announce(&self, devices: &OpenDevices, checkpoint: Option<&Checkpoint>) -> Result<()> {
        let Self {
            config,
            images,
            folder,
            ..
        } = self;
        for line in heading(config, &images.split)? {
            info!("{line}");
        }
        for message in self.ineffective_settings(devices) {
            warn!("{message}");
        }
        info!("device: {devices}, {}", devices.reason);
        if devices.all.iter().any(OpenDevice::is_gpu) {
            info!("the first run of a network on a GPU tunes its kernels; later runs start faster");
        }
        let is_cpu = |open: &OpenDevice| kernels::is_cpu(&open.device);
        if config.training.precision != Precision::F32 && devices.all.iter().any(is_cpu) {
            info!("16-bit training is slower on a CPU, whose fast kernels compute in f32");
        }
        info!("run: {}", folder.path().display());
        if let Some(Checkpoint { position, .. }) = checkpoint {
            let epochs = position.epochs.len();
            let steps = position.steps;
            if steps == 0 {
                info!("starting from the weights of the checkpoint before the first step");
            } else if epochs >= config.training.epochs {
                info!("already trained to its end, at step {steps}; --epochs adds more");
            } else {
                info!("resuming in epoch {} after step {steps}", epochs + 1);
            }
        }
        Ok(())
    }

    /// Returns a message for each setting that the user gave without effect.
    fn ineffective_settings(&self, devices: &OpenDevices) -> Vec<String> {
        let Self {
            config,
            images,
            given,
            ..
        } = self;
        let DataSplit {
            train, validation, ..
        } = &images.split;
        let all: Vec<Device> = devices.all.iter().map(|open| open.device.clone()).collect();
        let loader = uncached_training_loader(config, train, &all);
        let extent = Extent {
            images: train.len() + validation.len(),
            has_validation_split: images.has_validation_split,
            steps: steps_per_epoch(config, &loader).saturating_mul(config.training.epochs as u64),
        };
        ineffective(given, config, extent)
    }
}

/// Returns the error of an interrupted run, with the command that resumes it.
fn interrupted(run: &RunDir, when: &str) -> Error {
    let path = quoted(&run.path().display().to_string());
    Interrupted(format!(
        "stopped {when}; resume with: trainer --resume {path}"
    ))
    .into()
}

/// Adds the run and its last valid checkpoint to an error.
fn with_run_context(error: Error, run: &RunDir) -> Error {
    let checkpoints = run.list_checkpoints().unwrap_or_default();
    let valid = checkpoints
        .iter()
        .rev()
        .find(|(_, path)| Checkpoint::read(path).is_ok());
    let saved = match valid {
        Some((_, path)) => format!("last valid checkpoint {}", path.display()),
        None => "no valid checkpoint".into(),
    };
    error.context(format!("run {} ({saved})", run.path().display()))
}

/// Describes the training in two lines.
fn heading(config: &Config, split: &DataSplit) -> Result<[String; 2]> {
    let training = &config.training;
    let images = &config.images;
    let network = format!(
        "{}: {} parameters, {:?} at {}{}, {} epochs of batch {}, seed {}",
        config.preset,
        config.model.parameters()?,
        training.optimizer,
        training.learning_rate,
        match training.schedule {
            Schedule::Constant => "",
            Schedule::Cosine => " (cosine)",
            Schedule::OneCycle => " (one-cycle)",
            Schedule::Linear => " (linear)",
            Schedule::Step => " (step)",
            Schedule::Plateau => " (plateau)",
        },
        training.epochs,
        training.batch_size,
        training.seed,
    );
    let data = format!(
        "{}: {} training, {} validation, {} test images of {}x{}, {} classes",
        images.name,
        split.train.len(),
        split.validation.len(),
        split.test.len(),
        images.height,
        images.width,
        images.classes.len(),
    );
    Ok([network, data])
}

/// Formats the results for standard output.
fn results(
    config: &Config,
    trained: &Trained,
    metrics: &[(&str, Option<Metrics>)],
    run: &RunDir,
) -> String {
    let mut text = table(metrics);
    let epochs = &trained.position.epochs;
    let is_validated = epochs.iter().any(|epoch| epoch.validation.is_some());
    let chosen = match (is_validated, config.training.select_by) {
        (false, _) => "the last: there is no validation split",
        (true, SelectBy::Accuracy) => "by validation accuracy",
        (true, SelectBy::BalancedAccuracy) => "by balanced validation accuracy",
        (true, SelectBy::MacroF1) => "by macro F1 on the validation split",
        (true, SelectBy::Loss) => "by validation loss",
    };
    let ended = match trained.stop_reason {
        StopReason::Epochs | StopReason::Interrupted => "",
        StopReason::EarlyStopping => ", ended by --early-stopping",
        StopReason::MaxSteps => ", ended by --max-steps",
        StopReason::MaxTime => ", ended by --max-time",
    };
    let best = best_epoch(epochs).map_or(0, |best| best.number);
    let of = epochs.len();
    let _ = writeln!(text, "best epoch  {best} of {of}, {chosen}{ended}");
    let _ = writeln!(text, "saved in    {}", printable(run.path().display()));
    text
}
