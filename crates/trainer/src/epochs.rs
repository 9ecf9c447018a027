//! The loop over epochs and batches, within burn-train's `SupervisedTraining`.
//!
//! burn-train's own loop cannot stop at a step, skip an absent validation split or keep the best
//! weights; its learner, metrics and dashboard do their work around this one all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::module::Module;
use burn::train::{
    EventProcessorTraining, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use data::Loader;
use model::ConvNet;

use crate::config::Config;
use crate::evaluation::evaluate;
use crate::history::{Epoch, to_csv};
use crate::progress::{Lines, Style};
use crate::run_dir::RunDir;
use crate::tally::{Figures, Tally};

/// A running loss is reported every so many batches, as in the PyTorch notebooks.
const REPORT_EVERY: usize = 100;

/// Why a training ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All epochs are done.
    Epochs,
    /// `max_steps` was reached.
    Steps,
    /// The user stopped it in the dashboard.
    Stopped,
}

/// What a training leaves behind, read when it is over.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) best: Option<Best>,
    /// How it ended; `None` while it goes on.
    pub(crate) end: Option<Result<End>>,
}

/// The best epoch so far.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) epoch: usize,
    /// Its figures on validation, if there is any.
    pub(crate) validation: Option<Figures>,
    /// Its weights, off the autodiff device.
    pub(crate) model: ConvNet,
}

/// The training loop of a run.
pub(crate) struct EpochLoop {
    pub(crate) config: Config,
    pub(crate) train: Arc<Loader>,
    pub(crate) validation: Arc<Loader>,
    pub(crate) test: Loader,
    pub(crate) run: RunDir,
    pub(crate) style: Style,
    pub(crate) outcome: Arc<Mutex<Outcome>>,
}

type Processor = SupervisedTrainingEventProcessor<ConvNet>;

impl SupervisedLearningStrategy<ConvNet> for EpochLoop {
    /// The loaders that burn-train hands over are those of `self`, with their type erased.
    fn fit(
        &self,
        mut components: TrainingComponents<ConvNet>,
        mut learner: Learner<ConvNet>,
        _: TrainLoader<ConvNet>,
        _: ValidLoader<ConvNet>,
        _: usize,
    ) -> (ConvNet, Processor) {
        let end = self.epochs(&mut components, &mut learner);
        self.outcome().end = Some(end);
        (learner.model(), components.event_processor)
    }
}

/// What the batches of one epoch came to.
struct Pass {
    train: Figures,
    images_per_second: f64,
    loading: f64,
    end: Option<End>,
}

impl EpochLoop {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn max_steps(&self) -> u64 {
        self.config.training.max_steps.unwrap_or(u64::MAX)
    }

