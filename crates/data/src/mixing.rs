//! mixup and CutMix: mixtures of the images of a batch, with the classes of both images as targets.
//!
//! Each image of a batch gets a partner, another image of the batch. mixup (Zhang et al. 2018) adds the two
//! with weights, CutMix (Yun et al. 2019) replaces a rectangle by that of the partner. As in the code of the
//! papers, a batch has one weight or one rectangle.

use std::f64::consts::PI;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::Rng;

use crate::augmentation::Augmentation;
use crate::batch::{Batch, MixedTargets};
use crate::random::generator;
use crate::rectangle::Rectangle;
use crate::shuffle::permutation;

/// The parameters of mixup and CutMix. With both, each batch gets one of them with probability 0.5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixing {
    /// Parameter of the beta distribution of mixup's weights; 0 disables mixup.
    mixup: f64,
    /// Parameter of the beta distribution of CutMix's areas; 0 disables CutMix.
    cutmix: f64,
}

impl Mixing {
    /// Returns the mixing of an augmentation, or `None` without mixup and CutMix.
    pub fn of(augmentation: &Augmentation) -> Option<Self> {
        let &Augmentation { mixup, cutmix, .. } = augmentation;
        (mixup > 0.0 || cutmix > 0.0).then_some(Self { mixup, cutmix })
    }
}

/// The mixture of one batch.
pub(crate) struct Mixture {
    /// Position in the batch of the partner of each image.
    partners: Vec<u32>,
    blend: Blend,
}

/// The images that a part of a batch is made of.
pub(crate) struct Ingredients {
    /// Positions in the batch: the images of the part, then their partners from other parts.
    pub(crate) positions: Vec<usize>,
    /// Number of images of the part.
    count: usize,
    /// Index in `positions` of the partner of each image.
    partners: Vec<usize>,
}

/// How an image is mixed with its partner.
#[derive(Clone, Debug, PartialEq)]
enum Blend {
    /// The sum of the images, with this weight of the image itself.
    Sum(f64),
    /// The image with these pixels of its partner.
    Rectangle(Rectangle),
}

impl Mixture {
    /// Draws the mixture of batch `number` of an epoch, which has `count` images of size `[height, width]`.
    ///
    /// It depends only on the arguments.
    pub(crate) fn draw(
        mixing: &Mixing,
        count: usize,
        size: [usize; 2],
        seed: u64,
        epoch: u64,
        number: usize,
    ) -> Self {
        let random = &mut generator(b"mixing of batches.......", seed, epoch, number);
        let order_seed = random.random();
        let is_mixup = mixing.cutmix == 0.0 || mixing.mixup > 0.0 && random.random();
        let blend = match is_mixup {
            true => Blend::Sum(draw_beta(mixing.mixup, random)),
            false => Blend::Rectangle(draw_rectangle(mixing.cutmix, size, random)),
        };
        Self {
            partners: permutation(count, order_seed, 0),
            blend,
        }
    }

    /// Returns the images that are needed for the part `range` of the batch.
    pub(crate) fn ingredients(&self, range: Range<usize>) -> Ingredients {
        let mut positions: Vec<usize> = range.clone().collect();
        let partners = self.partners[range.clone()].iter().map(|&partner| {
            let partner = partner as usize;
            if range.contains(&partner) {
                return partner - range.start;
            }
            positions.push(partner);
            positions.len() - 1
        });
        let partners = partners.collect();
        Ingredients {
            positions,
            count: range.len(),
            partners,
        }
    }

    /// Mixes a batch of the images at `ingredients.positions` to the part of the batch.
    pub(crate) fn apply(&self, batch: Batch, ingredients: &Ingredients) -> Batch {
        let [loaded, channels, height, width] = batch.images.dims();
        let count = ingredients.count;
        let partners = indices(&ingredients.partners, &batch.images.device());
        let partner_images = batch.images.clone().select(0, partners.clone());
        let partner_targets = batch.targets.clone().select(0, partners);
        let (images, targets) = match loaded == count {
            true => (batch.images, batch.targets),
            false => (
                batch.images.narrow(0, 0, count),
                batch.targets.narrow(0, 0, count),
            ),
        };
        let (images, weight) = match &self.blend {
            &Blend::Sum(weight) => {
                let partners = partner_images.mul_scalar(1.0 - weight);
                (images.mul_scalar(weight) + partners, weight)
            }
            Blend::Rectangle(rectangle) if rectangle.area() == 0 => (images, 1.0),
            Blend::Rectangle(rectangle) => {
                let Rectangle { rows, columns } = rectangle.clone();
                let pixels = [0..count, 0..channels, rows, columns];
                let patch = partner_images.slice(pixels.clone());
                let weight = 1.0 - rectangle.area() as f64 / (height * width) as f64;
                (images.slice_assign(pixels, patch), weight)
            }
        };
        let (targets, others, weight) = match weight >= 0.5 {
            true => (targets, partner_targets, 1.0 - weight),
            false => (partner_targets, targets, weight),
        };
        Batch {
            images,
            targets,
            mixed: Some(MixedTargets {
                targets: others,
                weight,
            }),
        }
    }
}

fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// Draws from the beta distribution with both parameters `alpha`.
///
/// If T has Student's t-distribution with 2 alpha degrees of freedom, `(1 + T / sqrt(2 alpha + T^2)) / 2` has
/// this beta distribution; T is drawn as in Bailey, "Polar Generation of Random Variates with the
/// t-Distribution" (1994).
fn draw_beta(alpha: f64, random: &mut impl Rng) -> f64 {
    // T^2 / (2 alpha), which is infinite for a small alpha.
    let square = (1.0 - random.random::<f64>()).powf(-1.0 / alpha) - 1.0;
    let cosine = (2.0 * PI * random.random::<f64>()).cos();
    let distance = (1.0 + 1.0 / (square * cosine * cosine)).sqrt().recip();
    0.5 + 0.5 * distance.copysign(cosine)
}

/// Draws the rectangle of CutMix. Before it is clipped at the border, it covers the fraction `1 - lambda` of the
/// image, with lambda from a beta distribution.
fn draw_rectangle(alpha: f64, size: [usize; 2], random: &mut impl Rng) -> Rectangle {
    let side = (1.0 - draw_beta(alpha, random)).sqrt();
    let center = size.map(|size| random.random_range(0..size));
    // The code of the paper rounds down to an even number of pixels.
    let lengths = size.map(|size| (size as f64 * side) as usize / 2 * 2);
    Rectangle::around(center, lengths, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_beta_distribution() {
        for alpha in [1e-3, 0.2, 1.0, 4.0] {
            let random = &mut generator(b"........................", 1, 1, 0);
            let values: Vec<f64> = (0..20_000).map(|_| draw_beta(alpha, random)).collect();
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let squares = values.iter().map(|value| (value - mean).powi(2));
            let variance = squares.sum::<f64>() / 20_000.0;
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.015, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.03,
                "{alpha}: {variance}"
            );
        }
        // With alpha = 1 the distribution is uniform.
        let random = &mut generator(b"........................", 1, 1, 0);
        let below = (0..20_000).filter(|_| draw_beta(1.0, random) < 0.1);
        assert!((1800..2200).contains(&below.count()));
    }

    #[test]
    fn areas_are_those_of_the_paper() {
        let random = &mut generator(b"........................", 1, 1, 0);
        let areas = (0..20_000).map(|_| {
            let rectangle = draw_rectangle(1.0, [32, 20], random);
            assert!(rectangle.rows.end <= 32 && rectangle.columns.end <= 20);
            rectangle.area() as f64 / 640.0
        });
        let areas: Vec<f64> = areas.collect();
        // 200,000 rectangles of the paper's code, with NumPy, have a mean of 0.2918; 13.56% are above 0.5.
        let mean = areas.iter().sum::<f64>() / 20_000.0;
        assert!((mean - 0.2918).abs() < 0.005, "{mean}");
        let large = areas.iter().filter(|&&area| area > 0.5).count() as f64 / 20_000.0;
        assert!((large - 0.1356).abs() < 0.01, "{large}");
    }

    #[test]
    fn both_are_used_for_half_of_the_batches() {
        let mixing = |mixup, cutmix| Mixing { mixup, cutmix };
        let sums = |mixing: Mixing| {
            let blends = (0..400).map(|number| {
                let mixture = Mixture::draw(&mixing, 4, [8, 8], 1, 1, number);
                matches!(mixture.blend, Blend::Sum(_))
            });
            blends.filter(|&is_sum| is_sum).count()
        };
        assert_eq!(sums(mixing(0.2, 0.0)), 400);
        assert_eq!(sums(mixing(0.0, 1.0)), 0);
        let count = sums(mixing(0.2, 1.0));
        assert!((160..240).contains(&count), "{count}");
    }
}
