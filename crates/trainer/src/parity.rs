//! Whether devices compute the same: one short training, stage by stage, from the same weights.

use std::fmt;
use std::slice;

use anyhow::{Context, Error, Result};
use burn::tensor::{Tensor, TensorData};
use burn::train::{TrainOutput, TrainStep};
use model::{Precision, TrainingBatch, gradients};
use tracing::debug;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::device::Found;
use crate::evaluation::evaluate;
use crate::images::Kept;
use crate::panics::quietly;
use crate::presets;
use crate::progress::Style;
use crate::run_dir::RunDir;
use crate::settings::Settings;
use crate::training::{Parts, Training, evaluation_loader, train, training_loader};

/// Every kind of layer and change of images, and ten steps. No dropout: each backend has random numbers
/// of its own.
const SETTINGS: &str = r#"
data.limit_train = 640
data.validation = 0.0
model.dropout = 0.0
model.dense = [32]
model.blocks = [
    { channels = 8, kernel = 5, padding = 2, pool = true, norm = true },
    { channels = 16, kernel = 3, padding = 1, pool = false },
    { channels = 16, kernel = 3, padding = 0, pool = true },
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
"#;

/// Test images that the trained network is judged on.
const JUDGED: usize = 1000;

/// What is compared, in this order.
pub(crate) const STAGES: [Stage; 6] = [
    Stage::new("images", 2e-3, 2e-3),
    Stage::new("logits", 2e-3, 5e-2),
    Stage::new("loss", 2e-3, 1e-2),
    Stage::new("gradients", 1e-2, 2e-1),
    Stage::new("ten steps", 5e-2, 2e-1),
    Stage::new("evaluation", 5e-2, 2e-1),
];

/// A part of a training, and how far a device may be from the reference there: the norm of the difference over
/// that of the reference, and the largest of these where a stage has several tensors.
///
/// Some GPUs multiply numbers that they round to 11 bits first, 0.05% each; 16 bits are rounded after each layer,
/// `bf16` by up to 0.4%. Ten steps of Adam turn the smallest differences of gradients near zero into whole steps.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    in_32_bits: f64,
    in_16_bits: f64,
}

impl Stage {
    const fn new(name: &'static str, in_32_bits: f64, in_16_bits: f64) -> Self {
        Self {
            name,
            in_32_bits,
            in_16_bits,
        }
    }

    pub(crate) fn tolerance(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => self.in_32_bits,
            Precision::Bf16 | Precision::F16 => self.in_16_bits,
        }
    }
}

/// What a device computed: the tensors of each stage.
type Outcome = [Vec<Vec<f32>>; STAGES.len()];

/// The training that is done on each device, and what came of it on the first.
pub(crate) struct Parity {
    config: Config,
    parts: Parts,
    start: Checkpoint,
    reference: Outcome,
}

/// How far a device is from the reference, for each of [`STAGES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Distances {
    precision: Precision,
    found: [f64; STAGES.len()],
}

impl Parity {
    /// Computes the reference.
    ///
    /// # Errors
    /// When there are no images, or the device fails.
    pub(crate) fn with(reference: &Found) -> Result<Self> {
        let mut settings = Settings::preset(presets::DEFAULT)?;
        settings.overlay(SETTINGS.parse()?)?;
        let (config, splits) = settings.resolve(Kept::No)?;
        let (train, validation) = config.data.divide(&splits.train, config.training.seed)?;
        let parts = Parts {
            train,
            validation,
            test: splits.test.select(0..JUDGED.min(splits.test.len())),
        };
        let start =
            Training::begin(&config, &reference.device.clone().autodiff())?.checkpoint(&config)?;
        let reference = outcome(&config, &parts, &start, reference, None)?;
        Ok(Self {
            config,
            parts,
            start,
            reference,
        })
    }

    /// How far a device that computes in a precision is from the reference, which is of 32 bits.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn distances(&self, found: &Found, precision: Precision) -> Result<Distances> {
        let Self {
            config,
            parts,
            start,
            reference,
        } = self;
        let mut config = config.clone();
        config.training.precision = precision;
        let images = reference[0][0].as_slice();
        let outcome = quietly(|| outcome(&config, parts, start, found, Some(images)));
        let outcome = outcome.map_err(Error::msg).flatten()?;
        Ok(Distances::of(reference, &outcome, precision))
    }
}

impl Distances {
    fn of(reference: &Outcome, found: &Outcome, precision: Precision) -> Self {
        let found = std::array::from_fn(|stage| {
            let tensors = reference[stage].iter().zip(&found[stage]);
            let distances = tensors.map(|(reference, found)| {
                let distance = distance(reference, found);
                debug!(
                    "{} of {} numbers: {distance:.1e}",
                    STAGES[stage].name,
                    found.len()
                );
                distance
            });
            // Not `f64::max`, for which NaN is less than all.
            if reference[stage].len() != found[stage].len() {
                return f64::INFINITY;
            }
            distances.fold(0.0, |most: f64, distance| {
                if most.is_nan() || distance <= most {
                    most
                } else {
                    distance
                }
            })
        });
        Self { precision, found }
    }

