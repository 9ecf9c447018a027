//! One process at work on a training: its loaders, devices and run folder, and the bookkeeping of the
//! training loop.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow};
use burn::data::dataloader::DataLoader;
use data::Loader;
use model::{ConvNet, Precision, Storage};
use tracing::{debug, warn};

use crate::config::run_config::Config;
use crate::config::time::Time;
use crate::device::OpenDevice;
use crate::run::epoch::{Epoch, best_epoch, to_csv};
use crate::run::event_log::{Event, EventLog};
use crate::run::images::DataSplit;
use crate::run::loaders::{evaluation_loader, steps_per_epoch, training_loader};
use crate::run::run_dir::RunDir;
use crate::training::burn_train::{Monitor, Setup};
use crate::training::epoch_result::{EvaluatedEpoch, TrainedEpoch};
use crate::training::guard::{Measured, Symptom};
use crate::training::progress::{ProgressLines, Style};
use crate::training::schedule::learning_rate;
use crate::training::state::Training;
use crate::training::step::TrainingDevices;
use crate::training::stop_reason::StopReason;

/// One process at work on a training.
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) train: Arc<Loader>,
    pub(crate) validation: Loader,
    pub(crate) test: Loader,
    pub(crate) devices: TrainingDevices,
    pub(crate) training: Training,
    pub(crate) progress: ProgressLines,
    run: RunDir,
    style: Style,
    events: EventLog,
    clock: Clock,
    /// The warning that this process logged, if any: there is one per training.
    pub(crate) warning: Option<String>,
}

/// Measures the duration of a training over all its processes.
struct Clock {
    start: Instant,
    /// Seconds of training before this process.
    before: f64,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}

impl Session {
    /// Opens the event log of the run and prepares the loaders and devices.
    ///
    /// # Errors
    /// Returns an error if there is no device, an image cannot be read, or the event log cannot be written.
    pub(crate) fn new(
        config: &Config,
        images: &DataSplit,
        devices: &[OpenDevice],
        run: &RunDir,
        style: Style,
        training: Training,
    ) -> Result<Self> {
        let main = &devices.first().context("no device")?.device;
        let devices = TrainingDevices::new(devices, &training.model);
        let settings = &config.training;
        let position = &training.position;
        let train = training_loader(config, &images.train, devices.all())?;
        let steps_total = steps_total(config, &train);

        let mut events = EventLog::open(run, position)?;
        events.write(&Event::Start {
            steps: position.steps,
            steps_total,
            epochs: settings.epochs,
            batches_per_epoch: train.num_batches(),
            process: std::process::id(),
        })?;

        let images_per_step = train.num_items() as f64 / steps_per_epoch(config, &train) as f64;
        let steps_left = steps_total.saturating_sub(position.steps);
        let images_left = (steps_left as f64 * images_per_step).round();
        Ok(Self {
            progress: ProgressLines::new(
                style,
                settings.epochs,
                train.num_batches(),
                images_left as usize,
            ),
            clock: Clock {
                start: Instant::now(),
                before: position.seconds,
            },
            config: config.clone(),
            validation: evaluation_loader(config, &images.validation, main)?,
            test: evaluation_loader(config, &images.test, main)?,
            train: Arc::new(train),
            devices,
            training,
            run: run.clone(),
            style,
            events,
            warning: None,
        })
    }

    /// Describes the training to burn-train.
    pub(crate) fn burn_train_setup(&self) -> Setup {
        Setup {
            directory: self.run.path().into(),
            model: self.training.model.clone(),
            optimizer: self.training.optimizer.clone(),
            learning_rate: self.config.training.learning_rate,
            epochs: self.config.training.epochs,
            epochs_completed: self.training.position.epochs.len(),
            style: self.style,
        }
    }

    /// Returns the reason to stop the training here, if there is one.
    pub(crate) fn stop_reason(&self, monitor: &Monitor<'_>) -> Option<StopReason> {
        let settings = &self.config.training;
        let position = &self.training.position;
        if position.epochs.len() >= settings.epochs {
            return Some(StopReason::Epochs);
        }
        if let Some(patience) = settings.early_stopping {
            let best = best_epoch(&position.epochs).map(|best| best.number);
            let since_best = best.map_or(0, |best| position.epochs.len() - best);
            if since_best >= patience {
                return Some(StopReason::EarlyStopping);
            }
        }
        if monitor.is_interrupted() {
            return Some(StopReason::Interrupted);
        }
        if settings.max_steps.is_some_and(|max| position.steps >= max) {
            return Some(StopReason::MaxSteps);
        }
        let is_over = |Time(max)| self.clock.seconds() >= max.as_secs_f64();
        settings
            .max_time
            .is_some_and(is_over)
            .then_some(StopReason::MaxTime)
    }

    /// Whether the current epoch has been trained in part.
    pub(crate) fn is_within_epoch(&self) -> bool {
        self.training.position.batches > 0
    }

    /// Returns the learning rate of the step after `steps` completed steps and `epochs`.
    pub(crate) fn learning_rate(&self, steps: u64, epochs: &[Epoch]) -> f64 {
        learning_rate(&self.config.training, steps, self.steps_total(), epochs)
    }

    /// Returns the number of optimizer steps of the whole training.
    pub(crate) fn steps_total(&self) -> u64 {
        steps_total(&self.config, &self.train)
    }

