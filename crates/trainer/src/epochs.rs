//! The loop over epochs and batches, within burn-train's `SupervisedTraining`.
//!
//! burn-train's own loop cannot stop and go on at a step, skip an absent validation split or keep
//! the best weights; its metrics and dashboard do their work around this one all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use data::Loader;
use model::{ConvNet, Storage};
use tracing::debug;

use crate::config::{Config, Time, TrainingConfig};
use crate::evaluation::evaluate;
use crate::history::{Epoch, best, to_csv};
use crate::interruption;
use crate::journal::{Entry, Journal};
use crate::learners::Learners;
use crate::panics::quietly_everywhere;
use crate::progress::{Lines, Style};
use crate::run_dir::RunDir;
use crate::schedule::learning_rate;
use crate::tally::Figures;
use crate::training::Training;

/// Training images whose moments a normalized network is judged and used with.
const NORMALIZED_BY: usize = 5000;

/// Why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All epochs are done.
    Epochs,
    /// `early_stopping` epochs brought nothing better.
    Patience,
    /// `max_steps` was reached.
    Steps,
    /// `max_time` was reached.
    Time,
    /// The user stopped it; the last checkpoint holds what was done.
    Interrupted,
}

/// What `fit`, which cannot be given or give back more, takes and leaves.
pub(crate) enum Exchange {
    /// Not begun.
    Start(Training),
    /// At work.
    Taken,
    /// Over.
    Ended(Training, Result<End>),
}

/// The training loop of a run.
pub(crate) struct EpochLoop {
    pub(crate) config: Config,
    pub(crate) train: Arc<Loader>,
    pub(crate) validation: Arc<Loader>,
    pub(crate) test: Loader,
    pub(crate) learners: Learners,
    pub(crate) run: RunDir,
    pub(crate) style: Style,
    pub(crate) exchange: Arc<Mutex<Exchange>>,
}

type Processor = SupervisedTrainingEventProcessor<ConvNet>;

impl SupervisedLearningStrategy<ConvNet> for EpochLoop {
    /// The loaders that burn-train hands over are those of `self`, with their type erased; the
    /// learner keeps its optimizer to itself, so that it is used for its model alone.
    fn fit(
        &self,
        mut components: TrainingComponents<ConvNet>,
        learner: Learner<ConvNet>,
        _: TrainLoader<ConvNet>,
        _: ValidLoader<ConvNet>,
        _: usize,
    ) -> (ConvNet, Processor) {
        let lock = || self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let start = std::mem::replace(&mut *lock(), Exchange::Taken);
        let Exchange::Start(mut training) = start else {
            return (learner.model(), components.event_processor);
        };
        let run = || Session::new(self, &mut training, &mut components).and_then(Session::run);
        let end = quietly_everywhere(run)
            .unwrap_or_else(|panic| Err(anyhow!("on {}: {panic}", self.learners)));
        let model = training.model.clone();
        *lock() = Exchange::Ended(training, end);
        (model, components.event_processor)
    }
}

impl EpochLoop {
    pub(crate) fn settings(&self) -> &TrainingConfig {
        &self.config.training
    }

    fn max_steps(&self) -> u64 {
        self.settings().max_steps.unwrap_or(u64::MAX)
    }

    /// Optimizer steps of the whole training.
    fn steps_total(&self) -> u64 {
        let epochs = self.settings().epochs as u64;
        let steps = self
            .train
            .num_batches()
            .div_ceil(self.settings().accumulate);
        epochs.saturating_mul(steps as u64).min(self.max_steps())
    }

    /// The learning rate of the step after `steps` others, after `epochs`.
    pub(crate) fn learning_rate(&self, steps: u64, epochs: &[Epoch]) -> f64 {
        learning_rate(self.settings(), steps, self.steps_total(), epochs)
    }
}

/// One process at work on a training, from where it stands to an end.
pub(crate) struct Session<'a> {
    pub(crate) work: &'a EpochLoop,
    pub(crate) training: &'a mut Training,
    pub(crate) processor: &'a mut Processor,
    interrupter: Interrupter,
    pub(crate) lines: Lines,
    journal: Journal,
    /// When it began, and the seconds of training before it.
    start: Instant,
    seconds_before: f64,
}

