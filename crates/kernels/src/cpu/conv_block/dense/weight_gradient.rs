//! The gradient with respect to the weights: for each tap, the sum over all pixels of the image, shifted by the tap,
//! times the gradient.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::conv_block::direct::pad;
use crate::cpu::conv_block::product::{MAX_ROWS, VECTORS, dispatch_rows, max_rows};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::conv_block::sparse::{group_range, groups, sum_groups};
use crate::cpu::simd::{AlignedBuffer, InstructionSet, load, mul_add, store, transpose};

/// Computes the gradient `[O, C, K, K]` for the gradient with respect to the convolution's output, `[N, O, H', W']`, in
/// parallel over groups of images.
pub(super) fn weight_gradient(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    let group_sums = |group: usize| {
        let range = group_range(shape, group);
        set.run(SumGroup {
            shape,
            images: &images[range.start * shape.image_len()..range.end * shape.image_len()],
            gradient: &gradient
                [range.start * shape.out_image_len()..range.end * shape.out_image_len()],
        })
    };
    let sums: Vec<AlignedBuffer> = (0..groups(shape)).into_par_iter().map(group_sums).collect();
    let sums = sum_groups(&sums.iter().map(|sums| &**sums).collect::<Vec<_>>());
    let pitch = shape.out_channels.next_multiple_of(set.lanes());
    let weight =
        (0..shape.out_channels).flat_map(|output| sums.iter().skip(output).step_by(pitch).copied());
    weight.collect()
}

/// Sums the gradients of a group of images, `[C, K, K, outputs]`, where the output channels fill whole vectors.
struct SumGroup<'a> {
    shape: &'a BlockShape,
    images: &'a [f32],
    gradient: &'a [f32],
}

impl WithSimd for SumGroup<'_> {
    type Output = AlignedBuffer;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> AlignedBuffer {
        let Self {
            shape,
            images,
            gradient,
        } = self;
        let lanes = S::F32_LANES;
        let taps = shape.filter_len();
        let pitch = shape.out_channels.next_multiple_of(lanes);
        let mut sums = AlignedBuffer::zeroed(taps * pitch);
        let mut padded = AlignedBuffer::zeroed(shape.in_channels * shape.padded_plane_len());
        // `[pixels, outputs]`
        let mut pixels = AlignedBuffer::zeroed(shape.out_plane_len() * pitch);
        let images = images.chunks_exact(shape.image_len());
        let gradients = gradient.chunks_exact(shape.out_image_len());
        let blocks = taps.div_ceil(max_rows(S::REGISTER_COUNT));
        for (image, gradient) in images.zip(gradients) {
            pad(shape, image, &mut padded);
            let plane_len = shape.out_plane_len();
            transpose(
                simd,
                gradient,
                plane_len,
                &mut pixels,
                pitch,
                shape.out_channels,
                plane_len,
            );
            for output in (0..pitch).step_by(VECTORS * lanes) {
                for block in 0..blocks {
                    let first = block * taps / blocks;
                    let rows = (block + 1) * taps / blocks - first;
                    let sums = &mut sums[first * pitch + output..];
                    let job = AddPixels {
                        shape,
                        offsets: std::array::from_fn(|row| {
                            tap_offset(shape, first + row.min(rows - 1))
                        }),
                        padded: &padded,
                        pixels: &pixels[output..],
                        pitch,
                    };
                    // SAFETY: the taps are those of the filter, and the output channels fill whole vectors.
                    unsafe {
                        if pitch - output > lanes {
                            job.run::<S, VECTORS>(simd, rows, sums);
                        } else {
                            job.run::<S, 1>(simd, rows, sums);
                        }
                    }
                }
            }
        }
        sums
    }
}

/// Returns the offset of a tap, counted over all channels, from the first pixel of its patch in the padded image.
fn tap_offset(shape: &BlockShape, tap: usize) -> usize {
    let (channel, tap) = (tap / shape.kernel.pow(2), tap % shape.kernel.pow(2));
    let (y, x) = (tap / shape.kernel, tap % shape.kernel);
    channel * shape.padded_plane_len() + y * shape.padded_width() + x
}

/// Adds the products of all pixels of an image for some taps and some output channels.
struct AddPixels<'a> {
    shape: &'a BlockShape,
    /// Offsets of the taps.
    offsets: [usize; MAX_ROWS],
    padded: &'a [f32],
    /// The gradient, `[pixels, pitch]`.
    pixels: &'a [f32],
    pitch: usize,
}

impl AddPixels<'_> {
    /// Adds to the `V` vectors of `rows` rows of `sums`, which are a pitch apart.
    ///
    /// # Safety
    /// The offsets must be those of taps of the shape, and every pixel and row must have `V` vectors.
    #[inline(always)]
    unsafe fn run<S: Simd, const V: usize>(&self, simd: S, rows: usize, sums: &mut [f32]) {
        assert!((rows - 1) * self.pitch + V * S::F32_LANES <= sums.len());
        assert!(
            (self.shape.out_plane_len() - 1) * self.pitch + V * S::F32_LANES <= self.pixels.len()
        );
        dispatch_rows!(S, rows, R => {
            // SAFETY: the caller guarantees that the taps are those of the filter; the vectors lie within the slices
            // by the assertions.
            unsafe { self.add::<S, R, V>(simd, sums.as_mut_ptr()) }
        });
    }

    /// # Safety
    /// As of [`run`](Self::run); `sums` must be valid for reads and writes of `R` rows.
    #[inline(always)]
    unsafe fn add<S: Simd, const R: usize, const V: usize>(&self, simd: S, sums: *mut f32) {
        let lanes = S::F32_LANES;
        // SAFETY: a tap's offset plus that of a pixel lies within the padded image; the caller guarantees the rest.
        unsafe {
            let mut acc = [[simd.splat_f32s(0.0); V]; R];
            let mut gradient = self.pixels.as_ptr();
            for y in 0..self.shape.conv_height() {
                let row = self.padded.as_ptr().add(y * self.shape.padded_width());
                for x in 0..self.shape.conv_width() {
                    let mut vectors = [simd.splat_f32s(0.0); V];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        *vector = load(simd, gradient.add(v * lanes));
                    }
                    gradient = gradient.add(self.pitch);
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let pixel = simd.splat_f32s(*row.add(x + self.offsets[r]));
                        for (acc, &vector) in acc.iter_mut().zip(&vectors) {
                            *acc = mul_add(simd, pixel, vector, *acc);
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    let sum = sums.add(r * self.pitch + v * lanes);
                    store(simd, sum, simd.add_f32s(load(simd, sum), acc));
                }
            }
        }
    }
}
