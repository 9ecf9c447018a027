//! The training of a network: everything that goes into a run, put together.

use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, bail, ensure};
use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device};
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining, TrainingStrategy};
use data::{ImageDataset, Loader, MnistBatcher, Order};
use kernels::FusedAdam;
use model::ConvNet;
use model::gradients::clip_norm;

use crate::checkpoint::{Checkpoint, Position};
use crate::config::{Config, OptimizerKind, TrainingConfig};
use crate::device::Found;
use crate::epochs::{End, EpochLoop, Exchange};
use crate::history::to_csv;
use crate::learners::Learners;
use crate::panics::quietly;
use crate::progress::Style;
use crate::renderer::Unlogged;
use crate::run_dir::RunDir;
use crate::speed::SpeedMetric;
use crate::training_loader::TrainingLoader;

/// The images of a run, each part used for one thing only.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Learned from.
    pub(crate) train: ImageDataset,
    /// Chosen by; possibly empty.
    pub(crate) validation: ImageDataset,
    /// Reported.
    pub(crate) test: ImageDataset,
}

/// A training between two steps.
pub(crate) struct Training {
    pub(crate) model: ConvNet,
    pub(crate) optimizer: ModuleOptimizer,
    /// The average of its weights, on the device without gradients, where it is kept.
    pub(crate) average: Option<ConvNet>,
    pub(crate) position: Position,
    /// The weights of the best epoch so far, as safetensors; empty before the first epoch ended.
    pub(crate) best: Vec<u8>,
}

/// A training that ended.
#[derive(Debug)]
pub(crate) struct Trained {
    /// The network of the best epoch, or the last where there is no validation; `None` where none
    /// ended.
    pub(crate) model: Option<ConvNet>,
    /// What each epoch reached, and which was the best.
    pub(crate) position: Position,
    /// How it ended.
    pub(crate) end: End,
}

/// Trains the network that `config` describes, from its first step or from where a checkpoint left
/// off, and keeps the best weights and checkpoints in the run folder. Of several devices, the first judges.
///
/// # Errors
/// When the loss stops being a number, the checkpoint does not fit the network, or the run folder
/// cannot be written to.
pub(crate) fn train(
    config: &Config,
    parts: &Parts,
    devices: &[Found],
    run: &RunDir,
    style: Style,
    checkpoint: Option<Checkpoint>,
) -> Result<Trained> {
    let settings = &config.training;
    let device = &devices.first().context("no device")?.device;
    let autodiff = device.clone().autodiff();
    let training = match checkpoint {
        None => Training::begin(config, &autodiff)?,
        Some(checkpoint) => Training::resume(config, &autodiff, checkpoint)?,
    };
    training.restore(run)?;
    let learners = Learners::on(devices, &training.model);
    let train_loader = Arc::new(training_loader(config, &parts.train, learners.devices()));
    let validation = Arc::new(evaluation_loader(config, &parts.validation, device));

    let learner = Learner::new(
        training.model.clone(),
        training.optimizer.clone(),
        settings.learning_rate,
    );
    let epochs_before = training.position.epochs.len();
    let exchange = Arc::new(Mutex::new(Exchange::Start(training)));
    let epochs = EpochLoop {
        config: config.clone(),
        train: Arc::clone(&train_loader),
        validation: Arc::clone(&validation),
        test: evaluation_loader(config, &parts.test, device),
        learners,
        run: run.clone(),
        style,
        exchange: Arc::clone(&exchange),
    };
    let train_loader = Arc::new(TrainingLoader::new(train_loader, settings.objective()));
    let mut supervised = SupervisedTraining::<ConvNet>::new(run.path(), train_loader, validation)
        .num_epochs(settings.epochs)
        // For the dashboard; without a checkpointer of burn-train's nothing is loaded.
        .checkpoint(epochs_before)
        .with_application_logger(None)
        .with_metric_logger(Unlogged)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(epochs)));
    supervised = {
        let renderer = style.renderer(supervised.interrupter(), epochs_before);
        supervised.renderer(Box::new(renderer))
    };
    if style == Style::Dashboard {
        supervised = supervised
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .metric_train_numeric(LearningRateMetric::new())
            .metric_train_numeric(SpeedMetric::new());
    }
    // The dashboard closes when its result is dropped, before anything more is printed.
    drop(supervised.launch(learner));

    let mut exchange = exchange.lock().unwrap_or_else(PoisonError::into_inner);
    let Exchange::Ended(training, end) = std::mem::replace(&mut *exchange, Exchange::Taken) else {
        bail!("the training did not end");
    };
    // Where it failed, the device may be gone.
    let end = end?;
    let model = match training.best {
        none if none.is_empty() => None,
        best => Some(
            config
                .model
                .without_batch_norm()
                .init(device)?
                .with_safetensors(best)?,
        ),
    };
    Ok(Trained {
        model,
        position: training.position,
        end,
    })
}

