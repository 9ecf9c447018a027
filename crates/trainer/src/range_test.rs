//! The learning rate range test: a training whose learning rate grows with each step, until its loss
//! does too. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).

use std::slice;

use anyhow::{Result, bail, ensure};
use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use burn::train::{TrainOutput, TrainStep};
use data::ImageDataset;
use model::TrainingBatch;

use crate::config::Config;
use crate::training::{Training, training_loader};

/// How much of the running mean of losses stays in each step.
const SMOOTHING: f64 = 0.95;
/// The test ends where the loss is so many times the lowest.
const DIVERGED: f64 = 4.0;
/// More than chance: the loss is so many times the lowest before it falls, and once it grew.
const MOVED: f64 = 1.1;
/// The suggestion is this part of the rate at which the loss was lowest: there, it is about to grow.
const SUGGESTED: f64 = 0.1;

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) learning_rate: f64,
    /// Running mean of the losses up to here.
    pub(crate) loss: f64,
}

/// Which learning rates are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) steps: usize,
}

impl Range {
    /// That of step `step`, counted from 0: each so many times that of the one before.
    fn learning_rate(self, step: usize) -> f64 {
        let part = step as f64 / (self.steps.max(2) - 1) as f64;
        self.lowest * (self.highest / self.lowest).powf(part)
    }
}

/// Trains a fresh network of `config` over the range; `observe` sees each point as it is found.
///
/// # Errors
/// When there is no image to learn from, or the device fails.
pub(crate) fn range_test(
    config: &Config,
    images: &ImageDataset,
    device: &Device,
    range: Range,
    mut observe: impl FnMut(&Point),
) -> Result<Vec<Point>> {
    ensure!(!images.is_empty(), "no images to learn from");
    let autodiff = device.clone().autodiff();
    let mut training = Training::begin(config, &autodiff)?;
    let objective = config.training.objective();
    let loader = training_loader(config, images, slice::from_ref(&autodiff));
    let mut batches = (1..).flat_map(|epoch| loader.pass(epoch));
    let mut losses = Smoothed::default();
    let mut points: Vec<Point> = Vec::with_capacity(range.steps);
    let mut lowest = f64::INFINITY;
    let accumulate = config.training.accumulate;
    let share = (accumulate as f64).recip();
    for step in 0..range.steps {
        let mut gradients = GradientsAccumulator::new();
        let mut loss = 0.0;
        for batch in batches.by_ref().take(accumulate) {
            let batch = TrainingBatch {
                batch: batch?,
                objective,
                weight: share,
            };
            let TrainOutput { grads, item } = TrainStep::step(&training.model, batch);
            gradients.accumulate(&training.model, grads);
            loss += share * f64::from(item.loss.into_scalar::<f32>());
        }
        let loss = losses.add(loss);
        let learning_rate = range.learning_rate(step);
        if !loss.is_finite() || loss > DIVERGED * lowest {
            break;
        }
        lowest = lowest.min(loss);
        let point = Point {
            learning_rate,
            loss,
        };
        observe(&point);
        points.push(point);
        training.step(&config.training, learning_rate, gradients.grads());
    }
    Ok(points)
}

/// The rate at which the loss was lowest, and the one to begin with.
///
/// # Errors
/// When the loss did not fall, or did not grow after that.
pub(crate) fn suggestion(points: &[Point]) -> Result<(Point, f64)> {
    let by_loss = |a: &&Point, b: &&Point| a.loss.total_cmp(&b.loss);
    let lowest = points.iter().min_by(by_loss).copied();
    let (Some(lowest), Some(first), Some(last)) = (lowest, points.first(), points.last()) else {
        bail!("the first loss is no finite number");
    };
    ensure!(
        last.loss > MOVED * lowest.loss,
        "the loss did not grow up to learning rate {:.1e}: try a larger --to",
        last.learning_rate
    );
    ensure!(
        first.loss > MOVED * lowest.loss,
        "the loss only grew from learning rate {:.1e} on: try a smaller --from",
        first.learning_rate
    );
    Ok((lowest, SUGGESTED * lowest.learning_rate))
}

/// A running mean whose first values weigh as much as later ones; Kingma and Ba (2015).
#[derive(Debug, Default)]
struct Smoothed {
    mean: f64,
    weight: f64,
}

impl Smoothed {
    /// The mean, with this value.
    fn add(&mut self, value: f64) -> f64 {
        self.mean += (1.0 - SMOOTHING) * (value - self.mean);
        self.weight += (1.0 - SMOOTHING) * (1.0 - self.weight);
        self.mean / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, Request};
    use crate::images::Kept;
    use crate::settings::Settings;

    fn points(losses: &[f64]) -> Vec<Point> {
        let range = Range {
            lowest: 1e-4,
            highest: 1.0,
            steps: losses.len(),
        };
        let point = |(step, &loss)| Point {
            learning_rate: range.learning_rate(step),
            loss,
        };
        losses.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_tenth_of_where_the_loss_is_lowest_is_suggested() {
        let (lowest, suggested) = suggestion(&points(&[2.3, 2.0, 1.0, 3.0, 4.0])).unwrap();
        assert!((lowest.learning_rate - 1e-2).abs() < 1e-9, "{lowest:?}");
        assert!((suggested - 1e-3).abs() < 1e-9, "{suggested}");
    }

    #[test]
    fn a_range_beside_the_right_rates_is_told_of() {
        let error = |losses: &[f64]| suggestion(&points(losses)).unwrap_err().to_string();
        assert_eq!(
            error(&[2.3, 2.6, 3.0]),
            "the loss only grew from learning rate 1.0e-4 on: try a smaller --from"
        );
        assert_eq!(
            error(&[2.3, 2.2, 2.1]),
            "the loss did not grow up to learning rate 1.0e0: try a larger --to"
        );
    }

    #[test]
    fn batches_that_are_accumulated_make_one_step() {
        let (found, _) = device::open(&Request::Auto, None).unwrap();
        let losses = |batch_size: usize, accumulate: usize| {
            let mut settings = Settings::preset("tiny").unwrap();
            let table = format!(
                "data.limit_train = 640\n\
                 training.batch_size = {batch_size}\n\
                 training.accumulate = {accumulate}"
            );
            settings.overlay(table.parse().unwrap()).unwrap();
            let (config, splits) = settings.resolve(Kept::No).unwrap();
            let range = Range {
                lowest: 1e-3,
                highest: 1e-2,
                steps: 3,
            };
            let points = range_test(&config, &splits.train, &found.device, range, |_| {});
            points.unwrap().into_iter().map(|point| point.loss)
        };
        for (two, one) in losses(64, 2).zip(losses(128, 1)) {
            assert!((two - one).abs() < 1e-4, "{two} {one}");
        }
        assert!(losses(64, 1).ne(losses(128, 1)));
    }

    #[test]
    fn a_smoothed_constant_is_that_constant() {
        let mut smoothed = Smoothed::default();
        for _ in 0..10 {
            assert!((smoothed.add(2.5) - 2.5).abs() < 1e-12);
        }
        assert!(smoothed.add(3.5) < 2.7);
    }
}