    /// Records a completed or partial epoch in the event log and the state, and its weights in the state if they
    /// are the best so far.
    ///
    /// # Errors
    /// Returns an error if the event log cannot be written to.
    pub(crate) fn record_epoch(
        &mut self,
        trained: &TrainedEpoch,
        evaluated: EvaluatedEpoch,
        model: &ConvNet,
    ) -> Result<()> {
        let position = &self.training.position;
        let epoch = Epoch {
            number: position.epochs.len() + 1,
            of: self.config.training.epochs,
            steps: position.steps,
            train: trained.metrics,
            validation: evaluated.validation,
            score: evaluated.score,
            test: evaluated.test,
            learning_rate: self.learning_rate(position.steps.saturating_sub(1), &position.epochs),
            images_per_second: trained.images_per_second,
            loading: trained.loading,
            seconds: self.clock.seconds(),
        };
        self.progress.epoch(&epoch);
        self.log(&Event::Epoch(&epoch))?;
        let symptom = self.symptom(&epoch);
        self.warn(epoch.number, symptom)?;

        let number = epoch.number;
        let position = &mut self.training.position;
        position.epochs.push(epoch);
        position.batches = 0;
        position.sums = Default::default();
        if best_epoch(&position.epochs).is_some_and(|best| best.number == number) {
            self.training.best = model.to_safetensors(Storage::Single)?;
        }
        Ok(())
    }

    /// Writes the metrics of all epochs, and the weights if the last epoch is the best.
    ///
    /// # Errors
    /// Returns an error if the run folder cannot be written to.
    pub(crate) fn write_results(&self) -> Result<()> {
        let epochs = &self.training.position.epochs;
        if best_epoch(epochs).is_some_and(|best| best.number == epochs.len()) {
            self.run
                .write(&self.run.model_path(), &self.training.best)?;
        }
        let metrics = to_csv(epochs);
        self.run.write(&self.run.metrics_path(), metrics.as_bytes())
    }

    /// Returns a symptom of a training that does not learn in the results of the current epoch.
    fn symptom(&self, epoch: &Epoch) -> Option<Symptom> {
        let position = &self.training.position;
        let measured = match epoch.validation {
            Some(metrics) => Measured {
                split: "validation",
                metrics,
                images: self.validation.num_items() as u64,
            },
            None => Measured {
                split: "training",
                metrics: epoch.train,
                images: position.sums.images(),
            },
        };
        let classes = self.config.images.classes.len();
        Symptom::of_loss(epoch.train.loss, position.initial_loss)
            .or_else(|| Symptom::of_accuracy(epoch.steps, classes, measured))
    }

    /// Warns with a remedy at the first symptom of a training that does not learn. While the dashboard uses the
    /// screen, the warning waits for its end. Trainings within another command, such as a measurement of speed on
    /// noise, may not learn.
    ///
    /// # Errors
    /// Returns an error if the event log cannot be written to.
    pub(crate) fn warn(&mut self, epoch: usize, symptom: Option<Symptom>) -> Result<()> {
        let (Some(symptom), None) = (symptom, &self.warning) else {
            return Ok(());
        };
        let steps = self.training.position.steps;
        let remedy = symptom.remedy(self.config.training.learning_rate);
        let message = format!("epoch {epoch}, step {steps}: {symptom}; {remedy}");
        match self.style {
            Style::Lines => warn!("{message}"),
            Style::Details => debug!("{message}"),
            Style::Dashboard => {}
        }
        self.log(&Event::Warning {
            epoch,
            steps,
            message: &message,
        })?;
        self.warning = Some(message);
        Ok(())
    }

    /// Appends an event to the event log. If that fails, a checkpoint is saved first.
    ///
    /// # Errors
    /// Returns an error if the event log cannot be written to.
    pub(crate) fn log(&mut self, event: &Event<'_>) -> Result<()> {
        self.events.write(event).or_else(|error| {
            self.save_checkpoint()?;
            Err(error)
        })
    }

    /// Writes a checkpoint of the training.
    ///
    /// # Errors
    /// Returns an error if a weight is not finite, or the run folder cannot be written to.
    pub(crate) fn save_checkpoint(&mut self) -> Result<()> {
        let before = Instant::now();
        self.training.position.seconds = self.clock.seconds();
        let steps = self.training.position.steps;
        if !self.training.model.is_finite() {
            return Err(self.diverged(steps, "the weights are not finite"));
        }
        let bytes = self.training.checkpoint(&self.config)?.to_bytes()?;
        let best = best_epoch(&self.training.position.epochs).map(|best| best.steps);
        self.run.write_checkpoint(steps, &bytes, best)?;
        debug!(
            "checkpoint after step {steps}: {} bytes in {:.1} ms",
            bytes.len(),
            1e3 * before.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Returns the error of a training that diverged at `step`.
    pub(crate) fn diverged(&self, step: u64, cause: impl Display) -> Error {
        let epochs = &self.training.position.epochs;
        let rate = self.learning_rate(step.saturating_sub(1), epochs);
        let advice = match self.config.training.precision {
            Precision::F16 => ", or --precision bf16 or f32, which have a larger range",
            Precision::F32 | Precision::Bf16 => "",
        };
        anyhow!(
            "training diverged in epoch {}, at step {step}, with learning rate {rate}: {cause}; \
             try a smaller --learning-rate or --gradient-clip{advice}",
            epochs.len() + 1
        )
    }
}

/// Returns the number of optimizer steps of the whole training.
fn steps_total(config: &Config, train: &Loader) -> u64 {
    let settings = &config.training;
    let steps = steps_per_epoch(config, train).saturating_mul(settings.epochs as u64);
    steps.min(settings.max_steps.unwrap_or(u64::MAX))
}