impl Training {
    /// Before its first step, on a device with gradients.
    ///
    /// # Errors
    /// When no such network exists.
    pub(crate) fn begin(config: &Config, device: &Device) -> Result<Self> {
        // On a CPU the generator of initial weights is one for the whole process.
        device.seed(config.training.seed);
        let model = config.model.init(device)?;
        // Weights are drawn when they are asked for first, as by a copy: now, before dropout draws.
        Ok(Self::of(config, model.clone()))
    }

    /// A training of `model`, which begins.
    pub(crate) fn of(config: &Config, model: ConvNet) -> Self {
        Self {
            average: (config.training.ema_decay > 0.0).then(|| model.valid()),
            model,
            optimizer: optimizer(&config.training),
            position: Position::default(),
            best: Vec::new(),
        }
    }

    /// Where a checkpoint left off.
    ///
    /// # Errors
    /// When its records are not those of this network and its optimizer.
    pub(crate) fn resume(config: &Config, device: &Device, checkpoint: Checkpoint) -> Result<Self> {
        let Checkpoint {
            position,
            model,
            optimizer: state,
            best,
            average,
            ..
        } = checkpoint;
        let network = config.model.init(device)?;
        if !best.is_empty() {
            network.clone().with_safetensors(best.clone())?;
        }
        // Burn panics on some records that it did not write, and leaves out what it cannot use.
        let records = quietly(|| {
            let load = |network: ConvNet, record: Vec<u8>| {
                let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(record))?;
                network.try_load_record(record)
            };
            let average = match config.training.ema_decay > 0.0 {
                true => Some(load(network.valid(), average)?),
                false => None,
            };
            let model = load(network, model)?;
            let record = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(state))?;
            let tensors = record.len();
            let optimizer = optimizer(&config.training).load_record(record);
            ensure!(
                optimizer.to_record().len() == tensors,
                "the optimizer's state is that of another one"
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

    /// Puts the files of the run back to this point: a process that was killed, or reached a limit,
    /// may have written beyond it.
    fn restore(&self, run: &RunDir) -> Result<()> {
        if !self.best.is_empty() {
            run.write(&run.model(), &self.best)?;
            run.write(&run.metrics(), to_csv(&self.position.epochs).as_bytes())?;
        }
        run.remove(&run.evaluation())
    }

    /// All of it, to go on from later.
    ///
    /// # Errors
    /// When a weight cannot be read back from its device.
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

    /// One step of the optimizer, on gradients that are clipped first, and one of the average.
    pub(crate) fn step(
        &mut self,
        settings: &TrainingConfig,
        learning_rate: f64,
        gradients: GradientsParams,
    ) {
        let gradients = match settings.gradient_clip {
            None => gradients,
            Some(limit) => clip_norm(gradients, &self.model, limit),
        };
        let model = self.model.clone();
        self.model = self.optimizer.step(learning_rate, model, gradients);
        self.position.steps += 1;
        // The first weights, of chance, are soon forgotten.
        let steps = self.position.steps as f64;
        let keep = settings.ema_decay.min((1.0 + steps) / (10.0 + steps));
        self.average = self
            .average
            .take()
            .map(|average| average.ema_update(&self.model.valid(), keep));
    }
}

/// Batches to learn from, shuffled and changed as the settings say.
///
/// # Panics
/// When there is no device.
pub(crate) fn training_loader(
    config: &Config,
    images: &ImageDataset,
    devices: &[Device],
) -> Loader {
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    let TrainingConfig {
        seed, batch_size, ..
    } = config.training;
    let order = Order::Shuffled { seed };
    let loader = Loader::new(
        images.clone(),
        batcher,
        batch_size,
        order,
        devices[0].clone(),
    )
    .with_augmentation(config.augmentation, seed);
    kept(loader, devices)
}

/// Batches in order, for judging, on the device without gradients.
pub(crate) fn evaluation_loader(config: &Config, images: &ImageDataset, device: &Device) -> Loader {
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    let loader = Loader::new(
        images.clone(),
        batcher,
        config.training.eval_batch_size,
        Order::Sequential,
        device.clone(),
    );
    kept(loader, slice::from_ref(device))
}

/// The same, with its images on those devices that are no CPUs.
fn kept(loader: Loader, devices: &[Device]) -> Loader {
    let devices = devices.iter().filter(|device| !kernels::is_cpu(device));
    loader.kept_on(&devices.cloned().collect::<Vec<_>>())
}

/// What Adam adds to a root before it divides by it.
const EPSILON: f32 = 1e-8;
/// AdamW's weight decay.
const ADAM_W_DECAY: f64 = 0.01;

/// Where Burn's defaults differ, PyTorch's: ε is 1e-8, AdamW decays by 0.01, momentum is undamped.
fn optimizer(settings: &TrainingConfig) -> ModuleOptimizer {
    let decay = |default: f64| settings.weight_decay.unwrap_or(default) as f32;
    let betas = [settings.beta1, settings.beta2].map(|beta| beta as f32);
    match settings.optimizer {
        OptimizerKind::Adam => FusedAdam::adam(betas, EPSILON, decay(0.0)).into(),
        OptimizerKind::AdamW => FusedAdam::adam_w(betas, EPSILON, decay(ADAM_W_DECAY)).into(),
        OptimizerKind::Sgd => SgdConfig::new()
            .with_momentum(Some(MomentumConfig::new().with_dampening(0.0)))
            .with_weight_decay(Some(WeightDecayConfig::new(decay(0.0))))
            .init(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::device::{self, Request};
    use crate::images::Kept;
    use crate::settings::Settings;

    /// The weights after some epochs over 300 digits with these settings.
    fn weights(settings: &str) -> Vec<f32> {
        weights_on(1, settings)
    }

    /// The same on one device several times.
    fn weights_on(devices: usize, settings: &str) -> Vec<f32> {
        let mut tiny = Settings::preset("tiny").unwrap();
        let settings = format!("data.limit_train = 300\ndata.validation = 0.0\n{settings}");
        tiny.overlay(settings.parse().unwrap()).unwrap();
        let (config, splits) = tiny.resolve(Kept::No).unwrap();
        let (train_images, validation) = config.data.divide(&splits.train, 1).unwrap();
        let parts = Parts {
            train: train_images,
            validation,
            test: splits.test,
        };
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path(), "tiny", None, "", |_| Ok(())).unwrap();
        let (found, _) = device::open(&Request::Auto, None).unwrap();
        let devices = vec![found; devices];
        let trained = train(&config, &parts, &devices, &run, Style::Details, None).unwrap();
        assert_eq!(trained.end, End::Epochs);
        let bytes = fs::read(run.model()).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let numbers = bytes[8 + header..].chunks_exact(4);
        numbers
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    }

    #[test]
    fn accumulated_batches_are_one_batch() {
        // 300 images are two steps of 128 and one of 44: the last of its batches is smaller.
        let sgd = "training.epochs = 1\ntraining.optimizer = \"sgd\"\ntraining.learning_rate = 0.1";
        let whole = weights(&format!("{sgd}\ntraining.batch_size = 128"));
        let parts = weights(&format!(
            "{sgd}\ntraining.batch_size = 32\ntraining.accumulate = 4"
        ));
        let found = distance(&whole, &parts);
        assert!(found < 1e-5, "{found}");
        let other = weights(&format!("{sgd}\ntraining.batch_size = 32"));
        assert!(distance(&whole, &other) > 1e-3);
    }

    #[test]
    fn devices_learn_together_what_one_learns_alone() {
        // Steps of 64, of which three devices take 22, 21 and 21, and one of 44.
        let settings = "training.epochs = 2\ntraining.optimizer = \"sgd\"\n\
                        training.learning_rate = 0.1\ntraining.label_smoothing = 0.1";
        let alone = weights(settings);
        for devices in [2, 3] {
            let found = distance(&alone, &weights_on(devices, settings));
            assert!(found < 1e-5, "{devices} devices: {found}");
        }
        let parts = format!("{settings}\ntraining.batch_size = 32");
        let accumulated = format!("{parts}\ntraining.accumulate = 2");
        assert!(distance(&alone, &weights_on(2, &accumulated)) < 1e-5);
        assert!(distance(&alone, &weights_on(2, &parts)) > 1e-3);
        assert_eq!(weights_on(3, settings), weights_on(3, settings));
    }

    #[test]
    fn every_setting_of_a_training_reaches_it() {
        let plain = weights("");
        for setting in [
            "training.optimizer = \"adamw\"",
            "training.beta1 = 0.7",
            "training.beta2 = 0.9",
            "training.weight_decay = 0.1",
            "training.gradient_clip = 0.5",
            "training.label_smoothing = 0.2",
            "training.schedule = \"cosine\"",
            "training.schedule = \"one-cycle\"",
            "training.schedule = \"step\"\ntraining.decay_epochs = 1",
            "training.warmup_steps = 3",
            "training.ema_decay = 0.9",
            "augmentation.rotation = 10",
            "augmentation.elastic = 0.02",
            "model.blocks = [{ channels = 8, padding = 0, norm = true }]",
        ] {
            assert!(distance(&plain, &weights(setting)) > 1e-5, "{setting}");
        }
    }
}
