//! Weights and bias in the layout of the forward kernel.

use pulp::{Simd, WithSimd};

use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, InstructionSet, transpose};

/// Vectors of output channels in a group. The kernel computes a group at a time.
pub(super) const GROUP_VECTORS: usize = 2;

/// Weights and bias with the output channels last, in groups of `GROUP_VECTORS` vectors: each group is `[taps,
/// channels of the group]`. The last vector is padded with zeros. A filter has taps `[in_channels, kernel, kernel]`.
#[derive(Debug)]
pub(in crate::cpu::conv_block) struct PackedFilters {
    /// Taps per filter.
    taps: usize,
    weight: AlignedBuffer,
    bias: AlignedBuffer,
}

impl PackedFilters {
    /// Packs weights `[out_channels, in_channels, kernel, kernel]` and the bias.
    pub(super) fn new(
        set: InstructionSet,
        shape: &BlockShape,
        weight: &[f32],
        bias: &[f32],
    ) -> Self {
        set.run(Pack {
            shape,
            weight,
            bias,
        })
    }

    /// Returns the first channel of each group.
    #[inline(always)]
    fn group_starts(&self, lanes: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.bias.len()).step_by(GROUP_VECTORS * lanes)
    }

    /// Returns the number of channels, including padding, of the group that starts at channel `first`.
    #[inline(always)]
    pub(super) fn group_width(&self, first: usize, lanes: usize) -> usize {
        (self.bias.len() - first).min(GROUP_VECTORS * lanes)
    }

    /// Returns weight and bias of the group of `width` channels that starts at channel `first`.
    #[inline(always)]
    pub(super) fn group(&self, first: usize, width: usize) -> [&[f32]; 2] {
        let weight = &self.weight[first * self.taps..][..width * self.taps];
        [weight, &self.bias[first..][..width]]
    }
}

struct Pack<'a> {
    shape: &'a BlockShape,
    weight: &'a [f32],
    bias: &'a [f32],
}

impl WithSimd for Pack<'_> {
    type Output = PackedFilters;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> PackedFilters {
        let taps = self.shape.filter_len();
        let channels = self.shape.out_channels;
        let padded = channels.next_multiple_of(S::F32_LANES);
        let mut filters = PackedFilters {
            taps,
            weight: AlignedBuffer::zeroed(padded * taps),
            bias: AlignedBuffer::zeroed(padded),
        };
        filters.bias[..channels].copy_from_slice(self.bias);
        for first in filters.group_starts(S::F32_LANES) {
            let width = filters.group_width(first, S::F32_LANES);
            let unpadded_width = width.min(channels - first);
            let from = &self.weight[first * taps..];
            let to = &mut filters.weight[first * taps..];
            transpose(simd, from, taps, to, width, unpadded_width, taps);
        }
        filters
    }
}
