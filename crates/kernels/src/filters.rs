//! Weights and bias as the forward kernels read them.

use pulp::{Simd, WithSimd};

use crate::buffer::Buffer;
use crate::shape::BlockShape;
use crate::simd::InstructionSet;
use crate::transpose::transpose;

/// Vectors of output channels that are computed side by side.
pub(crate) const VECTORS: usize = 2;

/// Weights and bias with the output channels last, in groups of `VECTORS` vectors: each group
/// `[taps, lanes of the group]`, filled up with zeros. The taps of a filter are `[in_channels,
/// kernel, kernel]`.
pub(crate) struct Filters {
    /// Taps per filter.
    taps: usize,
    weight: Buffer,
    bias: Buffer,
}

impl Filters {
    /// Reorders `[out_channels, in_channels, kernel, kernel]`.
    pub(crate) fn new(
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

    /// The first channel of each group.
    #[inline(always)]
    fn firsts(&self, lanes: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.bias.len()).step_by(VECTORS * lanes)
    }

    /// Channels of the group that begins at `first`, the ones filled up included.
    #[inline(always)]
    pub(crate) fn width(&self, first: usize, lanes: usize) -> usize {
        (self.bias.len() - first).min(VECTORS * lanes)
    }

    /// Weights and biases of the `width` channels from `first` on, one group.
    #[inline(always)]
    pub(crate) fn group(&self, first: usize, width: usize) -> [&[f32]; 2] {
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
    type Output = Filters;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Filters {
        let taps = self.shape.filter();
        let channels = self.shape.out_channels;
        let padded = channels.next_multiple_of(S::F32_LANES);
        let mut filters = Filters {
            taps,
            weight: Buffer::zeroed(padded * taps),
            bias: Buffer::zeroed(padded),
        };
        filters.bias[..channels].copy_from_slice(self.bias);
        for first in filters.firsts(S::F32_LANES) {
            let width = filters.width(first, S::F32_LANES);
            let real = width.min(channels - first);
            let from = &self.weight[first * taps..];
            let to = &mut filters.weight[first * taps..];
            transpose(simd, from, taps, to, width, real, taps);
        }
        filters
    }
}
