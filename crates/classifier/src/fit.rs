//! Measures the [`Confidence`] of a network on labeled images.

use half::f16;

use crate::confidence::{Confidence, Subspace};
use crate::probabilities::Probabilities;
use crate::vectors::{add, covariance_product, normalize, orthonormal};

/// Largest number of training images of a class that its subspace is computed from.
pub const IMAGES_PER_CLASS: usize = 500;
/// Number of directions of a class.
const DIRECTIONS: usize = 8;
/// Largest number of values of all classes, which are stored in 16 bits.
const MAX_VALUES: usize = 1_250_000;
/// Repetitions of the subspace iteration. The directions need not be exact: the distance depends on them little.
const ITERATIONS: usize = 8;
/// The share of images within a distance of 1.
const WITHIN: f64 = 0.99;
/// Range of the temperature.
const TEMPERATURES: [f32; 2] = [0.2, 10.0];
/// Smallest number of images that constants are measured on.
const MIN_IMAGES: usize = 20;

/// The output of a network for a labeled image.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Index of the class.
    pub label: usize,
    /// The prediction.
    pub probabilities: Probabilities,
    /// The features before the dense layers.
    pub features: Vec<f32>,
}

/// The images that the constants of a [`Confidence`] are measured on.
#[derive(Clone, Debug)]
pub enum Held {
    /// Images that the network was not trained on.
    Validation(Vec<Observation>),
    /// Training images that the subspaces are not computed from. The limit of the distance is measured on the images
    /// themselves, the temperature on augmented ones, since a network is overconfident on its training images.
    Training {
        /// The images as they are.
        plain: Vec<Observation>,
        /// Random transforms of them.
        augmented: Vec<Observation>,
    },
}

/// Measures the confidence. Returns `None` if there are too few images.
///
/// # Panics
/// Panics if a label is not below `classes`, or the numbers of features differ.
pub fn fit(classes: usize, training: Vec<Observation>, held: &Held) -> Option<Confidence> {
    let (validation, calibration, is_validated) = match held {
        Held::Validation(images) => (images, images, true),
        Held::Training { plain, augmented } => (plain, augmented, false),
    };
    if validation.len().min(calibration.len()) < MIN_IMAGES {
        return None;
    }
    let features = training.first()?.features.len();
    let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); classes];
    for mut observation in training {
        normalize(&mut observation.features);
        rows[observation.label].push(observation.features);
    }
    let count = (MAX_VALUES / (classes * features).max(1))
        .saturating_sub(1)
        .min(DIRECTIONS);
    let subspaces = rows
        .into_iter()
        .map(|rows| Subspace::spanned_by(rows, features, count))
        .collect();
    let mut confidence = Confidence {
        temperature: temperature(calibration),
        is_validated,
        limit: 1.0,
        subspaces,
    };
    let distance = |image: &Observation| {
        confidence
            .assess(&image.probabilities, &image.features)
            .distance
    };
    let mut distances: Vec<f32> = validation.iter().map(distance).collect();
    distances.sort_by(f32::total_cmp);
    let at = (WITHIN * distances.len() as f64).ceil() as usize;
    confidence.limit = distances[at.saturating_sub(1)].max(f32::MIN_POSITIVE);
    Some(confidence)
}

impl Subspace {
    /// Returns the mean of vectors, and orthonormal directions in which they vary most: principal components, by subspace
    /// iteration.
    fn spanned_by(mut rows: Vec<Vec<f32>>, features: usize, count: usize) -> Self {
        let mut mean = vec![0.0; features];
        for row in &rows {
            add(&mut mean, row, 1.0 / rows.len() as f32);
        }
        for row in &mut rows {
            add(row, &mean, -1.0);
        }
        // Images evenly spread over the class start the iteration.
        let step = (rows.len() / count.max(1)).max(1);
        let start: Vec<Vec<f32>> = rows.iter().step_by(step).take(count).cloned().collect();
        let mut directions = orthonormal(start);
        for _ in 0..ITERATIONS {
            directions = orthonormal(covariance_product(&rows, &directions));
        }
        // Each class has as many directions; zeros add nothing.
        directions.resize(count, vec![0.0; features]);
        // As in the file, so that a distance does not depend on whether the file was read.
        for vector in directions.iter_mut().chain([&mut mean]) {
            for value in vector {
                *value = f16::from_f32(*value).to_f32();
            }
        }
        Self { mean, directions }
    }
}

