//! Which pixels of a convolution have a gradient.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::V4;

use crate::epilogue::NO_WINNER;
use crate::shape::BlockShape;

/// Room for one vector of any instruction set behind the last entry.
const SLACK: usize = 16;

/// The pixels of one image's convolution that won their window, channel by channel, with the
/// gradients of the outputs they became. Outputs without a winner or with a gradient of zero are
/// left out.
pub(crate) struct Winners {
    /// Number of each window's first pixel in an image of padded width.
    bases: Vec<u32>,
    /// What a winner adds to that.
    steps: Steps,
    pixels: Vec<u32>,
    gradients: Vec<f32>,
    /// Where the winners of each channel end.
    ends: Vec<usize>,
}

/// From the first pixel of a window to the others.
#[derive(Clone, Copy)]
struct Steps {
    column: u32,
    row: u32,
}

impl Winners {
    pub(crate) fn new(shape: &BlockShape) -> Self {
        let (row, window) = (shape.padded_width(), shape.window());
        let base = |y, x| ((y * row + x) * window) as u32;
        let windows = (0..shape.out_height())
            .flat_map(|y| (0..shape.out_width()).map(move |x| (y, x)))
            .map(|(y, x)| base(y, x));
        Self {
            bases: windows.collect(),
            // Without a pool there is no other pixel.
            steps: Steps {
                column: (window - 1) as u32,
                row: ((window - 1) * row) as u32,
            },
            pixels: vec![0; shape.out_image() + SLACK],
            gradients: vec![0.0; shape.out_image() + SLACK],
            ends: vec![0; shape.out_channels],
        }
    }

    /// Takes one image's gradients and the numbers of its winners, both `[out_channels,
    /// out_height, out_width]`.
    #[inline(always)]
    pub(crate) fn collect<S: Simd>(&mut self, simd: S, gradients: &[f32], winners: &[u8]) {
        let plane = self.bases.len();
        let channels = gradients
            .chunks_exact(plane)
            .zip(winners.chunks_exact(plane));
        let mut end = 0;
        for ((gradients, winners), channel_end) in channels.zip(&mut self.ends) {
            let found = (&mut self.pixels[end..], &mut self.gradients[end..]);
            end += compact(simd, self.steps, &self.bases, gradients, winners, found);
            *channel_end = end;
        }
    }

    /// Pixels and gradients of each channel.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (&[u32], &[f32])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| (&self.pixels[start..end], &self.gradients[start..end]))
    }
}

/// Writes the winning pixels and their gradients one behind the other, and returns how many.
#[inline(always)]
fn compact<S: Simd>(
    _: S,
    steps: Steps,
    bases: &[u32],
    gradients: &[f32],
    winners: &[u8],
    found: (&mut [u32], &mut [f32]),
) -> usize {
    let windows = bases.len();
    assert!(gradients.len() == windows && winners.len() == windows);
    let (pixels, values) = found;
    assert!(pixels.len() >= windows + SLACK && values.len() >= windows + SLACK);
    let mut len = 0;
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut window = 0;
    #[cfg(target_arch = "x86_64")]
    if TypeId::of::<S>() == TypeId::of::<V4>() {
        while window + avx512::LANES <= windows {
            // SAFETY: the processor has AVX-512; so many windows are left to read, and `len` is
            // at most `window`, so that the slack makes room for a whole vector.
            len += unsafe {
                avx512::compact(
                    steps,
                    bases.as_ptr().add(window),
                    gradients.as_ptr().add(window),
                    winners.as_ptr().add(window),
                    pixels.as_mut_ptr().add(len),
                    values.as_mut_ptr().add(len),
                )
            };
            window += avx512::LANES;
        }
    }
    for window in window..windows {
        let winner = u32::from(winners[window]);
        // Written in any case and kept if it counts: a branch would be mispredicted half the time.
        pixels[len] = bases[window] + (winner & 1) * steps.column + (winner >> 1 & 1) * steps.row;
        values[len] = gradients[window];
        len += usize::from(winners[window] != NO_WINNER && gradients[window] != 0.0);
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

    use super::{NO_WINNER, Steps};

    pub(super) const LANES: usize = 16;

    /// [`compact`](super::compact) for 16 windows.
    ///
    /// # Safety
    /// The processor has AVX-512F; all pointers are valid for 16 entries.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn compact(
        steps: Steps,
        bases: *const u32,
        gradients: *const f32,
        winners: *const u8,
        pixels: *mut u32,
        values: *mut f32,
    ) -> usize {
        let splat = |value: u32| _mm512_set1_epi32(value.cast_signed());
        // SAFETY: as the caller promises.
        let (bases, gradients, winners) = unsafe {
            (
                _mm512_loadu_epi32(bases.cast()),
                _mm512_loadu_ps(gradients),
                _mm_loadu_si128(winners.cast()),
            )
        };
        let winners = _mm512_cvtepu8_epi32(winners);
        let right = _mm512_test_epi32_mask(winners, splat(1));
        let below = _mm512_test_epi32_mask(winners, splat(2));
        let pixel = _mm512_mask_add_epi32(bases, right, bases, splat(steps.column));
        let pixel = _mm512_mask_add_epi32(pixel, below, pixel, splat(steps.row));
        let won = _mm512_cmpneq_epi32_mask(winners, splat(NO_WINNER.into()));
        let counts = won & _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(gradients, _mm512_setzero_ps());
        let pixel = _mm512_maskz_compress_epi32(counts, pixel);
        let value = _mm512_maskz_compress_ps(counts, gradients);
        // SAFETY: as the caller promises.
        unsafe {
            _mm512_storeu_epi32(pixels.cast(), pixel);
            _mm512_storeu_ps(values, value);
        }
        counts.count_ones() as usize
    }
}
