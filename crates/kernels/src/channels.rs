//! Batch normalization and ReLU, forward and backward, a channel of an image at a time.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::written;
use crate::simd::{InstructionSet, mul_add};

/// Added to a variance.
pub(crate) const EPSILON: f64 = 1e-5;

/// The shape of images `[batch, channels, plane]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    /// Pixels of a channel of an image.
    pub(crate) plane: usize,
}

/// Mean and variance of a channel over all pixels of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The variance, divided by the count.
    pub variance: f64,
}

impl Moments {
    /// One divided by the standard deviation.
    pub fn inverse_deviation(&self) -> f64 {
        1.0 / (self.variance + EPSILON).sqrt()
    }
}

impl Planes {
    /// The planes of a channel.
    fn of(self, numbers: &[f32], channel: usize) -> impl Iterator<Item = &[f32]> {
        let planes = numbers.chunks_exact(self.plane);
        planes.skip(channel).step_by(self.channels)
    }

    fn image(self) -> usize {
        self.channels * self.plane
    }

    fn count(self) -> f64 {
        (self.batch * self.plane) as f64
    }
}

/// Mean and variance of each channel.
pub(crate) fn moments_of(set: InstructionSet, planes: Planes, images: &[f32]) -> Vec<Moments> {
    let channels = (0..planes.channels).into_par_iter();
    channels
        .map(|channel| {
            // Sums of a plane in single precision, those of planes in double: far from 0, a variance is a small
            // difference of large numbers.
            let mut sums = [0.0; 2];
            for plane in planes.of(images, channel) {
                let [sum, squares] = set.run(Squares(plane));
                sums = [sums[0] + sum, sums[1] + squares];
            }
            let [mean, squares] = sums.map(|sum| sum / planes.count());
            Moments {
                mean,
                variance: (squares - mean * mean).max(0.0),
            }
        })
        .collect()
}

/// What becomes of images, and the moments it was made with.
pub(crate) fn forward(
    set: InstructionSet,
    planes: Planes,
    images: &[f32],
    bias: &[f32],
) -> (Vec<f32>, Vec<Moments>) {
    let moments = moments_of(set, planes, images);
    let lines = lines(&moments, bias);
    let fill = |output: &mut [MaybeUninit<f32>]| {
        let output = output.par_chunks_mut(planes.image());
        output
            .zip(images.par_chunks(planes.image()))
            .for_each(|(output, image)| {
                let planes = output
                    .chunks_mut(planes.plane)
                    .zip(image.chunks(planes.plane));
                for ((output, image), &line) in planes.zip(&lines) {
                    set.run(Apply {
                        image,
                        line,
                        output,
                    });
                }
            });
    };
    // SAFETY: each plane of each image is written whole.
    let output = unsafe { written(images.len(), fill) };
    (output, moments)
}

/// The gradients of images and bias.
pub(crate) fn backward(
    set: InstructionSet,
    planes: Planes,
    images: &[f32],
    bias: &[f32],
    moments: &[Moments],
    gradient: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let lines = lines(moments, bias);
    // Of what passes the ReLU: its sum, and that of its products with the images.
    let sums: Vec<[f64; 2]> = (0..planes.channels)
        .into_par_iter()
        .map(|channel| {
            let both = planes.of(images, channel).zip(planes.of(gradient, channel));
            let sums = both.map(|(image, gradient)| {
                set.run(Products {
                    image,
                    gradient,
                    line: lines[channel],
                })
            });
            sums.fold([0.0; 2], |[a, b], [sum, product]| [a + sum, b + product])
        })
        .collect();
    // dx = (g - mean(g) - x' mean(g x')) / deviation, where x' = (x - mean) / deviation.
    let backs: Vec<Back> = sums
        .iter()
        .zip(moments)
        .map(|(&[sum, product], of)| {
            let inverse = of.inverse_deviation();
            let mean = sum / planes.count();
            let slope = inverse * inverse * (product / planes.count() - of.mean * mean);
            Back {
                factor: inverse as f32,
                slope: (-inverse * slope) as f32,
                offset: (inverse * (slope * of.mean - mean)) as f32,
            }
        })
        .collect();
    let fill = |output: &mut [MaybeUninit<f32>]| {
        let size = planes.image();
        let images = images.par_chunks(size).zip(gradient.par_chunks(size));
        output
            .par_chunks_mut(size)
            .zip(images)
            .for_each(|(output, (image, gradient))| {
                let inputs = image
                    .chunks(planes.plane)
                    .zip(gradient.chunks(planes.plane));
                let planes = output.chunks_mut(planes.plane).zip(inputs);
                for (channel, (output, (image, gradient))) in planes.enumerate() {
                    set.run(Return {
                        image,
                        gradient,
                        line: lines[channel],
                        back: backs[channel],
                        output,
                    });
                }
            });
    };
    // SAFETY: each plane of each image is written whole.
    let images = unsafe { written(images.len(), fill) };
    (images, sums.iter().map(|[sum, _]| *sum as f32).collect())
}

