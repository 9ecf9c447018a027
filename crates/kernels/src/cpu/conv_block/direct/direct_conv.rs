//! Direct convolution without im2col: each pixel of the image is broadcast and multiplied with vectors of output
//! channels.

use pulp::Simd;

use super::epilogue::{OutputSlices, OutputStrip};
use super::packed_filters::{GROUP_VECTORS, PackedFilters};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, load, mul_add, store};

/// Rows of a register tile; equal to the rows of a pooling window.
const ROWS: usize = 2;

/// Columns of a register tile. Leaves registers for the weights and one pixel.
const fn columns(registers: usize) -> usize {
    if registers >= 32 { 7 } else { 3 }
}
const MAX_COLUMNS: usize = columns(32);

/// Returns how many floats behind the padded image must be readable: register tiles may extend beyond the last row and
/// column. Results computed from these floats are not used.
pub(super) fn overread_len(shape: &BlockShape) -> usize {
    ROWS * shape.padded_width() + MAX_COLUMNS + shape.kernel
}

/// Computes blocks image by image. Holds the scratch memory of one thread.
pub(super) struct DirectConv {
    shape: BlockShape,
    /// Two rows of the convolution, `[ROWS, row_pitch, channels of the group]`.
    rows: AlignedBuffer,
    strip: OutputStrip,
}

impl DirectConv {
    pub(super) fn new(shape: BlockShape, lanes: usize) -> Self {
        let group = GROUP_VECTORS * lanes;
        Self {
            rows: AlignedBuffer::zeroed(ROWS * row_pitch(&shape) * group),
            strip: OutputStrip::new(&shape, group, ROWS * shape.out_width()),
            shape,
        }
    }

    /// Computes the `V` vectors of output channels that start at channel `first`, from a padded image. `output` holds
    /// exactly these channels.
    #[inline(always)]
    pub(super) fn run<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        filters: &PackedFilters,
        first: usize,
        padded: &[f32],
        output: &mut OutputSlices<'_>,
    ) {
        let shape = self.shape;
        // Pooling drops an odd last row.
        let used_rows = shape.out_height() * shape.window();
        for top in (0..used_rows).step_by(ROWS) {
            if const { columns(S::REGISTER_COUNT) == MAX_COLUMNS } {
                self.convolve_rows::<S, MAX_COLUMNS, V>(simd, filters, first, padded, top);
            } else {
                self.convolve_rows::<S, { columns(16) }, V>(simd, filters, first, padded, top);
            }
            let save_argmax = output.pool_argmax.is_some();
            let added = if shape.pool {
                self.pool_rows::<S, V>(simd, save_argmax)
            } else {
                self.copy_rows::<S, V>(simd, ROWS.min(used_rows - top), save_argmax)
            };
            self.strip.flush::<S, V>(simd, added, output);
        }
    }

    /// Convolves the two rows from `top` on into `rows`, in register tiles of `Q` columns.
    #[inline(always)]
    fn convolve_rows<S: Simd, const Q: usize, const V: usize>(
        &mut self,
        simd: S,
        filters: &PackedFilters,
        first: usize,
        padded: &[f32],
        top: usize,
    ) {
        let shape = &self.shape;
        let lanes = S::F32_LANES;
        let [weight, bias] = filters.group(first, V * lanes);
        assert_eq!(
            (weight.len(), bias.len()),
            (V * lanes * shape.filter_len(), V * lanes)
        );
        let tile = RegisterTile {
            pitch: shape.padded_width(),
            plane_len: shape.padded_plane_len(),
            channels: shape.in_channels,
            kernel: shape.kernel,
        };
        let pitch = row_pitch(shape);
        let last = shape.conv_width().saturating_sub(Q);
        for left in (0..shape.conv_width()).step_by(Q) {
            // The last tile overlaps its neighbor, so that it ends with the row.
            let left = left.min(last);
            let from = top * shape.padded_width() + left;
            assert!(from + tile.read_len(Q) <= padded.len());
            assert!((pitch + left + Q) * V * lanes <= self.rows.len());
            // SAFETY: by the assertions, the tile's `read_len` floats lie within `padded`, `weight` and `bias` have
            // the lengths that it reads, and the `Q` pixels of both rows lie within `rows`.
            unsafe {
                let image = padded.as_ptr().add(from);
                let sums = tile.run::<S, Q, V>(simd, image, weight.as_ptr(), bias.as_ptr());
                for (row, sums) in sums.iter().enumerate() {
                    let to = (row * pitch + left) * V * lanes;
                    let to = self.rows.as_mut_ptr().add(to);
                    for (at, &vector) in sums.as_flattened().iter().enumerate() {
                        store(simd, to.add(at * lanes), vector);
                    }
                }
            }
        }
    }

    /// Pools the two rows into the strip. Returns the number of output pixels.
    #[inline(always)]
    fn pool_rows<S: Simd, const V: usize>(&mut self, simd: S, save_argmax: bool) -> usize {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let pitch = row_pitch(&self.shape) * group;
        assert!(pitch + 2 * width * group <= self.rows.len());
        for window in 0..width {
            for v in 0..V {
                let from = 2 * window * group + v * S::F32_LANES;
                // SAFETY: the window lies within the two rows by the assertion.
                let pixels = unsafe {
                    let from = self.rows.as_ptr().add(from);
                    [
                        load(simd, from),
                        load(simd, from.add(group)),
                        load(simd, from.add(pitch)),
                        load(simd, from.add(pitch + group)),
                    ]
                };
                self.strip
                    .add_pooled::<S, V>(simd, [window, v], pixels, save_argmax);
            }
        }
        width
    }

    /// Copies `rows` rows into the strip, without pooling. Returns the number of output pixels.
    #[inline(always)]
    fn copy_rows<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        rows: usize,
        save_argmax: bool,
    ) -> usize {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let pitch = row_pitch(&self.shape) * group;
        assert!((rows - 1) * pitch + width * group <= self.rows.len());
        for pixel in 0..rows * width {
            let from = pixel / width * pitch + pixel % width * group;
            for v in 0..V {
                // SAFETY: the pixel lies within the rows by the assertion.
                let value = unsafe { load(simd, self.rows.as_ptr().add(from + v * S::F32_LANES)) };
                self.strip
                    .add_pixel::<S, V>(simd, [pixel, v], value, save_argmax);
            }
        }
        rows * width
    }
}

