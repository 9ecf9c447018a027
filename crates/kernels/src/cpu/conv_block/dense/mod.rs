//! The gradients of a block without ReLU and pooling, in which all pixels count.

mod weight_gradient;

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::shape::BlockShape;
use super::sparse::{Gradients, sum};
use super::{ConvBlockOptions, direct, sparse};
use crate::cpu::simd::InstructionSet;
use weight_gradient::weight_gradient;

/// Filters of more taps have more data per pixel than the first-level cache holds, so the kernels of
/// [`sparse`] are faster.
const MAX_TAPS: usize = 128;

/// Returns whether the kernels of this module are faster than those for sparse gradients, by measurement: without ReLU
/// and pooling. The gradient with respect to the images is a convolution too.
pub(super) fn is_suited(shape: &BlockShape) -> bool {
    !shape.relu && !shape.pool && transposed(shape).is_some()
}

/// Computes the gradients of a block without ReLU and pooling, as [`backward`](super::backward()) does.
pub(super) fn backward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    pool_argmax: &[u8],
    needs_images: bool,
) -> Gradients {
    let image_gradient = || {
        let shape = transposed(shape).expect("the shape is suited");
        let bias = vec![0.0; shape.out_channels];
        let weight = rotated(&shape, weight);
        direct::forward(set, shape, gradient, &weight, &bias, None, &OnceLock::new())
    };
    let mut gradients = if shape.filter_len() <= MAX_TAPS {
        Gradients {
            images: None,
            weight: weight_gradient(set, shape, images, gradient),
            bias: bias_gradient(set, shape, gradient),
        }
    } else {
        sparse::backward(set, shape, images, weight, gradient, pool_argmax, false)
    };
    gradients.images = needs_images.then(image_gradient);
    gradients
}

/// Returns the shape of the convolution of the gradient that gives the gradient with respect to the images, if
/// supported.
pub(super) fn transposed(shape: &BlockShape) -> Option<BlockShape> {
    let padding = (shape.kernel - 1).checked_sub(shape.padding)?;
    let options = ConvBlockOptions {
        padding,
        relu: false,
        pool: false,
    };
    let gradient = [
        shape.batch,
        shape.out_channels,
        shape.conv_height(),
        shape.conv_width(),
    ];
    let kernel = shape.kernel;
    let weight = [shape.in_channels, shape.out_channels, kernel, kernel];
    BlockShape::supported(gradient, weight, options)
}

/// Exchanges the channels of weights, `[in_channels, out_channels, kernel, kernel]` of `shape`, and rotates the filters
/// by 180 degrees.
fn rotated(shape: &BlockShape, weight: &[f32]) -> Vec<f32> {
    let taps = shape.kernel * shape.kernel;
    let filter = |output: usize, input: usize| {
        let start = (input * shape.out_channels + output) * taps;
        weight[start..][..taps].iter().rev()
    };
    (0..shape.out_channels)
        .flat_map(|output| (0..shape.in_channels).flat_map(move |input| filter(output, input)))
        .copied()
        .collect()
}

/// Sums the gradient over all pixels.
pub(super) fn bias_gradient(set: InstructionSet, shape: &BlockShape, gradient: &[f32]) -> Vec<f32> {
    let plane_len = shape.conv_height() * shape.conv_width();
    let channel_sum = |channel: usize| -> f32 {
        let planes = gradient.chunks_exact(plane_len);
        let planes = planes.skip(channel).step_by(shape.out_channels);
        planes.map(|plane| set.run(PlaneSum(plane))).sum()
    };
    let channels = (0..shape.out_channels).into_par_iter();
    channels.map(channel_sum).collect()
}

/// Sums a plane.
struct PlaneSum<'a>(&'a [f32]);

impl WithSimd for PlaneSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        sum(simd, self.0)
    }
}
