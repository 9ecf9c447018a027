//! How well the probabilities of a network agree with its accuracy.

use classifier::Probabilities;
use serde::{Deserialize, Serialize};

/// Number of intervals of the probability, as in Guo et al., "On Calibration of Modern Neural Networks", 2017.
const BINS: usize = 15;
/// The quantile of the normal distribution for an interval of 95%.
const Z: f64 = 1.959_963_984_540_054;

/// The expected calibration error of an evaluation: the mean difference between probability and accuracy, over intervals of the
/// probability, weighted by their numbers of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CalibrationError {
    /// That of the probabilities of the network.
    pub(crate) original: f64,
    /// That after temperature scaling, if the temperature is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibrated: Option<f64>,
}

/// Sums over images in intervals of the probability of their predicted class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bins([Bin; BINS]);

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    images: u64,
    hits: u64,
    /// Sum of the probabilities.
    probability: f64,
}

impl Bins {
    /// Adds an image: the probability of its predicted class, and whether this is its class.
    pub(crate) fn add(&mut self, probability: f32, is_hit: bool) {
        let at = ((probability * BINS as f32).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.0[at];
        bin.images += 1;
        bin.hits += u64::from(is_hit);
        bin.probability += f64::from(probability);
    }

    /// Returns the expected calibration error.
    pub(crate) fn error(&self) -> f64 {
        let images: u64 = self.0.iter().map(|bin| bin.images).sum();
        let differences = self
            .0
            .iter()
            .map(|bin| (bin.hits as f64 - bin.probability).abs());
        differences.sum::<f64>() / images.max(1) as f64
    }
}

impl CalibrationError {
    /// Measures the error on predictions with the classes of their images.
    pub(crate) fn of<'a>(
        predictions: impl Iterator<Item = (&'a Probabilities, usize)>,
        temperature: Option<f32>,
    ) -> Self {
        let (mut original, mut calibrated) = (Bins::default(), Bins::default());
        for (probabilities, label) in predictions {
            let (class, probability) = probabilities.best();
            original.add(probability, class == label);
            if let Some(temperature) = temperature {
                calibrated.add(probabilities.calibrated(temperature), class == label);
            }
        }
        Self {
            original: original.error(),
            calibrated: temperature.map(|_| calibrated.error()),
        }
    }
}

/// Returns the 95% confidence interval of a proportion (Wilson 1927).
pub(crate) fn wilson_interval(hits: u64, images: u64) -> [f64; 2] {
    let images = images.max(1) as f64;
    let share = hits as f64 / images;
    let center = share + Z * Z / (2.0 * images);
    let spread = Z * (share * (1.0 - share) / images + Z * Z / (4.0 * images * images)).sqrt();
    let scale = 1.0 + Z * Z / images;
    [(center - spread) / scale, (center + spread) / scale].map(|bound| bound.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_error_is_the_weighted_difference() {
        let mut bins = Bins::default();
        // 90% sure and right in 2 of 4; 30% sure and right in 1 of 1.
        for (probability, is_hit) in [
            (0.9, true),
            (0.9, true),
            (0.9, false),
            (0.9, false),
            (0.3, true),
        ] {
            bins.add(probability, is_hit);
        }
        let expected = (4.0 * 0.4 + 0.7) / 5.0;
        assert!((bins.error() - expected).abs() < 1e-6);
        assert_eq!(Bins::default().error(), 0.0);
    }

    #[test]
    fn wilson_interval_matches_published_values() {
        // R: prop.test(x, n, correct = FALSE)
        for (hits, images, expected) in [
            (81, 263, [0.2553, 0.3662]),
            (15, 148, [0.0624, 0.1605]),
            (0, 20, [0.0, 0.1611]),
        ] {
            let found = wilson_interval(hits, images);
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }
}
