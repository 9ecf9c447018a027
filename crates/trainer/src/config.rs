//! What a run is made of, as written to `config.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data::{ImageDataset, Normalization, Scaling, SplitMethod, Splits};
use model::ConvNetConfig;
use serde::{Deserialize, Serialize};

use crate::{keys, presets, settings};

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
    pub(crate) model: ConvNetConfig,
}

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// `mnist` for the embedded one, or a folder of four IDX files.
    pub(crate) source: String,
    /// What the data calls itself.
    #[serde(default)]
    pub(crate) name: String,
    /// Names of the classes; those of the data if left out.
    #[serde(default)]
    pub(crate) classes: Vec<String>,
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

/// How the network learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingConfig {
    /// Passes over the training images.
    pub(crate) epochs: usize,
    /// Ends training after so many optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_steps: Option<u64>,
    /// Images per optimizer step.
    pub(crate) batch_size: usize,
    /// Images per step of an evaluation; changes memory and speed, not results.
    pub(crate) eval_batch_size: usize,
    pub(crate) optimizer: OptimizerKind,
    pub(crate) learning_rate: f64,
    /// Decides initial weights, order of images, dropout and a random validation split.
    pub(crate) seed: u64,
    /// Whether to report the test split after each epoch. No choice is ever made on it.
    pub(crate) report_test: bool,
}

/// The optimizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OptimizerKind {
    /// Adam with β₁ 0.9, β₂ 0.999, ε 1e-8.
    #[default]
    Adam,
    /// The same with decoupled weight decay 0.01, PyTorch's default.
    AdamW,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
}

/// The source that names the embedded MNIST.
pub(crate) const EMBEDDED: &str = "mnist";

impl Default for Config {
    /// The preset `convnet`.
    fn default() -> Self {
        Self {
            preset: presets::DEFAULT.into(),
            about: String::new(),
            data: DataConfig {
                source: EMBEDDED.into(),
                name: String::new(),
                classes: Vec::new(),
                normalization: Normalization::MeanStd,
                validation: 0.1,
                validation_split: SplitMethod::Random,
                limit_train: None,
            },
            training: TrainingConfig {
                epochs: 5,
                max_steps: None,
                batch_size: 64,
                eval_batch_size: 250,
                optimizer: OptimizerKind::Adam,
                learning_rate: 1e-3,
                seed: 42,
                report_test: false,
            },
            model: ConvNetConfig::default(),
        }
    }
}

impl Config {
    /// A configuration as a run folder holds it.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configuration.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let table = settings::read_table(path)?;
        let config = keys::check(&table)
            .and_then(|()| Ok(table.try_into::<Self>()?))
            .with_context(|| path.display().to_string())?;
        config
            .model
            .layers()
            .with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// The file [`read`](Self::read) reads.
    ///
    /// # Errors
    /// Never for a configuration that was read or resolved.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// The numbers of the normalisation.
    pub(crate) fn scaling(&self) -> Scaling {
        self.data.normalization.scaling(Scaling {
            mean: 0.0,
            std: 1.0,
        })
    }
}

impl DataConfig {
    /// Reads the data.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub(crate) fn load(&self) -> Result<Splits> {
        if self.source == EMBEDDED {
            return embedded_mnist();
        }
        Ok(Splits::from_folder(Path::new(&self.source))?)
    }

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

#[cfg(feature = "embedded-mnist")]
fn embedded_mnist() -> Result<Splits> {
    Ok(Splits::embedded_mnist()?)
}

#[cfg(not(feature = "embedded-mnist"))]
fn embedded_mnist() -> Result<Splits> {
    bail!(
        "this build has no embedded MNIST: name a folder of IDX files with --data, \
         or build with `--features embedded-mnist`"
    )
}

/// The source as a configuration keeps it: absolute, so that a run folder finds its data from
/// wherever it is read.
///
/// # Errors
/// When there is no such folder.
pub(crate) fn absolute_source(source: &str) -> Result<String> {
    if source == EMBEDDED {
        return Ok(source.into());
    }
    let path: PathBuf = fs::canonicalize(source)
        .with_context(|| format!("{source}: cannot open the data folder"))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("{}: not valid UTF-8", path.display()),
    }
}
