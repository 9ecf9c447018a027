//! The adapter to burn-train.
//!
//! burn-train drives the dashboard: its `SupervisedTraining` and `Learner` compute the metrics and
//! feed the renderer. Its own loop cannot stop and resume at a step, leave out validation, or keep the
//! best weights, so [`launch`] runs the loop of [`train`](crate::training::train) in its place, as a
//! custom strategy. The loop reports to burn-train through a [`Monitor`].

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ClassificationOutput, EventProcessorTraining, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};
use model::ConvNet;

use crate::process::interruption;
use crate::training::dashboard::{NoMetricLog, Renderer, SpeedMetric};
use crate::training::progress::Style;

type Processor = SupervisedTrainingEventProcessor<ConvNet>;

/// What burn-train shows of a training.
pub(crate) struct Setup {
    /// Folder of the run.
    pub(crate) directory: PathBuf,
    pub(crate) model: ConvNet,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) learning_rate: f64,
    /// Total number of epochs.
    pub(crate) epochs: usize,
    /// Epochs completed before this process.
    pub(crate) epochs_completed: usize,
    pub(crate) style: Style,
}

/// Runs `train_loop` inside burn-train's `SupervisedTraining`, whose dashboard is closed on return.
///
/// # Errors
/// Returns an error if `train_loop` does.
pub(crate) fn launch<T: 'static>(
    setup: Setup,
    train_loop: impl FnOnce(&mut Monitor<'_>) -> Result<T> + 'static,
) -> Result<T> {
    let result = Arc::new(Mutex::new(None));
    let strategy = Strategy {
        train_loop: Mutex::new(Some(train_loop)),
        result: Arc::clone(&result),
    };
    let mut supervised = SupervisedTraining::<ConvNet>::new(
        setup.directory,
        Arc::new(NoBatches),
        Arc::new(NoBatches),
    )
    .num_epochs(setup.epochs)
    // For the dashboard; nothing is loaded without one of burn-train's checkpointers.
    .checkpoint(setup.epochs_completed)
    .with_application_logger(None)
    .with_metric_logger(NoMetricLog)
    .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
    let renderer = match setup.style {
        Style::Dashboard => Renderer::dashboard(supervised.interrupter(), setup.epochs_completed),
        Style::Lines | Style::Details => Renderer::none(),
    };
    supervised = supervised.renderer(Box::new(renderer));
    if setup.style == Style::Dashboard {
        supervised = supervised
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .metric_train_numeric(LearningRateMetric::new())
            .metric_train_numeric(SpeedMetric::new());
    }
    // The dashboard closes when burn-train's result is dropped.
    drop(supervised.launch(Learner::new(
        setup.model,
        setup.optimizer,
        setup.learning_rate,
    )));
    let result = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    result.context("burn-train did not run the training loop")?
}

/// The training loop as burn-train's strategy.
struct Strategy<F, T> {
    train_loop: Mutex<Option<F>>,
    result: Arc<Mutex<Option<Result<T>>>>,
}

impl<F, T> SupervisedLearningStrategy<ConvNet> for Strategy<F, T>
where
    F: FnOnce(&mut Monitor<'_>) -> Result<T>,
{
    /// Runs the loop, which has its own model, optimizer and loaders.
    fn fit(
        &self,
        mut components: TrainingComponents<ConvNet>,
        learner: Learner<ConvNet>,
        _: TrainLoader<ConvNet>,
        _: ValidLoader<ConvNet>,
        _: usize,
    ) -> (ConvNet, Processor) {
        let train_loop = self
            .train_loop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(train_loop) = train_loop {
            let outcome = train_loop(&mut Monitor {
                processor: &mut components.event_processor,
                interrupter: components.interrupter.clone(),
            });
            *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }
        (learner.model(), components.event_processor)
    }
}

/// What the training loop tells burn-train, and whether the user stopped it.
pub(crate) struct Monitor<'a> {
    processor: &'a mut Processor,
    interrupter: Interrupter,
}

impl Monitor<'_> {
    /// Whether the user stopped the training, in the dashboard or by a signal.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupter.should_stop() || interruption::is_requested()
    }

    /// Reports the start of the training batches of an epoch.
    pub(crate) fn start_training(&mut self, epoch: usize, images: usize) -> Result<()> {
        Ok(self.processor.process_train(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: images,
        })?)
    }

    /// Reports training batch `batch` of the epoch, counted from 1.
    pub(crate) fn training_batch(
        &mut self,
        output: ClassificationOutput,
        progress: Progress,
        batch: usize,
        learning_rate: f64,
    ) -> Result<()> {
        let item = TrainingItem::new(output, progress, Some(batch), Some(learning_rate.into()));
        Ok(self
            .processor
            .process_train(LearnerEvent::ProcessedItem(item))?)
    }

    /// Reports the end of the training batches of an epoch.
    pub(crate) fn end_training(&mut self, epoch: usize) -> Result<()> {
        Ok(self
            .processor
            .process_train(LearnerEvent::EndSplit(epoch))?)
    }

    /// Reports the start of the validation of an epoch.
    pub(crate) fn start_validation(&mut self, epoch: usize, images: usize) -> Result<()> {
        Ok(self.processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: images,
        })?)
    }

    /// Reports validation batch `batch` of the epoch, counted from 1.
    pub(crate) fn validation_batch(
        &mut self,
        output: ClassificationOutput,
        progress: Progress,
        batch: usize,
    ) -> Result<()> {
        let item = TrainingItem::new(output, progress, Some(batch), None);
        Ok(self
            .processor
            .process_valid(LearnerEvent::ProcessedItem(item))?)
    }

    /// Reports the end of the validation of an epoch.
    pub(crate) fn end_validation(&mut self, epoch: usize) -> Result<()> {
        Ok(self
            .processor
            .process_valid(LearnerEvent::EndSplit(epoch))?)
    }

    /// Reports the end of an epoch.
    pub(crate) fn end_epoch(&mut self, epoch: usize) -> Result<()> {
        Ok(self
            .processor
            .process_train(LearnerEvent::EndEpoch(epoch))?)
    }
}

/// The loaders that burn-train demands; the training loop has its own.
struct NoBatches;

impl<T: Send + 'static> DataLoader<T> for NoBatches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<T> + 'a> {
        Box::new(NoBatch(PhantomData))
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _: &Device) -> Arc<dyn DataLoader<T>> {
        Arc::new(Self)
    }

    fn slice(&self, _: usize, _: usize) -> Arc<dyn DataLoader<T>> {
        Arc::new(Self)
    }
}

/// The iterator of [`NoBatches`].
struct NoBatch<T>(PhantomData<T>);

impl<T> Iterator for NoBatch<T> {
    type Item = Result<T, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl<T> DataLoaderIterator<T> for NoBatch<T> {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}
