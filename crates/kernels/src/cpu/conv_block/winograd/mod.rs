//! The 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering `F(4x4, 3x3)`, after Lavin
//! and Gray (2015).
//!
//! A tile of 6x6 pixels gives 4x4 outputs. Pixels and filters are transformed to 36 values each, at the points of
//! [`transform`]. The outputs are the transform of the products at each point, summed over the input channels. The sums
//! are matrix products: tiles times input channels, times input channels times output channels.

mod transform;
mod product;
mod tiles;
mod filters;
mod convolution;
mod weight_gradient;

use std::borrow::Cow;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::shape::{BlockShape, RELU_CLIPPED};
use super::sparse::{Gradients, sum};
use crate::cpu::simd::InstructionSet;
use convolution::convolve;
use filters::WeightOrder;
use tiles::Tiling;
use transform::TAPS;
use weight_gradient::weight_gradient;

/// Returns whether the kernels of this module support the shape.
pub(super) fn is_supported(shape: &BlockShape) -> bool {
    shape.kernel == TAPS && shape.padding < TAPS
}

/// Returns whether they are faster than the direct convolution, by measurement: with few channels the transforms take
/// longer than the products, with few tiles the transform of the filters does, and tiles that extend far beyond the
/// output save few multiplications.
pub(super) fn is_suited(shape: &BlockShape) -> bool {
    const CHANNELS: usize = 32;
    const TILES: usize = 16;
    const OUTPUTS_PER_TILE: usize = 6;
    let tiles = Tiling::new(shape).per_image();
    is_supported(shape)
        && shape.in_channels.min(shape.out_channels) >= CHANNELS
        && shape.batch * tiles >= TILES
        && shape.conv_height() * shape.conv_width() >= OUTPUTS_PER_TILE * tiles
}

/// Computes the output of a block, as [`forward`](super::forward()) does. Returns `None` if a value is not finite: the
/// transforms spread it to other outputs of its tile, and may overflow where the convolution does not.
pub(crate) fn forward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    pool_argmax: Option<&mut [u8]>,
) -> Option<Vec<f32>> {
    let order = WeightOrder {
        output: shape.filter_len(),
        input: TAPS * TAPS,
        rotated: false,
    };
    convolve(set, shape, images, weight, order, Some(bias), pool_argmax)
}

/// Computes the gradients of a block without pooling, as [`backward`](super::backward()) does. Returns `None` if a
/// value is not finite.
pub(crate) fn backward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    pool_argmax: &[u8],
    needs_images: bool,
) -> Option<Gradients> {
    assert!(!shape.pool);
    let gradient = match shape.relu {
        true => Cow::Owned(unclipped(gradient, pool_argmax)),
        false => Cow::Borrowed(gradient),
    };
    let weight_gradient = weight_gradient(set, shape, images, &gradient);
    if !weight_gradient.iter().all(|x| x.is_finite()) {
        return None;
    }
    let image_gradient = match needs_images {
        true => Some(image_gradient(set, shape, weight, &gradient)?),
        false => None,
    };
    Some(Gradients {
        images: image_gradient,
        weight: weight_gradient,
        bias: bias_gradient(set, shape, &gradient),
    })
}

/// Returns the gradient with zeros where the ReLU clipped the output.
fn unclipped(gradient: &[f32], pool_argmax: &[u8]) -> Vec<f32> {
    let pairs = gradient.par_iter().zip(pool_argmax);
    let unclipped = pairs.map(|(&gradient, &argmax)| match argmax {
        RELU_CLIPPED => 0.0,
        _ => gradient,
    });
    unclipped.collect()
}

/// Computes the gradient with respect to the images: the convolution of the gradient with the rotated filters.
fn image_gradient(
    set: InstructionSet,
    shape: &BlockShape,
    weight: &[f32],
    gradient: &[f32],
) -> Option<Vec<f32>> {
    let transposed = BlockShape {
        in_channels: shape.out_channels,
        out_channels: shape.in_channels,
        height: shape.conv_height(),
        width: shape.conv_width(),
        padding: TAPS - 1 - shape.padding,
        relu: false,
        pool: false,
        ..*shape
    };
    let order = WeightOrder {
        output: TAPS * TAPS,
        input: shape.filter_len(),
        rotated: true,
    };
    convolve(set, &transposed, gradient, weight, order, None, None)
}

/// Sums the gradient over all pixels.
fn bias_gradient(set: InstructionSet, shape: &BlockShape, gradient: &[f32]) -> Vec<f32> {
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
