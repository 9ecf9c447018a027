//! Numerical comparison of devices: a short training from the same weights on each of them, compared stage
//! by stage with a reference.

use std::{fmt, slice};

use anyhow::{Context, Error, Result};
use burn::tensor::{Tensor, TensorData};
use burn::train::{TrainOutput, TrainStep};
use model::{Precision, TrainingBatch, gradients};
use tracing::debug;

use crate::config::presets;
use crate::config::run_config::Config;
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
use crate::training::step::objective;
use crate::training::train::train;

/// Ten steps with every kind of layer and augmentation. No dropout: each backend has its own random numbers. No
/// saturation and hue: the images are gray.
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
training.ema_decay = 0.5
training.label_smoothing = 0.1
training.gradient_clip = 1.0
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

/// The stages, in the order of computation.
pub(crate) const STAGES: [Stage; 6] = [
    Stage::new("images", 2e-3, 2e-3),
    Stage::new("logits", 2e-3, 5e-2),
    Stage::new("loss", 2e-3, 1e-2),
    Stage::new("gradients", 1e-2, 2e-1),
    Stage::new("ten steps", 5e-2, 2e-1),
    Stage::new("evaluation", 5e-2, 2e-1),
];

/// A stage of the training, and its tolerances for the relative error: the norm of the difference divided by
/// the norm of the reference, and the maximum over the tensors of the stage.
///
/// Some GPUs round the factors of a product to 11 bits, by 0.05% each; 16-bit results are rounded after each
/// layer, in `bf16` by up to 0.4%. In ten steps of Adam, small errors of gradients near zero become whole
/// steps.
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
    config: Config,
    images: DataSplit,
    start: Checkpoint,
    reference: StageTensors,
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
        let start = Training::begin(&config, &images.train, &reference.device.clone().autodiff())?
            .checkpoint(&config)?;
        let reference = run_stages(&config, &images, &start, reference, None)?;
        Ok(Self {
            config,
            images,
            start,
            reference,
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
        let Self {
            config,
            images,
            start,
            reference,
        } = self;
        let mut config = config.clone();
        config.training.precision = precision;
        let pixels = reference[0][0].as_slice();
        let tensors = catch_panic(|| run_stages(&config, images, start, device, Some(pixels)));
        let tensors = tensors.map_err(Error::msg).flatten()?;
        Ok(RelativeErrors::new(reference, &tensors, precision))
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

/// Runs the training on a device, and returns the tensors of each stage.
///
/// The training batch is replaced by `pixels` if given: the smallest difference of a pixel can change the
/// maximum of a pooling window, and with it the path of a gradient.
fn run_stages(
    config: &Config,
    images: &DataSplit,
    start: &Checkpoint,
    device: &OpenDevice,
    pixels: Option<&[f32]>,
) -> Result<StageTensors> {
    let autodiff = device.device.clone().autodiff();
    let Training { model, .. } = Training::resume(config, &autodiff, start.clone())?;
    let loader = training_loader(config, &images.train, slice::from_ref(&autodiff))?;
    let mut batch = loader.batches(1).next_batch().context("no images")??;
    let loaded = values(batch.images.clone())?;
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
    let gradients = gradients.map(values).collect::<Result<_>>()?;

    let folder = tempfile::tempdir().context("a folder for the run")?;
    let run = RunDir::create(folder.path(), "device-check", None, "", |_| Ok(()))?;
    let trained = train(
        config,
        images,
        slice::from_ref(device),
        &run,
        Style::Details,
        Some(start.clone()),
    )?;
    let model = trained.model.context("ended before its first step")?;
    let weights = model.parameters().into_iter();
    let weights = weights.map(values).collect::<Result<_>>()?;
    let loader = evaluation_loader(config, &images.test, &device.device)?;
    let evaluation = evaluate(&model, &loader, &config.images.classes, |_| Ok(()))?;
    Ok([
        vec![loaded],
        vec![values(item.output)?],
        vec![values(item.loss)?],
        gradients,
        weights,
        vec![
            vec![evaluation.loss as f32],
            vec![evaluation.accuracy as f32],
        ],
    ])
}

/// Reads the values of a tensor from its device.
fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data()?;
    Ok(data.iter::<f32>().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, Request};

    #[test]
    fn detects_other_settings() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let check = DeviceCheck::new(&device).unwrap();
        let same = check.compare(&device, Precision::F32).unwrap();
        assert_eq!((same.errors, same.exceeded()), ([0.0; 6], None));

        let mut other = DeviceCheck {
            config: check.config.clone(),
            ..check
        };
        other.config.training.learning_rate *= 1.5;
        let errors = other.compare(&device, Precision::F32).unwrap();
        assert_eq!(errors.exceeded(), Some("ten steps"), "{errors}");
        other.config.augmentation.shear = 11.0;
        let errors = other.compare(&device, Precision::F32).unwrap();
        assert_eq!(errors.exceeded(), Some("images"), "{errors}");
    }

    #[test]
    fn rejects_values_that_are_not_finite_or_missing() {
        let precision = Precision::F32;
        let errors = [0.0; 6];
        let mut errors = RelativeErrors { precision, errors };
        assert_eq!(errors.exceeded(), None);
        errors.errors[3] = f64::NAN;
        assert_eq!(errors.exceeded(), Some("gradients"));
        let tensors = |gradients: &[f32]| -> StageTensors {
            let gradients = gradients.iter().map(|&gradient| vec![gradient]).collect();
            [vec![], vec![], vec![], gradients, vec![], vec![]]
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
