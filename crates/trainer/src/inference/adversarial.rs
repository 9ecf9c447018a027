//! Accuracy of a network on adversarial images: white-box, untargeted attacks on the cross-entropy, with a limit on the change
//! of each pixel (the L-infinity norm).

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use data::{ImageDataset, Sample, Scaling, normalize};
use model::{ConvNet, InputGradients};
use serde::Serialize;

use crate::inference::classifier::Classifier;
use crate::inference::robustness::{count_correct, evenly_spread, percent, read};
use crate::process::progress_bar::bar;
use crate::process::table::Table;

/// Number of images that are attacked unless a limit is given.
pub(crate) const DEFAULT_IMAGES: usize = 1000;
/// Steps of PGD.
const STEPS: usize = 20;
/// Factor of the sum of all steps of PGD relative to epsilon, as in Madry et al. (2018).
const REACH: f64 = 2.5;
/// Images of a batch, whose feature maps are in memory for the gradients.
const BATCH: usize = 100;
/// Seed of the random starts.
const SEED: u64 = 0;
/// Largest value of a pixel.
const WHITE: f64 = 255.0;

/// The largest change of a pixel, as a fraction of its range: above 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Epsilon(pub(crate) f64);

impl FromStr for Epsilon {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().parse() {
            Ok(epsilon) if epsilon > 0.0 && epsilon <= 1.0 => Ok(Self(epsilon)),
            _ => Err("expected a number above 0 and at most 1, such as 0.1"),
        }
    }
}

/// The accuracy of a network on adversarial images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AdversarialAccuracy {
    norm: &'static str,
    /// Steps of PGD.
    pub(crate) pgd_steps: usize,
    /// Number of test images.
    pub(crate) images: usize,
    /// Accuracy on the images as they are.
    pub(crate) clean_accuracy: f64,
    pub(crate) epsilons: Vec<EpsilonRow>,
}

/// The accuracy under attacks with one limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EpsilonRow {
    pub(crate) epsilon: f64,
    /// The fast gradient sign method: Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (2015).
    pub(crate) fgsm: f64,
    /// Projected gradient descent: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018).
    pub(crate) pgd: f64,
}

impl AdversarialAccuracy {
    /// Attacks a network on test images with each epsilon; on at most `limit` images, which are evenly spread. One batch of
    /// images is in memory at a time.
    ///
    /// # Errors
    /// Returns an error if there are no images, or one cannot be read.
    pub(crate) fn measure(
        classifier: &Classifier,
        images: &ImageDataset,
        epsilons: &[Epsilon],
        limit: usize,
    ) -> Result<Self> {
        let mut epsilons = epsilons.to_vec();
        epsilons.sort_by(|a, b| a.0.total_cmp(&b.0));
        epsilons.dedup();
        let chosen = evenly_spread(images.len(), limit);
        ensure!(!chosen.is_empty(), "no images to evaluate");
        let attack = Attack::new(&classifier.model, classifier.config.scaling());
        let mut clean = 0;
        let mut hits = vec![[0; 2]; epsilons.len()];
        let bar = bar((chosen.len() * epsilons.len()) as u64, "attacked images");
        for (number, indices) in chosen.chunks(BATCH).enumerate() {
            let samples = read(images, indices)?;
            let labels: Vec<u8> = samples.iter().map(|sample| sample.label).collect();
            let batch = PixelBatch::of(&samples, &classifier.device);
            let count = |pixels: Tensor<4>| {
                let images = normalize(pixels, attack.scaling);
                count_correct(classifier, images, &labels)
            };
            clean += count(batch.pixels.clone());
            for (&Epsilon(epsilon), [fgsm, pgd]) in epsilons.iter().zip(&mut hits) {
                *fgsm += count(attack.fgsm(&batch, epsilon));
                *pgd += count(attack.pgd(&batch, epsilon, SEED + number as u64));
                bar.inc(samples.len() as u64);
            }
        }
        bar.finish_and_clear();
        let fraction = |hits: usize| hits as f64 / chosen.len() as f64;
        let rows = epsilons.iter().zip(hits);
        let rows = rows.map(|(epsilon, [fgsm, pgd])| EpsilonRow {
            epsilon: epsilon.0,
            fgsm: fraction(fgsm),
            pgd: fraction(pgd),
        });
        Ok(Self {
            norm: "L-infinity",
            pgd_steps: STEPS,
            images: chosen.len(),
            clean_accuracy: fraction(clean),
            epsilons: rows.collect(),
        })
    }
}

