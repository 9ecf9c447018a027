//! One pass over the training images, step by step.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::optim::GradientsAccumulator;
use burn::train::{EventProcessorTraining, LearnerEvent, TrainingItem};
use data::Batches;
use model::Precision;

use crate::checkpoint::Position;
use crate::epochs::{End, Session};
use crate::journal::Entry;
use crate::tally::{Figures, NotFinite, Tally};

/// A running loss is reported every so many batches, as in the PyTorch notebooks.
const REPORT_EVERY: usize = 100;

/// What the batches of one epoch came to.
pub(crate) struct Pass {
    pub(crate) train: Figures,
    pub(crate) images_per_second: f64,
    pub(crate) loading: f64,
    /// Why it is not over, if so.
    pub(crate) end: Option<End>,
}

impl Session<'_> {
    /// What is left of one pass over the training images.
    pub(crate) fn pass(&mut self, epoch: usize) -> Result<Pass> {
        let loader = &self.work.train;
        self.processor.process_train(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: loader.num_items(),
        })?;
        let mut tally = Tally::resume(self.training.position.counted);
        let mut loading = Duration::ZERO;
        let start = Instant::now();
        let mut batches = loader.pass_from(epoch as u64, self.training.position.batches);
        let seen = batches.progress().items_processed;
        let end = loop {
            if self.is_stopped() {
                break Some(End::Interrupted);
            }
            if self.training.position.batches >= loader.num_batches() {
                break None;
            }
            if self.training.position.batches > 0
                && let Some(end) = self.limit()
            {
                break Some(end);
            }
            let reports = self.training.position.batches / REPORT_EVERY;
            self.step(&mut batches, &mut tally, &mut loading)?;
            if self.training.position.batches / REPORT_EVERY > reports {
                self.read(&mut tally)?;
                self.report(epoch, tally.running_loss())?;
            }
            let steps = self.training.position.steps;
            let every = self.work.settings().checkpoint_every;
            if every.is_some_and(|every| steps.is_multiple_of(every)) {
                self.read(&mut tally)?;
                self.save()?;
            }
        };
        self.read(&mut tally)?;
        let seconds = start.elapsed().as_secs_f64();
        self.processor
            .process_train(LearnerEvent::EndSplit(epoch))?;
        let seen = batches.progress().items_processed - seen;
        Ok(Pass {
            train: self.training.position.counted.figures(),
            images_per_second: seen as f64 / seconds,
            loading: loading.as_secs_f64() / seconds,
            end,
        })
    }

    /// One optimizer step, on the mean gradient of the next batches.
    fn step(
        &mut self,
        batches: &mut Batches<'_>,
        tally: &mut Tally,
        loading: &mut Duration,
    ) -> Result<()> {
        let settings = self.work.settings();
        let position = &self.training.position;
        let rate = self.work.learning_rate(position.steps, &position.epochs);
        // Dropout draws from a generator that depends on the step alone, so that a training goes on
        // as it would have.
        let seed = step_seed(settings.seed, position.steps);
        self.work.learners.seed(seed);

        let left = self.work.train.num_items() - batches.progress().items_processed;
        let images = left.min(settings.batch_size.saturating_mul(settings.accumulate));
        let mut gradients = GradientsAccumulator::new();
        for _ in 0..settings.accumulate {
            let before = Instant::now();
            let learners = &self.work.learners;
            let Some(parts) = batches.next_parts(learners.devices()).transpose()? else {
                break;
            };
            *loading += before.elapsed();
            let [_, channels, height, width] = parts[0].images.dims();
            let model = &self.training.model;
            let (output, of_batch) = learners.learn(model, parts, images, settings.objective())?;
            gradients.accumulate(model, of_batch);
            tally.add(&output);
            let logits = output.output.dims();
            self.lines
                .batch([logits[0], channels, height, width], logits);
            self.training.position.batches += 1;
            let item = TrainingItem::new(
                output,
                batches.progress(),
                Some(self.training.position.batches),
                Some(rate.into()),
            );
            self.processor
                .process_train(LearnerEvent::ProcessedItem(item))?;
        }
        self.training.step(settings, rate, gradients.grads());
        Ok(())
    }

    fn report(&mut self, epoch: usize, loss: f64) -> Result<()> {
        let Position {
            batches: batch,
            steps,
            ref epochs,
            ..
        } = self.training.position;
        let learning_rate = self.work.learning_rate(steps - 1, epochs);
        let images_per_second = self.lines.running(epoch, batch, loss);
        self.note(&Entry::Batches {
            epoch,
            batch,
            steps,
            loss,
            learning_rate,
            images_per_second,
        })
    }

    /// Counts the batches that were not counted yet. A loss that is no number ends the training
    /// here.
    fn read(&mut self, tally: &mut Tally) -> Result<()> {
        match tally.read() {
            Ok(counted) => {
                self.training.position.counted = counted;
                Ok(())
            }
            Err(error) => {
                let NotFinite { batches_ago, .. } = error;
                let position = &self.training.position;
                let accumulate = self.work.settings().accumulate;
                let step_of = |batch: usize| batch.div_ceil(accumulate) as u64;
                let batch = position.batches - batches_ago;
                let steps_ago = step_of(position.batches) - step_of(batch);
                Err(self.diverged(position.steps - steps_ago, error))
            }
        }
    }

    pub(crate) fn diverged(&self, step: u64, what: impl Display) -> Error {
        let epochs = &self.training.position.epochs;
        let rate = self.work.learning_rate(step.saturating_sub(1), epochs);
        let advice = match self.work.settings().precision {
            Precision::F16 => ", or --precision bf16 or f32, which have larger numbers",
            _ => "",
        };
        anyhow!(
            "training diverged in epoch {}, at step {step}, with learning rate {rate}: {what}; \
             try a smaller --learning-rate or --gradient-clip{advice}",
            epochs.len() + 1
        )
    }
}

/// The seed of one step: another for each, and none that is the run's own.
fn step_seed(seed: u64, step: u64) -> u64 {
    // SplitMix64's increment and finalizer; Steele, Lea and Flood (2014).
    let mut z = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
