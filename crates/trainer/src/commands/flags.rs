//! The flags that describe a run, or name one, shared by the commands that take them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use toml::{Table, Value};
use tracing::info;

use crate::config::presets;
use crate::config::run_config::Config;
use crate::config::settings::Settings;
use crate::device::{self, OpenDevice, OpenDevices, Request};
use crate::inference::classifier::Classifier;
use crate::run::images::{self, PictureCache, RunImages};
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};

/// Later ones overrule earlier ones: defaults, preset, file, flags. Values are kept as text here
/// and checked where those of files are.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to train")]
pub(crate) struct SettingsFlags {
    /// Start from this preset [default: convnet]; `trainer presets` lists them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Settings in a TOML file; `trainer presets show NAME` prints one to start from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `mnist` for the embedded one, a folder with the four IDX files of the MNIST family, or one of
    /// pictures: a sub-folder per class, or train and test with such sub-folders
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Rows and columns that pictures are scaled to [default: 28]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    image_size: Option<String>,
    /// unit (0 to 1), half (-1 to 1), mean-std (of the data), or MEAN,STD
    #[arg(long, value_name = "HOW", allow_hyphen_values = true)]
    normalization: Option<String>,
    /// Fraction of the training images set aside for validation, 0 to 0.9; 0 for none
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    validation: Option<String>,
    /// Which images those are: random or last
    #[arg(long, value_name = "WHICH")]
    validation_split: Option<String>,
    /// Use only the first N training images
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit_train: Option<String>,
    /// Probability of dropout before the last layer, 0 to 0.99
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    dropout: Option<String>,
    /// How weights start: pytorch or keras
    #[arg(long, value_name = "FRAMEWORK")]
    initialization: Option<String>,
    /// Passes over the training images
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<String>,
    /// End after N optimizer steps
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_steps: Option<String>,
    /// End after training for so long in all: 90s, 10m, 1h30m
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    max_time: Option<String>,
    /// End after N epochs without a better one on validation
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    early_stopping: Option<String>,
    /// Write a checkpoint after every N optimizer steps too, not only after each epoch
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    checkpoint_every: Option<String>,
    /// Images per optimizer step, 1 to 65536
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    batch_size: Option<String>,
    /// Average the gradients of N batches in each optimizer step
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    accumulate: Option<String>,
    /// Compute feature maps and products in f32, or in bf16 or f16 where the device has it
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
    /// Images per step of an evaluation: memory and speed, not results
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    eval_batch_size: Option<String>,
    /// adam, adamw or sgd (with momentum 0.9)
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// How much of adam's and adamw's mean gradient stays in each step, 0 to 1
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    beta1: Option<String>,
    /// How much of the mean of its squares does
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    beta2: Option<String>,
    /// Step size of the optimizer
    #[arg(
        long,
        visible_alias = "lr",
        value_name = "RATE",
        allow_negative_numbers = true
    )]
    learning_rate: Option<String>,
    /// How it changes: constant, cosine, one-cycle, step or plateau
    #[arg(long, value_name = "HOW")]
    schedule: Option<String>,
    /// Steps in which it rises; one-cycle takes 0 for 30% of them all
    #[arg(long, value_name = "STEPS", allow_negative_numbers = true)]
    warmup_steps: Option<String>,
    /// What `step` and `plateau` multiply it by
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    decay: Option<String>,
    /// After how many epochs they do
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    decay_epochs: Option<String>,
    /// Pull weights towards 0 [default: 0.01 for adamw, else 0]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    weight_decay: Option<String>,
    /// Scale gradients down to this norm where theirs is larger
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    gradient_clip: Option<String>,
    /// Judge and keep a moving average of the weights, of which so much stays in each step
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    ema_decay: Option<String>,
    /// Take so much probability from the target and spread it over all classes
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    label_smoothing: Option<String>,
    /// Turn training images at random, by up to so many degrees to either side
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    rotation: Option<String>,
    /// Move them by up to this part of their size
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    translation: Option<String>,
    /// Make them larger or smaller by up to this part
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    scale: Option<String>,
    /// Slant them by up to so many degrees to either side
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    shear: Option<String>,
    /// Distort them as an unsteady hand does, by this part of their size on average
    #[arg(long, value_name = "PART", allow_negative_numbers = true)]
    elastic: Option<String>,
    /// Probability that a rectangle in one becomes black
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    erasing: Option<String>,
    /// Mirror one of two
    #[arg(long)]
    flip: bool,
    /// Decides initial weights, order and changes of images, dropout and validation split
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<String>,
    /// Report the test split after each epoch; nothing is chosen on it
    #[arg(long)]
    report_test: bool,
}

