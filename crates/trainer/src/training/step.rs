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
            model::seed(device, seed.wrapping_add(number));
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
            objective: objective.clone(),
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

/// Updates the weights with the gradients of a step, clipped first, and then their average. The training has
/// `steps_total` steps.
pub(crate) fn update(
    training: &mut Training,
    settings: &TrainingConfig,
    learning_rate: f64,
    steps_total: u64,
    gradients: GradientsParams,
) {
    let trains_whitening_bias = settings
        .whitening_bias_epochs
        .is_none_or(|epochs| training.position.epochs.len() < epochs);
    let gradients = gradients::without_frozen(
        gradients,
        &training.model,
        trains_whitening_bias,
        settings.freeze,
    );
    let gradients = match settings.gradient_clip {
        None => gradients,
        Some(limit) => gradients::clip_norm(gradients, &training.model, limit),
    };
    let model = training.model.clone();
    training.model = training.optimizer.step(learning_rate, model, gradients);
    training.position.steps += 1;
    training.update_average(settings, steps_total);
}

/// Returns the training objective that the settings describe.
pub(crate) fn objective(settings: &TrainingConfig) -> Objective {
    Objective {
        label_smoothing: settings.label_smoothing,
        class_weights: settings.class_weights.as_ref().map(|weights| {
            let weights = weights.iter().map(|&weight| weight as f32);
            weights.collect()
        }),
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
    use burn::module::Module;
    use burn::tensor::Tensor;
    use model::cross_entropy;

    use super::*;
    use crate::config::settings::Settings;
    use crate::device::{self, Request};
    use crate::run::images;
    use crate::run::loaders::training_loader;
    use crate::run::picture_cache::PictureCache;
    use crate::training::schedule::learning_rate;

    #[test]
    fn weights_of_the_batches_of_a_step_sum_up_to_1() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let mut settings = Settings::preset("tiny").unwrap();
        let table = "data.limit_train = 257\ndata.validation = 0.0\ntraining.accumulate = 2\n\
                     model.blocks = [{ channels = 2, norm = true }]";
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, images) = images::resolve(settings, PictureCache::No).unwrap();
        let devices = TrainingDevices::One(device.device.clone().autodiff());
        let training = Training::begin(&config, &images.split.train, &devices.all()[0]).unwrap();
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

    /// Trains a small network for 12 steps on a batch of 6 images, and returns every eighth parameter of the
    /// result.
    fn every_eighth_parameter(settings: &str) -> Vec<f32> {
        let waves = |count: usize, scale: f64, phase: f64| -> Vec<f32> {
            let wave = |at| (scale * (1.7 * at as f64 + phase).sin()) as f32;
            (0..count).map(wave).collect()
        };
        let table = format!(
            "training.momentum = 0.85\ntraining.nesterov = true\n\
             training.weight_decay = 0.01\ntraining.bias_factor = 8\ntraining.head_factor = 0.5\n\
             training.schedule = \"linear\"\nmodel.dense = []\n\
             model.blocks = [{{ channels = 3 }}, {{ channels = 4 }}]\n{settings}"
        );
        let images = "name = 'waves'\nclasses = ['a', 'b', 'c']\nchannels = 1\nheight = 8\nwidth = 8\n\
                      mean = 0.5\nstd = 0.5\npreparation = 'picture'";
        let images: toml::Table = images.parse().unwrap();
        let mut settings = Settings::preset("convnet").unwrap();
        settings.overlay(table.parse().unwrap()).unwrap();
        let config = settings.into_config(&images.try_into().unwrap()).unwrap();

        let device = Device::default().autodiff();
        let model = config.model.init(&device).unwrap();
        let parameters = waves(model.num_params(), 0.3, 0.0);
        let model = model.with_flat_parameters(Tensor::from_floats(parameters.as_slice(), &device));
        let mut training = Training::with_model(&config, model);
        let pixels = Tensor::<1>::from_floats(waves(6 * 64, 1.0, 0.5).as_slice(), &device);
        let images = pixels.reshape([6, 1, 8, 8]);
        for step in 0..12 {
            let targets = Tensor::from_ints([0, 1, 2, 0, 1, 2], &device);
            let logits = training.model.forward(images.clone());
            let loss = cross_entropy(logits, targets, 0.2);
            let gradients = GradientsParams::from_grads(loss.backward(), &training.model);
            let settings = &config.training;
            let rate = learning_rate(settings, step, 12, &[]);
            update(&mut training, settings, rate, 12, gradients);
        }
        let model = training.average.unwrap_or_else(|| training.model.valid());
        let parameters: Vec<f32> = model.flatten_parameters().into_data().try_to_vec().unwrap();
        parameters.into_iter().step_by(8).collect()
    }

    #[test]
    fn optimizers_match_pytorch() {
        // Printed by tests/cifar/optimizers.py.
        let sgd = [
            0.04649, 0.41500, 0.29298, -0.02665, -0.36176, -0.27815, -0.01484, 0.27970, 0.39579,
            0.05735, -0.18483, -0.27997, -0.04684, 0.21738, 0.26702, 0.07485, -0.23071, -0.26162,
            -0.00579, 0.25572, 0.28346, 0.08122, -0.19668, -0.29382, -0.03697,
        ];
        let muon = [
            0.06747, 0.35053, 0.25514, 0.02278, -0.27432, -0.30908, -0.02546, 0.25453, 0.31655,
            0.04933, -0.22126, -0.29599, -0.03897, 0.21819, 0.25812, 0.08767, -0.23773, -0.26636,
            -0.04439, 0.23138, 0.28082, 0.08314, -0.20134, -0.29974, -0.03412,
        ];
        for (settings, expected) in [
            (
                "training.optimizer = \"sgd\"\ntraining.learning_rate = 0.2\ntraining.lookahead = 5",
                sgd,
            ),
            (
                "training.optimizer = \"muon\"\ntraining.learning_rate = 0.05",
                muon,
            ),
        ] {
            let parameters = every_eighth_parameter(settings);
            assert_eq!(parameters.len(), expected.len());
            for (found, expected) in parameters.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{settings}: {parameters:?}"
                );
            }
        }
    }
}
