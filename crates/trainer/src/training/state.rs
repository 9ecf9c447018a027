//! The state of a training between two steps.

use std::iter;

use anyhow::{Context, Error, Result, ensure};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, Tensor};
use data::{Batches, ImageDataset, Loader};
use model::ConvNet;

use crate::config::run_config::{Config, TrainingConfig};
use crate::device::panics::catch_panic;
use crate::run::checkpoint::Checkpoint;
use crate::run::epoch::to_csv;
use crate::run::loaders::evaluation_loader;
use crate::run::position::Position;
use crate::run::run_dir::RunDir;
use crate::training::lookahead;
use crate::training::optimizer::optimizer;

/// Number of training images used to estimate batch-norm statistics.
const BATCH_NORM_IMAGES: usize = 5000;
/// Number of pixels whose patches are whitened: 5,000 images of 32x32.
const WHITENING_PIXELS: usize = 5000 * 32 * 32;

/// The state of a training between two steps.
pub(crate) struct Training {
    pub(crate) model: ConvNet,
    pub(crate) optimizer: ModuleOptimizer,
    /// Exponential moving average of the weights, or the slow weights of lookahead, on the device without
    /// autodiff; `None` if neither is configured.
    pub(crate) average: Option<ConvNet>,
    pub(crate) position: Position,
    /// Weights of the best epoch so far, as safetensors; empty before the first epoch is completed.
    pub(crate) best: Vec<u8>,
}

impl Training {
    /// Starts a training from fresh weights, on a device with autodiff. The filters of a whitening block are
    /// computed from the training images.
    ///
    /// # Errors
    /// Returns an error if no such network exists, or an image cannot be read.
    pub(crate) fn begin(config: &Config, train: &ImageDataset, device: &Device) -> Result<Self> {
        let mut model = config.model.init_seeded(config.training.seed, device)?;
        if model.has_whitening() {
            let pixels = config.images.height * config.images.width;
            let count = (WHITENING_PIXELS / pixels).clamp(1, train.len().max(1));
            let images = train.select(0..count.min(train.len()));
            let loader = evaluation_loader(config, &images, device)?;
            let batches = loader.num_batches();
            model = with_images(loader.batches(1), batches, |images| model.whiten(images))??;
        }
        Ok(Self::with_model(config, model))
    }

    /// Starts a training from the weights of `model`.
    pub(crate) fn with_model(config: &Config, model: ConvNet) -> Self {
        Self {
            average: config.training.has_average().then(|| model.valid()),
            optimizer: optimizer(config, &model),
            model,
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
            let folded = config.model.folded().init(device)?;
            folded.with_safetensors(best.clone())?;
        }
        // Burn panics on some foreign records, and ignores tensors that it cannot use.
        let records = catch_panic(|| {
            let load = |network: ConvNet, record: Vec<u8>| {
                let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(record))?;
                network.try_load_record(record)
            };
            let average = match config.training.has_average() {
                true => Some(load(network.valid(), average)?),
                false => None,
            };
            let model = load(network, model)?;
            let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(optimizer_record))?;
            let tensors = record.len();
            let optimizer = optimizer(config, &model).load_record(record);
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

    /// Moves the average towards the current weights, after a step.
    pub(crate) fn update_average(&mut self, settings: &TrainingConfig, steps_total: u64) {
        match settings.lookahead {
            0 => self.update_moving_average(settings.ema_decay),
            every if self.position.steps.is_multiple_of(every) => {
                self.synchronize(lookahead::decay(every, self.position.steps, steps_total));
            }
            _ => {}
        }
    }

    /// Moves the exponential moving average. The decay grows to `decay` over the first steps, so the initial
    /// weights are soon forgotten.
    fn update_moving_average(&mut self, decay: f64) {
        let steps = self.position.steps as f64;
        let decay = decay.min((1.0 + steps) / (10.0 + steps));
        self.average = self
            .average
            .take()
            .map(|average| average.ema_update(&self.model.valid(), decay));
    }

    /// Moves the slow weights of lookahead towards the weights, and the weights to the slow ones.
    fn synchronize(&mut self, decay: f64) {
        if let Some(slow) = self.average.take() {
            let slow = slow.moved_towards(&self.model.valid(), 1.0 - decay);
            self.model = self.model.clone().with_values_of(&slow);
            self.average = Some(slow);
        }
    }

    /// Returns the network that is evaluated and saved: with averaged or slow weights if configured, and with batch
    /// normalization folded into the weights, estimated on images of the current epoch.
    ///
    /// # Errors
    /// Returns an error if a training image cannot be read.
    pub(crate) fn evaluation_model(&self, config: &Config, train: &Loader) -> Result<ConvNet> {
        let settings = &config.training;
        let model = match &self.average {
            // Until lookahead first moves them, its slow weights are the initial ones.
            Some(average) if self.position.steps >= settings.lookahead => average.clone(),
            _ => self.model.valid(),
        };
        if !model.has_batch_norm() {
            return Ok(model.fold([]));
        }
        let epoch = self.position.epochs.len() as u64 + 1;
        let count = BATCH_NORM_IMAGES.div_ceil(settings.batch_size);
        with_images(train.batches(epoch), count, |images| {
            model.fold(images.map(Tensor::inner))
        })
    }
}

/// Calls `use_images` with the images of the next `count` batches, one batch at a time: 5,000 large images need
/// more memory than the training.
///
/// # Errors
/// Returns an error if an image cannot be read.
fn with_images<R>(
    mut batches: Batches<'_>,
    count: usize,
    use_images: impl FnOnce(&mut dyn Iterator<Item = Tensor<4>>) -> R,
) -> Result<R> {
    let first = batches.next_batch().transpose()?;
    let mut error = None;
    let others = || match batches.next_batch()? {
        Ok(batch) => Some(batch.images),
        Err(unreadable) => {
            error = Some(unreadable);
            None
        }
    };
    let first = first.into_iter().map(|batch| batch.images);
    let result = use_images(&mut first.chain(iter::from_fn(others)).take(count));
    match error {
        Some(error) => Err(error.into()),
        None => Ok(result),
    }
}