/// What computes.
#[derive(Debug, Args)]
pub(crate) struct DeviceFlags {
    /// auto, cpu, one that `trainer devices` lists, or remote:HOST:PORT of a `trainer worker`
    #[arg(
        long,
        env = device::VARIABLE,
        default_value = "auto",
        help_heading = "How to run"
    )]
    device: Request,
    #[command(flatten)]
    token: TokenFlags,
}

/// What learns.
#[derive(Debug, Args)]
pub(crate) struct DevicesFlags {
    /// auto, cpu, one that `trainer devices` lists, or remote:HOST:PORT of a `trainer worker`; several,
    /// separated by commas, learn together, each from its part of every batch
    #[arg(
        long,
        env = device::VARIABLE,
        value_name = "DEVICE,...",
        value_delimiter = ',',
        default_value = "auto",
        help_heading = "How to run"
    )]
    device: Vec<Request>,
    #[command(flatten)]
    token: TokenFlags,
}

/// What workers want to know.
#[derive(Debug, Args)]
pub(crate) struct TokenFlags {
    /// File with the token of remote devices
    #[arg(
        long,
        value_name = "FILE",
        env = "TRAINER_TOKEN_FILE",
        help_heading = "How to run"
    )]
    pub(crate) token_file: Option<PathBuf>,
}

impl DeviceFlags {
    /// See [`device::open`].
    pub(crate) fn open(&self) -> Result<(OpenDevice, String)> {
        device::open(&self.device, self.token.token_file.as_deref())
    }
}

impl DevicesFlags {
    /// See [`OpenDevices::open`].
    pub(crate) fn open(&self) -> Result<OpenDevices> {
        OpenDevices::open(&self.device, self.token.token_file.as_deref())
    }
}

/// Which run a command is about, and what computes.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// A run's folder, its name in --out, `latest`, `pretrained`, or `pretrained-best`
    run: String,
    #[command(flatten)]
    device: DeviceFlags,
    /// Folder in which runs are looked up by name
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

/// Where a new run is kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "How to run")]
pub(crate) struct NewRunFlags {
    /// Folder in which the run's folder is made
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub(crate) out: PathBuf,
    /// Name of the run's folder [default: PRESET-NUMBER]
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
}

impl NewRunFlags {
    /// Makes the run's folder; see [`RunDir::create`].
    ///
    /// # Errors
    /// When it cannot be made or filled, or its name is taken.
    pub(crate) fn create(
        &self,
        config: &Config,
        fill: impl FnOnce(&RunDir) -> Result<()>,
    ) -> Result<RunDir> {
        let name = self.run_name.as_deref();
        RunDir::create(&self.out, &config.preset, name, &config.to_toml()?, fill)
    }
}

impl RunFlags {
    /// The run.
    ///
    /// # Errors
    /// When there is no such run.
    pub(crate) fn find(&self) -> Result<RunDir> {
        RunDir::open(&self.out, &self.run)
    }

    /// The run and its network.
    ///
    /// # Errors
    /// When there is no such run, the device does not work, or the weights are not there or do not
    /// fit.
    pub(crate) fn open(&self) -> Result<(RunDir, Classifier)> {
        let run = self.find()?;
        let (found, reason) = self.device.open()?;
        let classifier = Classifier::open(&run, found.device.clone())?;
        info!("device: {found}, {reason}");
        Ok((run, classifier))
    }
}

