//! The channel-blocked layout of images and weights in the backward pass.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::register_blocking::max_accumulators;
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, transpose, transpose_into};

/// Images and weights with the channels last, in blocks of one vector of input channels, so that the data of a block
/// stays in the L1 cache.
///
/// Images are `[blocks, padded_height, padded_width, block_channels]`, weights `[blocks, out_channels, kernel,
/// run_pitch]`. A run is one row of a filter in one block: `kernel * block_channels` floats, which are contiguous in
/// the image too. In the weights, each run is padded to whole vectors.
pub(super) struct BlockedLayout {
    pub(super) kernel: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) blocks: usize,
    /// Channels in a block.
    pub(super) block_channels: usize,
    /// Floats in a run.
    pub(super) run_len: usize,
    /// Floats from one run of the weights to the next.
    pub(super) run_pitch: usize,
    /// Floats in a row of a block of a padded image.
    pub(super) row_len: usize,
    /// Floats in a block of a padded image.
    pub(super) plane_len: usize,
}

impl BlockedLayout {
    pub(super) fn new(shape: &BlockShape, lanes: usize) -> Self {
        let block_channels = shape.in_channels.min(lanes);
        let run_len = shape.kernel * block_channels;
        let row_len = shape.padded_width() * block_channels;
        Self {
            kernel: shape.kernel,
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            blocks: shape.in_channels.div_ceil(block_channels),
            block_channels,
            run_len,
            run_pitch: run_len.next_multiple_of(lanes),
            row_len,
            plane_len: shape.padded_height() * row_len,
        }
    }

    /// Returns the number of floats of one filter in one block.
    pub(super) fn filter_len(&self) -> usize {
        self.kernel * self.run_pitch
    }

    /// Returns the number of floats of all packed weights.
    pub(super) fn weight_len(&self) -> usize {
        self.blocks * self.out_channels * self.filter_len()
    }

    /// Calls `visit(index, packed_index)` for each weight, with its index in `[out_channels, in_channels, kernel,
    /// kernel]` and in this layout.
    #[inline(always)]
    fn for_each_weight(&self, mut visit: impl FnMut(usize, usize)) {
        let mut weight = 0;
        for out in 0..self.out_channels {
            for channel in 0..self.in_channels {
                let (block, lane) = (channel / self.block_channels, channel % self.block_channels);
                let filter = (block * self.out_channels + out) * self.filter_len() + lane;
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        visit(
                            weight,
                            filter + ky * self.run_pitch + kx * self.block_channels,
                        );
                        weight += 1;
                    }
                }
            }
        }
    }

    /// Packs weights `[out_channels, in_channels, kernel, kernel]`.
    pub(super) fn pack_weight(&self, weight: &[f32]) -> AlignedBuffer {
        let mut packed = AlignedBuffer::zeroed(self.weight_len());
        self.for_each_weight(|from, to| packed[to] = weight[from]);
        packed
    }

    /// Unpacks weights to `[out_channels, in_channels, kernel, kernel]`.
    pub(super) fn unpack_weight(&self, packed: &[f32]) -> Vec<f32> {
        let mut weight = vec![0.0; self.out_channels * self.in_channels * self.kernel.pow(2)];
        self.for_each_weight(|to, from| weight[to] = packed[from]);
        weight
    }

    /// Returns a padded image of zeros.
    pub(super) fn zeroed_image(&self, lanes: usize) -> AlignedBuffer {
        AlignedBuffer::zeroed(self.image_len(lanes))
    }

    /// Returns the number of floats of a padded image, including one vector behind its end for reads of whole vectors.
    pub(super) fn image_len(&self, lanes: usize) -> usize {
        self.blocks * self.plane_len + lanes
    }

    /// Calls `copy(index, padded_index, channels)` for each image row of each block, with the index of its first pixel
    /// in the image and in the padded image, and the number of channels of the block.
    #[inline(always)]
    fn for_each_row(&self, shape: &BlockShape, mut copy: impl FnMut(usize, usize, usize)) {
        for block in 0..self.blocks {
            let first = block * self.block_channels;
            let channels = self.block_channels.min(self.in_channels - first);
            for y in 0..shape.height {
                let padded = block * self.plane_len
                    + (y + shape.padding) * self.row_len
                    + shape.padding * self.block_channels;
                copy(
                    first * shape.plane_len() + y * shape.width,
                    padded,
                    channels,
                );
            }
        }
    }

    /// Packs an image `[in_channels, height, width]` into `padded`. Leaves the padding as it is.
    #[inline(always)]
    pub(super) fn pack_image<S: Simd>(
        &self,
        simd: S,
        shape: &BlockShape,
        image: &[f32],
        padded: &mut [f32],
    ) {
        self.for_each_row(
            shape,
            #[inline(always)]
            |at, to, channels| {
                let (from, to) = (&image[at..], &mut padded[to..]);
                transpose(
                    simd,
                    from,
                    shape.plane_len(),
                    to,
                    self.block_channels,
                    channels,
                    shape.width,
                );
            },
        );
    }

    /// Unpacks an image to `[in_channels, height, width]`, without its padding.
    #[inline(always)]
    pub(super) fn unpack_image<S: Simd>(
        &self,
        simd: S,
        shape: &BlockShape,
        padded: &[f32],
        image: &mut [MaybeUninit<f32>],
    ) {
        self.for_each_row(
            shape,
            #[inline(always)]
            |at, from, channels| {
                let (from, to) = (&padded[from..], &mut image[at..]);
                transpose_into(
                    simd,
                    from,
                    self.block_channels,
                    to,
                    shape.plane_len(),
                    shape.width,
                    channels,
                );
            },
        );
    }

    /// Splits a run into parts of nearly equal size whose accumulators, for all rows of the kernel, fit into the
    /// registers. Returns the first float and the number of vectors of each part.
    #[inline(always)]
    pub(super) fn run_parts<S: Simd>(&self) -> impl Iterator<Item = (usize, usize)> {
        let vectors = self.run_pitch / S::F32_LANES;
        let max_vectors = (max_accumulators(S::REGISTER_COUNT) / self.kernel).max(1);
        let parts = vectors.div_ceil(max_vectors);
        (0..parts).map(move |part| {
            let (first, end) = (part * vectors / parts, (part + 1) * vectors / parts);
            (first * S::F32_LANES, end - first)
        })
    }
}
