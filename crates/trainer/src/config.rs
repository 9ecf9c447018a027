//! What a run is made of, as written to `config.toml`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use data::{DatasetInfo, ImageDataset, Normalization, Scaling, SplitMethod, Splits};
use model::ConvNetConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::keys;

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
    /// What the images told when the run began; told anew where the settings are used again.
    pub(crate) images: DatasetInfo,
}

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// `mnist` for the embedded one, or the absolute path of a folder of four IDX files.
    pub(crate) source: String,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OptimizerKind {
    /// Adam with β₁ 0.9, β₂ 0.999, ε 1e-8.
    Adam,
    /// The same with decoupled weight decay 0.01, PyTorch's default.
    AdamW,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
}

/// The source that names the embedded MNIST.
pub(crate) const EMBEDDED: &str = "mnist";

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
        Ok(config)
    }

    /// A configuration as a run folder holds it.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configuration.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut settings = read_table(path)?;
        keys::check(&settings)
            .and_then(|()| {
                let images = settings.remove("images").context("no table images")?;
                Self::settle(settings, &images.try_into()?)
            })
            .with_context(|| path.display().to_string())
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

/// Leaves settings alone, and takes out what only the images can tell.
pub(crate) fn drop_facts(settings: &mut Table) {
    settings.remove("images");
    if let Some(Value::Table(model)) = settings.get_mut("model") {
        model.remove("input");
        model.remove("classes");
    }
}

/// A TOML file.
///
/// # Errors
/// When it cannot be read or is none.
pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse()
        .with_context(|| format!("{}: not a TOML file", path.display()))
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

/// The source as a configuration keeps it: absolute, so that a run folder finds its images from
/// wherever it is read.
///
/// # Errors
/// When there is no such folder.
pub(crate) fn absolute_source(source: &str) -> Result<String> {
    if source == EMBEDDED {
        return Ok(source.into());
    }
    let path = fs::canonicalize(source)
        .with_context(|| format!("{source}: cannot open the data folder"))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("{}: not valid UTF-8", path.display()),
    }
}
