//! The epilogue of the convolution: max-pooling, ReLU, and the transposition to channels-first output.

use std::mem::MaybeUninit;

use pulp::Simd;

use crate::cpu::conv_block::shape::{BlockShape, RELU_CLIPPED};
use crate::cpu::simd::{AlignedBuffer, store, transpose, transpose_into};

/// Output pixels that are collected before they are transposed: whole 8x8 blocks, and whole rows of 7, 14 or 28 pixels.
const STRIP: usize = 56;

/// The part of the output that a job or a group of channels writes.
pub(in crate::cpu::conv_block) struct OutputSlices<'a> {
    /// `[.., channels, out_height, out_width]`
    pub(in crate::cpu::conv_block) values: &'a mut [MaybeUninit<f32>],
    /// Same shape, if a backward pass needs it; see [`RELU_CLIPPED`].
    pub(in crate::cpu::conv_block) pool_argmax: Option<&'a mut [u8]>,
}

impl<'a> OutputSlices<'a> {
    /// Splits off the first `len` elements.
    pub(in crate::cpu::conv_block) fn split_off(&mut self, len: usize) -> OutputSlices<'a> {
        let in_bounds = "the length to split off does not exceed the output";
        OutputSlices {
            values: self.values.split_off_mut(..len).expect(in_bounds),
            pool_argmax: self
                .pool_argmax
                .as_mut()
                .map(|pool_argmax| pool_argmax.split_off_mut(..len).expect(in_bounds)),
        }
    }
}

/// Collects output pixels of one group of channels, and writes them to the output in strips.
pub(super) struct OutputStrip {
    relu: bool,
    /// Pixels in one channel of the output.
    plane_len: usize,
    /// `[pixels, channels of the group]`
    values: AlignedBuffer,
    /// Same shape. Integers stored in the bits of floats, so that the same code transposes them.
    pool_argmax: AlignedBuffer,
    /// `[channels of the group, pixels]`
    transposed_argmax: AlignedBuffer,
    /// Pixels written to the output.
    written: usize,
    /// Pixels in the strip.
    pending: usize,
}

impl OutputStrip {
    /// Creates a strip for groups of up to `group` channels. Up to `max_added` pixels may be added before each call of
    /// [`flush`](Self::flush).
    pub(super) fn new(shape: &BlockShape, group: usize, max_added: usize) -> Self {
        let len = (STRIP + max_added) * group;
        Self {
            relu: shape.relu,
            plane_len: shape.out_plane_len(),
            values: AlignedBuffer::zeroed(len),
            pool_argmax: AlignedBuffer::zeroed(len),
            transposed_argmax: AlignedBuffer::zeroed(len),
            written: 0,
            pending: 0,
        }
    }

    /// Adds the maximum of a pooling window. `pixel` counts from the end of the pending pixels; `v` is the vector of
    /// channels, of `V`.
    #[inline(always)]
    pub(super) fn add_pooled<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        [pixel, v]: [usize; 2],
        window: [S::f32s; 4],
        save_argmax: bool,
    ) {
        let (max, argmax) = pool_window(simd, window, save_argmax);
        self.add::<S, V>(simd, [pixel, v], max, argmax, save_argmax);
    }

    /// Adds a pixel without pooling.
    #[inline(always)]
    pub(super) fn add_pixel<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        [pixel, v]: [usize; 2],
        value: S::f32s,
        save_argmax: bool,
    ) {
        self.add::<S, V>(simd, [pixel, v], value, simd.splat_u32s(0), save_argmax);
    }

    /// Applies ReLU and stores the result in the strip.
    #[inline(always)]
    fn add<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        [pixel, v]: [usize; 2],
        mut value: S::f32s,
        mut argmax: S::u32s,
        save_argmax: bool,
    ) {
        if self.relu {
            (value, argmax) = clip(simd, value, argmax);
        }
        let at = ((self.pending + pixel) * V + v) * S::F32_LANES;
        assert!(at + S::F32_LANES <= self.values.len());
        // SAFETY: the vector lies within `values` by the assertion; `pool_argmax` has the same length.
        unsafe {
            store(simd, self.values.as_mut_ptr().add(at), value);
            if save_argmax {
                let argmax = simd.transmute_f32s_u32s(argmax);
                store(simd, self.pool_argmax.as_mut_ptr().add(at), argmax);
            }
        }
    }

    /// Counts `added` pixels as pending. Transposes all pending pixels into `output`, the slices of this group of
    /// channels, if they fill a strip or complete the plane.
    #[inline(always)]
    pub(super) fn flush<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        added: usize,
        output: &mut OutputSlices<'_>,
    ) {
        self.pending += added;
        let is_last = self.written + self.pending >= self.plane_len;
        if self.pending < STRIP && !is_last {
            return;
        }
        let pixels = self.pending;
        let group = V * S::F32_LANES;
        let channels = output.values.len() / self.plane_len;
        let start = self.written;
        let values = &mut output.values[start..];
        transpose_into(
            simd,
            &self.values,
            group,
            values,
            self.plane_len,
            pixels,
            channels,
        );
        if let Some(pool_argmax) = &mut output.pool_argmax {
            let planes = &mut self.transposed_argmax;
            transpose(
                simd,
                &self.pool_argmax,
                group,
                planes,
                pixels,
                pixels,
                channels,
            );
            for (channel, from) in planes.chunks_exact(pixels).take(channels).enumerate() {
                let to = &mut pool_argmax[start + channel * self.plane_len..][..pixels];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.to_bits() as u8;
                }
            }
        }
        self.written = if is_last { 0 } else { self.written + pixels };
        self.pending = 0;
    }
}

/// Returns the maximum of a pooling window and, if `save_argmax`, its index.
///
/// As in PyTorch, the first of equal values is the maximum, and the last NaN if there is one.
#[inline(always)]
pub(in crate::cpu::conv_block) fn pool_window<S: Simd>(
    simd: S,
    window: [S::f32s; 4],
    save_argmax: bool,
) -> (S::f32s, S::u32s) {
    let mut max = window[0];
    let mut argmax = simd.splat_u32s(0);
    for (index, &value) in (1..).zip(&window[1..]) {
        let is_larger = simd.greater_than_f32s(value, max);
        let is_not_nan = simd.equal_f32s(value, value);
        let replaces = simd.or_m32s(is_larger, simd.not_m32s(is_not_nan));
        max = simd.select_f32s(replaces, value, max);
        if save_argmax {
            argmax = simd.select_u32s(replaces, simd.splat_u32s(index), argmax);
        }
    }
    (max, argmax)
}

/// Applies ReLU to a value, and marks the pool argmax of what it clips.
#[inline(always)]
pub(in crate::cpu::conv_block) fn clip<S: Simd>(
    simd: S,
    value: S::f32s,
    argmax: S::u32s,
) -> (S::f32s, S::u32s) {
    let zero = simd.splat_f32s(0.0);
    let is_clipped = simd.less_than_or_equal_f32s(value, zero);
    (
        simd.select_f32s(is_clipped, zero, value),
        simd.select_u32s(is_clipped, simd.splat_u32s(RELU_CLIPPED.into()), argmax),
    )
}
