//! The training of a network: everything that goes into a run, put together.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining, TrainingStrategy};
use data::{ImageDataset, Loader, MnistBatcher, Order};
use kernels::FusedAdam;
use model::ConvNet;

use crate::config::{Config, OptimizerKind};
use crate::epochs::{End, EpochLoop, Outcome};
use crate::history::Epoch;
use crate::progress::Style;
use crate::run_dir::RunDir;
use crate::tally::Figures;

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

/// A finished training.
#[derive(Debug)]
pub(crate) struct Trained {
    /// The network of the best epoch, or the last where there is no validation.
    pub(crate) model: ConvNet,
    /// Number of that epoch.
    pub(crate) best_epoch: usize,
    /// What it reached on validation, if there is any.
    pub(crate) validation: Option<Figures>,
    /// What each epoch reached.
    pub(crate) epochs: Vec<Epoch>,
    /// How it ended.
    pub(crate) end: End,
}

/// Trains the network that `config` describes and keeps the best weights in the run folder.
///
/// # Errors
/// When the loss stops being a number, or the run folder cannot be written to.
pub(crate) fn train(
    config: &Config,
    parts: &Parts,
    device: &Device,
    run: &RunDir,
    style: Style,
) -> Result<Trained> {
    let training = &config.training;
    // On a CPU the generator of dropout and of initial weights is one for the whole process.
    device.seed(training.seed);
    let autodiff = device.clone().autodiff();
    let model = config.model.init(&autodiff)?;
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    let shuffled = Order::Shuffled {
        seed: training.seed,
    };
    let train_loader = Loader::new(
        parts.train.clone(),
        batcher,
        training.batch_size,
        shuffled,
        autodiff,
    );
    let train_loader = Arc::new(train_loader);
    let validation = Arc::new(evaluation_loader(config, &parts.validation, device));

    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let epochs = EpochLoop {
        config: config.clone(),
        train: Arc::clone(&train_loader),
        validation: Arc::clone(&validation),
        test: evaluation_loader(config, &parts.test, device),
        run: run.clone(),
        style,
        outcome: Arc::clone(&outcome),
    };
    let mut supervised = SupervisedTraining::<ConvNet>::new(run.path(), train_loader, validation)
        .num_epochs(training.epochs)
        .with_application_logger(None)
        // The run's figures are kept by the loop; without a logger burn-train writes files.
        .with_metric_logger(InMemoryMetricLogger::default())
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(epochs)));
    supervised = {
        let renderer = style.renderer(supervised.interrupter());
        supervised.renderer(renderer)
    };
    if style == Style::Dashboard {
        supervised = supervised
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .metric_train_numeric(LearningRateMetric::new());
    }
    // The dashboard closes when its result is dropped, before anything more is printed.
    drop(supervised.launch(Learner::new(
        model,
        optimizer(training.optimizer),
        training.learning_rate,
    )));

    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let end = outcome.end.take().context("the training did not end")??;
    let best = outcome.best.take();
    let best = best.context("the training ended before its first epoch did")?;
    Ok(Trained {
        model: best.model,
        best_epoch: best.epoch,
        validation: best.validation,
        epochs: std::mem::take(&mut outcome.epochs),
        end,
    })
}

/// Batches in order, for judging, on the device without gradients.
pub(crate) fn evaluation_loader(config: &Config, images: &ImageDataset, device: &Device) -> Loader {
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    Loader::new(
        images.clone(),
        batcher,
        config.training.eval_batch_size,
        Order::Sequential,
        device.clone(),
    )
}

/// Adam's decay of its first and second moment.
const BETAS: [f32; 2] = [0.9, 0.999];
/// What Adam adds to a root before it divides by it.
const EPSILON: f32 = 1e-8;

/// Where Burn's defaults differ, PyTorch's: ε is 1e-8, AdamW decays by 0.01, momentum is undamped.
fn optimizer(kind: OptimizerKind) -> ModuleOptimizer {
    match kind {
        OptimizerKind::Adam => FusedAdam::adam(BETAS, EPSILON).into(),
        OptimizerKind::AdamW => FusedAdam::adam_w(BETAS, EPSILON, 0.01).into(),
        OptimizerKind::Sgd => SgdConfig::new()
            .with_momentum(Some(MomentumConfig::new().with_dampening(0.0)))
            .init(),
    }
}
