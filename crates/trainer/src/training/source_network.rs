//! A trained network that a new training starts from: that of a run, or of a file that describes it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use data::digest::sha256_hex;
use data::{Normalization, PerChannel, Scaling};
use formats::{Tensors, Weights};
use model::{ConvNetConfig, Storage};
use toml::{Table, Value};

use crate::device::panics::catch_panic;
use crate::inference::classifier::Classifier;
use crate::process::printable::printable;
use crate::run::event_log::Import;
use crate::run::run_dir::RunDir;

/// A trained network.
#[derive(Debug)]
pub(crate) struct SourceNetwork {
    /// The description, with batch normalization as part of the weights.
    pub(crate) network: ConvNetConfig,
    /// The weights by the names of the layers, in PyTorch's layout.
    pub(crate) tensors: Tensors,
    /// The classes, if they are known.
    pub(crate) classes: Option<Vec<String>>,
    /// Where the network comes from.
    pub(crate) origin: Import,
    scaling: Option<Scaling>,
}

/// Reads the weights of a file of another program.
///
/// # Errors
/// Returns an error if the file cannot be read or is damaged.
pub(crate) fn read_weights(path: &Path) -> Result<Weights> {
    // The parsers of foreign formats may panic on damaged files.
    match catch_panic(|| formats::read(path)) {
        Ok(weights) => Ok(weights?),
        Err(panic) => bail!("damaged: {panic}"),
    }
}

impl SourceNetwork {
    /// Opens a file, or a run by its folder or its name in `root`.
    ///
    /// # Errors
    /// Returns an error if there is no such run or file, or the file does not describe its network.
    pub(crate) fn open(root: &Path, name: &str, device: &Device) -> Result<Self> {
        let path = Path::new(name);
        match path.is_file() {
            true => Self::of_file(path).with_context(|| path.display().to_string()),
            false => Self::of_run(&RunDir::open(root, name)?, device),
        }
    }

    fn of_file(path: &Path) -> Result<Self> {
        let weights = read_weights(path)?;
        let architecture = match weights.architecture {
            Some(Ok(architecture)) => architecture,
            Some(Err(reason)) => bail!("{}", printable(reason)),
            None => bail!("has weights only; create a run with `trainer import`, and name the run"),
        };
        Ok(Self {
            network: architecture.network,
            tensors: architecture.tensors,
            classes: None,
            origin: Import {
                file: path.display().to_string(),
                format: weights.format.name().into(),
                sha256: weights.sha256,
            },
            scaling: architecture.scaling,
        })
    }

    fn of_run(run: &RunDir, device: &Device) -> Result<Self> {
        let classifier = Classifier::open(run, device.clone())?;
        let bytes = classifier.model.to_safetensors(Storage::Single)?;
        Ok(Self {
            network: classifier.config.model.folded(),
            tensors: formats::from_safetensors(&bytes)?,
            classes: Some(classifier.config.images.classes.clone()),
            origin: Import {
                file: run.path().display().to_string(),
                format: "the run's".into(),
                sha256: sha256_hex([&bytes]),
            },
            scaling: Some(classifier.config.scaling()),
        })
    }

    /// Returns the settings of a training of this network, whose images may have other channels and classes.
    ///
    /// # Errors
    /// Returns an error if the description cannot be written as settings.
    pub(crate) fn settings(&self) -> Result<Table> {
        let mut network = Table::try_from(&self.network)?;
        for measured in ["channels", "input", "classes"] {
            network.remove(measured);
        }
        let mut data = Table::new();
        if let [height, width] = self.network.input
            && height == width
        {
            data.insert("image_size".into(), Value::try_from(height)?);
        }
        if let Some(Scaling { mean, std }) = self.scaling {
            // Images with another number of channels are normalized by one number.
            let average =
                |numbers: PerChannel| (numbers.of(0) + numbers.of(1) + numbers.of(2)) / 3.0;
            let normalization = Normalization::from(match self.network.channels {
                1 => Scaling { mean, std },
                _ => Scaling::same(average(mean), average(std)),
            });
            data.insert("normalization".into(), Value::try_from(normalization)?);
        }
        Ok(Table::from_iter([
            ("model".into(), Value::Table(network)),
            ("data".into(), Value::Table(data)),
        ]))
    }
}
