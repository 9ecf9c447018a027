//! The learning-rate range test: a training whose learning rate grows with each step until the loss
//! diverges. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).

use anyhow::{Result, bail, ensure};
use burn::data::dataloader::DataLoaderIterator;
use burn::tensor::Device;
use data::ImageDataset;

use crate::config::run_config::Config;
use crate::run::loaders::training_loader;
use crate::training::state::Training;
use crate::training::step::{TrainingDevices, mean_gradients, update};

/// Decay of the running mean of losses.
const SMOOTHING: f64 = 0.95;
/// The test stops when the running loss exceeds its minimum by this factor.
const DIVERGED: f64 = 4.0;
/// The first and the last running loss must exceed the minimum by this factor, beyond noise.
const MOVED: f64 = 1.1;
/// Suggested learning rate, as a fraction of the rate with the lowest loss, where divergence is near.
const SUGGESTED: f64 = 0.1;

/// One step of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) learning_rate: f64,
    /// Running mean of the losses up to this step.
    pub(crate) loss: f64,
}

/// The learning rates to test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) steps: usize,
}

impl Range {
    /// Returns the learning rate of step `step`, counted from 0. The rates grow geometrically.
    fn learning_rate(self, step: usize) -> f64 {
        let part = step as f64 / (self.steps.max(2) - 1) as f64;
        self.lowest * (self.highest / self.lowest).powf(part)
    }
}

/// Trains a fresh network of `config` over the range of learning rates; `observe` sees each point.
///
/// # Errors
/// Returns an error if there are no images, or the device fails.
pub(crate) fn range_test(
    config: &Config,
    images: &ImageDataset,
    device: &Device,
    range: Range,
    mut observe: impl FnMut(&Point),
) -> Result<Vec<Point>> {
    ensure!(!images.is_empty(), "no training images");
    let settings = &config.training;
    let devices = TrainingDevices::One(device.clone().autodiff());
    let mut training = Training::begin(config, images, &devices.all()[0])?;
    let loader = training_loader(config, images, devices.all())?;
    let mut epoch = 1;
    let mut batches = loader.batches(epoch);
    let mut losses = RunningMean::default();
    let mut points: Vec<Point> = Vec::with_capacity(range.steps);
    let mut lowest = f64::INFINITY;
    for step in 0..range.steps {
        let progress = batches.progress();
        if progress.items_processed == progress.items_total {
            epoch += 1;
            batches = loader.batches(epoch);
        }
        let mut loss = 0.0;
        let gradients = mean_gradients(&devices, &training, settings, &mut batches, |batch| {
            loss += batch.weight * f64::from(batch.output.loss.into_scalar::<f32>());
            Ok(())
        })?;
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
        let steps_total = range.steps as u64;
        update(
            &mut training,
            settings,
            learning_rate,
            steps_total,
            gradients,
        );
    }
    Ok(points)
}

/// Returns the point with the lowest loss, and the suggested learning rate.
///
/// # Errors
/// Returns an error if the loss did not decrease, or did not diverge afterwards.
pub(crate) fn suggestion(points: &[Point]) -> Result<(Point, f64)> {
    let by_loss = |a: &&Point, b: &&Point| a.loss.total_cmp(&b.loss);
    let lowest = points.iter().min_by(by_loss).copied();
    let (Some(lowest), Some(first), Some(last)) = (lowest, points.first(), points.last()) else {
        bail!("the first loss is not finite");
    };
    ensure!(
        last.loss > MOVED * lowest.loss,
        "the loss did not diverge up to learning rate {:.1e}: try a larger --to",
        last.learning_rate
    );
    ensure!(
        first.loss > MOVED * lowest.loss,
        "the loss did not decrease from learning rate {:.1e} on: try a smaller --from",
        first.learning_rate
    );
    Ok((lowest, SUGGESTED * lowest.learning_rate))
}

/// An exponential running mean with bias correction; Kingma and Ba (2015).
#[derive(Debug, Default)]
struct RunningMean {
    mean: f64,
    weight: f64,
}

impl RunningMean {
    /// Adds a value, and returns the mean.
    fn add(&mut self, value: f64) -> f64 {
        self.mean += (1.0 - SMOOTHING) * (value - self.mean);
        self.weight += (1.0 - SMOOTHING) * (1.0 - self.weight);
        self.mean / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::device::{self, Request};
    use crate::run::images;
    use crate::run::picture_cache::PictureCache;

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
    fn suggests_a_tenth_of_the_rate_with_the_lowest_loss() {
        let (lowest, suggested) = suggestion(&points(&[2.3, 2.0, 1.0, 3.0, 4.0])).unwrap();
        assert!((lowest.learning_rate - 1e-2).abs() < 1e-9, "{lowest:?}");
        assert!((suggested - 1e-3).abs() < 1e-9, "{suggested}");
    }

    #[test]
    fn rejects_a_range_without_a_minimum() {
        let error = |losses: &[f64]| suggestion(&points(losses)).unwrap_err().to_string();
        assert_eq!(
            error(&[2.3, 2.6, 3.0]),
            "the loss did not decrease from learning rate 1.0e-4 on: try a smaller --from"
        );
        assert_eq!(
            error(&[2.3, 2.2, 2.1]),
            "the loss did not diverge up to learning rate 1.0e0: try a larger --to"
        );
    }

    #[test]
    fn accumulated_batches_equal_one_large_batch() {
        let (device, _) = device::open(&Request::Auto, None).unwrap();
        let losses = |batch_size: usize, accumulate: usize| {
            let mut settings = Settings::preset("tiny").unwrap();
            let table = format!(
                "data.limit_train = 640\n\
                 training.batch_size = {batch_size}\n\
                 training.accumulate = {accumulate}"
            );
            settings.overlay(table.parse().unwrap()).unwrap();
            let (config, images) = images::resolve(settings, PictureCache::No).unwrap();
            let range = Range {
                lowest: 1e-3,
                highest: 1e-2,
                steps: 3,
            };
            let points = range_test(&config, &images.split.train, &device.device, range, |_| {});
            points.unwrap().into_iter().map(|point| point.loss)
        };
        for (two, one) in losses(64, 2).zip(losses(128, 1)) {
            assert!((two - one).abs() < 1e-4, "{two} {one}");
        }
        assert!(losses(64, 1).ne(losses(128, 1)));
    }

    #[test]
    fn running_mean_of_a_constant_is_that_constant() {
        let mut mean = RunningMean::default();
        for _ in 0..10 {
            assert!((mean.add(2.5) - 2.5).abs() < 1e-12);
        }
        assert!(mean.add(3.5) < 2.7);
    }
}
