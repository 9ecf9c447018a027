//! Accuracy of a network under corruptions of its test images.

use std::fmt;

use anyhow::{Result, ensure};
use burn::data::dataloader::Dataset;
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::Tensor;
use data::corruption::{Corruption, MIN_SIDE, STRENGTHS};
use data::{ImageDataset, MnistBatcher, Preparation, Sample};
use rayon::prelude::*;
use serde::Serialize;

use crate::inference::classifier::Classifier;
use crate::process::progress_bar::bar;
use crate::process::table::Table;

/// Seed of the corruptions, the same for all networks.
const SEED: u64 = 0;

/// The accuracy of a network under each corruption. A mean is over strengths 1 to 5.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CorruptionAccuracy {
    /// Number of test images.
    pub(crate) images: usize,
    /// Accuracy on the images as they are.
    pub(crate) clean_accuracy: f64,
    /// Mean over all corruptions.
    pub(crate) mean_accuracy: f64,
    pub(crate) corruptions: Vec<CorruptionRow>,
}

/// The accuracy under one corruption.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CorruptionRow {
    pub(crate) corruption: Corruption,
    /// Accuracy at strengths 1 to 5.
    pub(crate) accuracy: [f64; STRENGTHS],
    pub(crate) mean_accuracy: f64,
}

impl CorruptionAccuracy {
    /// Evaluates a network on test images under each corruption that they can have; on at most `limit` images, which are
    /// evenly spread. One batch of images is in memory at a time.
    ///
    /// # Errors
    /// Returns an error if there are no images, they are too small or too large to be corrupted, or one cannot be read.
    pub(crate) fn measure(
        classifier: &Classifier,
        images: &ImageDataset,
        limit: usize,
    ) -> Result<Self> {
        check_size([images.height(), images.width()])?;
        let chosen = evenly_spread(images.len(), limit);
        ensure!(!chosen.is_empty(), "no images to evaluate");
        let preparation = classifier.config.images.preparation;
        let kinds: Vec<Corruption> = Corruption::all(preparation).collect();
        let mut clean = 0;
        let mut hits = vec![[0; STRENGTHS]; kinds.len()];
        let bar = bar(
            (chosen.len() * (1 + STRENGTHS * kinds.len())) as u64,
            "images",
        );
        for indices in chosen.chunks(classifier.config.training.eval_batch_size) {
            let samples = read(images, indices)?;
            clean += count_hits(classifier, samples.clone());
            bar.inc(samples.len() as u64);
            for (kind, hits) in kinds.iter().zip(&mut hits) {
                for (strength, hits) in (1..).zip(hits) {
                    let pairs = samples.par_iter().zip(indices);
                    let corrupted = pairs.map(|(sample, &index)| {
                        let mut sample = sample.clone();
                        kind.apply(&mut sample, strength, preparation, SEED, index)?;
                        Ok(sample)
                    });
                    *hits += count_hits(classifier, corrupted.collect::<Result<_>>()?);
                    bar.inc(samples.len() as u64);
                }
            }
        }
        bar.finish_and_clear();
        Ok(Self::of_hits(
            chosen.len(),
            clean,
            kinds.into_iter().zip(hits),
        ))
    }

    /// Computes the accuracies from the numbers of images that are classified correctly.
    fn of_hits(
        images: usize,
        clean: usize,
        hits: impl Iterator<Item = (Corruption, [usize; STRENGTHS])>,
    ) -> Self {
        let fraction = |hits: usize| hits as f64 / images as f64;
        let rows = hits.map(|(corruption, hits)| {
            let accuracy = hits.map(fraction);
            CorruptionRow {
                corruption,
                accuracy,
                mean_accuracy: mean(&accuracy),
            }
        });
        let rows: Vec<CorruptionRow> = rows.collect();
        let means: Vec<f64> = rows.iter().map(|row| row.mean_accuracy).collect();
        Self {
            images,
            clean_accuracy: fraction(clean),
            mean_accuracy: mean(&means),
            corruptions: rows,
        }
    }
}

impl fmt::Display for CorruptionAccuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accuracy under corruptions by strength ({} images)\n",
            self.images
        )?;
        let strengths = (0..=STRENGTHS).map(|strength| strength.to_string());
        let names = ["corruption".to_string()].into_iter().chain(strengths);
        let mut table = Table::new(names.chain(["mean".into()]));
        for row in &self.corruptions {
            let accuracies = [self.clean_accuracy].into_iter().chain(row.accuracy);
            let cells = accuracies.chain([row.mean_accuracy]).map(percent);
            table.row([row.corruption.to_string()].into_iter().chain(cells));
        }
        writeln!(f, "{table}\n")?;
        write!(
            f,
            "mean over all corruptions (mCA) {}",
            percent(self.mean_accuracy)
        )
    }
}

