//! The 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering `F(4x4, 3x3)`, after Lavin
//! and Gray (2015).
//!
//! A tile of 6x6 pixels gives 4x4 outputs. Pixels and filters are transformed to 36 values each, at the points of
//! [`transform`]. The outputs are the transform of the products at each point, summed over the input channels. The sums
//! are matrix products: tiles times input channels, times input channels times output channels.

mod transform;
mod tiles;
mod filters;
mod convolution;
mod weight_gradient;

use std::borrow::Cow;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::dense::{bias_gradient, transposed};
use super::shape::{BlockShape, RELU_CLIPPED};
use super::sparse::Gradients;
use crate::cpu::parallelism::init_unlocked;
use crate::cpu::simd::InstructionSet;
use convolution::convolve;
pub(super) use filters::Filters;
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
/// output save few multiplications. `has_filters` says whether the filters are transformed already.
pub(super) fn is_suited(shape: &BlockShape, has_filters: bool) -> bool {
    const CHANNELS: usize = 32;
    const TILES: usize = 16;
    const TILES_WITH_FILTERS: usize = 4;
    const OUTPUTS_PER_TILE: usize = 6;
    let tiles = Tiling::new(shape).per_image();
    let min_tiles = match has_filters {
        true => TILES_WITH_FILTERS,
        false => TILES,
    };
    is_supported(shape)
        && shape.in_channels.min(shape.out_channels) >= CHANNELS
        && shape.batch * tiles >= min_tiles
        && shape.conv_height() * shape.conv_width() >= OUTPUTS_PER_TILE * tiles
}

/// Returns whether they are faster in the backward pass, by measurement. After pooling, at most a quarter of the pixels
/// has a gradient; visiting only these saves as many multiplications, but with many channels less of the data stays in
/// the cache.
pub(super) fn is_suited_backward(shape: &BlockShape) -> bool {
    const POOLED_CHANNELS: usize = 128;
    let channels = shape.in_channels.min(shape.out_channels);
    is_suited(shape, false) && (!shape.pool || channels >= POOLED_CHANNELS)
}

/// Computes the output of a block, as [`forward`](super::forward()) does. Returns `None` if a value is not finite: the
/// transforms spread it to other outputs of its tile, and may overflow where the convolution does not.
pub(super) fn forward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    pool_argmax: Option<&mut [u8]>,
    filters: &OnceLock<Filters>,
) -> Option<Vec<f32>> {
    let order = WeightOrder {
        output: shape.filter_len(),
        input: TAPS * TAPS,
        rotated: false,
    };
    let filters = init_unlocked(filters, || Filters::new(set, shape, weight, order));
    convolve(set, shape, images, filters, Some(bias), pool_argmax)
}

/// Computes the gradients of a block, as [`backward`](super::backward()) does. Returns `None` if a value is not finite.
pub(super) fn backward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    pool_argmax: &[u8],
    needs_images: bool,
) -> Option<Gradients> {
    let gradient = convolution_gradient(shape, gradient, pool_argmax);
    let weight_gradient = weight_gradient(set, shape, images, &gradient);
    if !is_finite(&weight_gradient) {
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

/// Returns the gradient with respect to the convolution's output: zero where ReLU or pooling dropped the pixel.
fn convolution_gradient<'a>(
    shape: &BlockShape,
    gradient: &'a [f32],
    pool_argmax: &[u8],
) -> Cow<'a, [f32]> {
    if !shape.relu && !shape.pool {
        return Cow::Borrowed(gradient);
    }
    let plane_len = shape.conv_height() * shape.conv_width();
    let mut pixels = vec![0.0; shape.batch * shape.out_channels * plane_len];
    let (window, width) = (shape.window(), shape.out_width());
    let planes = gradient
        .par_chunks_exact(shape.out_plane_len())
        .zip(pool_argmax.par_chunks_exact(shape.out_plane_len()));
    let planes = pixels.par_chunks_exact_mut(plane_len).zip(planes);
    planes.for_each(|(pixels, (gradient, argmax))| {
        let rows = gradient.chunks_exact(width).zip(argmax.chunks_exact(width));
        let windows = pixels.chunks_mut(window * shape.conv_width());
        for ((gradient, argmax), pixels) in rows.zip(windows) {
            for (x, (&gradient, &argmax)) in gradient.iter().zip(argmax).enumerate() {
                let (row, column) = (usize::from(argmax >> 1 & 1), usize::from(argmax & 1));
                let pixel = &mut pixels[row * shape.conv_width() + x * window + column];
                *pixel = if argmax == RELU_CLIPPED {
                    0.0
                } else {
                    gradient
                };
            }
        }
    });
    Cow::Owned(pixels)
}

/// Computes the gradient with respect to the images: the convolution of the gradient with the rotated filters.
fn image_gradient(
    set: InstructionSet,
    shape: &BlockShape,
    weight: &[f32],
    gradient: &[f32],
) -> Option<Vec<f32>> {
    let transposed = transposed(shape)?;
    let order = WeightOrder {
        output: TAPS * TAPS,
        input: shape.filter_len(),
        rotated: true,
    };
    let filters = Filters::new(set, &transposed, weight, order);
    convolve(set, &transposed, gradient, &filters, None, None)
}

/// Returns whether all values are finite. Compares bits, which the compiler turns into vector instructions.
fn is_finite(values: &[f32]) -> bool {
    let magnitude = |value: &f32| value.abs().to_bits().cast_signed();
    let largest = values.iter().map(magnitude).fold(0, i32::max);
    largest < f32::INFINITY.to_bits().cast_signed()
}
