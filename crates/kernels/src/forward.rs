//! The forward pass: each pixel of the image is broadcast against vectors of output channels.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::shape::BlockShape;
use crate::simd::{InstructionSet, load, mul_add, store};
use crate::transpose::transpose;

/// What [`forward`] notes of an output that the ReLU cut off: no pixel of its window won.
pub(crate) const NO_WINNER: u8 = 4;

/// Rows of the convolution in one register tile, and those of a pooling window.
const ROWS: usize = 2;

/// Vectors of output channels in one register tile.
const VECTORS: usize = 2;

/// Computes the block's output, `[batch, out_channels, out_height, out_width]`.
///
/// `winners`, of the same shape, gets what the backward pass has to know: which pixel of the
/// pooling window each output came from (0 to 3 in reading order, 0 without a pool), or
/// [`NO_WINNER`].
pub(crate) fn forward(
    set: InstructionSet,
    shape: BlockShape,
    images: &[f32],
    weight: &[f32],
    bias: &[f32],
    output: &mut [f32],
    winners: Option<&mut [u8]>,
) {
    assert_eq!(images.len(), shape.batch * shape.image());
    assert_eq!(weight.len(), shape.out_channels * shape.filter());
    assert_eq!(bias.len(), shape.out_channels);
    assert_eq!(output.len(), shape.batch * shape.out_image());
    if output.is_empty() {
        return;
    }
    let filters = Filters::pack(shape, weight, bias, set.lanes());
    let run = |scratch: &mut Scratch, image, output, winners| {
        set.run(ForwardImage {
            shape,
            filters: &filters,
            image,
            output,
            winners,
            scratch,
        });
    };
    let images = images.par_chunks_exact(shape.image());
    let outputs = output.par_chunks_exact_mut(shape.out_image());
    let scratch = || Scratch::new(shape, set.lanes());
    match winners {
        Some(winners) => {
            assert_eq!(winners.len(), shape.batch * shape.out_image());
            let winners = winners.par_chunks_exact_mut(shape.out_image());
            (images, outputs, winners)
                .into_par_iter()
                .for_each_init(scratch, |scratch, (image, output, winners)| {
                    run(scratch, image, output, Some(winners))
                });
        }
        None => {
            (images, outputs)
                .into_par_iter()
                .for_each_init(scratch, |scratch, (image, output)| {
                    run(scratch, image, output, None);
                })
        }
    }
}

/// Weights and bias as the kernel reads them: in groups of `VECTORS` vectors of output channels,
/// each group `[in_channels, kernel, kernel, lanes of the group]`, filled up with zeros.
struct Filters {
    weight: Buffer,
    bias: Buffer,
}

impl Filters {
    fn pack(shape: BlockShape, weight: &[f32], bias: &[f32], lanes: usize) -> Self {
        let filter = shape.filter();
        let padded = shape.out_channels.next_multiple_of(lanes);
        let mut packed = Buffer::zeroed(padded * filter);
        for first in (0..padded).step_by(VECTORS * lanes) {
            let width = (padded - first).min(VECTORS * lanes);
            let group = &mut packed[first * filter..][..width * filter];
            let channels = width.min(shape.out_channels - first);
            for channel in 0..channels {
                let taps = &weight[(first + channel) * filter..][..filter];
                for (lane, &tap) in group[channel..].iter_mut().step_by(width).zip(taps) {
                    *lane = tap;
                }
            }
        }
        let mut padded_bias = Buffer::zeroed(padded);
        padded_bias[..bias.len()].copy_from_slice(bias);
        Self {
            weight: packed,
            bias: padded_bias,
        }
    }
}

/// Columns of a register tile: as many as leave a register for the weights and one for a pixel.
const fn columns(registers: usize) -> usize {
    if registers >= 32 { 7 } else { 3 }
}
const MAX_COLUMNS: usize = columns(32);

