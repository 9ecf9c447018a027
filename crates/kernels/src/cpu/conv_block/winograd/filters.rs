//! Transformed filters.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::tiles::{LINE, is_small};
use super::transform::{POINTS, TAPS, taps};
use crate::cpu::conv_block::product::VECTORS;
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, InstructionSet, ScratchBuffer, load, store, transpose};

/// Taps of a filter.
const FILTER: usize = TAPS * TAPS;
/// Input channels whose filters are gathered together: several cache lines of the weights.
const INPUTS: usize = 16;

/// How a convolution reads the weights `[O, C, 3, 3]`.
#[derive(Clone, Copy)]
pub(super) struct WeightOrder {
    /// Floats from the filter of one output channel to the next.
    pub(super) output: usize,
    /// Floats from the filter of one input channel to the next.
    pub(super) input: usize,
    /// Whether filters are rotated by 180 degrees.
    pub(super) rotated: bool,
}

/// The filters of a convolution after the transform: `[groups of output channels, points, in_channels, channels of a
/// group]`.
#[derive(Debug)]
pub(in crate::cpu::conv_block) struct Filters {
    values: ScratchBuffer,
    point_len: usize,
    group: usize,
}

impl Filters {
    /// Transforms the filters of a convolution with the channels of `shape`.
    pub(super) fn new(
        set: InstructionSet,
        shape: &BlockShape,
        weight: &[f32],
        order: WeightOrder,
    ) -> Self {
        let group = VECTORS * set.lanes();
        // Points whose distance is a power of two would share few sets of the cache.
        let point_len = shape.in_channels * group + LINE;
        let group_len = POINTS * POINTS * point_len;
        let groups = shape.out_channels.div_ceil(group);
        let mut values = ScratchBuffer::new(groups * group_len);
        let transform = |(at, values)| {
            set.run(TransformGroup {
                shape,
                weight,
                order,
                first: at * group,
                group,
                point_len,
                values,
            });
        };
        match is_small(shape) {
            true => values.chunks_mut(group_len).enumerate().for_each(transform),
            false => {
                let groups = values.par_chunks_mut(group_len).enumerate();
                groups.for_each(transform);
            }
        }
        Self {
            values,
            point_len,
            group,
        }
    }

    /// Returns the filters at a point for the group of output channels that starts at `first`.
    pub(super) fn at(&self, first: usize, point: usize) -> &[f32] {
        let start = (first / self.group * POINTS * POINTS + point) * self.point_len;
        &self.values[start..][..self.point_len - LINE]
    }
}

/// The transform of the filters of one group of output channels.
struct TransformGroup<'a> {
    shape: &'a BlockShape,
    weight: &'a [f32],
    order: WeightOrder,
    /// The first output channel.
    first: usize,
    group: usize,
    point_len: usize,
    values: &'a mut [f32],
}

impl WithSimd for TransformGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let inputs = self.shape.in_channels;
        let mut vectors = AlignedBuffer::zeroed(INPUTS * FILTER * lanes);
        for first in (0..self.group).step_by(lanes) {
            let channels = lanes.min(self.shape.out_channels.saturating_sub(self.first + first));
            if channels == 0 {
                break;
            }
            if channels < lanes {
                vectors.fill(0.0);
            }
            for input in 0..inputs {
                if input % INPUTS == 0 {
                    let count = INPUTS.min(inputs - input);
                    self.gather(
                        simd,
                        [self.first + first, input],
                        [channels, count],
                        &mut vectors,
                    );
                }
                let vectors = &vectors[input % INPUTS * FILTER * lanes..][..FILTER * lanes];
                let tap = |row: usize, column: usize| {
                    let tap = row * TAPS + column;
                    match self.order.rotated {
                        true => FILTER - 1 - tap,
                        false => tap,
                    }
                };
                let mut rows = [[simd.splat_f32s(0.0); TAPS]; POINTS];
                for column in 0..TAPS {
                    let mut filter = [simd.splat_f32s(0.0); TAPS];
                    for (row, value) in filter.iter_mut().enumerate() {
                        // SAFETY: `vectors` holds one vector per tap.
                        *value =
                            unsafe { load(simd, vectors.as_ptr().add(tap(row, column) * lanes)) };
                    }
                    let transformed = taps(simd, filter);
                    for (rows, value) in rows.iter_mut().zip(transformed) {
                        rows[column] = value;
                    }
                }
                for (row, values) in rows.into_iter().enumerate() {
                    for (column, value) in taps(simd, values).into_iter().enumerate() {
                        let point = row * POINTS + column;
                        let at = point * self.point_len + input * self.group + first;
                        let to = &mut self.values[at..][..lanes];
                        // SAFETY: `to` has the length of a vector.
                        unsafe { store(simd, to.as_mut_ptr(), value) };
                    }
                }
            }
        }
    }
}

impl TransformGroup<'_> {
    /// Copies filters to `[inputs, taps, lanes]`: `channels` output channels from `first` on, for `inputs` input
    /// channels from `input` on.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        simd: S,
        [first, input]: [usize; 2],
        [channels, inputs]: [usize; 2],
        vectors: &mut [f32],
    ) {
        let WeightOrder {
            output: pitch,
            input: distance,
            ..
        } = self.order;
        let from = &self.weight[first * pitch + input * distance..];
        let lanes = S::F32_LANES;
        if distance == FILTER {
            // The filters of an output channel are contiguous.
            transpose(simd, from, pitch, vectors, lanes, channels, inputs * FILTER);
            return;
        }
        for (input, vectors) in vectors
            .chunks_exact_mut(FILTER * lanes)
            .take(inputs)
            .enumerate()
        {
            let from = &from[input * distance..];
            transpose(simd, from, pitch, vectors, lanes, channels, FILTER);
        }
    }
}
