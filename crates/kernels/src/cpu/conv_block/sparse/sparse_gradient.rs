//! The gradient with respect to the convolution's output, as lists of its nonzero pixels.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::V4;

use crate::cpu::conv_block::shape::{BlockShape, RELU_CLIPPED};

/// Unused entries behind the last one: a vector of any instruction set may be stored after every entry.
const SLACK: usize = 16;

/// The nonzero pixels of one image's gradient with respect to the convolution's output, channel by channel: pixel
/// index and gradient. Max-pooling sends each gradient to the argmax of its window.
pub(super) struct SparseGradient {
    /// Index of the first pixel of each pooling window in a plane of padded width.
    window_starts: Vec<u32>,
    offsets: WindowOffsets,
    pixels: Vec<u32>,
    gradients: Vec<f32>,
    /// End of each channel in `pixels` and `gradients`.
    channel_ends: Vec<usize>,
}

/// Offsets from the first pixel of a pooling window to its next column and row; zero without pooling.
#[derive(Clone, Copy)]
struct WindowOffsets {
    column: u32,
    row: u32,
}

impl SparseGradient {
    pub(super) fn new(shape: &BlockShape) -> Self {
        let (row, window) = (shape.padded_width(), shape.window());
        let start = |y, x| ((y * row + x) * window) as u32;
        let window_starts = (0..shape.out_height())
            .flat_map(|y| (0..shape.out_width()).map(move |x| (y, x)))
            .map(|(y, x)| start(y, x));
        Self {
            window_starts: window_starts.collect(),
            offsets: WindowOffsets {
                column: (window - 1) as u32,
                row: ((window - 1) * row) as u32,
            },
            pixels: vec![0; shape.out_image_len() + SLACK],
            gradients: vec![0.0; shape.out_image_len() + SLACK],
            channel_ends: vec![0; shape.out_channels],
        }
    }

    /// Replaces the entries by those of another image. Both slices are `[out_channels, out_height, out_width]`.
    #[inline(always)]
    pub(super) fn fill<S: Simd>(&mut self, simd: S, gradient: &[f32], pool_argmax: &[u8]) {
        let plane_len = self.window_starts.len();
        let channels = gradient
            .chunks_exact(plane_len)
            .zip(pool_argmax.chunks_exact(plane_len));
        let mut end = 0;
        for ((gradient, pool_argmax), channel_end) in channels.zip(&mut self.channel_ends) {
            let entries = (&mut self.pixels[end..], &mut self.gradients[end..]);
            end += compact(
                simd,
                self.offsets,
                &self.window_starts,
                gradient,
                pool_argmax,
                entries,
            );
            *channel_end = end;
        }
    }

    /// Returns the pixels and gradients of each channel.
    pub(super) fn channels(&self) -> impl Iterator<Item = (&[u32], &[f32])> {
        let starts = std::iter::once(0).chain(self.channel_ends.iter().copied());
        starts
            .zip(&self.channel_ends)
            .map(|(start, &end)| (&self.pixels[start..end], &self.gradients[start..end]))
    }
}

/// Writes the pixels with a nonzero gradient, and their gradients, contiguously to `entries`. Returns their number.
#[inline(always)]
fn compact<S: Simd>(
    _: S,
    offsets: WindowOffsets,
    window_starts: &[u32],
    gradients: &[f32],
    pool_argmax: &[u8],
    entries: (&mut [u32], &mut [f32]),
) -> usize {
    let windows = window_starts.len();
    assert!(gradients.len() == windows && pool_argmax.len() == windows);
    let (pixels, values) = entries;
    assert!(pixels.len() >= windows + SLACK && values.len() >= windows + SLACK);
    let mut len = 0;
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut window = 0;
    #[cfg(target_arch = "x86_64")]
    if TypeId::of::<S>() == TypeId::of::<V4>() {
        while window + avx512::LANES <= windows {
            // SAFETY: the processor supports AVX-512, since `S` is `V4`. At least 16 windows are left to read. `len`
            // is at most `window`, so a vector fits behind it thanks to the slack.
            len += unsafe {
                avx512::compact(
                    offsets,
                    window_starts.as_ptr().add(window),
                    gradients.as_ptr().add(window),
                    pool_argmax.as_ptr().add(window),
                    pixels.as_mut_ptr().add(len),
                    values.as_mut_ptr().add(len),
                )
            };
            window += avx512::LANES;
        }
    }
    for window in window..windows {
        let argmax = u32::from(pool_argmax[window]);
        // Always writes the entry, then advances if it is nonzero: a branch would often be mispredicted.
        pixels[len] =
            window_starts[window] + (argmax & 1) * offsets.column + (argmax >> 1 & 1) * offsets.row;
        values[len] = gradients[window];
        len += usize::from(pool_argmax[window] != RELU_CLIPPED && gradients[window] != 0.0);
    }
    len
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _CMP_NEQ_UQ, _mm_loadu_si128, _mm512_cmp_ps_mask, _mm512_cmpneq_epi32_mask,
        _mm512_cvtepu8_epi32, _mm512_loadu_epi32, _mm512_loadu_ps, _mm512_mask_add_epi32,
        _mm512_maskz_compress_epi32, _mm512_maskz_compress_ps, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_epi32, _mm512_storeu_ps, _mm512_test_epi32_mask,
    };

    use super::{RELU_CLIPPED, WindowOffsets};

    pub(super) const LANES: usize = 16;

    /// Same as [`compact`](super::compact), for 16 windows.
    ///
    /// # Safety
    /// The processor must support AVX-512F. All pointers must be valid for 16 elements.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn compact(
        offsets: WindowOffsets,
        window_starts: *const u32,
        gradients: *const f32,
        pool_argmax: *const u8,
        pixels: *mut u32,
        values: *mut f32,
    ) -> usize {
        let splat = |value: u32| _mm512_set1_epi32(value.cast_signed());
        // SAFETY: the caller guarantees that the reads are valid.
        let (window_starts, gradients, pool_argmax) = unsafe {
            (
                _mm512_loadu_epi32(window_starts.cast()),
                _mm512_loadu_ps(gradients),
                _mm_loadu_si128(pool_argmax.cast()),
            )
        };
        let argmax = _mm512_cvtepu8_epi32(pool_argmax);
        let right = _mm512_test_epi32_mask(argmax, splat(1));
        let below = _mm512_test_epi32_mask(argmax, splat(2));
        let pixel =
            _mm512_mask_add_epi32(window_starts, right, window_starts, splat(offsets.column));
        let pixel = _mm512_mask_add_epi32(pixel, below, pixel, splat(offsets.row));
        let is_unclipped = _mm512_cmpneq_epi32_mask(argmax, splat(RELU_CLIPPED.into()));
        let is_nonzero =
            is_unclipped & _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(gradients, _mm512_setzero_ps());
        let pixel = _mm512_maskz_compress_epi32(is_nonzero, pixel);
        let value = _mm512_maskz_compress_ps(is_nonzero, gradients);
        // SAFETY: the caller guarantees that the writes are valid.
        unsafe {
            _mm512_storeu_epi32(pixels.cast(), pixel);
            _mm512_storeu_ps(values, value);
        }
        is_nonzero.count_ones() as usize
    }
}