/// Working memory of one thread.
struct Scratch {
    /// The image with zeros around it, `[in_channels, padded_height, padded_width]`, and room for
    /// tiles that reach beyond the last row or column; what they read there is not used.
    padded: Buffer,
    /// Two rows of the convolution, `[ROWS, row_pitch, VECTORS * lanes]`.
    rows: Buffer,
    /// Pixels of the output on their way out, `[pixels, VECTORS * lanes]`.
    strip: Buffer,
    /// Their winners, as integers in the bits of floats, so that they can be transposed alike.
    winner_strip: Buffer,
    /// One channel of them.
    winner_plane: Buffer,
}

/// Output pixels that are collected before they leave: whole rows, a multiple of what is
/// transposed at once for the widths 7, 14 and 28.
const STRIP: usize = 56;

/// Pixels in a row of `Scratch::rows`.
fn row_pitch(shape: &BlockShape) -> usize {
    shape.conv_width().max(MAX_COLUMNS)
}

impl Scratch {
    fn new(shape: BlockShape, lanes: usize) -> Self {
        let plane = shape.padded_height() * shape.padded_width();
        let slack = ROWS * shape.padded_width() + MAX_COLUMNS + shape.kernel;
        let group = VECTORS * lanes;
        let strip = STRIP + ROWS * shape.out_width();
        Self {
            padded: Buffer::zeroed(shape.in_channels * plane + slack),
            rows: Buffer::zeroed(ROWS * row_pitch(&shape) * group),
            strip: Buffer::zeroed(strip * group),
            winner_strip: Buffer::zeroed(strip * group),
            winner_plane: Buffer::zeroed(strip * group),
        }
    }
}

struct ForwardImage<'a> {
    shape: BlockShape,
    filters: &'a Filters,
    image: &'a [f32],
    output: &'a mut [f32],
    winners: Option<&'a mut [u8]>,
    scratch: &'a mut Scratch,
}

impl WithSimd for ForwardImage<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        pad(&self.shape, self.image, &mut self.scratch.padded);
        let group = VECTORS * S::F32_LANES;
        for first in (0..self.filters.bias.len()).step_by(group) {
            if self.filters.bias.len() - first >= group {
                self.channels::<S, VECTORS>(simd, first);
            } else {
                self.channels::<S, 1>(simd, first);
            }
        }
    }
}

