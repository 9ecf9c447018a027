//! The forward pass, image by image, or for few images by channels of an image.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::{Buffer, written};
use crate::direct::{self, Direct};
use crate::epilogue::Output;
use crate::filters::{Filters, VECTORS};
use crate::shape::BlockShape;
use crate::simd::InstructionSet;

/// Multiplications that are worth waking up the other threads.
const WORTH: usize = if cfg!(test) { 1 << 12 } else { 1 << 22 };

/// Computes the block's output, `[batch, out_channels, out_height, out_width]`.
///
/// `winners`, of the same shape, gets what the backward pass has to know: which pixel of the
/// pooling window each output came from (0 to 3 in reading order, 0 without a pool), or
/// [`NO_WINNER`](crate::epilogue::NO_WINNER). No size is 0.
pub(crate) fn forward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    winners: Option<&mut [u8]>,
) -> Vec<f32> {
    assert_eq!(images.len(), shape.batch * shape.image());
    assert_eq!(weight.len(), shape.out_channels * shape.filter());
    assert_eq!(bias.len(), shape.out_channels);
    if let Some(winners) = &winners {
        assert_eq!(winners.len(), shape.batch * shape.out_image());
    }
    let filters = Filters::new(set, &shape, weight, bias);
    let scratch = || Scratch::new(shape, set.lanes());
    let pixels = shape.batch * shape.conv_height() * shape.conv_width();
    let is_small = pixels * shape.out_channels * shape.filter() < WORTH;
    // Few images are split into groups of channels.
    let group = VECTORS * set.lanes();
    let channels = if !is_small && shape.batch < rayon::current_num_threads() {
        group.min(shape.out_channels)
    } else {
        shape.out_channels
    };
    let parts = shape.out_channels.div_ceil(channels);
    let convolve = |values: &mut [MaybeUninit<f32>]| {
        let mut outputs = Output { values, winners };
        let jobs: Vec<_> = (0..shape.batch * parts)
            .map(|job| {
                let first = job % parts * channels;
                let channels = channels.min(shape.out_channels - first);
                let output = outputs.split_off(channels * shape.out_plane());
                (job / parts, first, output)
            })
            .collect();
        assert!(outputs.values.is_empty());
        let run = |scratch: &mut Scratch, (image, first, output)| {
            set.run(ForwardJob {
                shape: &shape,
                filters: &filters,
                image: &images[image * shape.image()..][..shape.image()],
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
    unsafe { written(shape.batch * shape.out_image(), convolve) }
}

/// Working memory of one thread.
struct Scratch {
    /// The image with zeros around it, `[in_channels, padded_height, padded_width]`.
    padded: Buffer,
    direct: Direct,
}

impl Scratch {
    fn new(shape: BlockShape, lanes: usize) -> Self {
        let padded = shape.in_channels * shape.padded_plane() + direct::slack(&shape);
        Self {
            padded: Buffer::zeroed(padded),
            direct: Direct::new(shape, lanes),
        }
    }
}

/// An image, and the channels of its output that are wanted.
struct ForwardJob<'a> {
    shape: &'a BlockShape,
    filters: &'a Filters,
    image: &'a [f32],
    /// The first channel of the output, one where a group begins.
    first: usize,
    output: Output<'a>,
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
            scratch: Scratch { padded, direct },
        } = self;
        pad(shape, image, padded);
        let group = VECTORS * S::F32_LANES;
        let channels = output.values.len() / shape.out_plane();
        for first in (first..first + channels).step_by(group) {
            let numbers = group.min(shape.out_channels - first) * shape.out_plane();
            let mut output = output.split_off(numbers);
            if filters.width(first, S::F32_LANES) == group {
                direct.run::<S, VECTORS>(simd, filters, first, padded, &mut output);
            } else {
                direct.run::<S, 1>(simd, filters, first, padded, &mut output);
            }
        }
    }
}

/// Copies an image into the middle of its zeros.
fn pad(shape: &BlockShape, image: &[f32], padded: &mut [f32]) {
    let pitch = shape.padded_width();
    let planes = padded.chunks_exact_mut(shape.padded_plane());
    for (plane, padded) in image.chunks_exact(shape.plane()).zip(planes) {
        let rows = padded[shape.padding * pitch..].chunks_mut(pitch);
        for (row, padded) in plane.chunks_exact(shape.width).zip(rows) {
            padded[shape.padding..][..shape.width].copy_from_slice(row);
        }
    }
}
