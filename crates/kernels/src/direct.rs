//! Convolution as it is defined: each pixel of the image is broadcast against vectors of output
//! channels.

use pulp::Simd;

use crate::buffer::Buffer;
use crate::epilogue::{Output, Strip};
use crate::filters::{Filters, VECTORS};
use crate::shape::BlockShape;
use crate::simd::{load, mul_add, store};

/// Rows of the convolution in one register tile, and those of a pooling window.
const ROWS: usize = 2;

/// Columns of a register tile: as many as leave registers for the weights and one for a pixel.
const fn columns(registers: usize) -> usize {
    if registers >= 32 { 7 } else { 3 }
}
const MAX_COLUMNS: usize = columns(32);

/// Floats behind a padded image that tiles may read, which reach beyond its last row or column.
/// What they read there is not used.
pub(crate) fn slack(shape: &BlockShape) -> usize {
    ROWS * shape.padded_width() + MAX_COLUMNS + shape.kernel
}

/// Working memory of one thread.
pub(crate) struct Direct {
    shape: BlockShape,
    /// Two rows of the convolution, `[ROWS, row_pitch, lanes of the group]`.
    rows: Buffer,
    strip: Strip,
}

impl Direct {
    pub(crate) fn new(shape: BlockShape, lanes: usize) -> Self {
        let group = VECTORS * lanes;
        Self {
            rows: Buffer::zeroed(ROWS * row_pitch(&shape) * group),
            strip: Strip::new(&shape, group, ROWS * shape.out_width()),
            shape,
        }
    }

    /// All pixels of the `V` vectors of output channels that begin at `first`, from a padded image.
    /// `output` is that of these channels and no others.
    #[inline(always)]
    pub(crate) fn run<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        filters: &Filters,
        first: usize,
        padded: &[f32],
        output: &mut Output<'_>,
    ) {
        let shape = self.shape;
        // Rows of the convolution that reach the output.
        let used = shape.out_height() * shape.window();
        for top in (0..used).step_by(ROWS) {
            if const { columns(S::REGISTER_COUNT) == MAX_COLUMNS } {
                self.row_pair::<S, MAX_COLUMNS, V>(simd, filters, first, padded, top);
            } else {
                self.row_pair::<S, { columns(16) }, V>(simd, filters, first, padded, top);
            }
            let note = output.winners.is_some();
            let taken = if shape.pool {
                self.pool_rows::<S, V>(simd, note)
            } else {
                self.copy_rows::<S, V>(simd, ROWS.min(used - top), note)
            };
            self.strip.flush::<S, V>(simd, taken, output);
        }
    }

    /// Convolves two rows, from `top` on, into `rows`.
    #[inline(always)]
    fn row_pair<S: Simd, const Q: usize, const V: usize>(
        &mut self,
        simd: S,
        filters: &Filters,
        first: usize,
        padded: &[f32],
        top: usize,
    ) {
        let shape = &self.shape;
        let lanes = S::F32_LANES;
        let [weight, bias] = filters.group(first, V * lanes);
        assert_eq!(
            (weight.len(), bias.len()),
            (V * lanes * shape.filter(), V * lanes)
        );
        let tile = Tile {
            pitch: shape.padded_width(),
            plane: shape.padded_plane(),
            channels: shape.in_channels,
            kernel: shape.kernel,
        };
        let pitch = row_pitch(shape);
        let last = shape.conv_width().saturating_sub(Q);
        for left in (0..shape.conv_width()).step_by(Q) {
            // The last tile begins early, so that it ends with the row.
            let left = left.min(last);
            let from = top * shape.padded_width() + left;
            assert!(from + tile.reach(Q) <= padded.len());
            assert!((pitch + left + Q) * V * lanes <= self.rows.len());
            // SAFETY: the tile reads no further than `reach` from the image, all of `weight` and
            // `bias`, and writes `Q` pixels of two rows.
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

    /// Pools the two rows into the strip; how many pixels that makes.
    #[inline(always)]
    fn pool_rows<S: Simd, const V: usize>(&mut self, simd: S, note: bool) -> usize {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let pitch = row_pitch(&self.shape) * group;
        assert!(pitch + 2 * width * group <= self.rows.len());
        for window in 0..width {
            for v in 0..V {
                let from = 2 * window * group + v * S::F32_LANES;
                // SAFETY: the window lies within the two rows.
                let pixels = unsafe {
                    let from = self.rows.as_ptr().add(from);
                    [
                        load(simd, from),
                        load(simd, from.add(group)),
                        load(simd, from.add(pitch)),
                        load(simd, from.add(pitch + group)),
                    ]
                };
                self.strip.pool::<S, V>(simd, [window, v], pixels, note);
            }
        }
        width
    }

    /// Copies `rows` rows into the strip, without a pool; how many pixels that makes.
    #[inline(always)]
    fn copy_rows<S: Simd, const V: usize>(&mut self, simd: S, rows: usize, note: bool) -> usize {
        let width = self.shape.out_width();
        let group = V * S::F32_LANES;
        let pitch = row_pitch(&self.shape) * group;
        assert!((rows - 1) * pitch + width * group <= self.rows.len());
        for pixel in 0..rows * width {
            let from = pixel / width * pitch + pixel % width * group;
            for v in 0..V {
                // SAFETY: the pixel lies within the rows.
                let value = unsafe { load(simd, self.rows.as_ptr().add(from + v * S::F32_LANES)) };
                self.strip.copy::<S, V>(simd, [pixel, v], value, note);
            }
        }
        rows * width
    }
}

/// Pixels in a row of `Direct::rows`.
fn row_pitch(shape: &BlockShape) -> usize {
    shape.conv_width().max(MAX_COLUMNS)
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
    /// Floats from the first to the last that a tile of `columns` reads.
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