/// What stops an evaluation when the training shall stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Stopped;

impl<'a> Session<'a> {
    fn new(
        work: &'a EpochLoop,
        training: &'a mut Training,
        components: &'a mut TrainingComponents<ConvNet>,
    ) -> Result<Self> {
        let position = &training.position;
        let settings = work.settings();
        let per_step = settings.batch_size.saturating_mul(settings.accumulate) as u64;
        let steps_left = work.steps_total().saturating_sub(position.steps);
        let epochs_left = settings.epochs.saturating_sub(position.epochs.len());
        let images_left = steps_left
            .saturating_mul(per_step)
            .min(work.train.num_items() as u64 * epochs_left as u64);
        let batches = work.train.num_batches();
        let mut journal = Journal::open(&work.run, position)?;
        journal.write(&Entry::Start {
            steps: position.steps,
            steps_total: work.steps_total(),
            epochs: settings.epochs,
            batches_per_epoch: batches,
            process: std::process::id(),
        })?;
        Ok(Self {
            work,
            lines: Lines::new(work.style, settings.epochs, batches, images_left as usize),
            journal,
            start: Instant::now(),
            seconds_before: position.seconds,
            training,
            processor: &mut components.event_processor,
            interrupter: components.interrupter.clone(),
        })
    }

    fn run(mut self) -> Result<End> {
        loop {
            if let Some(end) = self.end() {
                return Ok(end);
            }
            if let Some(end) = self.epoch()? {
                return Ok(end);
            }
        }
    }

    /// Why there shall be no further epoch, if so.
    fn end(&self) -> Option<End> {
        let settings = self.work.settings();
        let position = &self.training.position;
        let epochs = position.epochs.len();
        let since_best = best(&position.epochs).map_or(0, |best| epochs - best.number);
        if epochs >= settings.epochs {
            return Some(End::Epochs);
        }
        if settings
            .early_stopping
            .is_some_and(|patience| since_best >= patience)
        {
            return Some(End::Patience);
        }
        // An epoch that was begun is judged as far as it came.
        if position.batches > 0 {
            return None;
        }
        self.limit()
    }

    /// Why there shall be no further step, if so.
    pub(crate) fn limit(&self) -> Option<End> {
        if self.training.position.steps >= self.work.max_steps() {
            return Some(End::Steps);
        }
        let Time(most) = self.work.settings().max_time?;
        (self.seconds() >= most.as_secs_f64()).then_some(End::Time)
    }

    /// Seconds of training so far.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }

    /// What is left of an epoch, to its end or that of the training.
    fn epoch(&mut self) -> Result<Option<End>> {
        let number = self.training.position.epochs.len() + 1;
        let pass = self.pass(number)?;
        match pass.end {
            Some(End::Interrupted) => {
                self.save()?;
                return Ok(pass.end);
            }
            // The results hold what this epoch came to; the checkpoint lets it go on.
            Some(_) => self.save()?,
            None => {}
        }
        let model = self.judged(number)?;
        let (validation, test) = match self.judge(number, &model) {
            Err(error) if error.is::<Stopped>() => {
                self.save()?;
                return Ok(Some(End::Interrupted));
            }
            figures => figures?,
        };
        self.processor
            .process_train(LearnerEvent::EndEpoch(number))?;

        let position = &self.training.position;
        let epoch = Epoch {
            number,
            of: self.work.settings().epochs,
            steps: position.steps,
            train: pass.train,
            validation,
            test,
            learning_rate: self
                .work
                .learning_rate(position.steps.saturating_sub(1), &position.epochs),
            images_per_second: pass.images_per_second,
            loading: pass.loading,
            seconds: self.seconds(),
        };
        self.lines.epoch(&epoch);
        self.note(&Entry::Epoch(&epoch))?;
        self.record(epoch, &model)?;
        if pass.end.is_none() {
            self.save()?;
        }
        Ok(pass.end)
    }