/// What is done to a pixel before the ReLU: `factor * x + offset`.
#[derive(Clone, Copy)]
struct Line {
    factor: f32,
    offset: f32,
}

fn lines(moments: &[Moments], bias: &[f32]) -> Vec<Line> {
    let line = |(of, bias): (&Moments, &f32)| {
        let inverse = of.inverse_deviation();
        Line {
            factor: inverse as f32,
            offset: (f64::from(*bias) - of.mean * inverse) as f32,
        }
    };
    moments.iter().zip(bias).map(line).collect()
}

/// A pixel's gradient: `factor * g + slope * x + offset`.
#[derive(Clone, Copy)]
struct Back {
    factor: f32,
    slope: f32,
    offset: f32,
}

/// The sum of some numbers, and of their squares.
struct Squares<'a>(&'a [f32]);

impl WithSimd for Squares<'_> {
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
        [sum, squares].map(|sum| f64::from(simd.reduce_sum_f32s(sum)))
    }
}

/// Applies a line and ReLU to a plane.
struct Apply<'a> {
    image: &'a [f32],
    line: Line,
    output: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let line = Lanes::of(simd, self.line);
        each(simd, self.output, [self.image], |[x]| {
            line.rectified(simd, x)
        });
    }
}

/// Sums up the gradient where the ReLU let it pass, and its products with the image.
struct Products<'a> {
    image: &'a [f32],
    gradient: &'a [f32],
    line: Line,
}

impl WithSimd for Products<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let line = Lanes::of(simd, self.line);
        let (images, image_rest) = S::as_simd_f32s(self.image);
        let (gradients, gradient_rest) = S::as_simd_f32s(self.gradient);
        // A gradient of zero adds nothing, wherever the line is.
        let rest = simd.partial_load_f32s(image_rest);
        let mut sum = line.passed(simd, rest, simd.partial_load_f32s(gradient_rest));
        let mut products = simd.mul_f32s(sum, rest);
        for (&x, &gradient) in images.iter().zip(gradients) {
            let passed = line.passed(simd, x, gradient);
            sum = simd.add_f32s(sum, passed);
            products = mul_add(simd, passed, x, products);
        }
        [sum, products].map(|sum| f64::from(simd.reduce_sum_f32s(sum)))
    }
}

/// The gradient of a plane.
struct Return<'a> {
    image: &'a [f32],
    gradient: &'a [f32],
    line: Line,
    back: Back,
    output: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Return<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let line = Lanes::of(simd, self.line);
        let [factor, slope, offset] = [self.back.factor, self.back.slope, self.back.offset]
            .map(|number| simd.splat_f32s(number));
        each(
            simd,
            self.output,
            [self.image, self.gradient],
            |[x, gradient]| {
                let passed = line.passed(simd, x, gradient);
                mul_add(simd, factor, passed, mul_add(simd, slope, x, offset))
            },
        );
    }
}

/// A line in all lanes.
#[derive(Clone, Copy)]
struct Lanes<S: Simd> {
    factor: S::f32s,
    offset: S::f32s,
}

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn of(simd: S, line: Line) -> Self {
        Self {
            factor: simd.splat_f32s(line.factor),
            offset: simd.splat_f32s(line.offset),
        }
    }

    #[inline(always)]
    fn apply(self, simd: S, x: S::f32s) -> S::f32s {
        mul_add(simd, self.factor, x, self.offset)
    }

    /// With the ReLU, which lets NaN pass.
    #[inline(always)]
    fn rectified(self, simd: S, x: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let y = self.apply(simd, x);
        simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, y)
    }

    /// The gradient, where the ReLU lets it pass.
    #[inline(always)]
    fn passed(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let is_cut = simd.less_than_or_equal_f32s(self.apply(simd, x), zero);
        simd.select_f32s(is_cut, zero, gradient)
    }
}