/// Returns the allocated pixels per row of `DirectConv::rows`: at least one register tile.
fn row_pitch(shape: &BlockShape) -> usize {
    shape.conv_width().max(MAX_COLUMNS)
}

/// The layout of the padded image that a register tile reads.
struct RegisterTile {
    /// Floats from one row to the next.
    pitch: usize,
    /// Floats from one channel to the next.
    plane_len: usize,
    channels: usize,
    kernel: usize,
}

impl RegisterTile {
    /// Returns the length of the span that a tile of `columns` columns reads.
    fn read_len(&self, columns: usize) -> usize {
        (self.channels - 1) * self.plane_len
            + (ROWS + self.kernel - 2) * self.pitch
            + (columns + self.kernel - 1)
    }

    /// Convolves two rows of `Q` pixels for `V` vectors of output channels. All accumulators stay in registers.
    ///
    /// # Safety
    /// `image` must be valid for reads of [`read_len(Q)`](Self::read_len) floats, `weight` of `channels * kernel *
    /// kernel * V` vectors, and `bias` of `V` vectors.
    #[inline(always)]
    unsafe fn run<S: Simd, const Q: usize, const V: usize>(
        &self,
        simd: S,
        image: *const f32,
        weight: *const f32,
        bias: *const f32,
    ) -> [[[S::f32s; V]; Q]; ROWS] {
        // SAFETY: the offsets stay within the lengths that the caller guarantees.
        unsafe {
            let vectors = |from: *const f32| -> [S::f32s; V] {
                std::array::from_fn(|v| load(simd, from.add(v * S::F32_LANES)))
            };
            let mut sums = [[vectors(bias); Q]; ROWS];
            let mut weight = weight;
            for channel in 0..self.channels {
                let plane = image.add(channel * self.plane_len);
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
