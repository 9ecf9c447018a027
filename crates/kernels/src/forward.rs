//! The forward pass, image by image.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::direct::{self, Direct};
use crate::epilogue::Output;
use crate::filters::{Filters, VECTORS};
use crate::shape::BlockShape;
use crate::simd::InstructionSet;

/// Computes the block's output, `[batch, out_channels, out_height, out_width]`.
///
/// `winners`, of the same shape, gets what the backward pass has to know: which pixel of the
/// pooling window each output came from (0 to 3 in reading order, 0 without a pool), or
/// [`NO_WINNER`](crate::epilogue::NO_WINNER).
pub(crate) fn forward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    output: &mut [f32],
    winners: Option<&mut [u8]>,
) {
    assert_eq!(images.len(), shape.batch * shape.image());
    assert_eq!(weight.len(), shape.out_channels * shape.filter());
    assert_eq!(bias.len(), shape.out_channels);
    assert_eq!(output.len(), shape.batch * shape.out_image());
    if output.is_empty() {
        return;
    }
    let filters = Filters::new(set, &shape, weight, bias);
    let run = |scratch: &mut Scratch, image, values, winners| {
        set.run(ForwardImage {
            shape: &shape,
            filters: &filters,
            image,
            output: Output { values, winners },
            scratch,
        });
    };
    let scratch = || Scratch::new(shape, set.lanes());
    let images = images.par_chunks_exact(shape.image());
    let outputs = output.par_chunks_exact_mut(shape.out_image());
    match winners {
        Some(winners) => {
            assert_eq!(winners.len(), shape.batch * shape.out_image());
            let winners = winners.par_chunks_exact_mut(shape.out_image());
            (images, outputs, winners)
                .into_par_iter()
                .for_each_init(scratch, |scratch, (image, output, winners)| {
                    run(scratch, image, output, Some(winners))
                });
        }
        None => {
            (images, outputs)
                .into_par_iter()
                .for_each_init(scratch, |scratch, (image, output)| {
                    run(scratch, image, output, None);
                })
        }
    }
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

struct ForwardImage<'a> {
    shape: &'a BlockShape,
    filters: &'a Filters,
    image: &'a [f32],
    output: Output<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for ForwardImage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            filters,
            image,
            mut output,
            scratch: Scratch { padded, direct },
        } = self;
        pad(shape, image, padded);
        for first in filters.firsts(S::F32_LANES) {
            if filters.width(first, S::F32_LANES) == VECTORS * S::F32_LANES {
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