impl ForwardImage<'_> {
    /// All pixels of the `V` vectors of output channels that begin at `first`.
    #[inline(always)]
    fn channels<S: Simd, const V: usize>(&mut self, simd: S, first: usize) {
        let shape = self.shape;
        // Rows of the convolution that reach the output.
        let used = shape.out_height() * shape.window();
        let width = shape.out_width();
        // The pixels that left, and those in the strip.
        let (mut done, mut waiting) = (0, 0);
        for top in (0..used).step_by(ROWS) {
            let rows = ROWS.min(used - top);
            if const { columns(S::REGISTER_COUNT) == MAX_COLUMNS } {
                self.row_pair::<S, MAX_COLUMNS, V>(simd, first, top);
            } else {
                self.row_pair::<S, { columns(16) }, V>(simd, first, top);
            }
            if shape.pool {
                self.pool::<S, V>(simd, waiting);
                waiting += width;
            } else {
                for row in 0..rows {
                    self.copy::<S, V>(simd, row, waiting);
                    waiting += width;
                }
            }
            if waiting >= STRIP || top + ROWS >= used {
                self.emit::<S, V>(simd, first, done, waiting);
                done += waiting;
                waiting = 0;
            }
        }
    }

    /// Convolves two rows, from `top` on, into `scratch.rows`.
    #[inline(always)]
    fn row_pair<S: Simd, const Q: usize, const V: usize>(
        &mut self,
        simd: S,
        first: usize,
        top: usize,
    ) {
        let shape = &self.shape;
        let lanes = S::F32_LANES;
        let weight = &self.filters.weight[first * shape.filter()..][..V * lanes * shape.filter()];
        let bias = &self.filters.bias[first..][..V * lanes];
        let tile = Tile {
            pitch: shape.padded_width(),
            plane: shape.padded_height() * shape.padded_width(),
            channels: shape.in_channels,
            kernel: shape.kernel,
        };
        let pitch = row_pitch(shape);
        let last = shape.conv_width().saturating_sub(Q);
        for left in (0..shape.conv_width()).step_by(Q) {
            // The last tile begins early, so that it ends with the row.
            let left = left.min(last);
            let from = top * shape.padded_width() + left;
            let end = from + tile.reach(Q);
            assert!(end <= self.scratch.padded.len());
            assert!((pitch + left + Q) * V * lanes <= self.scratch.rows.len());
            // SAFETY: the tile reads up to `end` from the image, all of `weight` and `bias`, and
            // writes `Q` pixels of two rows.
            unsafe {
                let image = self.scratch.padded.as_ptr().add(from);
                let sums = tile.run::<S, Q, V>(simd, image, weight.as_ptr(), bias.as_ptr());
                for (row, sums) in sums.iter().enumerate() {
                    let to = (row * pitch + left) * V * lanes;
                    let to = self.scratch.rows.as_mut_ptr().add(to);
                    for (pixel, vectors) in sums.iter().enumerate() {
                        for (v, &vector) in vectors.iter().enumerate() {
                            store(simd, to.add((pixel * V + v) * lanes), vector);
                        }
                    }
                }
            }
        }
    }

    /// The larger of each 2x2 window of `scratch.rows`, into the strip from pixel `to` on. As in
    /// PyTorch the first of equals wins, and the last NaN.
    #[inline(always)]
    fn pool<S: Simd, const V: usize>(&mut self, simd: S, to: usize) {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let pitch = row_pitch(&self.shape) * group;
        assert!(pitch + 2 * width * group <= self.scratch.rows.len());
        assert!((to + width) * group <= self.scratch.strip.len());
        let rows = self.scratch.rows.as_ptr();
        for at in (0..width * group).step_by(S::F32_LANES) {
            let (window, lane) = (at / group, at % group);
            // SAFETY: the windows lie within the two rows, their results within the strip.
            unsafe {
                let from = rows.add(2 * window * group + lane);
                let mut best = load(simd, from);
                let mut winner = simd.splat_u32s(0);
                for (number, offset) in [(1, group), (2, pitch), (3, pitch + group)] {
                    let value = load(simd, from.add(offset));
                    let larger = simd.greater_than_f32s(value, best);
                    let is_number = simd.equal_f32s(value, value);
                    let take = simd.or_m32s(larger, simd.not_m32s(is_number));
                    best = simd.select_f32s(take, value, best);
                    winner = simd.select_u32s(take, simd.splat_u32s(number), winner);
                }
                self.finish(simd, to * group + at, best, winner);
            }
        }
    }

    /// One row of `scratch.rows` as it is, into the strip from pixel `to` on.
    #[inline(always)]
    fn copy<S: Simd, const V: usize>(&mut self, simd: S, row: usize, to: usize) {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let from = row * row_pitch(&self.shape) * group;
        assert!(from + width * group <= self.scratch.rows.len());
        assert!((to + width) * group <= self.scratch.strip.len());
        for at in (0..width * group).step_by(S::F32_LANES) {
            // SAFETY: the row and its place in the strip were just checked.
            unsafe {
                let value = load(simd, self.scratch.rows.as_ptr().add(from + at));
                self.finish(simd, to * group + at, value, simd.splat_u32s(0));
            }
        }
    }

    /// ReLU, into the strip.
    ///
    /// # Safety
    /// The strip holds a vector at `at`.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self, simd: S, at: usize, value: S::f32s, winner: S::u32s) {
        let (mut value, mut winner) = (value, winner);
        if self.shape.relu {
            let zero = simd.splat_f32s(0.0);
            let cut = simd.less_than_or_equal_f32s(value, zero);
            value = simd.select_f32s(cut, zero, value);
            winner = simd.select_u32s(cut, simd.splat_u32s(NO_WINNER.into()), winner);
        }
        // SAFETY: as the caller promises; the strip of the winners is as long.
        unsafe {
            store(simd, self.scratch.strip.as_mut_ptr().add(at), value);
            if self.winners.is_some() {
                let to = self.scratch.winner_strip.as_mut_ptr().add(at);
                store(simd, to, simd.transmute_f32s_u32s(winner));
            }
        }
    }

    /// Moves the strip to the output, where its pixels begin at `done`: from pixels of channels to
    /// channels of pixels.
    #[inline(always)]
    fn emit<S: Simd, const V: usize>(&mut self, simd: S, first: usize, done: usize, pixels: usize) {
        let plane = self.shape.out_plane();
        let group = V * S::F32_LANES;
        let channels = group.min(self.shape.out_channels - first);
        let start = first * plane + done;
        let output = &mut self.output[start..];
        transpose(
            simd,
            &self.scratch.strip,
            group,
            output,
            plane,
            pixels,
            channels,
        );
        if let Some(winners) = &mut self.winners {
            let planes = &mut self.scratch.winner_plane;
            transpose(
                simd,
                &self.scratch.winner_strip,
                group,
                planes,
                pixels,
                pixels,
                channels,
            );
            for (channel, from) in planes.chunks_exact(pixels).take(channels).enumerate() {
                let to = &mut winners[start + channel * plane..][..pixels];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from.to_bits() as u8;
                }
            }
        }
    }
}

