//! The convolution, in parallel over groups of images, or over groups of output channels if there are few images.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::filters::Filters;
use super::tiles::{PointLayout, TileTransform, TiledImages, Tiling, block_tiles, is_small};
use super::transform::{OUTPUTS, POINTS, outputs};
use crate::cpu::conv_block::direct::{OutputSlices, clip, pool_window};
use crate::cpu::conv_block::product::{Product, VECTORS, max_rows};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{
    AlignedBuffer, InstructionSet, ScratchBuffer, init_vec, load, mul_add, store, transpose,
    transpose_into,
};

/// Computes the output of a block, as [`forward`](crate::cpu::conv_block::forward()) does. Returns `None` if a result
/// is not finite.
pub(super) fn convolve(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    filters: &Filters,
    bias: Option<&[f32]>,
    pool_argmax: Option<&mut [u8]>,
) -> Option<Vec<f32>> {
    let group = VECTORS * set.lanes();
    let groups = shape.out_channels.div_ceil(group);
    let bias = padded_bias(bias, groups * group);
    let threads = match is_small(shape) {
        true => 1,
        false => rayon::current_num_threads(),
    };
    let images_per_job = (block_tiles(shape) / Tiling::new(shape).per_image())
        .min(shape.batch.div_ceil(threads))
        .max(1);
    // With fewer images than threads, a job is some channels of an image.
    let parts = threads.div_ceil(shape.batch).min(groups);
    let channels = groups.div_ceil(parts) * group;
    let mut is_finite = false;
    let convolve = |values: &mut [MaybeUninit<f32>]| {
        let mut rest = OutputSlices {
            values,
            pool_argmax,
        };
        let mut jobs = Vec::new();
        for first_image in (0..shape.batch).step_by(images_per_job) {
            let count = images_per_job.min(shape.batch - first_image);
            let images = &images[first_image * shape.image_len()..][..count * shape.image_len()];
            for first in (0..shape.out_channels).step_by(channels) {
                let channels = channels.min(shape.out_channels - first);
                let output = rest.split_off(count * channels * shape.out_plane_len());
                jobs.push((images, first, channels, output));
            }
        }
        assert!(rest.values.is_empty());
        let scratch = || Scratch::new(set, shape);
        let run = |scratch: &mut Scratch, (images, first, channels, output)| {
            set.run(Job {
                shape,
                filters,
                bias: &bias,
                images,
                first,
                channels,
                output,
                scratch,
            })
        };
        is_finite = if is_small(shape) {
            let mut scratch = scratch();
            let finite = jobs.into_iter().map(|job| run(&mut scratch, job));
            finite.fold(true, |all, job| all & job)
        } else {
            let finite = jobs.into_par_iter().map_init(scratch, run);
            finite.reduce(|| true, |a, b| a & b)
        };
    };
    // SAFETY: the jobs write all channels of all images.
    let output = unsafe { init_vec(shape.batch * shape.out_image_len(), convolve) };
    is_finite.then_some(output)
}

/// Returns the bias followed by zeros.
fn padded_bias(bias: Option<&[f32]>, len: usize) -> AlignedBuffer {
    let mut padded = AlignedBuffer::zeroed(len);
    if let Some(bias) = bias {
        padded[..bias.len()].copy_from_slice(bias);
    }
    padded
}

/// Scratch memory of one thread.
struct Scratch {
    images: TileTransform<POINTS>,
    /// The transformed tiles, and their layout.
    points: ScratchBuffer,
    point_layout: PointLayout,
    /// Their products with the filters.
    products: ScratchBuffer,
    product_layout: PointLayout,
    /// The outputs of a row of tiles, `[pixels, lanes]`.
    strip: AlignedBuffer,
    /// Pool argmaxes of the same pixels, as integers in the bits of floats, and their transposition.
    argmax: [AlignedBuffer; 2],
}

