//! Numerical comparison of devices: a short training from the same weights on each of them, compared stage
//! by stage with a reference.

use std::{fmt, slice};

use anyhow::{Context, Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::{TrainOutput, TrainStep};
use data::Augmentation;
use model::{ConvNet, Precision, TrainingBatch, gradients};
use tracing::debug;

use crate::config::presets;
use crate::config::run_config::{Config, OptimizerKind, TrainingConfig};
use crate::config::settings::Settings;
use crate::device::OpenDevice;
use crate::device::panics::catch_panic;
use crate::inference::evaluation::evaluate;
use crate::run::checkpoint::Checkpoint;
use crate::run::images::{self, DataSplit};
use crate::run::loaders::{evaluation_loader, training_loader};
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::state::Training;
use crate::training::step::{objective, update};
use crate::training::train::train;

/// Ten steps with every kind of layer and augmentation. No dropout: each backend has its own random numbers. No
/// saturation and hue: the images are gray.
///
/// The optimizer is SGD, whose steps have the relative error of the gradients. In a step of Adam, a small error of a
/// gradient near zero becomes an error of the size of the step.
const SETTINGS: &str = r#"
data.limit_train = 640
data.validation = 0.0
model.dropout = 0.0
model.dense = [32]
model.dense_activation = "silu"
model.logit_scale = 0.5
model.blocks = [
    { channels = 8, kernel = 2, padding = 0, whitening = true, activation = "gelu", pool = false },
    { channels = 8, kernel = 5, padding = 2, pool = true, norm = true },
    { residual = [
        { channels = 16, stride = 2, activation = "tanh" },
        { channels = 16, norm = true, norm_scale = true, bias = false, activation = "none" },
    ], activation = "relu", pool = "average", pool_size = 3, pool_stride = 2, pool_padding = 1 },
    { residual = [{ channels = 16, bias = false, activation = "silu", initialization = "dirac" }] },
    { channels = 32, bias = false, activation = "none", pool = "max", pool_size = 3, pool_stride = 2, pool_padding = 1 },
    { channels = 32, kernel = 1, padding = 0, pool = "global-average" },
    { channels = 32, kernel = 1, padding = 0, activation = "none", pool = "global-max" },
]
training.epochs = 1
training.batch_size = 64
training.optimizer = "sgd"
training.nesterov = true
training.learning_rate = 0.1
training.ema_decay = 0.5
training.label_smoothing = 0.1
training.gradient_clip = 0.05
augmentation.rotation = 10
augmentation.translation = 0.1
augmentation.scale = 0.1
augmentation.shear = 10
augmentation.elastic = 0.02
augmentation.erasing = 0.5
augmentation.flip = true
augmentation.crop = 3
augmentation.resized_crop = 0.5
augmentation.cutout = 6
augmentation.brightness = 0.3
augmentation.contrast = 0.3
augmentation.mixup = 0.2
augmentation.cutmix = 1.0
"#;

/// Number of test images evaluated.
const TEST_IMAGES: usize = 1000;

/// Factors on the gradients of the reference in successive steps of Adam, so that both of its moments have an effect.
const ADAM_STEPS: [f64; 3] = [1.0, -2.0, 0.5];
/// Learning rate of these steps.
const ADAM_RATE: f64 = 1e-3;

/// The stages, in the order of computation.
pub(crate) const STAGES: [Stage; 7] = [
    Stage::new("images", 2e-3, 2e-3),
    Stage::new("logits", 2e-3, 5e-2),
    Stage::new("loss", 2e-3, 1e-2),
    Stage::new("gradients", 1e-2, 2e-1),
    Stage::new("adam", 1e-3, 1e-3),
    Stage::new("ten steps", 1e-1, 5e-1),
    Stage::new("evaluation", 5e-2, 2e-1),
];

/// A stage of the training, and its tolerances for the relative error: the norm of the difference divided by
/// the norm of the reference, and the maximum over the tensors of the stage.
///
/// Some GPUs round the factors of a product to 11 bits, by 0.05% each; 16-bit results are rounded after each
/// layer, in `bf16` by up to 0.4%. Of optimizer steps, the tensors are the changes of the weights.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    tolerance_f32: f64,
    tolerance_16_bit: f64,
}

