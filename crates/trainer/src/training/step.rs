//! The optimizer step. All training goes through [`mean_gradients`] and [`update`].

use std::slice;
use std::time::{Duration, Instant};

use anyhow::Result;
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn::train::{ClassificationOutput, TrainOutput, TrainStep};
use data::{Batch, Batches};
use model::{ConvNet, Objective, TrainingBatch, gradients};

use crate::config::run_config::TrainingConfig;
use crate::device::OpenDevice;
use crate::training::data_parallel::DataParallel;
use crate::training::state::Training;

/// The devices that compute the gradients.
pub(crate) enum TrainingDevices {
    /// One device, with autodiff.
    One(Device),
    /// Several devices, each with a part of every batch.
    Several(DataParallel),
}

/// One batch of a step.
pub(crate) struct BatchOutput {
    /// Mean loss, logits and targets.
    pub(crate) output: ClassificationOutput,
    /// Shape of the images, `[N, C, H, W]`.
    pub(crate) images: [usize; 4],
    /// Fraction of the step's images that are in this batch.
    pub(crate) weight: f64,
    /// Images of the pass so far.
    pub(crate) progress: Progress,
    /// Time spent on preparing the batch.
    pub(crate) loading: Duration,
}

impl TrainingDevices {
    /// Prepares devices to train `model`.
    ///
    /// # Panics
    /// Panics if there is no device.
    pub(crate) fn new(devices: &[OpenDevice], model: &ConvNet) -> Self {
        match devices {
            [one] => Self::One(one.device.clone().autodiff()),
            several => Self::Several(DataParallel::new(several, model)),
        }
    }

    /// Returns the devices, with autodiff.
    pub(crate) fn all(&self) -> &[Device] {
        match self {
            Self::One(device) => slice::from_ref(device),
            Self::Several(parallel) => parallel.devices(),
        }
    }

    /// Seeds the random number generators. Dropout draws from them.
    fn seed(&self, seed: u64) {
        for (device, number) in self.all().iter().zip(0..) {
            device.seed(seed.wrapping_add(number));
        }
    }
}

/// Computes the mean gradients of the next `accumulate` batches of a pass; `observe` sees each batch.
///
/// # Errors
/// Returns an error if a batch cannot be read, a device fails, or `observe` fails.
pub(crate) fn mean_gradients(
    devices: &TrainingDevices,
    training: &Training,
    settings: &TrainingConfig,
    batches: &mut Batches<'_>,
    mut observe: impl FnMut(BatchOutput) -> Result<()>,
) -> Result<GradientsParams> {
    let model = &training.model;
    let objective = objective(settings);
    // Dropout depends on the seed and the step alone, so a resumed training draws the same numbers.
    devices.seed(step_seed(settings.seed, training.position.steps));
    // Each batch counts by its images: the last one of an epoch may have fewer or more.
    let images_of_step = batches.images_in_next(settings.accumulate);

    let mut sum = GradientsAccumulator::new();
    for _ in 0..settings.accumulate {
        let before = Instant::now();
        let Some(parts) = batches.next_shards(devices.all()).transpose()? else {
            break;
        };
        let loading = before.elapsed();
        let [_, channels, height, width] = parts[0].images.dims();
        let parts = parts.into_iter().map(|batch| TrainingBatch {
            weight: num_images(&batch) as f64 / images_of_step as f64,
            batch,
            objective,
        });
        let mut parts: Vec<TrainingBatch> = parts.collect();
        let weight = parts.iter().map(|part| part.weight).sum();
        let (output, gradients) = match devices {
            TrainingDevices::One(_) => {
                let TrainOutput { item, grads } = TrainStep::step(model, parts.remove(0));
                (item, grads)
            }
            TrainingDevices::Several(parallel) => parallel.step(model, parts)?,
        };
        sum.accumulate(model, gradients);
        observe(BatchOutput {
            images: [output.output.dims()[0], channels, height, width],
            output,
            weight,
            progress: batches.progress(),
            loading,
        })?;
    }
    Ok(sum.grads())
}

/// Updates the weights with the gradients of a step, clipped first, and then their moving average.
pub(crate) fn update(
    training: &mut Training,
    settings: &TrainingConfig,
    learning_rate: f64,
    gradients: GradientsParams,
) {
    let gradients = match settings.gradient_clip {
        None => gradients,
        Some(limit) => gradients::clip_norm(gradients, &training.model, limit),
    };
    let model = training.model.clone();
    training.model = training.optimizer.step(learning_rate, model, gradients);
    training.position.steps += 1;
    training.update_average(settings.ema_decay);
}

/// Returns the training objective that the settings describe.
pub(crate) fn objective(settings: &TrainingConfig) -> Objective {
    Objective {
        label_smoothing: settings.label_smoothing,
        precision: settings.precision,
    }
}

fn num_images(batch: &Batch) -> usize {
    batch.targets.dims()[0]
}

/// Returns the seed of one step, different for each step and from the seed of the run.
fn step_seed(seed: u64, step: u64) -> u64 {
    // SplitMix64's increment and finalizer; Steele, Lea and Flood (2014).
    let mut z = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::device::{self, Request};
    use crate::run::images;
    use crate::run::loaders::training_loader;
    use crate::run::picture_cache::PictureCache;

    #[test]
    fn weights_of_the_batches_of_a_step_sum_up_to_1() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let mut settings = Settings::preset("tiny").unwrap();
        let table = "data.limit_train = 257\ndata.validation = 0.0\ntraining.accumulate = 2\n\
                     model.blocks = [{ channels = 2, norm = true }]";
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, images) = images::resolve(settings, PictureCache::No).unwrap();
        let devices = TrainingDevices::One(device.device.clone().autodiff());
        let training = Training::begin(&config, &devices.all()[0]).unwrap();
        let loader = training_loader(&config, &images.split.train, devices.all()).unwrap();
        let mut batches = loader.batches(1);
        for expected in [[64, 64], [64, 65]] {
            let (mut sizes, mut weight) = (Vec::new(), 0.0);
            let settings = &config.training;
            let step = mean_gradients(&devices, &training, settings, &mut batches, |batch| {
                sizes.push(batch.images[0]);
                weight += batch.weight;
                Ok(())
            });
            step.unwrap();
            assert_eq!(sizes, expected);
            assert!((weight - 1.0).abs() < 1e-12, "{weight}");
        }
    }
}
