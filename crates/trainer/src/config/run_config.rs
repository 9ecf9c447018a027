//! The configuration of a run, as written to `config.toml`.

use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use classifier::MAX_CONFIG_BYTES;
use data::{
    Augmentation, DatasetInfo, Normalization, Preparation, Scaling, SplitMethod, regular_file,
};
use model::gradients::Freeze;
use model::{ConvNetConfig, Precision};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

use crate::config::schema;
use crate::config::time::Time;

/// AdamW's default weight decay.
const ADAM_W_DECAY: f64 = 0.01;

/// The configuration of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the preset.
    pub(crate) preset: String,
    /// Purpose of the configuration, in one line.
    pub(crate) about: String,
    pub(crate) data: DataConfig,
    pub(crate) training: TrainingConfig,
    /// Random changes of the training images.
    pub(crate) augmentation: Augmentation,
    pub(crate) model: ConvNetConfig,
    /// Properties of the data set, measured when the run started. They are measured again when the
    /// configuration starts another run.
    pub(crate) images: DatasetInfo,
}

/// The data set and its preparation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// `mnist` for the embedded data set, or the absolute path of a file or folder.
    pub(crate) source: String,
    /// Height and width that pictures are resized to, in pixels. Images in files of many keep their own size unless the user
    /// gives one.
    pub(crate) image_size: usize,
    /// Absolute path of a table with the labels of pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<String>,
    /// Pattern of labels in the names of pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label_pattern: Option<String>,
    /// Conversion of pictures into images; `None` for that of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preparation: Option<Preparation>,
    /// Number of channels that images are converted to: 1 for gray, 3 for RGB; `None` for those that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<usize>,
    /// Pixel normalization.
    pub(crate) normalization: Normalization,
    /// Fraction of the training images held out for validation; 0 for none.
    pub(crate) validation: f64,
    /// Selection of the validation images.
    pub(crate) validation_split: SplitMethod,
    /// Training images of an epoch.
    pub(crate) sampler: Sampler,
    /// Number of training images to use, counted before validation images are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit_train: Option<usize>,
}

/// The optimization: its length, batches, optimizer and learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingConfig {
    /// Passes over the training images.
    pub(crate) epochs: usize,
    /// Number of optimizer steps after which training stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_steps: Option<u64>,
    /// Training time after which training stops, all resumed parts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_time: Option<Time>,
    /// Optimizer steps between checkpoints, which are also written after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_every: Option<u64>,
    /// Images per batch.
    pub(crate) batch_size: usize,
    /// Factor of the loss of each class; `None` for 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class_weights: Option<Vec<f64>>,
    /// Validation metric that the best epoch is chosen by.
    pub(crate) select_by: SelectBy,
    /// Number format of feature maps and matrix products in training.
    pub(crate) precision: Precision,
    /// Images per evaluation batch; changes memory use and speed, and results only by rounding.
    pub(crate) eval_batch_size: usize,
    /// Batches whose gradients are averaged for one optimizer step.
    pub(crate) accumulate: usize,
    pub(crate) optimizer: OptimizerKind,
    /// Decay rate of Adam's first-moment estimate (Kingma and Ba 2015).
    pub(crate) beta1: f64,
    /// Decay rate of Adam's second-moment estimate.
    pub(crate) beta2: f64,
    /// Momentum of SGD and Muon.
    pub(crate) momentum: f64,
    /// Whether SGD has Nesterov momentum (Sutskever et al. 2013). Muon always has.
    pub(crate) nesterov: bool,
    /// Learning rate, or its maximum under a schedule.
    pub(crate) learning_rate: f64,
    /// Factor on the learning rate of biases.
    pub(crate) bias_factor: f64,
    /// Factor on the learning rate of the dense layers.
    pub(crate) head_factor: f64,
    pub(crate) schedule: Schedule,
    /// Optimizer steps over which the learning rate rises from 0. It rises from 1/25 of the highest one with
    /// `one-cycle`, where 0 stands for 30% of all steps, and from 1/5 with `linear`, where 0 stands for 23%.
    pub(crate) warmup_steps: u64,
    /// Factor by which the schedules `step` and `plateau` multiply the learning rate.
    pub(crate) decay: f64,
    /// Epochs between decays of `step`, or without a lower validation loss for `plateau`.
    pub(crate) decay_epochs: usize,
    /// Weight decay; `None` for the optimizer's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight_decay: Option<f64>,
    /// Whether biases and the scales of batch normalization decay.
    pub(crate) decay_biases: bool,
    /// Highest L2 norm of the gradients of a step; larger gradients are scaled down to it (Pascanu et al.
    /// 2013).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gradient_clip: Option<f64>,
    /// Decay rate of an exponential moving average (EMA) of the weights, which is evaluated and saved in
    /// place of the last weights; lower in the first steps; 0 for no average.
    pub(crate) ema_decay: f64,
    /// Epochs in which the bias of a whitening block is trained; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whitening_bias_epochs: Option<usize>,
    /// Optimizer steps between the updates of the slow weights of lookahead, which are evaluated and saved in
    /// place of the last weights; 0 for no lookahead.
    pub(crate) lookahead: u64,
    /// Layers that keep the weights of the network that the training starts from.
    pub(crate) freeze: Freeze,
    /// Label smoothing factor (Szegedy et al. 2016).
    pub(crate) label_smoothing: f64,
    /// Epochs without a better validation accuracy after which training stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) early_stopping: Option<usize>,
    /// Seed of initial weights, image order, augmentation, dropout and random validation split.
    pub(crate) seed: u64,
    /// Whether the training images are evaluated after training.
    pub(crate) report_train: bool,
    /// Whether the test accuracy is reported after each epoch. No choice depends on it.
    pub(crate) report_test: bool,
}