impl Stage {
    const fn new(name: &'static str, tolerance_f32: f64, tolerance_16_bit: f64) -> Self {
        Self {
            name,
            tolerance_f32,
            tolerance_16_bit,
        }
    }

    pub(crate) fn tolerance(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.tolerance_f32,
            Precision::Bf16 | Precision::F16 => self.tolerance_16_bit,
        }
    }
}

/// The tensors of each stage.
type StageTensors = [Vec<Vec<f32>>; STAGES.len()];

/// The training, and the results of the reference device.
pub(crate) struct DeviceCheck {
    training: CheckedTraining,
    reference: StageTensors,
}

/// The training that is compared.
#[derive(Clone)]
struct CheckedTraining {
    config: Config,
    images: DataSplit,
    start: Checkpoint,
    /// The weights of the network for evaluation at the start, computed by the reference device.
    evaluated_at_start: Vec<Vec<f32>>,
}

/// Relative errors of a device, for each of [`STAGES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RelativeErrors {
    precision: Precision,
    errors: [f64; STAGES.len()],
}

impl DeviceCheck {
    /// Computes the reference results.
    ///
    /// # Errors
    /// Returns an error if there are no images, or the device fails.
    pub(crate) fn new(reference: &OpenDevice) -> Result<Self> {
        let mut settings = Settings::preset(presets::DEFAULT)?;
        settings.overlay(SETTINGS.parse()?)?;
        let (config, images) = images::resolve(settings, PictureCache::No)?;
        let test = &images.split.test;
        let images = DataSplit {
            test: test.select(0..TEST_IMAGES.min(test.len())),
            ..images.split.clone()
        };
        let autodiff = reference.device.clone().autodiff();
        let start = Training::begin(&config, &images.train, &autodiff)?;
        let exact = with_exact_pixels(&config);
        let loader = training_loader(&exact, &images.train, slice::from_ref(&autodiff))?;
        let training = CheckedTraining {
            evaluated_at_start: weights(&start.evaluation_model(&exact, &loader)?)?,
            start: start.checkpoint(&config)?,
            config,
            images,
        };
        Ok(Self {
            reference: training.run(reference, None)?,
            training,
        })
    }

    /// Compares a device, computing in `precision`, with the reference in `f32`.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub(crate) fn compare(
        &self,
        device: &OpenDevice,
        precision: Precision,
    ) -> Result<RelativeErrors> {
        let mut training = self.training.clone();
        training.config.training.precision = precision;
        let tensors = catch_panic(|| training.run(device, Some(&self.reference)));
        let tensors = tensors.map_err(Error::msg).flatten()?;
        Ok(RelativeErrors::new(&self.reference, &tensors, precision))
    }
}

impl RelativeErrors {
    fn new(reference: &StageTensors, computed: &StageTensors, precision: Precision) -> Self {
        let errors = std::array::from_fn(|stage| {
            let tensors = reference[stage].iter().zip(&computed[stage]);
            let errors = tensors.map(|(reference, computed)| {
                let error = relative_error(reference, computed);
                debug!(
                    "{} of {} values: {error:.1e}",
                    STAGES[stage].name,
                    computed.len()
                );
                error
            });
            if reference[stage].len() != computed[stage].len() {
                return f64::INFINITY;
            }
            // Unlike `f64::max`, this keeps NaN.
            errors.fold(0.0, |max: f64, error| {
                if max.is_nan() || error <= max {
                    max
                } else {
                    error
                }
            })
        });
        Self { precision, errors }
    }

    /// Returns the first stage whose error exceeds its tolerance.
    pub(crate) fn exceeded(&self) -> Option<&'static str> {
        let mut stages = STAGES.iter().zip(self.errors);
        let exceeded = stages
            .find(|(stage, error)| *error > stage.tolerance(self.precision) || error.is_nan());
        exceeded.map(|(stage, _)| stage.name)
    }
}

impl fmt::Display for RelativeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (stage, error)) in STAGES.iter().zip(self.errors).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{} {error:.0e}", stage.name)?;
        }
        Ok(())
    }
}

