//! The direct convolution, in parallel over images, or over groups of output channels if there are few images.

mod packed_filters;
mod epilogue;
mod direct_conv;

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::shape::BlockShape;
use crate::cpu::parallelism::{init_unlocked, is_small};
use crate::cpu::simd::{AlignedBuffer, InstructionSet, init_vec};
use direct_conv::{DirectConv, overread_len};
pub(super) use epilogue::{OutputSlices, clip, pool_window};
use packed_filters::GROUP_VECTORS;
pub(super) use packed_filters::PackedFilters;

/// Computes the output of a block, as [`forward`](super::forward()) does.
pub(super) fn forward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    pool_argmax: Option<&mut [u8]>,
    filters: &OnceLock<PackedFilters>,
) -> Vec<f32> {
    let filters = init_unlocked(filters, || PackedFilters::new(set, &shape, weight, bias));
    let scratch = || Scratch::new(shape, set.lanes());
    let is_small = is_small(shape.products());
    // With fewer images than threads, a job is a group of channels of an image.
    let group = GROUP_VECTORS * set.lanes();
    let channels = if !is_small && shape.batch < rayon::current_num_threads() {
        group.min(shape.out_channels)
    } else {
        shape.out_channels
    };
    let jobs_per_image = shape.out_channels.div_ceil(channels);
    let convolve = |values: &mut [MaybeUninit<f32>]| {
        let mut outputs = OutputSlices {
            values,
            pool_argmax,
        };
        let jobs: Vec<_> = (0..shape.batch * jobs_per_image)
            .map(|job| {
                let first = job % jobs_per_image * channels;
                let channels = channels.min(shape.out_channels - first);
                let output = outputs.split_off(channels * shape.out_plane_len());
                (job / jobs_per_image, first, output)
            })
            .collect();
        assert!(outputs.values.is_empty());
        let run = |scratch: &mut Scratch, (image, first, output)| {
            set.run(ForwardJob {
                shape: &shape,
                filters,
                image: &images[image * shape.image_len()..][..shape.image_len()],
                first,
                output,
                scratch,
            });
        };
        if is_small {
            let mut scratch = scratch();
            jobs.into_iter().for_each(|job| run(&mut scratch, job));
        } else {
            jobs.into_par_iter().for_each_init(scratch, run);
        }
    };
    // SAFETY: the jobs write all channels of all images.
    unsafe { init_vec(shape.batch * shape.out_image_len(), convolve) }
}

/// Scratch memory of one thread.
struct Scratch {
    /// The zero-padded image, `[in_channels, padded_height, padded_width]`.
    padded: AlignedBuffer,
    conv: DirectConv,
}

impl Scratch {
    fn new(shape: BlockShape, lanes: usize) -> Self {
        let padded = shape.in_channels * shape.padded_plane_len() + overread_len(&shape);
        Self {
            padded: AlignedBuffer::zeroed(padded),
            conv: DirectConv::new(shape, lanes),
        }
    }
}

/// Some output channels of one image.
struct ForwardJob<'a> {
    shape: &'a BlockShape,
    filters: &'a PackedFilters,
    image: &'a [f32],
    /// The first output channel, at the start of a group.
    first: usize,
    output: OutputSlices<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for ForwardJob<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            filters,
            image,
            first,
            mut output,
            scratch: Scratch { padded, conv },
        } = self;
        pad(shape, image, padded);
        let group = GROUP_VECTORS * S::F32_LANES;
        let channels = output.values.len() / shape.out_plane_len();
        for first in (first..first + channels).step_by(group) {
            let len = group.min(shape.out_channels - first) * shape.out_plane_len();
            let mut output = output.split_off(len);
            if filters.group_width(first, S::F32_LANES) == group {
                conv.run::<S, GROUP_VECTORS>(simd, filters, first, padded, &mut output);
            } else {
                conv.run::<S, 1>(simd, filters, first, padded, &mut output);
            }
        }
    }
}

/// Copies an image into a padded image whose border is zero already.
pub(super) fn pad(shape: &BlockShape, image: &[f32], padded: &mut [f32]) {
    let pitch = shape.padded_width();
    let planes = padded.chunks_exact_mut(shape.padded_plane_len());
    for (plane, padded) in image.chunks_exact(shape.plane_len()).zip(planes) {
        let rows = padded[shape.padding * pitch..].chunks_mut(pitch);
        for (row, padded) in plane.chunks_exact(shape.width).zip(rows) {
            padded[shape.padding..][..shape.width].copy_from_slice(row);
        }
    }
}