/// An optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OptimizerKind {
    /// Adam with epsilon 1e-8 (Kingma and Ba 2015). Weight decay is added to the gradient.
    Adam,
    /// Adam with decoupled weight decay, 0.01 by default as in PyTorch (Loshchilov and Hutter 2019).
    AdamW,
    /// Stochastic gradient descent with momentum. Weight decay is added to the gradient.
    Sgd,
    /// Muon for convolution filters, with decoupled weight decay; SGD with Nesterov momentum for the other
    /// parameters (Jordan et al. 2024).
    Muon,
}

/// The training images of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sampler {
    /// Each image once.
    All,
    /// The same number of images of each class.
    Balanced,
}

/// The validation metric that the best epoch is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SelectBy {
    Accuracy,
    /// The mean recall of the classes.
    BalancedAccuracy,
    /// The mean F1 of the classes.
    #[serde(rename = "macro-f1")]
    MacroF1,
    Loss,
}

/// A learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Schedule {
    /// A constant learning rate.
    Constant,
    /// Cosine annealing to 0 (Loshchilov and Hutter 2017), without restarts.
    Cosine,
    /// A cosine rise, then a cosine fall to almost 0 (Smith and Topin 2018).
    OneCycle,
    /// A linear rise, then a linear fall (Jordan 2024).
    Linear,
    /// A multiplication by `decay` after every `decay_epochs` epochs.
    Step,
    /// A multiplication by `decay` after `decay_epochs` epochs without a lower validation loss.
    Plateau,
}

impl TrainingConfig {
    /// Whether an average of the weights is evaluated and saved in their place.
    pub(crate) fn has_average(&self) -> bool {
        self.ema_decay > 0.0 || self.lookahead > 0
    }

    /// Returns the weight decay, or the optimizer's default.
    pub(crate) fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(match self.optimizer {
            OptimizerKind::AdamW => ADAM_W_DECAY,
            OptimizerKind::Adam | OptimizerKind::Sgd | OptimizerKind::Muon => 0.0,
        })
    }
}

impl Config {
    /// Combines settings with the properties of their data set.
    ///
    /// # Errors
    /// Returns an error if a setting is missing, contradicts another setting or the data set, or describes an
    /// impossible network.
    pub(crate) fn from_settings(mut settings: Table, images: &DatasetInfo) -> Result<Self> {
        settings.insert("images".into(), Value::Table(Table::try_from(images)?));
        if let Some(Value::Table(model)) = settings.get_mut("model") {
            let size = [images.height, images.width].map(|size| Value::Integer(size as i64));
            let classes = images.classes.len() as i64;
            for (key, measured) in [
                ("channels", Value::Integer(images.channels as i64)),
                ("input", Value::Array(size.to_vec())),
                ("classes", Value::Integer(classes)),
            ] {
                let stated = model.insert(key.into(), measured.clone());
                let Some(stated) = stated.filter(|stated| *stated != measured) else {
                    continue;
                };
                if key == "channels" {
                    let kind = |channels: &Value| match channels.as_integer() {
                        Some(1) => "gray",
                        _ => "color",
                    };
                    bail!(
                        "model.channels = {stated}: the network is for {} images, but {} has {} images; choose another \
                         --preset or data set, or convert the images with --channels {stated}",
                        kind(&stated),
                        images.name,
                        kind(&measured)
                    );
                }
                bail!("model.{key} = {stated}, but {} has {measured}", images.name);
            }
        }
        // The rest of the error names the table, which the message does.
        let config: Self = settings
            .try_into()
            .map_err(|error| Error::msg(error.message().to_string()))?;
        config.model.layers()?;
        config.check_normalization()?;
        config.check_validation()?;
        config.check_averages()?;
        config.check_class_weights()?;
        config.check_augmentation()?;
        Ok(config)
    }

