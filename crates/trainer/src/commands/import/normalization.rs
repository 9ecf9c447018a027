//! The choice of the normalization that an imported network was trained with.

use std::fmt;

use anyhow::{Result, bail};
use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use data::{ImageDataset, Normalization, Scaling};
use model::ConvNet;

use crate::config::run_config::Config;
use crate::inference::evaluation::evaluate;
use crate::run::loaders::evaluation_loader;

/// Training images that the choice is made on.
const IMAGES: usize = 5_000;
/// Least accuracy of a normalization that can be the right one.
const MIN_ACCURACY: f64 = 0.8;
/// Least distance to the next best mean loss, in standard errors of the difference.
const MIN_STANDARD_ERRORS: f64 = 3.0;

/// The results of the normalizations, the best one first.
#[derive(Debug)]
pub(super) struct Comparison {
    results: Vec<NormalizationResult>,
}

/// The result of a network with a normalization.
#[derive(Debug)]
struct NormalizationResult {
    normalization: Normalization,
    accuracy: f64,
    /// The cross-entropy of each image.
    losses: Vec<f64>,
}

impl NormalizationResult {
    fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// Returns by how many standard errors the mean loss of `other` is higher, on the same images.
    fn distance(&self, other: &Self) -> f64 {
        let differences = || other.losses.iter().zip(&self.losses).map(|(a, b)| a - b);
        let count = self.losses.len() as f64;
        let mean = differences().sum::<f64>() / count;
        let squares = differences().map(|difference| (difference - mean).powi(2));
        mean / (squares.sum::<f64>() / (count * (count - 1.0))).sqrt()
    }
}

/// Compares the usual normalizations on training images. A choice on test images would bias their accuracy.
///
/// # Errors
/// Returns an error if an image cannot be read, or no normalization is clearly better than the others.
pub(super) fn choose(
    model: &ConvNet,
    config: &Config,
    training: &ImageDataset,
    device: &Device,
) -> Result<(Normalization, Comparison)> {
    let images = training.select(0..IMAGES.min(training.len()));
    // The last one keeps pixels from 0 to 255.
    let candidates = [
        Normalization::Unit,
        Normalization::Half,
        Normalization::MeanStd,
        Normalization::Custom(Scaling::same(0.0, 1.0 / 255.0)),
    ];
    let mut results = Vec::new();
    for normalization in candidates {
        let mut config = config.clone();
        config.data.normalization = normalization;
        results.push(result(model, &config, &images, device)?);
    }
    results.sort_by(|a, b| a.loss().total_cmp(&b.loss()));
    let comparison = Comparison { results };
    let [best, next, ..] = comparison.results.as_slice() else {
        bail!("no normalization to choose from");
    };
    if best.accuracy < MIN_ACCURACY || best.distance(next) < MIN_STANDARD_ERRORS {
        bail!(
            "the file does not say how pixels are normalized, and {comparison}; choose one with --normalization"
        );
    }
    Ok((best.normalization, comparison))
}

fn result(
    model: &ConvNet,
    config: &Config,
    images: &ImageDataset,
    device: &Device,
) -> Result<NormalizationResult> {
    let loader = evaluation_loader(config, images, device)?;
    let mut losses = Vec::new();
    let evaluation = evaluate(model, &loader, &config.images.classes, |batch| {
        let targets = batch.targets.unsqueeze_dim::<2>(1);
        let log_probabilities = log_softmax(batch.logits, 1).gather(1, targets);
        losses.extend(log_probabilities.into_data().iter::<f64>().map(|log| -log));
        Ok(())
    })?;
    Ok(NormalizationResult {
        normalization: config.data.normalization,
        accuracy: evaluation.accuracy,
        losses,
    })
}

impl fmt::Display for Comparison {
    /// Writes the accuracy of each normalization.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.results.first().map_or(0, |result| result.losses.len());
        write!(f, "of {count} training images are classified correctly:")?;
        for (index, result) in self.results.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let NormalizationResult {
                normalization,
                accuracy,
                ..
            } = result;
            write!(
                f,
                "{separator} {:.1}% with {normalization}",
                100.0 * accuracy
            )?;
        }
        Ok(())
    }
}