impl fmt::Display for AdversarialAccuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accuracy on adversarial images ({} images; white-box, untargeted, {} norm)\n",
            self.images, self.norm
        )?;
        let mut table = Table::new(["epsilon", "FGSM", &format!("PGD, {} steps", self.pgd_steps)]);
        table.row([
            "0".into(),
            percent(self.clean_accuracy),
            percent(self.clean_accuracy),
        ]);
        for row in &self.epsilons {
            table.row([row.epsilon.to_string(), percent(row.fgsm), percent(row.pgd)]);
        }
        write!(f, "{table}")
    }
}

/// Images to attack.
struct PixelBatch {
    /// `[N, C, H, W]`, 0 to 255.
    pixels: Tensor<4>,
    /// `[N]`
    targets: Tensor<1, Int>,
}

impl PixelBatch {
    /// # Panics
    /// Panics if there are no images.
    fn of(samples: &[Sample], device: &Device) -> Self {
        let Sample {
            channels,
            height,
            width,
            ..
        } = samples[0];
        let pixels = samples.iter().flat_map(|sample| &sample.pixels);
        let pixels: Vec<f32> = pixels.copied().map(f32::from).collect();
        let labels: Vec<i32> = samples.iter().map(|sample| sample.label.into()).collect();
        let shape = [samples.len(), channels, height, width];
        Self {
            pixels: Tensor::from_data(TensorData::new(pixels, shape), device),
            targets: Tensor::from_data(TensorData::new(labels, [samples.len()]), device),
        }
    }
}

/// Attacks on a network. Adversarial pixels are real numbers of 0 to 255, as in the papers, not rounded.
struct Attack {
    gradients: InputGradients,
    scaling: Scaling,
}

impl Attack {
    fn new(network: &ConvNet, scaling: Scaling) -> Self {
        Self {
            gradients: InputGradients::new(network),
            scaling,
        }
    }

    /// Takes one step to the limit.
    fn fgsm(&self, batch: &PixelBatch, epsilon: f64) -> Tensor<4> {
        self.step(batch.pixels.clone(), batch, epsilon, epsilon)
    }

    /// Takes [`STEPS`] steps from a random point within the limit.
    fn pgd(&self, batch: &PixelBatch, epsilon: f64, seed: u64) -> Tensor<4> {
        let device = batch.pixels.device();
        device.seed(seed);
        let limit = WHITE * epsilon;
        let noise = Distribution::Uniform(-limit, limit);
        let start = batch.pixels.clone() + batch.pixels.random_like(noise);
        let start = start.clamp(0.0, WHITE);
        let length = REACH * epsilon / STEPS as f64;
        (0..STEPS).fold(start, |pixels, _| self.step(pixels, batch, length, epsilon))
    }

    /// Moves each pixel by `length` in the direction in which the loss grows, and back to within `epsilon` of the image and to
    /// the range of pixels.
    fn step(&self, pixels: Tensor<4>, batch: &PixelBatch, length: f64, epsilon: f64) -> Tensor<4> {
        let images = normalize(pixels.clone(), self.scaling);
        // The normalization is increasing, so the gradient with respect to the pixels has the same signs.
        let gradient = self.gradients.of_loss(images, batch.targets.clone());
        let moved = pixels + gradient.sign().mul_scalar(WHITE * length);
        let limit = WHITE * epsilon;
        let change = (moved - batch.pixels.clone()).clamp(-limit, limit);
        (batch.pixels.clone() + change).clamp(0.0, WHITE)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::DType;
    use data::Dataset;
    use model::ConvNetConfig;

    use super::*;
    use crate::run::run_dir::RunDir;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor
            .into_data()
            .convert_dtype(DType::F32)
            .try_to_vec()
            .unwrap()
    }

