//! Tiles of images: 6x6 pixels that give 4x4 outputs.

use pulp::Simd;

use super::transform::{self, OUTPUTS, POINTS, SAVED_PRODUCTS};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::parallelism;
use crate::cpu::simd::{AlignedBuffer, load, store, transpose};

/// The division of the convolution's output into tiles of 4x4 pixels, row by row. Tiles at the lower and right border
/// may extend beyond it.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    /// Rows of tiles in an image.
    pub(super) rows: usize,
    /// Tiles in a row.
    pub(super) columns: usize,
}

impl Tiling {
    pub(super) fn new(shape: &BlockShape) -> Self {
        Self {
            rows: shape.conv_height().div_ceil(OUTPUTS),
            columns: shape.conv_width().div_ceil(OUTPUTS),
        }
    }

    /// Returns the number of tiles of an image.
    pub(super) fn per_image(&self) -> usize {
        self.rows * self.columns
    }
}

/// Returns how many tiles are transformed together. Their values at all points stay in the second-level cache. Filters
/// that do not fit into it are read once per block of tiles, so the blocks are larger.
pub(super) fn block_tiles(shape: &BlockShape) -> usize {
    const SMALL: usize = 24;
    const LARGE: usize = 56;
    const LARGE_FILTERS: usize = 1 << 17;
    match shape.in_channels * shape.out_channels < LARGE_FILTERS {
        true => SMALL,
        false => LARGE,
    }
}

/// Returns whether the convolution is faster on this thread alone.
pub(super) fn is_small(shape: &BlockShape) -> bool {
    parallelism::is_small(shape.products() / SAVED_PRODUCTS)
}

/// The layout of the values of tiles at every point: `[points, tiles, pitch]`, where the first floats of a row are
/// channels.
#[derive(Clone, Copy)]
pub(super) struct PointLayout {
    /// Floats from one tile to the next.
    pub(super) pitch: usize,
    /// Floats from one point to the next.
    pub(super) point_len: usize,
}

impl PointLayout {
    /// The layout of up to `tiles` tiles.
    pub(super) fn new(tiles: usize, channels: usize) -> Self {
        // Rows whose distance is a power of two would share few sets of the cache.
        let pitch = channels.next_multiple_of(LINE) + LINE;
        Self {
            pitch,
            point_len: tiles * pitch,
        }
    }

    /// Floats of all points.
    pub(super) fn len(&self) -> usize {
        POINTS * POINTS * self.point_len
    }
}

/// Floats in a cache line.
pub(super) const LINE: usize = 16;

/// Images `[C, H, W]` that are divided into tiles.
#[derive(Clone, Copy)]
pub(super) struct TiledImages {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Zero padding above and to the left.
    pub(super) padding: usize,
    pub(super) tiling: Tiling,
}

impl TiledImages {
    /// The images of a convolution, in tiles of 6x6 pixels.
    pub(super) fn inputs(shape: &BlockShape) -> Self {
        Self {
            channels: shape.in_channels,
            height: shape.height,
            width: shape.width,
            padding: shape.padding,
            tiling: Tiling::new(shape),
        }
    }

    /// The gradients of the outputs of a convolution, in tiles of 4x4 pixels.
    pub(super) fn output_gradients(shape: &BlockShape) -> Self {
        Self {
            channels: shape.out_channels,
            height: shape.conv_height(),
            width: shape.conv_width(),
            padding: 0,
            tiling: Tiling::new(shape),
        }
    }
}

/// Transforms tiles of `PIXELS x PIXELS` pixels: [`POINTS`] for the images of a convolution, [`OUTPUTS`] for the
/// gradients of its outputs. Holds the scratch memory of one thread.
pub(super) struct TileTransform<const PIXELS: usize> {
    images: TiledImages,
    /// The rows of the image that a row of tiles reads, `[rows, width, lanes]`, and a row of zeros.
    strip: AlignedBuffer,
    /// The rows of points after the transform of the columns, `[points, padded columns, lanes]`.
    columns: AlignedBuffer,
    /// Columns of pixels that a row of tiles reads.
    pitch: usize,
}

impl<const PIXELS: usize> TileTransform<PIXELS> {
    pub(super) fn new(images: TiledImages, lanes: usize) -> Self {
        let pitch = images.tiling.columns * OUTPUTS + PIXELS - OUTPUTS;
        Self {
            images,
            strip: AlignedBuffer::zeroed((PIXELS + 1) * images.width * lanes),
            columns: AlignedBuffer::zeroed(POINTS * pitch * lanes),
            pitch,
        }
    }

