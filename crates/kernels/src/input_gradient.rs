//! The gradient of the images: of each pixel, the filters that won it times their gradients.

use pulp::Simd;

use crate::blocks::Blocks;
use crate::registers::for_size;
use crate::shape::BlockShape;
use crate::simd::{load, mul_add, store};
use crate::winners::Winners;

/// The winners of one image by pixel, for chunks of output channels whose weights stay in the
/// first-level cache.
pub(crate) struct ByPixel {
    /// Output channels of a chunk.
    chunk: usize,
    /// Pixels of a padded image.
    pixels: usize,
    /// Where the winners of each chunk and pixel begin; the last is where all end.
    starts: Vec<u32>,
    /// Number of the channel in its chunk, and gradient.
    entries: Vec<(u32, f32)>,
}

/// Bytes of weights that leave room for more in the first-level cache.
const CACHED: usize = 20 << 10;

impl ByPixel {
    pub(crate) fn new(shape: &BlockShape, blocks: &Blocks) -> Self {
        let filter = blocks.filter() * size_of::<f32>();
        let chunk = (CACHED / filter).max(4);
        let pixels = shape.padded_plane();
        Self {
            chunk,
            pixels,
            starts: vec![0; shape.out_channels.div_ceil(chunk) * pixels + 1],
            entries: vec![(0, 0.0); shape.out_image()],
        }
    }

    /// Sorts the winners by counting.
    #[inline(always)]
    pub(crate) fn sort(&mut self, winners: &Winners) {
        self.starts.fill(0);
        for (channel, (pixels, _)) in winners.channels().enumerate() {
            let counts = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            for &pixel in pixels {
                counts[pixel as usize] += 1;
            }
        }
        let mut end = 0;
        for place in &mut self.starts {
            end += *place;
            *place = end;
        }
        // Each place moves down from its end to its start.
        for (channel, (pixels, gradients)) in winners.channels().enumerate() {
            let places = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            let number = (channel % self.chunk) as u32;
            for (&pixel, &gradient) in pixels.iter().zip(gradients) {
                let place = &mut places[pixel as usize];
                *place -= 1;
                self.entries[*place as usize] = (number, gradient);
            }
        }
    }
}

/// Adds one image's gradient to the zeros of `padded`.
#[inline(always)]
pub(crate) fn input_gradient<S: Simd>(
    simd: S,
    blocks: &Blocks,
    taps: &[f32],
    winners: &ByPixel,
    padded: &mut [f32],
) {
    assert!(padded.len() >= blocks.image_len(S::F32_LANES));
    assert_eq!(taps.len(), blocks.weights());
    assert_eq!(blocks.pitch % S::F32_LANES, 0);
    let filters = blocks.out_channels * blocks.filter();
    let chunk = winners.chunk * blocks.filter();
    for (block, taps) in taps.chunks_exact(filters).enumerate() {
        for (first, vectors) in blocks.parts::<S>() {
            for (chunk, taps) in taps.chunks(chunk).enumerate() {
                for pixel in 0..winners.pixels {
                    let place = chunk * winners.pixels + pixel;
                    let [start, end] = [place, place + 1].map(|p| winners.starts[p] as usize);
                    if start == end {
                        continue;
                    }
                    let list = &winners.entries[start..end];
                    let at = block * blocks.plane + pixel * blocks.width + first;
                    // SAFETY: winners are pixels of the convolution, so that their patches lie
                    // within the padded image; their filters are among those of the chunk.
                    unsafe {
                        let taps = taps.as_ptr().add(first);
                        let to = padded.as_mut_ptr().add(at);
                        for_size!(
                            add_filters,
                            blocks.kernel,
                            vectors,
                            (
                                simd,
                                taps,
                                blocks.pitch,
                                list,
                                to,
                                blocks.row,
                                blocks.run - first
                            )
                        );
                    }
                }
            }
        }
    }
}

/// Adds filters, times gradients, to the patch at `to`.
///
/// # Safety
/// Of each filter in the list `K` rows of `V` vectors, `run` apart, can be read behind `taps`; `K`
/// rows of `left` numbers, at most `V` vectors of them and `pitch` apart, can be written to `to`.
#[inline(always)]
unsafe fn add_filters<S: Simd, const K: usize, const V: usize>(
    simd: S,
    taps: *const f32,
    run: usize,
    list: &[(u32, f32)],
    to: *mut f32,
    pitch: usize,
    left: usize,
) {
    let lanes = S::F32_LANES;
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; K];
        for &(channel, gradient) in list {
            let filter = taps.add(channel as usize * K * run);
            let gradient = simd.splat_f32s(gradient);
            for (k, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let tap = load(simd, filter.add(k * run + v * lanes));
                    *acc = mul_add(simd, gradient, tap, *acc);
                }
            }
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                let to = to.add(k * pitch + v * lanes);
                if (v + 1) * lanes <= left {
                    store(simd, to, simd.add_f32s(load(simd, to), acc));
                } else {
                    let rest = std::slice::from_raw_parts_mut(to, left - v * lanes);
                    let sum = simd.add_f32s(simd.partial_load_f32s(rest), acc);
                    simd.partial_store_f32s(rest, sum);
                }
            }
        }
    }
}