impl Scratch {
    fn new(set: InstructionSet, shape: &BlockShape) -> Self {
        let tiling = Tiling::new(shape);
        let tiles = block_rows(shape, &tiling) * tiling.columns;
        let strip = AlignedBuffer::zeroed(tiling.columns * OUTPUTS * OUTPUTS * set.lanes());
        let channels = shape.out_channels.next_multiple_of(VECTORS * set.lanes());
        let point_layout = PointLayout::new(tiles, shape.in_channels);
        let product_layout = PointLayout::new(tiles, channels);
        Self {
            images: TileTransform::new(TiledImages::inputs(shape), set.lanes()),
            points: ScratchBuffer::new(point_layout.len()),
            point_layout,
            products: ScratchBuffer::new(product_layout.len()),
            product_layout,
            argmax: [strip.clone(), strip.clone()],
            strip,
        }
    }
}

/// Returns the rows of tiles in a block.
fn block_rows(shape: &BlockShape, tiling: &Tiling) -> usize {
    (block_tiles(shape) / tiling.columns).max(1)
}

/// Some output channels of some images.
struct Job<'a> {
    shape: &'a BlockShape,
    filters: &'a Filters,
    bias: &'a [f32],
    images: &'a [f32],
    /// The first output channel, at the start of a group.
    first: usize,
    channels: usize,
    /// `[images, channels, out_height, out_width]`
    output: OutputSlices<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Job<'_> {
    /// Whether all results are finite.
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> bool {
        let tiling = Tiling::new(self.shape);
        let images = self.images.len() / self.shape.image_len();
        let rows = images * tiling.rows;
        let mut check = simd.splat_f32s(0.0);
        let block = block_rows(self.shape, &tiling);
        for start in (0..rows).step_by(block) {
            let end = rows.min(start + block);
            for row in start..end {
                let image = row / tiling.rows * self.shape.image_len();
                let image = &self.images[image..][..self.shape.image_len()];
                let Scratch {
                    images,
                    points,
                    point_layout,
                    ..
                } = &mut *self.scratch;
                let tile = (row - start) * tiling.columns;
                images.run(simd, image, row % tiling.rows, *point_layout, points, tile);
            }
            self.multiply(simd, (end - start) * tiling.columns);
            for row in start..end {
                for channel in (0..self.channels).step_by(S::F32_LANES) {
                    let tile = (row - start) * tiling.columns;
                    check = self.transform_outputs(simd, &tiling, [row, tile], channel, check);
                }
            }
        }
        simd.reduce_sum_f32s(check) == 0.0
    }
}

