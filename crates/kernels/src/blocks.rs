//! The layout of images and weights in the backward pass.

use std::mem::MaybeUninit;

use pulp::Simd;

use crate::buffer::Buffer;
use crate::registers::accumulators;
use crate::shape::BlockShape;
use crate::transpose::{transpose, transpose_into};

/// Images and weights with their channels last, in blocks of as many as a vector has lanes, so
/// that what is read again and again stays in the first-level cache.
///
/// Images are `[blocks, padded_height, padded_width, width of a block]`, weights `[blocks,
/// out_channels, kernel, pitch]`: for each row of the kernel a run of `kernel * width` numbers that
/// lie side by side in the image too, filled up to whole vectors.
pub(crate) struct Blocks {
    pub(crate) kernel: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) count: usize,
    /// Channels of a block.
    pub(crate) width: usize,
    /// Numbers in a run.
    pub(crate) run: usize,
    /// The same in whole vectors.
    pub(crate) pitch: usize,
    /// Numbers in a row of a padded image.
    pub(crate) row: usize,
    /// Numbers in a block of a padded image.
    pub(crate) plane: usize,
}

impl Blocks {
    pub(crate) fn new(shape: &BlockShape, lanes: usize) -> Self {
        let width = shape.in_channels.min(lanes);
        let run = shape.kernel * width;
        let row = shape.padded_width() * width;
        Self {
            kernel: shape.kernel,
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            count: shape.in_channels.div_ceil(width),
            width,
            run,
            pitch: run.next_multiple_of(lanes),
            row,
            plane: shape.padded_height() * row,
        }
    }

    /// Numbers of one filter in one block.
    pub(crate) fn filter(&self) -> usize {
        self.kernel * self.pitch
    }

    /// Numbers of all weights.
    pub(crate) fn weights(&self) -> usize {
        self.count * self.out_channels * self.filter()
    }

    /// Calls `visit(weight, packed)` with the index of each weight in `[out_channels, in_channels,
    /// kernel, kernel]` and here.
    #[inline(always)]
    fn indices(&self, mut visit: impl FnMut(usize, usize)) {
        let mut weight = 0;
        for out in 0..self.out_channels {
            for channel in 0..self.in_channels {
                let (block, lane) = (channel / self.width, channel % self.width);
                let filter = (block * self.out_channels + out) * self.filter() + lane;
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        visit(weight, filter + ky * self.pitch + kx * self.width);
                        weight += 1;
                    }
                }
            }
        }
    }

    /// Reorders weights `[out_channels, in_channels, kernel, kernel]`.
    pub(crate) fn pack(&self, weight: &[f32]) -> Buffer {
        let mut packed = Buffer::zeroed(self.weights());
        self.indices(|from, to| packed[to] = weight[from]);
        packed
    }

    /// The weights in their own order.
    pub(crate) fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        let mut weight = vec![0.0; self.out_channels * self.in_channels * self.kernel.pow(2)];
        self.indices(|to, from| weight[to] = packed[from]);
        weight
    }

    /// A padded image of zeros.
    pub(crate) fn image(&self, lanes: usize) -> Buffer {
        Buffer::zeroed(self.image_len(lanes))
    }

    /// Numbers of a padded image, with room for vectors that reach beyond its end.
    pub(crate) fn image_len(&self, lanes: usize) -> usize {
        self.count * self.plane + lanes
    }

    /// Calls `copy` for each row of each block with its first index in the image and in the padded
    /// image, and the channels of the block.
    #[inline(always)]
    fn rows(&self, shape: &BlockShape, mut copy: impl FnMut(usize, usize, usize)) {
        for block in 0..self.count {
            let first = block * self.width;
            let channels = self.width.min(self.in_channels - first);
            for y in 0..shape.height {
                let padded = block * self.plane
                    + (y + shape.padding) * self.row
                    + shape.padding * self.width;
                copy(first * shape.plane() + y * shape.width, padded, channels);
            }
        }
    }

    /// Pads an image `[in_channels, height, width]`; what is zero around it stays so.
    #[inline(always)]
    pub(crate) fn pad<S: Simd>(
        &self,
        simd: S,
        shape: &BlockShape,
        image: &[f32],
        padded: &mut [f32],
    ) {
        self.rows(
            shape,
            #[inline(always)]
            |at, to, channels| {
                let (from, to) = (&image[at..], &mut padded[to..]);
                transpose(
                    simd,
                    from,
                    shape.plane(),
                    to,
                    self.width,
                    channels,
                    shape.width,
                );
            },
        );
    }

    /// The image without its padding.
    #[inline(always)]
    pub(crate) fn unpad<S: Simd>(
        &self,
        simd: S,
        shape: &BlockShape,
        padded: &[f32],
        image: &mut [MaybeUninit<f32>],
    ) {
        self.rows(
            shape,
            #[inline(always)]
            |at, from, channels| {
                let (from, to) = (&padded[from..], &mut image[at..]);
                transpose_into(
                    simd,
                    from,
                    self.width,
                    to,
                    shape.plane(),
                    shape.width,
                    channels,
                );
            },
        );
    }

    /// Splits a run into parts whose accumulators fit into the registers, as even as possible:
    /// (first number, vectors) of each.
    #[inline(always)]
    pub(crate) fn parts<S: Simd>(&self) -> impl Iterator<Item = (usize, usize)> {
        let vectors = self.pitch / S::F32_LANES;
        let most = (accumulators(S::REGISTER_COUNT) / self.kernel).max(1);
        let parts = vectors.div_ceil(most);
        (0..parts).map(move |part| {
            let (first, end) = (part * vectors / parts, (part + 1) * vectors / parts);
            (first * S::F32_LANES, end - first)
        })
    }
}
