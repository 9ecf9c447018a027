//! One epoch: the training batches, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use data::Batches;

use crate::run::event_log::Event;
use crate::training::burn_train::Monitor;
use crate::training::epoch_result::TrainedEpoch;
use crate::training::guard::Symptom;
use crate::training::running_metrics::{NotFinite, RunningMetrics};
use crate::training::session::Session;
use crate::training::step::{BatchOutput, mean_gradients, update};

/// Number of batches between two reports of the running loss, as in the PyTorch notebooks.
const REPORT_EVERY: usize = 100;

impl Session {
    /// Trains on the remaining batches of the epoch, until its end or a reason to stop.
    ///
    /// # Errors
    /// Returns an error if the loss is not finite, a device fails, or the run folder cannot be written to.
    pub(crate) fn train_epoch(&mut self, monitor: &mut Monitor<'_>) -> Result<TrainedEpoch> {
        let loader = Arc::clone(&self.train);
        let epoch = self.training.position.epochs.len() + 1;
        monitor.start_training(epoch, loader.num_items())?;
        let mut metrics = RunningMetrics::resume(self.training.position.sums);
        let mut loading = Duration::ZERO;
        let start = Instant::now();
        let mut batches = loader.batches_from(epoch as u64, self.training.position.batches);
        let images_before = batches.progress().items_processed;

        let mut stopped_by = None;
        while self.training.position.batches < loader.num_batches() {
            if self.is_within_epoch() {
                stopped_by = self.stop_reason(monitor);
            }
            if stopped_by.is_some() {
                break;
            }
            let reports = self.training.position.batches / REPORT_EVERY;
            loading += self.train_step(&mut batches, &mut metrics, monitor)?;

            if self.training.position.batches / REPORT_EVERY > reports {
                self.read_metrics(&mut metrics)?;
                self.report_running_loss(epoch, metrics.take_running_loss())?;
            }
            let every = self.config.training.checkpoint_every;
            if every.is_some_and(|every| self.training.position.steps.is_multiple_of(every)) {
                self.read_metrics(&mut metrics)?;
                self.save_checkpoint()?;
            }
        }

        self.read_metrics(&mut metrics)?;
        let seconds = start.elapsed().as_secs_f64();
        monitor.end_training(epoch)?;
        let images = batches.progress().items_processed - images_before;
        Ok(TrainedEpoch {
            metrics: self.training.position.sums.metrics(),
            images_per_second: images as f64 / seconds,
            loading: loading.as_secs_f64() / seconds,
            stopped_by,
        })
    }

    /// Does one optimizer step, and returns the time spent on preparing its batches.
    fn train_step(
        &mut self,
        batches: &mut Batches<'_>,
        metrics: &mut RunningMetrics,
        monitor: &mut Monitor<'_>,
    ) -> Result<Duration> {
        let position = &self.training.position;
        let learning_rate = self.learning_rate(position.steps, &position.epochs);
        let mut batch_number = position.batches;
        let mut loading = Duration::ZERO;
        let gradients = mean_gradients(
            &self.devices,
            &self.training,
            &self.config.training,
            batches,
            |batch| {
                let BatchOutput {
                    output,
                    images,
                    progress,
                    loading: batch_loading,
                    ..
                } = batch;
                loading += batch_loading;
                batch_number += 1;
                metrics.add(&output);
                self.progress.batch(images, output.output.dims());
                monitor.training_batch(output, progress, batch_number, learning_rate)
            },
        )?;
        self.training.position.batches = batch_number;
        let steps_total = self.steps_total();
        update(
            &mut self.training,
            &self.config.training,
            learning_rate,
            steps_total,
            gradients,
        );
        Ok(loading)
    }

    /// Reads the metrics of the batches since the last call. A loss that is not finite ends the training.
    fn read_metrics(&mut self, metrics: &mut RunningMetrics) -> Result<()> {
        match metrics.read() {
            Ok(sums) => {
                let position = &mut self.training.position;
                position.sums = sums;
                position.initial_loss = position.initial_loss.or(metrics.first_loss());
                Ok(())
            }
            Err(error) => {
                let NotFinite { batches_ago, .. } = error;
                let position = &self.training.position;
                let accumulate = self.config.training.accumulate;
                let step_of = |batch: usize| batch.div_ceil(accumulate) as u64;
                let batch = position.batches - batches_ago;
                let steps_ago = step_of(position.batches) - step_of(batch);
                Err(self.diverged(position.steps - steps_ago, error))
            }
        }
    }

    /// Writes the running loss to the progress lines and the event log.
    fn report_running_loss(&mut self, epoch: usize, loss: f64) -> Result<()> {
        let position = &self.training.position;
        let (batch, steps) = (position.batches, position.steps);
        let learning_rate = self.learning_rate(steps - 1, &position.epochs);
        let images_per_second = self.progress.running_loss(epoch, batch, loss);
        self.log(&Event::Batches {
            epoch,
            batch,
            steps,
            loss,
            learning_rate,
            images_per_second,
        })?;
        let initial = self.training.position.initial_loss;
        self.warn(epoch, Symptom::of_loss(loss, initial))
    }
}