/// Writes `of` of the numbers at each place.
#[inline(always)]
fn each<S: Simd, const N: usize>(
    simd: S,
    output: &mut [MaybeUninit<f32>],
    inputs: [&[f32]; N],
    of: impl Fn([S::f32s; N]) -> S::f32s,
) {
    let whole = output.len() / S::F32_LANES;
    let inputs = inputs.map(S::as_simd_f32s);
    let (vectors, rest) = output.split_at_mut(whole * S::F32_LANES);
    for (at, vector) in vectors.chunks_exact_mut(S::F32_LANES).enumerate() {
        let result = of(inputs.map(|(vectors, _)| vectors[at]));
        // SAFETY: the chunk has room for a vector.
        unsafe { crate::simd::store(simd, vector.as_mut_ptr().cast(), result) };
    }
    let result = of(inputs.map(|(_, rest)| simd.partial_load_f32s(rest)));
    // SAFETY: what is written to is initialized by it, and floats may hold anything before.
    let rest = unsafe { &mut *(std::ptr::from_mut(rest) as *mut [f32]) };
    simd.partial_store_f32s(rest, result);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 3, the same for the same seed.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2) | 1;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 22) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(
                difference < 1e-4 * (1.0 + expected.abs()),
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn every_instruction_set_against_definition() {
        for (batch, channels, plane) in [(3, 4, 49), (2, 1, 9), (1, 2, 1), (4, 3, 33)] {
            let planes = Planes {
                batch,
                channels,
                plane,
            };
            let count = batch * channels * plane;
            let (images, gradient) = (numbers(count, 1), numbers(count, 2));
            let bias = numbers(channels, 3);
            let channel = |at: usize| at / plane % channels;
            let mean_of = |of: &dyn Fn(usize) -> f64, c: usize| {
                let own = (0..count).filter(|&at| channel(at) == c);
                own.map(of).sum::<f64>() / (batch * plane) as f64
            };
            let x = |at: usize| f64::from(images[at]);
            let means: Vec<f64> = (0..channels).map(|c| mean_of(&x, c)).collect();
            let squares = |at: usize| (x(at) - means[channel(at)]).powi(2);
            let inverse: Vec<f64> = (0..channels)
                .map(|c| 1.0 / (mean_of(&squares, c) + EPSILON).sqrt())
                .collect();
            let normal = |at: usize| (x(at) - means[channel(at)]) * inverse[channel(at)];
            let y = |at: usize| (normal(at) + f64::from(bias[channel(at)])).max(0.0);
            let passed = |at: usize| {
                if y(at) > 0.0 {
                    f64::from(gradient[at])
                } else {
                    0.0
                }
            };
            let product = |at: usize| passed(at) * normal(at);
            let of_image = |at: usize| {
                let c = channel(at);
                inverse[c] * (passed(at) - mean_of(&passed, c) - normal(at) * mean_of(&product, c))
            };
            let sums: Vec<f64> = (0..channels)
                .map(|c| mean_of(&passed, c) * (batch * plane) as f64)
                .collect();
            for set in InstructionSet::available() {
                let (output, moments) = forward(set, planes, &images, &bias);
                close(&output, &(0..count).map(y).collect::<Vec<_>>());
                let (of_images, of_bias) =
                    backward(set, planes, &images, &bias, &moments, &gradient);
                close(&of_images, &(0..count).map(of_image).collect::<Vec<_>>());
                close(&of_bias, &sums);
            }
        }
    }

    #[test]
    fn a_pixel_that_is_no_number_is_seen() {
        let planes = Planes {
            batch: 1,
            channels: 1,
            plane: 20,
        };
        for set in InstructionSet::available() {
            let mut images = numbers(20, 1);
            images[3] = f32::NAN;
            let (output, _) = forward(set, planes, &images, &[0.0]);
            assert!(output.iter().all(|y| y.is_nan()));
        }
    }
}