    /// Checks that gray images have one mean and one standard deviation.
    fn check_normalization(&self) -> Result<()> {
        let DatasetInfo {
            name,
            channels,
            mean,
            ..
        } = &self.images;
        let normalization = self.data.normalization;
        let setting = match normalization {
            Normalization::Custom(_) => format!("data.normalization = \"{normalization}\""),
            _ => format!("images.mean = {mean}"),
        };
        ensure!(
            self.scaling().fits(*channels),
            "{setting} is for color images, but {name} has gray images: expected one mean and one standard deviation"
        );
        Ok(())
    }

    /// Checks that there is a weight for each class.
    fn check_class_weights(&self) -> Result<()> {
        let (name, classes) = (&self.images.name, self.images.classes.len());
        if let Some(weights) = &self.training.class_weights {
            let count = weights.len();
            ensure!(
                count == classes,
                "training.class_weights has {count} weights, but {name} has {classes} classes"
            );
        }
        Ok(())
    }

    /// Checks that the settings ask for at most one average of the weights.
    fn check_averages(&self) -> Result<()> {
        let TrainingConfig {
            ema_decay,
            lookahead,
            ..
        } = self.training;
        ensure!(
            ema_decay == 0.0 || lookahead == 0,
            "training.ema_decay = {ema_decay} and training.lookahead = {lookahead}: both replace the weights by an \
             average; set one of them to 0"
        );
        Ok(())
    }

    /// Checks that the images are large enough for the augmentation, and have colors if it changes colors.
    fn check_augmentation(&self) -> Result<()> {
        let Augmentation {
            crop,
            cutout,
            saturation,
            hue,
            ..
        } = self.augmentation;
        let DatasetInfo {
            name,
            channels,
            height,
            width,
            ..
        } = &self.images;
        let shorter = *height.min(width);
        ensure!(
            crop < shorter,
            "augmentation.crop = {crop}, but the images of {name} have {height}x{width} pixels: expected \
             less than {shorter}"
        );
        ensure!(
            cutout <= shorter,
            "augmentation.cutout = {cutout}, but the images of {name} have {height}x{width} pixels: expected \
             at most {shorter}"
        );
        for (key, range) in [("saturation", saturation), ("hue", hue)] {
            ensure!(
                range == 0.0 || *channels == 3,
                "augmentation.{key} = {range}, but the images of {name} are gray: expected 0"
            );
        }
        Ok(())
    }

    /// Checks that there is a validation split if a setting depends on it.
    fn check_validation(&self) -> Result<()> {
        let Self { data, training, .. } = self;
        let dependent = match (training.schedule, training.early_stopping) {
            (Schedule::Plateau, _) => "training.schedule = \"plateau\"",
            (_, Some(_)) => "training.early_stopping",
            _ => return Ok(()),
        };
        ensure!(
            data.validation > 0.0,
            "{dependent} needs a validation split, but data.validation = 0"
        );
        Ok(())
    }

    /// Reads the configuration of a run. Settings that an older version did not have get their defaults.
    ///
    /// # Errors
    /// Returns an error if a key is unknown, or a value is missing, not accepted, or contradicts another.
    pub(crate) fn from_table(table: Table) -> Result<Self> {
        schema::check(&table)?;
        let mut settings = schema::defaults();
        merge(&mut settings, table);
        let images = settings.remove("images").context("no table images")?;
        Self::from_settings(settings, &images.try_into()?)
    }

    /// Deserializes the configuration of a checkpoint. Settings that an older version did not have get their
    /// defaults.
    ///
    /// # Errors
    /// Returns an error if a key is unknown, or a value is missing or has another type.
    pub(crate) fn deserialize_older<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Self, D::Error> {
        let mut settings = schema::defaults();
        merge(&mut settings, Table::deserialize(deserializer)?);
        settings.try_into().map_err(D::Error::custom)
    }