    fn epochs(
        &self,
        components: &mut TrainingComponents<ConvNet>,
        learner: &mut Learner<ConvNet>,
    ) -> Result<End> {
        let start = Instant::now();
        let of = components.num_epochs;
        let images = self.train.num_items() * of;
        let limit = self
            .max_steps()
            .saturating_mul(self.config.training.batch_size as u64);
        let images = images.min(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut lines = Lines::new(self.style, of, self.train.num_batches(), images);
        let mut steps = 0;
        for number in 1..=of {
            if components.interrupter.should_stop() {
                return Ok(End::Stopped);
            }
            let pass = self.pass(number, &mut steps, components, learner, &mut lines)?;
            let model = learner.model().valid();
            let validation = self.validate(number, &model, &mut components.event_processor)?;
            let test = self
                .config
                .training
                .report_test
                .then(|| self.figures(&model, &self.test))
                .transpose()?;
            components
                .event_processor
                .process_train(LearnerEvent::EndEpoch(number))?;

            let epoch = Epoch {
                number,
                of,
                steps,
                train: pass.train,
                validation,
                test,
                learning_rate: self.config.training.learning_rate,
                images_per_second: pass.images_per_second,
                loading: pass.loading,
                seconds: start.elapsed().as_secs_f64(),
            };
            lines.epoch(&epoch);
            self.keep(epoch, model)?;
            if let Some(end) = pass.end {
                return Ok(end);
            }
        }
        Ok(End::Epochs)
    }

    /// One pass over the training images, or what the limits leave of it.
    fn pass(
        &self,
        epoch: usize,
        steps: &mut u64,
        components: &mut TrainingComponents<ConvNet>,
        learner: &mut Learner<ConvNet>,
        lines: &mut Lines,
    ) -> Result<Pass> {
        let processor = &mut components.event_processor;
        processor.process_train(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: self.train.num_items(),
        })?;
        let mut tally = Tally::default();
        let mut loading = Duration::ZERO;
        let mut end = None;
        let start = Instant::now();
        let mut batches = self.train.pass(epoch as u64);
        for iteration in 1.. {
            let before = Instant::now();
            let Some(batch) = batches.next().transpose()? else {
                break;
            };
            loading += before.elapsed();

            let image_shape = batch.images.dims();
            let step = learner.train_step(batch);
            learner.lr_step();
            learner.optimizer_step(step.grads);
            tally.add(&step.item);
            *steps += 1;
            lines.step(image_shape[0]);
            if *steps == 1 {
                lines.first_step(image_shape, step.item.output.dims());
            }
            if iteration % REPORT_EVERY == 0
                && let Some(Figures { loss, .. }) = self.read(&mut tally, epoch, *steps)?
            {
                lines.running(epoch, iteration, loss);
            }
            processor.process_train(LearnerEvent::ProcessedItem(TrainingItem::new(
                step.item,
                batches.progress(),
                Some(iteration),
                Some(learner.lr_current()),
            )))?;

            if components.interrupter.should_stop() {
                end = Some(End::Stopped);
            } else if *steps >= self.max_steps() {
                end = Some(End::Steps);
            }
            if end.is_some() {
                break;
            }
        }
        self.read(&mut tally, epoch, *steps)?;
        let seconds = start.elapsed().as_secs_f64();
        processor.process_train(LearnerEvent::EndSplit(epoch))?;
        Ok(Pass {
            train: tally.total()?,
            images_per_second: batches.progress().items_processed as f64 / seconds,
            loading: loading.as_secs_f64() / seconds,
            end,
        })
    }

    /// The figures since the last call. A loss that is no number ends the training here.
    fn read(&self, tally: &mut Tally, epoch: usize, steps: u64) -> Result<Option<Figures>> {
        tally.read().with_context(|| {
            let place = format!("step {steps} or up to {REPORT_EVERY} before");
            self.diverged(epoch, &place)
        })
    }

    fn diverged(&self, epoch: usize, place: &str) -> String {
        format!(
            "training diverged in epoch {epoch}, at {place}, with learning rate {}; \
             try a smaller --learning-rate",
            self.config.training.learning_rate
        )
    }

    fn validate(
        &self,
        epoch: usize,
        model: &ConvNet,
        processor: &mut Processor,
    ) -> Result<Option<Figures>> {
        let total_items = self.validation.num_items();
        if total_items == 0 {
            return Ok(None);
        }
        processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items,
        })?;
        let mut iteration = 0;
        let classes = &self.config.images.classes;
        let evaluation = evaluate(model, &self.validation, classes, |output, progress| {
            iteration += 1;
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            Ok(processor.process_valid(LearnerEvent::ProcessedItem(item))?)
        })
        .with_context(|| self.diverged(epoch, "its validation"))?;
        processor.process_valid(LearnerEvent::EndSplit(epoch))?;
        Ok(Some(evaluation.figures()))
    }

    fn figures(&self, model: &ConvNet, loader: &Loader) -> Result<Figures> {
        let classes = &self.config.images.classes;
        Ok(evaluate(model, loader, classes, |_, _| Ok(()))?.figures())
    }

    /// Records the epoch, and its weights if they are the best so far.
    fn keep(&self, epoch: Epoch, model: ConvNet) -> Result<()> {
        let mut outcome = self.outcome();
        let best = outcome.best.as_ref();
        if best.is_none_or(|best| is_better(epoch.validation, best.validation)) {
            self.run
                .write(&self.run.model(), &model.to_safetensors()?)?;
            outcome.best = Some(Best {
                epoch: epoch.number,
                validation: epoch.validation,
                model,
            });
        }
        outcome.epochs.push(epoch);
        let csv = to_csv(&outcome.epochs);
        self.run.write(&self.run.metrics(), csv.as_bytes())
    }
}

/// By validation accuracy, then validation loss; without validation, later is better.
fn is_better(validation: Option<Figures>, best: Option<Figures>) -> bool {
    match (validation, best) {
        (Some(new), Some(old)) => (new.accuracy, -new.loss) > (old.accuracy, -old.loss),
        _ => true,
    }
}