    /// The network as it is judged and kept: of averaged weights, if they are, its normalization a part of
    /// them.
    fn judged(&self, epoch: usize) -> Result<ConvNet> {
        let model = match &self.training.average {
            Some(average) => average.clone(),
            None => self.training.model.valid(),
        };
        if !model.has_batch_norm() {
            return Ok(model);
        }
        let loader = &self.work.train;
        let count = NORMALIZED_BY.div_ceil(self.work.settings().batch_size);
        let batches = loader.pass(epoch as u64).take(count);
        let images: Result<Vec<_>, _> = batches
            .map(|batch| batch.map(|batch| batch.images.inner()))
            .collect();
        Ok(model.fold_batch_norm(images?))
    }

    /// Whether the user stopped the training, in the dashboard or by a signal.
    pub(crate) fn is_stopped(&self) -> bool {
        self.interrupter.should_stop() || interruption::is_requested()
    }

    /// Figures on validation, and on the test split where they are asked for.
    fn judge(
        &mut self,
        epoch: usize,
        model: &ConvNet,
    ) -> Result<(Option<Figures>, Option<Figures>)> {
        let validation = self.validate(epoch, model)?;
        let report_test = self.work.settings().report_test;
        let test = report_test.then(|| self.test(model)).transpose()?;
        Ok((validation, test))
    }

    fn validate(&mut self, epoch: usize, model: &ConvNet) -> Result<Option<Figures>> {
        let loader = &self.work.validation;
        let total_items = loader.num_items();
        if total_items == 0 {
            return Ok(None);
        }
        self.processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items,
        })?;
        let mut iteration = 0;
        let classes = &self.work.config.images.classes;
        let evaluation = evaluate(model, loader, classes, |output, progress| {
            self.go_on()?;
            iteration += 1;
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            Ok(self
                .processor
                .process_valid(LearnerEvent::ProcessedItem(item))?)
        });
        let evaluation = evaluation.with_context(|| format!("validation of epoch {epoch}"))?;
        self.processor
            .process_valid(LearnerEvent::EndSplit(epoch))?;
        Ok(Some(evaluation.figures()))
    }

    fn test(&self, model: &ConvNet) -> Result<Figures> {
        let classes = &self.work.config.images.classes;
        let evaluation = evaluate(model, &self.work.test, classes, |_, _| self.go_on())?;
        Ok(evaluation.figures())
    }

    /// An error when the training shall stop.
    fn go_on(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Stopped.into());
        }
        Ok(())
    }

    /// Records the epoch, and its weights if they are the best so far.
    fn record(&mut self, epoch: Epoch, model: &ConvNet) -> Result<()> {
        let run = &self.work.run;
        let position = &mut self.training.position;
        let number = epoch.number;
        position.epochs.push(epoch);
        if best(&position.epochs).is_some_and(|best| best.number == number) {
            self.training.best = model.to_safetensors(Storage::Single)?;
            run.write(&run.model(), &self.training.best)?;
        }
        position.batches = 0;
        position.counted = Default::default();
        run.write(&run.metrics(), to_csv(&position.epochs).as_bytes())
    }

    /// Writes a line of `metrics.jsonl`. Where that fails, what was done is saved first.
    pub(crate) fn note(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.journal.write(entry).or_else(|error| {
            self.save()?;
            Err(error)
        })
    }

    /// Writes a checkpoint, if it is worth to go on from.
    pub(crate) fn save(&mut self) -> Result<()> {
        let before = Instant::now();
        self.training.position.seconds = self.seconds();
        let steps = self.training.position.steps;
        if !self.training.model.is_finite() {
            return Err(self.diverged(steps, "the weights are no finite numbers"));
        }
        let bytes = self.training.checkpoint(&self.work.config)?.to_bytes()?;
        let best = best(&self.training.position.epochs).map(|best| best.steps);
        self.work.run.write_checkpoint(steps, &bytes, best)?;
        debug!(
            "checkpoint after step {steps}: {} bytes in {:.1} ms",
            bytes.len(),
            1e3 * before.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