    /// Transforms the row of tiles `row` of an image. The results are the tiles from `tile` on in `points`, which has
    /// `layout`.
    #[inline(always)]
    pub(super) fn run<S: Simd>(
        &mut self,
        simd: S,
        image: &[f32],
        row: usize,
        layout: PointLayout,
        points: &mut [f32],
        tile: usize,
    ) {
        let tiles = self.images.tiling.columns;
        assert!(points.len() >= layout.len());
        assert!((tile + tiles) * layout.pitch <= layout.point_len);
        assert!(self.images.channels.next_multiple_of(S::F32_LANES) <= layout.pitch);
        for channel in (0..self.images.channels).step_by(S::F32_LANES) {
            self.transform_columns(simd, image, row, channel);
            let to = points
                .as_mut_ptr()
                .wrapping_add(tile * layout.pitch + channel);
            // SAFETY: the tiles and the channels lie within `points` by the assertions.
            unsafe { self.transform_rows(simd, layout, to) };
        }
    }

    /// Transforms the columns of the image that the row of tiles reads.
    #[inline(always)]
    fn transform_columns<S: Simd>(&mut self, simd: S, image: &[f32], row: usize, channel: usize) {
        let TiledImages {
            channels,
            height,
            width,
            padding,
            ..
        } = self.images;
        let lanes = S::F32_LANES;
        // Rows of the image, from those of the padded image.
        let top = row * OUTPUTS;
        let first = top.max(padding) - padding;
        let end = (top + PIXELS).clamp(padding, padding + height) - padding;
        let plane_len = height * width;
        transpose(
            simd,
            &image[channel * plane_len + first * width..],
            plane_len,
            &mut self.strip,
            lanes,
            lanes.min(channels - channel),
            end.saturating_sub(first) * width,
        );
        let mut starts = [PIXELS * width * lanes; PIXELS];
        for (pixel, start) in starts.iter_mut().enumerate() {
            let y = (top + pixel).checked_sub(padding);
            if let Some(y) = y.filter(|y| (first..end).contains(y)) {
                *start = (y - first) * width * lanes;
            }
        }
        assert!(padding + width <= self.pitch);
        for x in 0..width {
            let mut pixels = [simd.splat_f32s(0.0); PIXELS];
            for (pixel, start) in pixels.iter_mut().zip(starts) {
                // SAFETY: the strip holds `PIXELS + 1` rows of `width` vectors.
                *pixel = unsafe { load(simd, self.strip.as_ptr().add(start + x * lanes)) };
            }
            for (point, value) in transform_pixels(simd, pixels).into_iter().enumerate() {
                let at = (point * self.pitch + padding + x) * lanes;
                // SAFETY: `columns` holds `pitch` vectors per point.
                unsafe { store(simd, self.columns.as_mut_ptr().add(at), value) };
            }
        }
    }

    /// Transforms the rows of each tile. `to` is the first channel of the first tile at the first point.
    ///
    /// # Safety
    /// `to` must be valid for writes of a vector for each tile of a row, at each point.
    #[inline(always)]
    unsafe fn transform_rows<S: Simd>(&self, simd: S, layout: PointLayout, to: *mut f32) {
        let lanes = S::F32_LANES;
        for tile in 0..self.images.tiling.columns {
            for row in 0..POINTS {
                let from = (row * self.pitch + tile * OUTPUTS) * lanes;
                let mut pixels = [simd.splat_f32s(0.0); PIXELS];
                for (x, pixel) in pixels.iter_mut().enumerate() {
                    // SAFETY: `columns` holds `pitch` vectors per point.
                    *pixel = unsafe { load(simd, self.columns.as_ptr().add(from + x * lanes)) };
                }
                for (column, value) in transform_pixels(simd, pixels).into_iter().enumerate() {
                    let at = (row * POINTS + column) * layout.point_len + tile * layout.pitch;
                    // SAFETY: the caller guarantees that the write is valid.
                    unsafe { store(simd, to.add(at), value) };
                }
            }
        }
    }
}

/// Transforms the pixels of one row or column of a tile.
#[inline(always)]
fn transform_pixels<S: Simd, const PIXELS: usize>(
    simd: S,
    pixels: [S::f32s; PIXELS],
) -> [S::f32s; POINTS] {
    const { assert!(PIXELS == POINTS || PIXELS == OUTPUTS) };
    let mut all = [simd.splat_f32s(0.0); POINTS];
    all[..PIXELS].copy_from_slice(&pixels);
    if PIXELS == POINTS {
        transform::pixels(simd, all)
    } else {
        transform::output_gradients(simd, [all[0], all[1], all[2], all[3]])
    }
}