impl Job<'_> {
    /// Multiplies the transformed tiles with the filters.
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, tiles: usize) {
        let Scratch {
            points,
            point_layout: left,
            products,
            product_layout: sums,
            ..
        } = &mut *self.scratch;
        let lanes = S::F32_LANES;
        let group = VECTORS * lanes;
        let blocks = tiles.div_ceil(max_rows(S::REGISTER_COUNT));
        let rows = tiles.div_ceil(blocks);
        let product = Product {
            depth: self.shape.in_channels,
            left_row: left.pitch,
            left_column: 1,
            right_row: group,
            sums_row: sums.pitch,
            add: false,
        };
        assert!(points.len() >= left.len() && products.len() >= sums.len());
        assert!(tiles * left.pitch <= left.point_len && product.depth <= left.pitch);
        assert!(tiles * sums.pitch <= sums.point_len);
        assert!(self.channels.next_multiple_of(group) <= sums.pitch);
        for point in 0..POINTS * POINTS {
            for channel in (0..self.channels).step_by(group) {
                let filters = self.filters.at(self.first + channel, point);
                assert_eq!(filters.len(), product.depth * group);
                for tile in (0..tiles).step_by(rows) {
                    // The last tiles overlap their neighbors, so that they end with the block.
                    let tile = tile.min(tiles - rows);
                    let from = point * left.point_len + tile * left.pitch;
                    let to = point * sums.point_len + tile * sums.pitch + channel;
                    // SAFETY: the matrices lie within the buffers by the assertions.
                    unsafe {
                        let (from, to) = (points.as_ptr().add(from), products.as_mut_ptr().add(to));
                        if self.channels - channel > lanes {
                            product.run::<S, VECTORS>(simd, rows, from, filters.as_ptr(), to);
                        } else {
                            product.run::<S, 1>(simd, rows, from, filters.as_ptr(), to);
                        }
                    }
                }
            }
        }
    }

    /// Transforms the products of a row of tiles to outputs of the vector of channels that starts at `channel`. Returns the sum of `check` and zero, or NaN in the lanes with results that are not finite.
    #[inline(always)]
    fn transform_outputs<S: Simd>(
        &mut self,
        simd: S,
        tiling: &Tiling,
        [row, tile]: [usize; 2],
        channel: usize,
        mut check: S::f32s,
    ) -> S::f32s {
        let shape = self.shape;
        let Scratch {
            products,
            product_layout: layout,
            strip,
            argmax: [argmax, transposed],
            ..
        } = &mut *self.scratch;
        let lanes = S::F32_LANES;
        let save_argmax = self.output.pool_argmax.is_some();
        let window = shape.window();
        let top = row % tiling.rows * OUTPUTS;
        let out_top = top / window;
        let out_rows = (OUTPUTS / window).min(shape.out_height() - out_top.min(shape.out_height()));
        let width = shape.out_width();
        let bias = simd.partial_load_f32s(&self.bias[self.first + channel..][..lanes]);
        assert!(products.len() >= layout.len());
        assert!((tile + tiling.columns) * layout.pitch <= layout.point_len);
        assert!(channel + lanes <= layout.pitch);
        assert!(out_rows * width * lanes <= strip.len() && strip.len() == argmax.len());
        for column in 0..tiling.columns {
            let from = (tile + column) * layout.pitch + channel;
            let mut columns = [[simd.splat_f32s(0.0); POINTS]; OUTPUTS];
            for x in 0..POINTS {
                let mut values = [simd.splat_f32s(0.0); POINTS];
                for (y, value) in values.iter_mut().enumerate() {
                    let at = (y * POINTS + x) * layout.point_len + from;
                    // SAFETY: the tile and the channels lie within the products by the assertions.
                    *value = unsafe { load(simd, products.as_ptr().add(at)) };
                }
                for (columns, value) in columns.iter_mut().zip(outputs(simd, values)) {
                    columns[x] = value;
                }
            }
            let mut pixels = [[simd.splat_f32s(0.0); OUTPUTS]; OUTPUTS];
            for (pixels, values) in pixels.iter_mut().zip(columns) {
                *pixels = outputs(simd, values);
                for pixel in pixels {
                    *pixel = simd.add_f32s(*pixel, bias);
                    check = mul_add(simd, *pixel, simd.splat_f32s(0.0), check);
                }
            }
            let left = column * OUTPUTS / window;
            for y in 0..out_rows {
                for x in 0..(OUTPUTS / window).min(width - left.min(width)) {
                    let (value, index) = if shape.pool {
                        let pixels = [
                            pixels[2 * y][2 * x],
                            pixels[2 * y][2 * x + 1],
                            pixels[2 * y + 1][2 * x],
                            pixels[2 * y + 1][2 * x + 1],
                        ];
                        pool_window(simd, pixels, save_argmax)
                    } else {
                        (pixels[y][x], simd.splat_u32s(0))
                    };
                    let (value, index) = match shape.relu {
                        true => clip(simd, value, index),
                        false => (value, index),
                    };
                    let at = (y * width + left + x) * lanes;
                    // SAFETY: the pixel lies within the strip, which has `out_rows * width` vectors.
                    unsafe {
                        store(simd, strip.as_mut_ptr().add(at), value);
                        if save_argmax {
                            let index = simd.transmute_f32s_u32s(index);
                            store(simd, argmax.as_mut_ptr().add(at), index);
                        }
                    }
                }
            }
        }
        let channels = lanes.min(self.channels - channel);
        let pixels = out_rows * width;
        let plane_len = shape.out_plane_len();
        let plane = row / tiling.rows * self.channels + channel;
        let start = plane * plane_len + out_top * width;
        if pixels > 0 {
            let values = &mut self.output.values[start..];
            transpose_into(simd, strip, lanes, values, plane_len, pixels, channels);
            if let Some(pool_argmax) = &mut self.output.pool_argmax {
                transpose(simd, argmax, lanes, transposed, pixels, pixels, channels);
                for (channel, from) in transposed.chunks_exact(pixels).take(channels).enumerate() {
                    let to = &mut pool_argmax[start + channel * plane_len..][..pixels];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from.to_bits() as u8;
                    }
                }
            }
        }
        check
    }
}
