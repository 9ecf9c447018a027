//! The gradients of the pixels that have one, in parallel over groups of images.
//!
//! At most one pixel of each pooling window has a gradient, and none where the ReLU clipped the output. Only pixels
//! with a nonzero gradient are visited.

mod sparse_gradient;
mod blocked_layout;
mod register_blocking;
mod weight_gradient;
mod input_gradient;

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, InstructionSet, init_vec};
use blocked_layout::BlockedLayout;
use input_gradient::{GradientsByPixel, input_gradient};
use sparse_gradient::SparseGradient;
use weight_gradient::weight_gradient;

/// Maximum number of groups of images. Each group has its own sum of the weights' gradient; the groups are added in
/// order, and their number does not depend on the threads, so neither does the rounding.
const MAX_GROUPS: usize = 16;

/// Gradients with respect to the inputs of a block.
pub(crate) struct Gradients {
    /// `[batch, in_channels, height, width]`, if requested.
    pub(crate) images: Option<Vec<f32>>,
    /// `[out_channels, in_channels, kernel, kernel]`
    pub(crate) weight: Vec<f32>,
    /// `[out_channels]`
    pub(crate) bias: Vec<f32>,
}

/// Computes the gradients of a block, as [`backward`](super::backward()) does.
pub(super) fn backward(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    weight: &[f32],
    gradient: &[f32],
    pool_argmax: &[u8],
    needs_images: bool,
) -> Gradients {
    let zeros;
    let pool_argmax = match shape.argmax_len() {
        0 => {
            zeros = vec![0; gradient.len()];
            &zeros
        }
        _ => pool_argmax,
    };
    let layout = BlockedLayout::new(shape, set.lanes());
    let packed_weight = needs_images.then(|| layout.pack_weight(weight));

    let image_gradient_len = if needs_images { shape.image_len() } else { 0 };
    let mut sums: Vec<GroupSums> = Vec::new();
    let run_groups = |image_gradients: &mut [MaybeUninit<f32>]| {
        // Each group writes to its own part. All parts are empty if the gradient is not requested.
        let mut rest = image_gradients;
        let jobs: Vec<(usize, &mut [MaybeUninit<f32>])> = (0..groups(shape))
            .map(|group| {
                let len = group_range(shape, group).len() * image_gradient_len;
                let part = rest.split_off_mut(..len);
                (group, part.expect("the slice holds all images"))
            })
            .collect();
        jobs.into_par_iter()
            .map(|(group, image_gradients)| {
                let Range { start: first, end } = group_range(shape, group);
                set.run(BackwardGroup {
                    shape,
                    layout: &layout,
                    images: &images[first * shape.image_len()..end * shape.image_len()],
                    packed_weight: packed_weight.as_deref(),
                    gradient: &gradient[first * shape.out_image_len()..end * shape.out_image_len()],
                    pool_argmax: &pool_argmax
                        [first * shape.out_image_len()..end * shape.out_image_len()],
                    image_gradients,
                })
            })
            .collect_into_vec(&mut sums);
    };
    // SAFETY: each group writes the gradients of all of its images if they are requested; else the length is 0.
    let image_gradients = unsafe { init_vec(shape.batch * image_gradient_len, run_groups) };

    let parts = |part: fn(&GroupSums) -> &[f32]| sums.iter().map(part).collect::<Vec<_>>();
    let weight = sum_groups(&parts(|sums| &sums.weight));
    let bias = sum_groups(&parts(|sums| &sums.bias));
    Gradients {
        images: needs_images.then_some(image_gradients),
        weight: layout.unpack_weight(&weight),
        bias,
    }
}

/// Returns the number of groups of images.
pub(super) fn groups(shape: &BlockShape) -> usize {
    shape.batch.clamp(1, MAX_GROUPS)
}

/// Returns the images of a group.
pub(super) fn group_range(shape: &BlockShape, group: usize) -> Range<usize> {
    let start = |group: usize| group * shape.batch / groups(shape);
    start(group)..start(group + 1)
}

/// Returns the elementwise sum of slices of equal length, added in order.
pub(super) fn sum_groups(parts: &[&[f32]]) -> Vec<f32> {
    const CHUNK: usize = 1 << 12;
    let mut total = parts[0].to_vec();
    total
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, total)| {
            for part in &parts[1..] {
                for (total, &value) in total.iter_mut().zip(&part[chunk * CHUNK..]) {
                    *total += value;
                }
            }
        });
    total
}

/// Returns the sum of `values`.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let mut sum = simd.splat_f32s(0.0);
    for &vector in vectors {
        sum = simd.add_f32s(sum, vector);
    }
    simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()
}

/// Gradients with respect to weight and bias, summed over a group of images.
struct GroupSums {
    /// In [`BlockedLayout`].
    weight: AlignedBuffer,
    bias: AlignedBuffer,
}

/// A group of images, whose gradients are summed in order.
struct BackwardGroup<'a> {
    shape: &'a BlockShape,
    layout: &'a BlockedLayout,
    images: &'a [f32],
    packed_weight: Option<&'a [f32]>,
    gradient: &'a [f32],
    pool_argmax: &'a [u8],
    image_gradients: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for BackwardGroup<'_> {
    type Output = GroupSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> GroupSums {
        let shape = self.shape;
        let layout = self.layout;
        let mut sums = GroupSums {
            weight: AlignedBuffer::zeroed(layout.weight_len()),
            bias: AlignedBuffer::zeroed(shape.out_channels),
        };
        let mut padded = layout.zeroed_image(S::F32_LANES);
        let mut sparse = SparseGradient::new(shape);
        let mut input = self.packed_weight.map(|weight| {
            let padded = layout.zeroed_image(S::F32_LANES);
            (weight, GradientsByPixel::new(shape, layout), padded)
        });
        let images = self.images.chunks_exact(shape.image_len());
        let gradients = self.gradient.chunks_exact(shape.out_image_len());
        let argmaxes = self.pool_argmax.chunks_exact(shape.out_image_len());
        let mut image_gradients = self.image_gradients.chunks_exact_mut(shape.image_len());
        for ((image, gradient), pool_argmax) in images.zip(gradients).zip(argmaxes) {
            layout.pack_image(simd, shape, image, &mut padded);
            sparse.fill(simd, gradient, pool_argmax);
            for (bias_sum, (_, gradients)) in sums.bias.iter_mut().zip(sparse.channels()) {
                *bias_sum += sum(simd, gradients);
            }
            weight_gradient(simd, layout, &padded, &sparse, &mut sums.weight);
            if let (Some((weight, by_pixel, padded)), Some(image_gradient)) =
                (&mut input, image_gradients.next())
            {
                padded.fill(0.0);
                by_pixel.sort(&sparse);
                input_gradient(simd, layout, weight, by_pixel, padded);
                layout.unpack_image(simd, shape, padded, image_gradient);
            }
        }
        sums
    }
}