/// Returns the norm of the difference divided by the norm of the reference.
fn relative_error(reference: &[f32], computed: &[f32]) -> f64 {
    if reference.len() != computed.len() {
        return f64::INFINITY;
    }
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let pairs = reference.iter().zip(computed);
    let difference = squares(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let norm = squares(&mut reference.iter().map(|&x| f64::from(x)));
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

impl CheckedTraining {
    /// Runs the training on a device, and returns the tensors of each stage.
    ///
    /// The training batch and the gradients of Adam's steps are those of `reference` if given: the smallest
    /// difference of a pixel can change the maximum of a pooling window, and with it the path of a gradient.
    fn run(&self, device: &OpenDevice, reference: Option<&StageTensors>) -> Result<StageTensors> {
        let Self { config, images, .. } = self;
        let autodiff = device.device.clone().autodiff();
        let Training { model, .. } = Training::resume(config, &autodiff, self.start.clone())?;
        let loader = training_loader(config, &images.train, slice::from_ref(&autodiff))?;
        let mut batch = loader.batches(1).next_batch().context("no images")??;
        let loaded = values(batch.images.clone())?;
        let pixels = reference.map(|[pixels, ..]| pixels[0].as_slice());
        if let Some(pixels) = pixels.filter(|pixels| pixels.len() == loaded.len()) {
            let pixels = TensorData::new(pixels.to_vec(), batch.images.dims());
            batch.images = Tensor::from_data(pixels, &autodiff);
        }
        let objective = objective(&config.training);
        let TrainOutput { item, grads } = TrainStep::step(
            &model,
            TrainingBatch {
                batch,
                objective,
                weight: 1.0,
            },
        );
        let gradients = gradients::per_parameter(grads, &model).into_iter();
        let gradients: Vec<Vec<f32>> = gradients.map(values).collect::<Result<_>>()?;
        let of_adam = reference.map_or(&gradients, |[_, _, _, gradients, ..]| gradients);
        let adam = adam_steps(config, model, of_adam, &device.device)?;

        let folder = tempfile::tempdir().context("a folder for the run")?;
        let run = RunDir::create(folder.path(), "device-check", None, "", |_| Ok(()))?;
        let trained = train(
            &with_exact_pixels(config),
            images,
            slice::from_ref(device),
            &run,
            Style::Details,
            Some(self.start.clone()),
        )?;
        let model = trained.model.context("ended before its first step")?;
        let loader = evaluation_loader(config, &images.test, &device.device)?;
        let evaluation = evaluate(&model, &loader, &config.images.classes, |_| Ok(()))?;
        Ok([
            vec![loaded],
            vec![values(item.output)?],
            vec![values(item.loss)?],
            gradients,
            adam,
            changes(&self.evaluated_at_start, &weights(&model)?),
            vec![
                vec![evaluation.loss as f32],
                vec![evaluation.accuracy as f32],
            ],
        ])
    }
}

/// Returns the changes of the weights in a few steps of Adam, with multiples of the given gradients.
fn adam_steps(
    config: &Config,
    model: ConvNet,
    gradients: &[Vec<f32>],
    device: &Device,
) -> Result<Vec<Vec<f32>>> {
    let before = weights(&model)?;
    let config = Config {
        training: TrainingConfig {
            optimizer: OptimizerKind::Adam,
            ..config.training.clone()
        },
        ..config.clone()
    };
    let mut training = Training::with_model(&config, model);
    let gradients = Tensor::<1>::from_floats(gradients.concat().as_slice(), device);
    for factor in ADAM_STEPS {
        let gradients = gradients.clone().mul_scalar(factor);
        let gradients = gradients::unflatten(gradients, &training.model);
        let steps = ADAM_STEPS.len() as u64;
        update(&mut training, &config.training, ADAM_RATE, steps, gradients);
    }
    Ok(changes(&before, &weights(&training.model)?))
}

/// Returns the configuration without the kinds of augmentation that compute new pixel values, which can differ by 1
/// of 255 between devices.
fn with_exact_pixels(config: &Config) -> Config {
    Config {
        augmentation: Augmentation {
            rotation: 0.0,
            translation: 0.0,
            scale: 0.0,
            shear: 0.0,
            elastic: 0.0,
            resized_crop: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            ..config.augmentation
        },
        ..config.clone()
    }
}

/// Reads the weights of a network from its device, parameter by parameter.
fn weights(model: &ConvNet) -> Result<Vec<Vec<f32>>> {
    model.parameters().into_iter().map(values).collect()
}

/// Returns the changes of weights, parameter by parameter.
fn changes(before: &[Vec<f32>], after: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let pairs = before.iter().zip(after);
    let change = |(before, after): (&Vec<f32>, &Vec<f32>)| {
        let pairs = before.iter().zip(after);
        pairs.map(|(before, after)| after - before).collect()
    };
    pairs.map(change).collect()
}

/// Reads the values of a tensor from its device.
fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data()?;
    Ok(data.iter::<f32>().collect())
}

#[cfg(test)]
mod tests {
    use data::{Normalization, PerChannel, Scaling};

    use super::*;
    use crate::device::{self, Request};

    #[test]
    fn detects_other_settings() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let check = DeviceCheck::new(&device).unwrap();
        let same = check.compare(&device, Precision::F32).unwrap();
        assert_eq!((same.errors, same.exceeded()), ([0.0; STAGES.len()], None));

        type Change = fn(&mut Config);
        let errors = |change: Change| {
            let mut training = check.training.clone();
            change(&mut training.config);
            let reference = check.reference.clone();
            let other = DeviceCheck {
                training,
                reference,
            };
            other.compare(&device, Precision::F32).unwrap()
        };
        let changes: [(Change, &str); 7] = [
            (|config| config.augmentation.shear = 11.0, "images"),
            (|config| config.training.label_smoothing = 0.2, "gradients"),
            (|config| config.training.beta1 = 0.89, "adam"),
            (|config| config.training.gradient_clip = None, "adam"),
            (|config| config.training.learning_rate *= 1.2, "ten steps"),
            (|config| config.training.momentum = 0.8, "ten steps"),
            (|config| config.training.ema_decay = 0.0, "ten steps"),
        ];
        for (change, stage) in changes {
            let errors = errors(change);
            assert_eq!(errors.exceeded(), Some(stage), "{errors}");
        }
    }

    #[test]
    fn errors_of_rounding_are_below_a_fifth_of_the_tolerances() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let check = DeviceCheck::new(&device).unwrap();
        for difference in [1e-6, 1e-5] {
            let mut training = check.training.clone();
            let Scaling { mean, std } = training.config.scaling();
            let std = PerChannel::Same(std.of(0) * (1.0 + difference));
            let normalization = Normalization::Custom(Scaling { mean, std });
            training.config.data.normalization = normalization;
            let computed = training.run(&device, Some(&check.reference)).unwrap();
            let errors = RelativeErrors::new(&check.reference, &computed, Precision::F32);
            for (stage, error) in STAGES.iter().zip(errors.errors) {
                assert!(5.0 * error < stage.tolerance_f32, "{errors}");
            }
        }
    }

    #[test]
    fn rejects_values_that_are_not_finite_or_missing() {
        let precision = Precision::F32;
        let errors = [0.0; STAGES.len()];
        let mut errors = RelativeErrors { precision, errors };
        assert_eq!(errors.exceeded(), None);
        errors.errors[3] = f64::NAN;
        assert_eq!(errors.exceeded(), Some("gradients"));
        let tensors = |gradients: &[f32]| -> StageTensors {
            let gradients = gradients.iter().map(|&gradient| vec![gradient]).collect();
            [vec![], vec![], vec![], gradients, vec![], vec![], vec![]]
        };
        let reference = tensors(&[1.0, 2.0, 3.0]);
        for (computed, stage) in [
            (tensors(&[1.0, 2.0, 3.0]), None),
            (tensors(&[1.0, f32::NAN, 3.0]), Some("gradients")),
            (tensors(&[1.0, 2.0]), Some("gradients")),
        ] {
            let errors = RelativeErrors::new(&reference, &computed, precision);
            assert_eq!(errors.exceeded(), stage);
        }
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 9.0]), 1.0);
        assert_eq!(relative_error(&[1.0], &[]), f64::INFINITY);
    }
}