/// Copies an image into the middle of its zeros.
fn pad(shape: &BlockShape, image: &[f32], padded: &mut [f32]) {
    let pitch = shape.padded_width();
    let planes = padded.chunks_exact_mut(shape.padded_height() * pitch);
    for (plane, padded) in image.chunks_exact(shape.plane()).zip(planes) {
        let rows = padded[shape.padding * pitch..].chunks_mut(pitch);
        for (row, padded) in plane.chunks_exact(shape.width).zip(rows) {
            padded[shape.padding..][..shape.width].copy_from_slice(row);
        }
    }
}

/// Where a register tile finds its pixels.
struct Tile {
    /// Floats from one row of the padded image to the next.
    pitch: usize,
    /// Floats from one channel to the next.
    plane: usize,
    channels: usize,
    kernel: usize,
}

impl Tile {
    /// Floats that a tile of `columns` reads beyond its first.
    fn reach(&self, columns: usize) -> usize {
        (self.channels - 1) * self.plane
            + (ROWS + self.kernel - 2) * self.pitch
            + (columns + self.kernel - 1)
    }

    /// Two rows of `Q` pixels of `V` vectors of output channels, all held in registers.
    ///
    /// # Safety
    /// `image` is valid for reads of [`Tile::reach`] floats, `weight` of `channels * kernel *
    /// kernel * V` vectors and `bias` of `V`.
    #[inline(always)]
    unsafe fn run<S: Simd, const Q: usize, const V: usize>(
        &self,
        simd: S,
        image: *const f32,
        weight: *const f32,
        bias: *const f32,
    ) -> [[[S::f32s; V]; Q]; ROWS] {
        // SAFETY: as the caller promises.
        unsafe {
            let vectors = |from: *const f32| -> [S::f32s; V] {
                std::array::from_fn(|v| load(simd, from.add(v * S::F32_LANES)))
            };
            let mut sums = [[vectors(bias); Q]; ROWS];
            let mut weight = weight;
            for channel in 0..self.channels {
                let plane = image.add(channel * self.plane);
                for ky in 0..self.kernel {
                    let row = plane.add(ky * self.pitch);
                    for kx in 0..self.kernel {
                        let taps = vectors(weight);
                        weight = weight.add(V * S::F32_LANES);
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let pixels = row.add(r * self.pitch + kx);
                            for (q, sums) in sums.iter_mut().enumerate() {
                                let pixel = simd.splat_f32s(*pixels.add(q));
                                for (sum, tap) in sums.iter_mut().zip(taps) {
                                    *sum = mul_add(simd, pixel, tap, *sum);
                                }
                            }
                        }
                    }
                }
            }
            sums
        }
    }
}
