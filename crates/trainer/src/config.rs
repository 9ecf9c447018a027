//! What a run is made of, as written to `config.toml`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use data::{Augmentation, DatasetInfo, ImageDataset, Normalization, Scaling, SplitMethod};
use model::{ConvNetConfig, Objective, Precision};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::run_dir::RunDir;
use crate::{keys, presets};

/// A run: where its images come from, what learns from them, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the preset it started from.
    pub(crate) preset: String,
    /// One line on what it is for.
    pub(crate) about: String,
    pub(crate) data: DataConfig,
    pub(crate) training: TrainingConfig,
    /// How images are changed before they are learned from.
    #[serde(default)]
    pub(crate) augmentation: Augmentation,
    pub(crate) model: ConvNetConfig,
    /// What the images told when the run began; told anew where the settings are used again.
    pub(crate) images: DatasetInfo,
}

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// `mnist` for the embedded one, or the absolute path of a folder of four IDX files or of
    /// pictures.
    pub(crate) source: String,
    /// Rows and columns that pictures are scaled to; IDX files have their own.
    #[serde(default = "image_size")]
    pub(crate) image_size: usize,
    /// How pixels become numbers.
    pub(crate) normalization: Normalization,
    /// Fraction of the training split that is set aside for validation; 0 for none.
    pub(crate) validation: f64,
    /// Which part that is.
    pub(crate) validation_split: SplitMethod,
    /// Only the first images of the training split, before it is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit_train: Option<usize>,
}

/// What checkpoints from before these were settings leave out.
fn image_size() -> usize {
    28
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn report_train() -> bool {
    true
}

/// How the network learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingConfig {
    /// Passes over the training images.
    pub(crate) epochs: usize,
    /// Ends training after so many optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_steps: Option<u64>,
    /// Ends training after so much of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_time: Option<Time>,
    /// Writes a checkpoint after every so many optimizer steps, besides those after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_every: Option<u64>,
    /// Images per optimizer step.
    pub(crate) batch_size: usize,
    /// What feature maps and products are computed in.
    #[serde(default)]
    pub(crate) precision: Precision,
    /// Images per step of an evaluation; changes memory and speed, not results.
    pub(crate) eval_batch_size: usize,
    /// Batches whose gradients are averaged into one optimizer step.
    pub(crate) accumulate: usize,
    pub(crate) optimizer: OptimizerKind,
    /// How much of Adam's and AdamW's mean gradient stays in each step ...
    #[serde(default = "beta1")]
    pub(crate) beta1: f64,
    /// ... and how much of that of its squares.
    #[serde(default = "beta2")]
    pub(crate) beta2: f64,
    /// Of the optimizer, or the highest where a schedule changes it.
    pub(crate) learning_rate: f64,
    pub(crate) schedule: Schedule,
    /// Steps over which the learning rate rises, from 0, or from 1/25 for `one-cycle`; 0 for none, or
    /// for 30% of all steps of `one-cycle`.
    pub(crate) warmup_steps: u64,
    /// What the schedules `step` and `plateau` multiply the learning rate by ...
    pub(crate) decay: f64,
    /// ... after so many epochs, without improvement in the case of `plateau`.
    pub(crate) decay_epochs: usize,
    /// Of the weights; without it, the optimizer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight_decay: Option<f64>,
    /// The norm that the gradients of a step are scaled down to if theirs is larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gradient_clip: Option<f64>,
    /// How much of the average of weights, which is judged and kept instead of the last ones, stays in each
    /// step; less in the first steps; 0 for no average.
    #[serde(default)]
    pub(crate) ema_decay: f64,
    /// Probability that is taken from the target and spread over all classes while learning.
    pub(crate) label_smoothing: f64,
    /// Ends training after so many epochs without a better one on validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) early_stopping: Option<usize>,
    /// Decides initial weights, order of images, dropout and a random validation split.
    pub(crate) seed: u64,
    /// Whether to judge the training images once more at the end.
    #[serde(default = "report_train")]
    pub(crate) report_train: bool,
    /// Whether to report the test split after each epoch. No choice is ever made on it.
    pub(crate) report_test: bool,
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OptimizerKind {
    /// Adam with ε 1e-8; weight decay is added to the gradient.
    Adam,
    /// The same with weight decay apart from the gradient, 0.01 unless stated: PyTorch's default.
    AdamW,
    /// Stochastic gradient descent with momentum 0.9; weight decay is added to the gradient.
    Sgd,
}

/// How the learning rate changes over a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Schedule {
    /// Not at all.
    Constant,
    /// Down to 0 along half a cosine.
    Cosine,
    /// Up along half a cosine, and down to almost 0 along another.
    OneCycle,
    /// Times `decay` after every `decay_epochs` epochs.
    Step,
    /// Times `decay` after `decay_epochs` epochs without a lower validation loss.
    Plateau,
}

/// A time, written `90s`, `10m` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl TryFrom<String> for Time {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_duration(&text).map(Self)
    }
}

impl From<Time> for String {
    fn from(Time(duration): Time) -> Self {
        humantime::format_duration(duration).to_string()
    }
}

impl TrainingConfig {
    /// Returns the training objective.
    pub(crate) fn objective(&self) -> Objective {
        Objective {
            label_smoothing: self.label_smoothing,
            precision: self.precision,
        }
    }
}