/// Returns image `index` under each corruption that it can have, at strengths 1 to 5. Pixels and results are
/// `[channels, height, width]`.
///
/// # Errors
/// Returns an error if the image is too small or too large to be corrupted.
pub(crate) fn corrupted(
    pixels: &[u8],
    [channels, height, width]: [usize; 3],
    preparation: Preparation,
    index: usize,
) -> Result<Vec<(Corruption, [Vec<u8>; STRENGTHS])>> {
    check_size([height, width])?;
    let sample = Sample {
        channels,
        height,
        width,
        pixels: pixels.to_vec(),
        label: 0,
    };
    let row = |kind: Corruption| {
        let mut strengths = [const { Vec::new() }; STRENGTHS];
        for (strength, pixels) in (1..).zip(&mut strengths) {
            let mut sample = sample.clone();
            kind.apply(&mut sample, strength, preparation, SEED, index)?;
            *pixels = sample.pixels;
        }
        Ok((kind, strengths))
    };
    Corruption::all(preparation).map(row).collect()
}

/// Checks that each strength of a corruption changes images of this size.
fn check_size([height, width]: [usize; 2]) -> Result<()> {
    ensure!(
        height.min(width) >= MIN_SIDE,
        "corruptions of images of {height}x{width} pixels: expected at least {MIN_SIDE}x{MIN_SIDE}"
    );
    Ok(())
}

/// Returns indices below `count`, at most `limit`, in equal distances.
pub(crate) fn evenly_spread(count: usize, limit: usize) -> Vec<usize> {
    let chosen = count.min(limit);
    (0..chosen).map(|at| at * count / chosen).collect()
}

/// Reads images.
pub(crate) fn read(images: &ImageDataset, indices: &[usize]) -> Result<Vec<Sample>> {
    let samples = indices.iter().map(|&index| images.get(index));
    Ok(samples.collect::<Result<_, _>>()?)
}

/// Returns how many images are classified correctly.
fn count_hits(classifier: &Classifier, samples: Vec<Sample>) -> usize {
    let labels: Vec<u8> = samples.iter().map(|sample| sample.label).collect();
    let batcher = MnistBatcher {
        scaling: classifier.config.scaling(),
    };
    let batch = batcher.batch(samples, &classifier.device);
    count_correct(classifier, batch.images, &labels)
}

/// Returns how many normalized images `[N, C, H, W]` are classified correctly.
pub(crate) fn count_correct(classifier: &Classifier, images: Tensor<4>, labels: &[u8]) -> usize {
    let predicted = classifier.model.forward(images).argmax(1).into_data();
    let pairs = predicted.iter::<i64>().zip(labels);
    pairs
        .filter(|(predicted, label)| *predicted == i64::from(**label))
        .count()
}

/// Formats a fraction.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_images_are_evenly_spread() {
        assert_eq!(evenly_spread(10, 4), [0, 2, 5, 7]);
        assert_eq!(evenly_spread(3, 1000), [0, 1, 2]);
        assert!(evenly_spread(0, 1000).is_empty());
    }

    #[test]
    fn means_are_over_strengths_and_corruptions() {
        let hits = [
            (Corruption::Shift, [9, 8, 7, 6, 5]),
            (Corruption::Jpeg, [10, 10, 10, 10, 8]),
        ];
        let accuracy = CorruptionAccuracy::of_hits(10, 10, hits.into_iter());
        assert_eq!(accuracy.corruptions[0].accuracy[4], 0.5);
        assert!((accuracy.corruptions[0].mean_accuracy - 0.70).abs() < 1e-12);
        assert!((accuracy.mean_accuracy - 0.83).abs() < 1e-12);
        assert_eq!(
            accuracy.to_string(),
            "accuracy under corruptions by strength (10 images)\n\n\
             corruption        0        1        2        3        4       5    mean\n\
             shift       100.00%   90.00%   80.00%   70.00%   60.00%  50.00%  70.00%\n\
             jpeg        100.00%  100.00%  100.00%  100.00%  100.00%  80.00%  96.00%\n\n\
             mean over all corruptions (mCA) 83.00%"
        );
    }
}