    #[test]
    fn reads_epsilons_above_0_and_at_most_1() {
        for (text, epsilon) in [("0.1", 0.1), ("1", 1.0), (" 8e-3", 0.008)] {
            assert_eq!(text.parse(), Ok(Epsilon(epsilon)));
        }
        for text in ["", "0", "-0.1", "1.01", "nan", "inf", "8/255", "0,1"] {
            assert!(text.parse::<Epsilon>().is_err(), "{text}");
        }
    }

    #[test]
    fn fgsm_follows_the_sign_of_the_gradient_of_a_linear_network() {
        let device = Device::default();
        let config = ConvNetConfig {
            input: [1, 4],
            classes: 2,
            dense: vec![],
            blocks: vec![],
            ..ConvNetConfig::default()
        };
        let network = config.init_seeded(1, &device).unwrap();
        let attack = Attack::new(&network, Scaling::same(0.13, 0.31));
        let sample = |label| Sample {
            channels: 1,
            height: 1,
            width: 4,
            pixels: vec![0, 100, 200, 255],
            label,
        };
        let batch = PixelBatch::of(&[sample(0), sample(1)], &device);
        let attacked = values(attack.fgsm(&batch, 0.1));
        // With two classes, the loss of class 0 grows along the weights of class 1 minus those of class 0.
        let pixel = |at: usize| Tensor::<2>::eye(4, &device).narrow(0, at, 1);
        let bias = values(network.forward(Tensor::zeros([1, 1, 1, 4], &device)));
        for (at, original) in [0.0, 100.0, 200.0, 255.0f32].into_iter().enumerate() {
            let logits = values(network.forward(pixel(at).reshape([1, 1, 1, 4])));
            let direction = ((logits[1] - bias[1]) - (logits[0] - bias[0])).signum();
            for (label, direction) in [(0, direction), (1, -direction)] {
                let expected = (original + 25.5 * direction).clamp(0.0, 255.0);
                let found = attacked[4 * label + at];
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    #[test]
    fn attacks_stay_within_their_limit_and_pgd_is_stronger() {
        let run = RunDir::open(Path::new("no-runs"), "pretrained").unwrap();
        let classifier = Classifier::open(&run, Device::default()).unwrap();
        let test = Dataset::embedded_mnist().unwrap().test;
        let epsilon = Epsilon(0.1);
        let accuracy = AdversarialAccuracy::measure(&classifier, &test, &[epsilon], 200).unwrap();
        let row = &accuracy.epsilons[0];
        assert!(accuracy.clean_accuracy > 0.97, "{accuracy:?}");
        assert!(row.fgsm < 0.9 && row.pgd < row.fgsm - 0.1, "{accuracy:?}");
        let again = AdversarialAccuracy::measure(&classifier, &test, &[epsilon], 200).unwrap();
        assert_eq!(again, accuracy);

        let attack = Attack::new(&classifier.model, classifier.config.scaling());
        let samples = read(&test, &[3, 14, 15]).unwrap();
        let batch = PixelBatch::of(&samples, &classifier.device);
        let originals = values(batch.pixels.clone());
        for attacked in [
            attack.fgsm(&batch, epsilon.0),
            attack.pgd(&batch, epsilon.0, 0),
        ] {
            let attacked = values(attacked);
            let pairs = attacked.iter().zip(&originals);
            let changes: Vec<f32> = pairs.map(|(a, b)| (a - b).abs()).collect();
            assert!(changes.iter().all(|change| *change < 25.501));
            assert!(changes.iter().filter(|change| **change > 25.0).count() > 500);
            assert!(attacked.iter().all(|pixel| (0.0..=255.0).contains(pixel)));
        }
    }
}
