//! Whether devices compute the same: one short training, stage by stage, from the same weights.

use std::fmt;
use std::slice;

use anyhow::{Context, Error, Result};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

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

/// What is compared, in this order, and how far a device may be from the reference: the norm of the
/// difference over that of the reference, and the largest of these where a stage has several tensors.
///
/// Some GPUs multiply numbers that they round to 11 bits first, 0.05% each. Ten steps of Adam turn the
/// smallest differences of gradients near zero into whole steps.
pub(crate) const STAGES: [(&str, f64); 6] = [
    ("images", 2e-3),
    ("logits", 2e-3),
    ("loss", 2e-3),
    ("gradients", 1e-2),
    ("ten steps", 5e-2),
    ("evaluation", 5e-2),
];

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
pub(crate) struct Distances(pub(crate) [f64; STAGES.len()]);

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

    /// How far another device is from the reference.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn distances(&self, found: &Found) -> Result<Distances> {
        let Self {
            config,
            parts,
            start,
            ..
        } = self;
        let images = self.reference[0][0].as_slice();
        let outcome = quietly(|| outcome(config, parts, start, found, Some(images)));
        let outcome = outcome.map_err(Error::msg).flatten()?;
        Ok(Distances::of(&self.reference, &outcome))
    }
}

impl Distances {
    fn of(reference: &Outcome, found: &Outcome) -> Self {
        Self(std::array::from_fn(|stage| {
            let tensors = reference[stage].iter().zip(&found[stage]);
            let distances = tensors.map(|(reference, found)| {
                let distance = distance(reference, found);
                debug!(
                    "{} of {} numbers: {distance:.1e}",
                    STAGES[stage].0,
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
        }))
    }

    /// The first stage that is too far from the reference.
    pub(crate) fn exceeded(&self) -> Option<&'static str> {
        let mut stages = STAGES.iter().zip(self.0);
        let found =
            stages.find(|((_, tolerance), distance)| distance > tolerance || distance.is_nan());
        found.map(|((stage, _), _)| *stage)
    }
}

impl fmt::Display for Distances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((stage, _), distance)) in STAGES.iter().zip(self.0).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{stage} {distance:.0e}")?;
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
    let output = model.forward_classification(batch, config.training.label_smoothing);
    let mut gradients = Gradients {
        gradients: GradientsParams::from_grads(output.loss.backward(), &model),
        found: Ok(Vec::new()),
    };
    model.visit(&mut gradients);

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
    let mut weights = Weights(Ok(Vec::new()));
    trained.visit(&mut weights);
    let loader = evaluation_loader(config, &parts.test, device);
    let judged = evaluate(&trained, &loader, &config.images.classes, |_, _| Ok(()))?;
    Ok([
        vec![gathered],
        vec![numbers(output.output)?],
        vec![numbers(output.loss)?],
        gradients.found?,
        weights.0?,
        vec![vec![judged.loss as f32], vec![judged.accuracy as f32]],
    ])
}

/// The numbers of a tensor, read back from its device.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data()?;
    Ok(data.iter::<f32>().collect())
}

/// Reads back the gradient of each parameter.
struct Gradients {
    gradients: GradientsParams,
    found: Result<Vec<Vec<f32>>>,
}

impl ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Ok(found), Some(gradient)) = (&mut self.found, self.gradients.get::<D>(param.id)) {
            match numbers(gradient) {
                Ok(gradient) => found.push(gradient),
                Err(error) => self.found = Err(error),
            }
        }
    }
}

/// Reads back each parameter.
struct Weights(Result<Vec<Vec<f32>>>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Ok(found) = &mut self.0 {
            match numbers(param.val()) {
                Ok(weights) => found.push(weights),
                Err(error) => self.0 = Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, Request};

    #[test]
    fn what_is_another_network_is_found_out() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let parity = Parity::with(&device).unwrap();
        let same = parity.distances(&device).unwrap();
        assert_eq!((same, same.exceeded()), (Distances([0.0; 6]), None));

        let mut other = Parity {
            config: parity.config.clone(),
            ..parity
        };
        other.config.training.learning_rate *= 1.5;
        let found = other.distances(&device).unwrap();
        assert_eq!(found.exceeded(), Some("ten steps"), "{found}");
        other.config.augmentation.shear = 11.0;
        let found = other.distances(&device).unwrap();
        assert_eq!(found.exceeded(), Some("images"), "{found}");
    }

    #[test]
    fn what_is_no_number_is_too_far() {
        let mut distances = Distances([0.0; 6]);
        assert_eq!(distances.exceeded(), None);
        distances.0[3] = f64::NAN;
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
            assert_eq!(Distances::of(&reference, &found).exceeded(), stage);
        }
        assert_eq!(distance(&[3.0, 4.0], &[3.0, 9.0]), 1.0);
        assert_eq!(distance(&[1.0], &[]), f64::INFINITY);
    }
}
