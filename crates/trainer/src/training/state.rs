//! The state of a training between two steps.

use std::iter;

use anyhow::{Context, Error, Result, ensure};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device};
use data::Loader;
use model::ConvNet;

use crate::config::run_config::Config;
use crate::device::panics::catch_panic;
use crate::run::checkpoint::Checkpoint;
use crate::run::epoch::to_csv;
use crate::run::position::Position;
use crate::run::run_dir::RunDir;
use crate::training::optimizer::optimizer;

/// Number of training images used to estimate batch-norm statistics.
const BATCH_NORM_IMAGES: usize = 5000;

/// The state of a training between two steps.
pub(crate) struct Training {
    pub(crate) model: ConvNet,
    pub(crate) optimizer: ModuleOptimizer,
    /// Exponential moving average of the weights, on the device without autodiff; `None` if not configured.
    pub(crate) average: Option<ConvNet>,
    pub(crate) position: Position,
    /// Weights of the best epoch so far, as safetensors; empty before the first epoch is completed.
    pub(crate) best: Vec<u8>,
}

impl Training {
    /// Starts a training from fresh weights, on a device with autodiff.
    ///
    /// # Errors
    /// Returns an error if no such network exists.
    pub(crate) fn begin(config: &Config, device: &Device) -> Result<Self> {
        let model = config.model.init_seeded(config.training.seed, device)?;
        Ok(Self::with_model(config, model))
    }

    /// Starts a training from the weights of `model`.
    pub(crate) fn with_model(config: &Config, model: ConvNet) -> Self {
        Self {
            average: (config.training.ema_decay > 0.0).then(|| model.valid()),
            model,
            optimizer: optimizer(&config.training),
            position: Position::default(),
            best: Vec::new(),
        }
    }

    /// Resumes a training from a checkpoint, on a device with autodiff.
    ///
    /// # Errors
    /// Returns an error if the records of the checkpoint do not fit the network and its optimizer.
    pub(crate) fn resume(config: &Config, device: &Device, checkpoint: Checkpoint) -> Result<Self> {
        let Checkpoint {
            position,
            model,
            optimizer: optimizer_record,
            best,
            average,
            ..
        } = checkpoint;
        let network = config.model.init(device)?;
        if !best.is_empty() {
            network.clone().with_safetensors(best.clone())?;
        }
        // Burn panics on some foreign records, and ignores tensors that it cannot use.
        let records = catch_panic(|| {
            let load = |network: ConvNet, record: Vec<u8>| {
                let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(record))?;
                network.try_load_record(record)
            };
            let average = match config.training.ema_decay > 0.0 {
                true => Some(load(network.valid(), average)?),
                false => None,
            };
            let model = load(network, model)?;
            let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(optimizer_record))?;
            let tensors = record.len();
            let optimizer = optimizer(&config.training).load_record(record);
            ensure!(
                optimizer.to_record().len() == tensors,
                "the optimizer state belongs to another optimizer"
            );
            Ok((model, average, optimizer))
        });
        let (model, average, optimizer) = records
            .map_err(Error::msg)
            .flatten()
            .context("the records of the checkpoint do not fit the network")?;
        Ok(Self {
            model,
            optimizer,
            average,
            position,
            best,
        })
    }

    /// Restores the files of the run to this state: a process that was killed or reached a limit may have
    /// written beyond it.
    ///
    /// # Errors
    /// Returns an error if the run folder cannot be written to.
    pub(crate) fn restore_files(&self, run: &RunDir) -> Result<()> {
        if !self.best.is_empty() {
            run.write(&run.model_path(), &self.best)?;
            run.write(
                &run.metrics_path(),
                to_csv(&self.position.epochs).as_bytes(),
            )?;
        }
        run.remove(&run.evaluation_path())
    }

    /// Returns a checkpoint to resume this training from.
    ///
    /// # Errors
    /// Returns an error if a tensor cannot be read from its device.
    pub(crate) fn checkpoint(&self, config: &Config) -> Result<Checkpoint> {
        Ok(Checkpoint {
            config: config.clone(),
            position: self.position.clone(),
            model: self.model.clone().into_record().into_bytes()?.to_vec(),
            optimizer: self.optimizer.into_bytes()?.to_vec(),
            average: match &self.average {
                Some(average) => average.clone().into_record().into_bytes()?.to_vec(),
                None => Vec::new(),
            },
            best: self.best.clone(),
        })
    }

    /// Moves the exponential moving average towards the current weights. The decay grows to `decay` over the
    /// first steps, so the initial weights are soon forgotten.
    pub(crate) fn update_average(&mut self, decay: f64) {
        let steps = self.position.steps as f64;
        let decay = decay.min((1.0 + steps) / (10.0 + steps));
        self.average = self
            .average
            .take()
            .map(|average| average.ema_update(&self.model.valid(), decay));
    }

    /// Returns the network that is evaluated and saved: with averaged weights if configured, and with batch
    /// normalization folded into the weights, estimated on images of the current epoch.
    ///
    /// # Errors
    /// Returns an error if a training image cannot be read.
    pub(crate) fn evaluation_model(&self, config: &Config, train: &Loader) -> Result<ConvNet> {
        let model = match &self.average {
            Some(average) => average.clone(),
            None => self.model.valid(),
        };
        if !model.has_batch_norm() {
            return Ok(model);
        }
        let epoch = self.position.epochs.len() as u64 + 1;
        let count = BATCH_NORM_IMAGES.div_ceil(config.training.batch_size);
        let mut batches = train.batches(epoch);
        let mut next = || batches.next_batch().transpose();
        // One batch at a time: 5,000 large images need more memory than the training.
        let first = next()?;
        let mut result = Ok(());
        let others = iter::from_fn(|| {
            next().unwrap_or_else(|error| {
                result = Err(error);
                None
            })
        });
        let batches = first.into_iter().chain(others).take(count);
        let folded = model.fold_batch_norm(batches.map(|batch| batch.images.inner()));
        result?;
        Ok(folded)
    }
}