    /// The first stage that is too far from the reference.
    pub(crate) fn exceeded(&self) -> Option<&'static str> {
        let mut stages = STAGES.iter().zip(self.found);
        let exceeded = stages.find(|(stage, distance)| {
            *distance > stage.tolerance(self.precision) || distance.is_nan()
        });
        exceeded.map(|(stage, _)| stage.name)
    }
}

impl fmt::Display for Distances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (stage, distance)) in STAGES.iter().zip(self.found).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{} {distance:.0e}", stage.name)?;
        }
        Ok(())
    }
}

/// The norm of the difference over that of the reference.
fn distance(reference: &[f32], found: &[f32]) -> f64 {
    if reference.len() != found.len() {
        return f64::INFINITY;
    }
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let pairs = reference.iter().zip(found);
    let difference = squares(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let whole = squares(&mut reference.iter().map(|&x| f64::from(x)));
    (difference / whole.max(f64::MIN_POSITIVE)).sqrt()
}

/// What a device computes; from these images, if any are given: the slightest difference may let another
/// pixel of a pooling window win, and its gradient go another way.
fn outcome(
    config: &Config,
    parts: &Parts,
    start: &Checkpoint,
    found: &Found,
    images: Option<&[f32]>,
) -> Result<Outcome> {
    let device = &found.device;
    let autodiff = device.clone().autodiff();
    let Training { model, .. } = Training::resume(config, &autodiff, start.clone())?;
    let loader = training_loader(config, &parts.train, slice::from_ref(&autodiff));
    let mut batch = loader.pass(1).next().context("no images")??;
    let gathered = numbers(batch.images.clone())?;
    if let Some(images) = images.filter(|images| images.len() == gathered.len()) {
        let images = TensorData::new(images.to_vec(), batch.images.dims());
        batch.images = Tensor::from_data(images, &autodiff);
    }
    let batch = TrainingBatch {
        batch,
        objective: config.training.objective(),
        weight: 1.0,
    };
    let TrainOutput { grads, item } = TrainStep::step(&model, batch);
    let gradients = gradients::per_parameter(grads, &model).into_iter();
    let gradients = gradients.map(numbers).collect::<Result<_>>()?;

    let folder = tempfile::tempdir().context("a folder for the run")?;
    let run = RunDir::create(folder.path(), "parity", None, "", |_| Ok(()))?;
    let trained = train(
        config,
        parts,
        slice::from_ref(found),
        &run,
        Style::Details,
        Some(start.clone()),
    )?;
    let trained = trained.model.context("ended before its first step")?;
    let weights = trained.parameters().into_iter();
    let weights = weights.map(numbers).collect::<Result<_>>()?;
    let loader = evaluation_loader(config, &parts.test, device);
    let judged = evaluate(&trained, &loader, &config.images.classes, |_, _| Ok(()))?;
    Ok([
        vec![gathered],
        vec![numbers(item.output)?],
        vec![numbers(item.loss)?],
        gradients,
        weights,
        vec![vec![judged.loss as f32], vec![judged.accuracy as f32]],
    ])
}

/// The numbers of a tensor, read back from its device.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data()?;
    Ok(data.iter::<f32>().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, Request};

    #[test]
    fn what_is_another_network_is_found_out() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let parity = Parity::with(&device).unwrap();
        let same = parity.distances(&device, Precision::F32).unwrap();
        assert_eq!((same.found, same.exceeded()), ([0.0; 6], None));

        let mut other = Parity {
            config: parity.config.clone(),
            ..parity
        };
        other.config.training.learning_rate *= 1.5;
        let found = other.distances(&device, Precision::F32).unwrap();
        assert_eq!(found.exceeded(), Some("ten steps"), "{found}");
        other.config.augmentation.shear = 11.0;
        let found = other.distances(&device, Precision::F32).unwrap();
        assert_eq!(found.exceeded(), Some("images"), "{found}");
    }

    #[test]
    fn what_is_no_number_is_too_far() {
        let precision = Precision::F32;
        let found = [0.0; 6];
        let mut distances = Distances { precision, found };
        assert_eq!(distances.exceeded(), None);
        distances.found[3] = f64::NAN;
        assert_eq!(distances.exceeded(), Some("gradients"));
        let outcome = |gradients: &[f32]| -> Outcome {
            let gradients = gradients.iter().map(|&gradient| vec![gradient]).collect();
            [vec![], vec![], vec![], gradients, vec![], vec![]]
        };
        let reference = outcome(&[1.0, 2.0, 3.0]);
        for (found, stage) in [
            (outcome(&[1.0, 2.0, 3.0]), None),
            (outcome(&[1.0, f32::NAN, 3.0]), Some("gradients")),
            (outcome(&[1.0, 2.0]), Some("gradients")),
        ] {
            let distances = Distances::of(&reference, &found, precision);
            assert_eq!(distances.exceeded(), stage);
        }
        assert_eq!(distance(&[3.0, 4.0], &[3.0, 9.0]), 1.0);
        assert_eq!(distance(&[1.0], &[]), f64::INFINITY);
    }
}
