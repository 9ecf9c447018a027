//! Mean and variance of each channel.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::shape::NormShape;
use crate::cpu::simd::{InstructionSet, mul_add};

/// Added to each variance.
pub(crate) const EPSILON: f64 = 1e-5;

/// Mean and variance of a channel over all pixels of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The biased variance: divided by the number of pixels.
    pub variance: f64,
}

impl Moments {
    /// Returns the reciprocal of the standard deviation, `1 / sqrt(variance + 1e-5)`.
    pub fn inverse_deviation(&self) -> f64 {
        1.0 / (self.variance + EPSILON).sqrt()
    }
}

/// Returns mean and variance of each channel.
pub(crate) fn channel_moments(
    set: InstructionSet,
    shape: NormShape,
    images: &[f32],
) -> Vec<Moments> {
    let channels = (0..shape.channels).into_par_iter();
    channels
        .map(|channel| {
            // Sums within a plane are f32, sums of planes f64: if the mean is far from 0, the variance is a small
            // difference of large numbers.
            let mut sums = [0.0; 2];
            for plane in shape.channel_planes(images, channel) {
                let [sum, squares] = set.run(SumAndSquares(plane));
                sums = [sums[0] + sum, sums[1] + squares];
            }
            let [mean, squares] = sums.map(|sum| sum / shape.count());
            Moments {
                mean,
                variance: (squares - mean * mean).max(0.0),
            }
        })
        .collect()
}

/// Computes the sum of a plane, and the sum of its squares.
struct SumAndSquares<'a>(&'a [f32]);

impl WithSimd for SumAndSquares<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let (vectors, rest) = S::as_simd_f32s(self.0);
        let rest = simd.partial_load_f32s(rest);
        let mut sum = rest;
        let mut squares = simd.mul_f32s(rest, rest);
        for &x in vectors {
            sum = simd.add_f32s(sum, x);
            squares = mul_add(simd, x, x, squares);
        }
        let (sum, squares) = (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(squares));
        [sum.into(), squares.into()]
    }
}