impl SettingsFlags {
    /// The configuration that the flags describe, and its data; see [`Settings::resolve`].
    ///
    /// # Errors
    /// When a setting is unknown, out of range, or does not fit the data.
    pub(crate) fn resolve(&self, kept: PictureCache<'_>) -> Result<(Config, RunImages)> {
        let mut settings = match &self.config {
            Some(path) => Settings::file(path, self.preset.as_deref())?,
            None => Settings::preset(self.preset.as_deref().unwrap_or(presets::DEFAULT))?,
        };
        settings.overlay(self.table()).context("command line")?;
        images::resolve(settings, kept)
    }

    /// The configuration of a run with what the flags say about its end and its checkpoints.
    ///
    /// # Errors
    /// When they say something else, or a value is not accepted.
    pub(crate) fn extend(&self, config: &Config) -> Result<Config> {
        let place = "command line, while a run is resumed";
        ensure!(
            self.preset.is_none() && self.config.is_none(),
            "{place}: the run has its settings already; leave --preset and --config out"
        );
        let extended = config.with(self.table()).context(place)?;
        extended.check_continues(config).context(place)?;
        Ok(extended)
    }

    /// The flags that were given, as the settings they stand for.
    fn table(&self) -> Table {
        let numbers_and_words = [
            ("data", "image_size", &self.image_size),
            ("data", "normalization", &self.normalization),
            ("data", "validation", &self.validation),
            ("data", "validation_split", &self.validation_split),
            ("data", "limit_train", &self.limit_train),
            ("model", "dropout", &self.dropout),
            ("model", "initialization", &self.initialization),
            ("training", "epochs", &self.epochs),
            ("training", "max_steps", &self.max_steps),
            ("training", "max_time", &self.max_time),
            ("training", "early_stopping", &self.early_stopping),
            ("training", "checkpoint_every", &self.checkpoint_every),
            ("training", "batch_size", &self.batch_size),
            ("training", "accumulate", &self.accumulate),
            ("training", "precision", &self.precision),
            ("training", "eval_batch_size", &self.eval_batch_size),
            ("training", "optimizer", &self.optimizer),
            ("training", "beta1", &self.beta1),
            ("training", "beta2", &self.beta2),
            ("training", "learning_rate", &self.learning_rate),
            ("training", "schedule", &self.schedule),
            ("training", "warmup_steps", &self.warmup_steps),
            ("training", "decay", &self.decay),
            ("training", "decay_epochs", &self.decay_epochs),
            ("training", "weight_decay", &self.weight_decay),
            ("training", "gradient_clip", &self.gradient_clip),
            ("training", "ema_decay", &self.ema_decay),
            ("training", "label_smoothing", &self.label_smoothing),
            ("training", "seed", &self.seed),
            ("augmentation", "rotation", &self.rotation),
            ("augmentation", "translation", &self.translation),
            ("augmentation", "scale", &self.scale),
            ("augmentation", "shear", &self.shear),
            ("augmentation", "elastic", &self.elastic),
            ("augmentation", "erasing", &self.erasing),
        ];
        let given = numbers_and_words
            .into_iter()
            .filter_map(|(section, key, text)| Some((section, key, value(text.as_ref()?))));
        // A folder may be called 2024.
        let source = self.data.clone().map(Value::String);
        let source = source.map(|source| ("data", "source", source));
        let switches = [
            ("training", "report_test", self.report_test),
            ("augmentation", "flip", self.flip),
        ];
        let switched = switches
            .into_iter()
            .filter_map(|(section, key, is_on)| is_on.then_some((section, key, true.into())));

        let mut table = Table::new();
        for (section, key, value) in given.chain(source).chain(switched) {
            let section = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(key.into(), value);
            }
        }
        table
    }
}

/// The value that `text` would be in a file, quotes left out.
fn value(text: &str) -> Value {
    let whole = text.parse().map(Value::Integer);
    let number = || text.parse().map(Value::Float);
    whole
        .or_else(|_| number())
        .unwrap_or_else(|_| Value::String(text.into()))
}