impl Config {
    /// Settings and the images they name, made a configuration.
    ///
    /// # Errors
    /// When the settings contradict the images, or no such network exists.
    pub(crate) fn settle(mut settings: Table, images: &DatasetInfo) -> Result<Self> {
        let facts = Table::try_from(images)?;
        settings.insert("images".into(), Value::Table(facts));
        if let Some(Value::Table(model)) = settings.get_mut("model") {
            let size = [images.height, images.width].map(|size| Value::Integer(size as i64));
            let classes = images.classes.len() as i64;
            for (key, fact) in [
                ("channels", Value::Integer(images.channels as i64)),
                ("input", Value::Array(size.to_vec())),
                ("classes", Value::Integer(classes)),
            ] {
                let stated = model.insert(key.into(), fact.clone());
                if let Some(stated) = stated.filter(|stated| *stated != fact) {
                    bail!("model.{key} = {stated}, but {} has {fact}", images.name);
                }
            }
        }
        let config: Self = settings.try_into()?;
        config.model.layers()?;
        config.check_watched()?;
        Ok(config)
    }

    /// Checks that what watches the validation split has one to watch.
    fn check_watched(&self) -> Result<()> {
        let Self { data, training, .. } = self;
        let watches = match (training.schedule, training.early_stopping) {
            (Schedule::Plateau, _) => "training.schedule = \"plateau\"",
            (_, Some(_)) => "training.early_stopping",
            _ => return Ok(()),
        };
        ensure!(
            data.validation > 0.0,
            "{watches} watches the validation split, but data.validation = 0"
        );
        Ok(())
    }

    /// The configuration of a run.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configuration.
    pub(crate) fn read(run: &RunDir) -> Result<Self> {
        let path = run.config();
        let table = run.read(&path).map_err(Error::new).and_then(table);
        let config = table.and_then(Self::from_table);
        config.with_context(|| path.display().to_string())
    }

    /// The same from its text. What an older program could not write yet has its default.
    ///
    /// # Errors
    /// When a key is unknown, or a value is missing, not accepted, or contradicts another.
    pub(crate) fn from_table(table: Table) -> Result<Self> {
        keys::check(&table)?;
        let mut settings = presets::defaults()?;
        merge(&mut settings, table);
        let images = settings.remove("images").context("no table images")?;
        Self::settle(settings, &images.try_into()?)
    }

    /// This configuration with other settings.
    ///
    /// # Errors
    /// As [`from_table`](Self::from_table).
    pub(crate) fn with(&self, settings: Table) -> Result<Self> {
        keys::check(&settings)?;
        let mut table = Table::try_from(self)?;
        merge(&mut table, settings);
        Self::from_table(table)
    }

    /// Checks that a training which began as `begun` can go on as this: only when it ends, how
    /// often it is saved and what it computes in may differ.
    ///
    /// # Errors
    /// For the first setting that differs.
    pub(crate) fn check_continues(&self, begun: &Self) -> Result<()> {
        let mut now = self.clone();
        now.training = TrainingConfig {
            epochs: begun.training.epochs,
            max_steps: begun.training.max_steps,
            max_time: begun.training.max_time,
            early_stopping: begun.training.early_stopping,
            checkpoint_every: begun.training.checkpoint_every,
            // Another device may have another one.
            precision: begun.training.precision,
            ..now.training
        };
        let now = Value::Table(Table::try_from(now)?);
        let then = Value::Table(Table::try_from(begun)?);
        match difference("", &now, &then) {
            None => Ok(()),
            Some((key, now, then)) => bail!("{key} = {now}, but the run began with {then}"),
        }
    }

    /// The file [`read`](Self::read) reads.
    ///
    /// # Errors
    /// Never for a configuration that was read or settled.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// The numbers of the normalisation.
    pub(crate) fn scaling(&self) -> Scaling {
        self.data.normalization.scaling(self.images.scaling())
    }
}

/// Lays `over` over `base`. Lists are replaced, not joined.
pub(crate) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Leaves settings alone, and takes out what only the images can tell.
pub(crate) fn drop_facts(settings: &mut Table) {
    settings.remove("images");
    if let Some(Value::Table(model)) = settings.get_mut("model") {
        model.remove("channels");
        model.remove("input");
        model.remove("classes");
    }
}

/// The first key whose value differs, and both values.
fn difference(path: &str, now: &Value, then: &Value) -> Option<(String, String, String)> {
    if let (Value::Table(now), Value::Table(then)) = (now, then) {
        return now.keys().chain(then.keys()).find_map(|key| {
            let path = [path, key].join(if path.is_empty() { "" } else { "." });
            let nothing = Value::String("nothing".into());
            let [now, then] = [now, then].map(|table| table.get(key).unwrap_or(&nothing));
            difference(&path, now, then)
        });
    }
    (now != then).then(|| (path.into(), now.to_string(), then.to_string()))
}

/// A TOML file.
///
/// # Errors
/// When it cannot be read or is none.
pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let table = fs::read(path).map_err(Error::new).and_then(table);
    table.with_context(|| path.display().to_string())
}

fn table(bytes: Vec<u8>) -> Result<Table> {
    String::from_utf8(bytes)?.parse().context("not a TOML file")
}

impl DataConfig {
    /// Training and validation images, the latter possibly none.
    ///
    /// # Errors
    /// When there are too few images to divide.
    pub(crate) fn divide(
        &self,
        train: &ImageDataset,
        seed: u64,
    ) -> Result<(ImageDataset, ImageDataset)> {
        let limit = self.limit_train.unwrap_or(train.len()).min(train.len());
        Ok(data::train_validation_split(
            &train.select(0..limit),
            self.validation,
            self.validation_split,
            seed,
        )?)
    }
}