/// Returns the temperature with the least cross-entropy, by golden-section search over its logarithm.
fn temperature(images: &[Observation]) -> f32 {
    let loss = |logarithm: f32| -> f64 {
        let temperature = logarithm.exp();
        let losses = images
            .iter()
            .map(|image| f64::from(-image.probabilities.logarithm(image.label, temperature)));
        losses.sum()
    };
    let [mut low, mut high] = TEMPERATURES.map(f32::ln);
    let ratio = (5.0f32.sqrt() - 1.0) / 2.0;
    while high - low > 1e-3 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if loss(a) < loss(b) {
            high = b;
        } else {
            low = a;
        }
    }
    ((low + high) / 2.0).exp()
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::confidence::Verdict;
    use crate::error::ConfidenceError;

    const FEATURES: usize = 24;

    /// Returns probabilities with these logits of two classes.
    fn probabilities(logits: [f32; 2]) -> Probabilities {
        let logits = Tensor::from_floats([logits], &Device::default());
        Probabilities::from_logits(logits).unwrap().remove(0)
    }

    /// Returns images of two classes, each a vector along an axis of its own that varies along two others.
    fn images(count: usize) -> Vec<Observation> {
        let image = |at: usize| {
            let label = at % 2;
            let mut features = vec![0.0; FEATURES];
            features[label] = 5.0;
            features[2 + label] = (at as f32).sin();
            features[4 + label] = 0.5 * (3.0 * at as f32).cos();
            // A little everywhere.
            for (axis, feature) in features.iter_mut().enumerate() {
                *feature += 0.01 * ((7 * at + 13 * axis) as f32).sin();
            }
            let logit = if label == 0 { 2.0 } else { -2.0 };
            Observation {
                label,
                probabilities: probabilities([logit, -logit]),
                features,
            }
        };
        (0..count).map(image).collect()
    }

    fn fitted() -> Confidence {
        let others = images(1000).split_off(400);
        fit(2, images(400), &Held::Validation(others)).unwrap()
    }

    #[test]
    fn images_within_the_variation_of_a_class_are_near() {
        let confidence = fitted();
        let near = images(900).split_off(500);
        let distance = |image: &Observation| {
            let assessment = confidence.assess(&image.probabilities, &image.features);
            assessment.distance
        };
        let far = near.iter().filter(|image| distance(image) > 1.0).count();
        assert!(far < 12, "{far} of 400");
        // The length does not count, only the direction.
        let mut image = near[0].clone();
        let before = distance(&image);
        image
            .features
            .iter_mut()
            .for_each(|feature| *feature *= 9.0);
        assert!((distance(&image) - before).abs() < 1e-4);
        // Along an axis in which the class does not vary.
        image.features[20] += 9.0;
        assert!(distance(&image) > 3.0);
        // The features of the other class.
        image.features = near[1].features.clone();
        let assessment = confidence.assess(&image.probabilities, &image.features);
        assert_eq!(assessment.verdict(0.5), Verdict::Unlike);
        assert!(
            distance(&Observation {
                features: vec![0.0; FEATURES],
                ..image
            }) > 1.0
        );
    }

    #[test]
    fn temperature_makes_probabilities_true() {
        // Logits are three times too high: 73% of the images of the first class, which are called 95%.
        let image = |at: usize| Observation {
            label: usize::from(at % 100 >= 73),
            probabilities: probabilities([3.0, 0.0]),
            features: Vec::new(),
        };
        let images: Vec<Observation> = (0..1000).map(image).collect();
        let temperature = temperature(&images);
        assert!((temperature - 3.0).abs() < 0.05, "{temperature}");
        assert!((images[0].probabilities.calibrated(temperature) - 0.73).abs() < 0.005);
        // No temperature changes the class.
        assert!(images[0].probabilities.calibrated(10.0) > 0.5);
    }

    #[test]
    fn few_images_give_no_confidence() {
        assert!(fit(2, images(400), &Held::Validation(images(19))).is_none());
        assert!(fit(2, Vec::new(), &Held::Validation(images(100))).is_none());
        let held = Held::Training {
            plain: images(100),
            augmented: images(100),
        };
        assert!(!fit(2, images(400), &held).unwrap().is_validated);
        // A class without images, and one with a single image.
        let mut rare = images(2);
        rare.truncate(1);
        let confidence = fit(3, rare, &Held::Validation(images(100))).unwrap();
        let assessment = confidence.assess(&probabilities([0.0, 1.0]), &[1.0; FEATURES]);
        assert!(assessment.distance.is_finite());
    }

    #[test]
    fn the_file_has_the_same_confidence() {
        let confidence = fitted();
        let bytes = confidence.to_bytes("digest").unwrap();
        assert_eq!(
            Confidence::from_bytes(&bytes, "digest").unwrap(),
            Some(confidence.clone())
        );
        assert_eq!(confidence.to_bytes("digest").unwrap(), bytes);
        assert_eq!(Confidence::from_bytes(&bytes, "other").unwrap(), None);
    }

    #[test]
    fn damaged_files_are_errors() {
        let bytes = fitted().to_bytes("digest").unwrap();
        let error = |bytes: &[u8]| Confidence::from_bytes(bytes, "digest").unwrap_err();
        for length in [0, 7, 60, bytes.len() - 1] {
            assert!(
                matches!(error(&bytes[..length]), ConfidenceError::Format(_)),
                "{length}"
            );
        }
        // An infinite mean, and a negative limit.
        let mut infinite = bytes.clone();
        let end = infinite.len();
        infinite[end - 2..].copy_from_slice(&f16::INFINITY.to_le_bytes());
        assert!(matches!(error(&infinite), ConfidenceError::Invalid(_)));
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut negative = bytes.clone();
        negative[header + 4..header + 8].copy_from_slice(&(-1.0f32).to_le_bytes());
        assert!(matches!(
            error(&negative),
            ConfidenceError::Invalid("constants")
        ));
    }
}