    /// Returns this configuration with some settings replaced.
    ///
    /// # Errors
    /// Returns an error as [`from_table`](Self::from_table) does.
    pub(crate) fn with(&self, settings: Table) -> Result<Self> {
        schema::check(&settings)?;
        let mut table = Table::try_from(self)?;
        merge(&mut table, settings);
        Self::from_table(table)
    }

    /// Checks that a training with the configuration `begun` can be resumed with this one. Only the end of
    /// the training, its checkpoints, its precision and the place of its images may differ.
    ///
    /// # Errors
    /// Returns an error for the first other setting that differs.
    pub(crate) fn check_continues(&self, begun: &Self) -> Result<()> {
        let mut now = self.clone();
        // The images themselves are compared with the record of the run.
        now.data.source.clone_from(&begun.data.source);
        now.training = TrainingConfig {
            epochs: begun.training.epochs,
            max_steps: begun.training.max_steps,
            max_time: begun.training.max_time,
            early_stopping: begun.training.early_stopping,
            checkpoint_every: begun.training.checkpoint_every,
            // The run may be resumed on a device that supports other formats.
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

    /// Formats the configuration as `config.toml`, for [`from_table`](Self::from_table).
    ///
    /// # Errors
    /// Returns an error if a value does not fit TOML; those that were read do.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// Returns the mean and the standard deviation that normalize pixels.
    pub(crate) fn scaling(&self) -> Scaling {
        self.data.normalization.scaling(self.images.scaling())
    }
}

/// Replaces the values of `base` by those of `over`, table by table. Arrays are replaced as a whole.
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

/// Returns the first key whose values differ, and both values.
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

/// Reads a TOML file that the user names, or a pipe.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large or is not TOML.
pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let bytes = regular_file::read_stream(path, MAX_CONFIG_BYTES);
    let table = bytes.map_err(Error::new).and_then(parse_table);
    table.with_context(|| path.display().to_string())
}

/// Parses TOML.
///
/// # Errors
/// Returns an error if `bytes` are not UTF-8 or not TOML.
pub(crate) fn parse_table(bytes: Vec<u8>) -> Result<Table> {
    String::from_utf8(bytes)?.parse().context("not a TOML file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;

    /// Returns the configuration of the default preset for 8x8 images of two classes.
    fn config() -> Config {
        let images = "name = 'images'\nclasses = ['a', 'b']\nchannels = 1\nheight = 8\nwidth = 8\n\
                      mean = 0.5\nstd = 0.5\npreparation = 'picture'";
        let images = images.parse::<Table>().unwrap().try_into().unwrap();
        Settings::preset("convnet")
            .unwrap()
            .into_config(&images)
            .unwrap()
    }

    #[test]
    fn config_toml_is_read_back() {
        let config = config();
        let table = config.to_toml().unwrap().parse().unwrap();
        assert_eq!(Config::from_table(table).unwrap(), config);
    }

    #[test]
    fn statistics_of_color_images_are_read_in_both_forms() {
        let gray = Table::try_from(config()).unwrap();
        let with = |settings: &str| {
            let mut table = gray.clone();
            merge(&mut table, settings.parse().unwrap());
            Config::from_table(table)
        };
        let color = "images.channels = 3\nmodel.channels = 3\n";
        let each = "images.mean = [0.5, 0.25, 1.0]\nimages.std = [0.5, 0.25, 1.0]\n";
        for statistics in [each, "images.mean = 0.25\nimages.std = 0.5\n"] {
            let config = with(&format!("{color}{statistics}")).unwrap();
            let text = config.to_toml().unwrap();
            assert_eq!(Config::from_table(text.parse().unwrap()).unwrap(), config);
            let json = serde_json::to_value(&config).unwrap();
            assert_eq!(Config::deserialize_older(json).unwrap(), config);
        }
        let error = |settings: &str| with(settings).unwrap_err().to_string();
        assert_eq!(
            error(each),
            "images.mean = [0.5, 0.25, 1.0] is for color images, but images has gray images: expected one mean and \
             one standard deviation"
        );
        assert_eq!(
            error(&format!("{color}images.mean = [0.5, 0.25]")),
            "images.mean = [0.5, 0.25]: expected a number from 0 to 1, or three of them, one for each channel"
        );
    }

    #[test]
    fn settings_missing_in_older_checkpoints_get_their_defaults() {
        let config = config();
        let mut json = serde_json::to_value(&config).unwrap();
        for (section, key) in [
            ("data", "image_size"),
            ("training", "beta1"),
            ("training", "beta2"),
            ("training", "precision"),
            ("training", "momentum"),
            ("training", "nesterov"),
            ("training", "bias_factor"),
            ("training", "head_factor"),
            ("training", "decay_biases"),
            ("training", "lookahead"),
            ("training", "ema_decay"),
            ("training", "report_train"),
        ] {
            let section = json[section].as_object_mut().unwrap();
            assert!(section.remove(key).is_some(), "{key}");
        }
        json.as_object_mut().unwrap().remove("augmentation");
        assert_eq!(Config::deserialize_older(json).unwrap(), config);
    }

    #[test]
    fn rejects_two_averages_of_the_weights() {
        let settings = "training.ema_decay = 0.9\ntraining.lookahead = 5".parse();
        assert_eq!(
            config().with(settings.unwrap()).unwrap_err().to_string(),
            "training.ema_decay = 0.9 and training.lookahead = 5: both replace the weights by an average; set one of \
             them to 0"
        );
    }

    #[test]
    fn accepts_the_recipe_for_cifar_in_means() {
        let settings = "training.learning_rate = 1.5\ntraining.bias_factor = 64\n\
                        training.weight_decay = 0.00133\ntraining.momentum = 0.85";
        let training = config().with(settings.parse().unwrap()).unwrap().training;
        assert_eq!((training.learning_rate, training.bias_factor), (1.5, 64.0));
    }

    #[test]
    fn flip_is_read_and_written_as_a_switch_or_a_word() {
        for flip in ["false", "true", "\"alternating\""] {
            let setting = format!("augmentation.flip = {flip}");
            let config = config().with(setting.parse().unwrap()).unwrap();
            let toml = config.to_toml().unwrap();
            assert!(toml.contains(&format!("\nflip = {flip}\n")), "{toml}");
            assert_eq!(Config::from_table(toml.parse().unwrap()).unwrap(), config);
            // Checkpoints are JSON.
            let json = serde_json::to_value(&config).unwrap();
            assert_eq!(Config::deserialize_older(json).unwrap(), config);
        }
    }

    #[test]
    fn augmentation_must_fit_the_images() {
        let error = |setting: &str| {
            let setting = format!("augmentation.{setting}").parse().unwrap();
            config().with(setting).unwrap_err().to_string()
        };
        let pixels = "but the images of images have 8x8 pixels: expected";
        let gray = "but the images of images are gray: expected 0";
        for (setting, expected) in [
            (
                "crop = 8",
                format!("augmentation.crop = 8, {pixels} less than 8"),
            ),
            (
                "cutout = 9",
                format!("augmentation.cutout = 9, {pixels} at most 8"),
            ),
            (
                "saturation = 0.2",
                format!("augmentation.saturation = 0.2, {gray}"),
            ),
            ("hue = 0.1", format!("augmentation.hue = 0.1, {gray}")),
            (
                "hue = 0.6",
                "augmentation.hue = 0.6: expected a number from 0 to 0.5".into(),
            ),
            (
                "crop_padding = \"edge\"",
                "augmentation.crop_padding = \"edge\": expected reflect or zero".into(),
            ),
            (
                "flip = \"odd\"",
                "augmentation.flip = \"odd\": expected true or false or alternating".into(),
            ),
            (
                "mixup = -1",
                "augmentation.mixup = -1: expected a number from 0 to 100".into(),
            ),
        ] {
            assert_eq!(error(setting), expected);
        }
    }

    #[test]
    fn rejects_unknown_keys_in_checkpoints() {
        let mut json = serde_json::to_value(config()).unwrap();
        json["training"]["momentun"] = 0.9.into();
        assert!(Config::deserialize_older(json).is_err());
    }

    #[test]
    fn every_setting_of_the_schema_has_a_field() {
        let mut settings = Table::try_from(config()).unwrap();
        for setting in schema::SETTINGS {
            if let schema::DefaultValue::Unset(example) = setting.default
                && !setting.key.contains('[')
            {
                let value = setting.constraint.parse(example);
                schema::insert(&mut settings, setting, value);
            }
        }
        let config = Config::from_table(settings.clone()).unwrap();
        assert_eq!(Table::try_from(config).unwrap(), settings);
    }
}
