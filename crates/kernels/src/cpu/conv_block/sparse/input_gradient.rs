//! The gradient with respect to the images: for each convolution pixel, the sum of the filters times their gradients,
//! added to the pixel's patch.

use pulp::Simd;

use super::blocked_layout::BlockedLayout;
use super::register_blocking::dispatch_size;
use super::sparse_gradient::SparseGradient;
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{load, mul_add, store};

/// The sparse gradient of one image sorted by pixel, for each chunk of output channels. The weights of a chunk fit into
/// the L1 cache.
pub(super) struct GradientsByPixel {
    /// Output channels in a chunk.
    chunk: usize,
    /// Pixels in a plane of a padded image.
    pixels: usize,
    /// Start of the entries of each chunk and pixel, and the end of the last.
    starts: Vec<u32>,
    /// Index of the channel in its chunk, and gradient.
    entries: Vec<(u32, f32)>,
}

/// Size of a chunk's weights in bytes: leaves room for other data in the L1 cache.
const CHUNK_BYTES: usize = 20 << 10;

impl GradientsByPixel {
    pub(super) fn new(shape: &BlockShape, layout: &BlockedLayout) -> Self {
        let filter_bytes = layout.filter_len() * size_of::<f32>();
        let chunk = (CHUNK_BYTES / filter_bytes).max(4);
        let pixels = shape.padded_plane_len();
        Self {
            chunk,
            pixels,
            starts: vec![0; shape.out_channels.div_ceil(chunk) * pixels + 1],
            entries: vec![(0, 0.0); shape.out_image_len()],
        }
    }

    /// Replaces the entries by those of another image, with a counting sort.
    #[inline(always)]
    pub(super) fn sort(&mut self, gradient: &SparseGradient) {
        self.starts.fill(0);
        for (channel, (pixels, _)) in gradient.channels().enumerate() {
            let counts = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            for &pixel in pixels {
                counts[pixel as usize] += 1;
            }
        }
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        // `starts` holds ends here; each moves down to its start as its entries are placed.
        for (channel, (pixels, gradients)) in gradient.channels().enumerate() {
            let starts = &mut self.starts[channel / self.chunk * self.pixels..][..self.pixels];
            let channel_in_chunk = (channel % self.chunk) as u32;
            for (&pixel, &gradient) in pixels.iter().zip(gradients) {
                let start = &mut starts[pixel as usize];
                *start -= 1;
                self.entries[*start as usize] = (channel_in_chunk, gradient);
            }
        }
    }
}

/// Adds the gradient of one image to `padded`, an image of zeros in [`BlockedLayout`]. `weight` is packed.
#[inline(always)]
pub(super) fn input_gradient<S: Simd>(
    simd: S,
    layout: &BlockedLayout,
    weight: &[f32],
    gradients: &GradientsByPixel,
    padded: &mut [f32],
) {
    assert!(padded.len() >= layout.image_len(S::F32_LANES));
    assert_eq!(weight.len(), layout.weight_len());
    assert_eq!(layout.run_pitch % S::F32_LANES, 0);
    let filters = layout.out_channels * layout.filter_len();
    let chunk_len = gradients.chunk * layout.filter_len();
    for (block, weight) in weight.chunks_exact(filters).enumerate() {
        for (first, vectors) in layout.run_parts::<S>() {
            for (chunk, weight) in weight.chunks(chunk_len).enumerate() {
                for pixel in 0..gradients.pixels {
                    let at = chunk * gradients.pixels + pixel;
                    let [start, end] = [at, at + 1].map(|at| gradients.starts[at] as usize);
                    if start == end {
                        continue;
                    }
                    let entries = &gradients.entries[start..end];
                    let at = block * layout.plane_len + pixel * layout.block_channels + first;
                    // SAFETY: entries belong to pixels of the convolution, so their patches lie within the padded
                    // image, and their filters belong to the chunk.
                    unsafe {
                        let weight = weight.as_ptr().add(first);
                        let to = padded.as_mut_ptr().add(at);
                        dispatch_size!(
                            add_filters,
                            layout.kernel,
                            vectors,
                            (
                                simd,
                                weight,
                                layout.run_pitch,
                                entries,
                                to,
                                layout.row_len,
                                layout.run_len - first
                            )
                        );
                    }
                }
            }
        }
    }
}

/// Adds filters, times their gradients, to the patch at `to`. An entry is the index of a filter and its gradient.
///
/// # Safety
/// `weight` must be valid for reads of the filter of each entry: `K` rows, `run_pitch` apart, of `V` vectors. `to` must
/// be valid for reads and writes of `K` rows, `row_len` apart, of `V` vectors, but at most `rest_len` floats.
#[inline(always)]
unsafe fn add_filters<S: Simd, const K: usize, const V: usize>(
    simd: S,
    weight: *const f32,
    run_pitch: usize,
    entries: &[(u32, f32)],
    to: *mut f32,
    row_len: usize,
    rest_len: usize,
) {
    let lanes = S::F32_LANES;
    // SAFETY: the caller guarantees that the filters and the patch are valid.
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; K];
        for &(channel, gradient) in entries {
            let filter = weight.add(channel as usize * K * run_pitch);
            let gradient = simd.splat_f32s(gradient);
            for (k, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let tap = load(simd, filter.add(k * run_pitch + v * lanes));
                    *acc = mul_add(simd, gradient, tap, *acc);
                }
            }
        }
        for (k, acc) in acc.iter().enumerate() {
            for (v, &acc) in acc.iter().enumerate() {
                let to = to.add(k * row_len + v * lanes);
                if (v + 1) * lanes <= rest_len {
                    store(simd, to, simd.add_f32s(load(simd, to), acc));
                } else {
                    let rest = std::slice::from_raw_parts_mut(to, rest_len - v * lanes);
                    let sum = simd.add_f32s(simd.partial_load_f32s(rest), acc);
                    simd.partial_store_f32s(rest, sum);
                }
            }
        }
    }
}
