//! The gradient with respect to the weights: at each point, the products of the transformed images and the transformed
//! gradients of the outputs, summed over all tiles.
//!
//! Tiles are transformed in parallel over parts of the batch, then multiplied in parallel over points, so that the tiles
//! at a point are read from the third-level cache once. A sum has the same order for any number of threads.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::tiles::{PointLayout, TileTransform, TiledImages, Tiling, block_tiles};
use super::transform::{OUTPUTS, POINTS, TAPS, tap_gradients};
use crate::cpu::conv_block::product::{Product, VECTORS, max_rows};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{AlignedBuffer, InstructionSet, ScratchBuffer, load, store, transpose};

/// Size of the transformed tiles that are kept at once, in bytes: those at one point stay in the second-level cache.
const KEPT_BYTES: usize = 2 << 20;

/// Computes the gradient `[O, C, 3, 3]` for the gradient with respect to the convolution's output, `[N, O, H', W']`.
pub(super) fn weight_gradient(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    let layout = Layout::new(set, shape);
    let mut sums = ScratchBuffer::new(POINTS * POINTS * layout.sums_len());
    let rows = shape.batch * layout.tiling.rows;
    let parts = rows.div_ceil(layout.part_rows);
    let part_len = layout.images.len() + layout.gradient.len();
    let parts_at_once = (KEPT_BYTES / (part_len * size_of::<f32>()))
        .max(1)
        .next_multiple_of(rayon::current_num_threads())
        .min(parts);
    let mut points = ScratchBuffer::new(parts_at_once * part_len);
    for first in (0..parts).step_by(parts_at_once) {
        let count = parts_at_once.min(parts - first);
        let part_rows = |part: usize| {
            let start = (first + part) * layout.part_rows;
            start..rows.min(start + layout.part_rows)
        };
        let points = &mut points[..count * part_len];
        let jobs = points.par_chunks_exact_mut(part_len).enumerate();
        jobs.for_each_init(
            || Transforms::new(set, shape),
            |transforms, (part, points)| {
                set.run(TransformPart {
                    shape,
                    layout: &layout,
                    rows: part_rows(part),
                    images,
                    gradient,
                    points,
                    transforms,
                });
            },
        );
        let sums = sums.par_chunks_exact_mut(layout.sums_len()).enumerate();
        sums.for_each(|(point, sums)| {
            for (part, points) in points.chunks_exact(part_len).enumerate() {
                set.run(AddProducts {
                    shape,
                    layout: &layout,
                    point,
                    tiles: part_rows(part).len() * layout.tiling.columns,
                    points,
                    add: first + part > 0,
                    sums,
                });
            }
        });
    }
    let mut weight = vec![0.0; shape.out_channels * shape.filter_len()];
    let vectors = weight.par_chunks_mut(set.lanes() * shape.filter_len());
    vectors.enumerate().for_each(|(vector, weight)| {
        set.run(TransformSums {
            shape,
            layout: &layout,
            first: vector * set.lanes(),
            sums: &sums,
            weight,
        });
    });
    weight
}

/// The division of the work.
struct Layout {
    tiling: Tiling,
    /// Rows of tiles in a part of the batch. Rows are counted over all images.
    part_rows: usize,
    /// The transformed images of a part. Its transformed gradients follow them.
    images: PointLayout,
    gradient: PointLayout,
    inputs: usize,
    /// Output channels, rounded up to whole vectors.
    outputs: usize,
}

impl Layout {
    fn new(set: InstructionSet, shape: &BlockShape) -> Self {
        let tiling = Tiling::new(shape);
        let part_rows = (block_tiles(shape) / tiling.columns).max(1);
        let tiles = part_rows * tiling.columns;
        Self {
            tiling,
            part_rows,
            images: PointLayout::new(tiles, shape.in_channels),
            gradient: PointLayout::new(tiles, shape.out_channels),
            inputs: shape.in_channels,
            outputs: shape.out_channels.next_multiple_of(set.lanes()),
        }
    }

    /// Floats of the sums at one point, `[inputs, outputs]`.
    fn sums_len(&self) -> usize {
        self.inputs * self.outputs
    }
}

/// The transforms of one thread.
struct Transforms {
    images: TileTransform<POINTS>,
    gradient: TileTransform<OUTPUTS>,
}

impl Transforms {
    fn new(set: InstructionSet, shape: &BlockShape) -> Self {
        Self {
            images: TileTransform::new(TiledImages::inputs(shape), set.lanes()),
            gradient: TileTransform::new(TiledImages::output_gradients(shape), set.lanes()),
        }
    }
}

/// Transforms the images and gradients of a part of the batch.
struct TransformPart<'a> {
    shape: &'a BlockShape,
    layout: &'a Layout,
    rows: std::ops::Range<usize>,
    images: &'a [f32],
    gradient: &'a [f32],
    points: &'a mut [f32],
    transforms: &'a mut Transforms,
}

impl WithSimd for TransformPart<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            layout,
            images,
            gradient,
            transforms,
            ..
        } = self;
        let (image_points, gradient_points) = self.points.split_at_mut(layout.images.len());
        let image_len = shape.image_len();
        let gradient_len = shape.out_channels * shape.conv_height() * shape.conv_width();
        for (at, row) in self.rows.enumerate() {
            let (image, row) = (row / layout.tiling.rows, row % layout.tiling.rows);
            let tile = at * layout.tiling.columns;
            let pixels = &images[image * image_len..][..image_len];
            let transform = &mut transforms.images;
            transform.run(simd, pixels, row, layout.images, image_points, tile);
            let pixels = &gradient[image * gradient_len..][..gradient_len];
            let transform = &mut transforms.gradient;
            transform.run(simd, pixels, row, layout.gradient, gradient_points, tile);
        }
    }
}

/// Adds the products of the tiles of a part to the sums at a point.
struct AddProducts<'a> {
    shape: &'a BlockShape,
    layout: &'a Layout,
    point: usize,
    tiles: usize,
    points: &'a [f32],
    /// Whether to add to the sums instead of replacing them.
    add: bool,
    sums: &'a mut [f32],
}

impl WithSimd for AddProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            layout,
            point,
            tiles,
            points,
            add,
            sums,
        } = self;
        let (images, gradient) = (layout.images, layout.gradient);
        let product = Product {
            depth: tiles,
            left_row: 1,
            left_column: images.pitch,
            right_row: gradient.pitch,
            sums_row: layout.outputs,
            add,
        };
        assert!(point < POINTS * POINTS && points.len() >= images.len() + gradient.len());
        assert!(tiles * images.pitch <= images.point_len && layout.inputs <= images.pitch);
        assert!(tiles * gradient.pitch <= gradient.point_len && layout.outputs <= gradient.pitch);
        assert!(sums.len() >= layout.sums_len());
        let blocks = layout.inputs.div_ceil(max_rows(S::REGISTER_COUNT));
        for output in (0..shape.out_channels).step_by(VECTORS * S::F32_LANES) {
            for block in 0..blocks {
                let input = block * layout.inputs / blocks;
                let rows = (block + 1) * layout.inputs / blocks - input;
                let left = point * images.point_len + input;
                let right = images.len() + point * gradient.point_len + output;
                let to = input * layout.outputs + output;
                // SAFETY: the matrices lie within the slices by the assertions.
                unsafe {
                    let (left, right) = (points.as_ptr().add(left), points.as_ptr().add(right));
                    let to = sums.as_mut_ptr().add(to);
                    if layout.outputs - output > S::F32_LANES {
                        product.run::<S, VECTORS>(simd, rows, left, right, to);
                    } else {
                        product.run::<S, 1>(simd, rows, left, right, to);
                    }
                }
            }
        }
    }
}

/// Transforms the sums of a vector of output channels to the gradients of their weights.
struct TransformSums<'a> {
    shape: &'a BlockShape,
    layout: &'a Layout,
    /// The first output channel.
    first: usize,
    /// Those of all points.
    sums: &'a [f32],
    /// The weights of these output channels, `[outputs, C, 3, 3]`.
    weight: &'a mut [f32],
}

impl WithSimd for TransformSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            layout,
            first,
            sums,
            weight,
        } = self;
        let lanes = S::F32_LANES;
        let outputs = weight.len() / shape.filter_len();
        let mut taps = AlignedBuffer::zeroed(shape.filter_len() * lanes);
        for (input, taps) in taps.chunks_exact_mut(TAPS * TAPS * lanes).enumerate() {
            let from = input * layout.outputs + first;
            let mut rows = [[simd.splat_f32s(0.0); POINTS]; TAPS];
            for x in 0..POINTS {
                let mut column = [simd.splat_f32s(0.0); POINTS];
                for (y, value) in column.iter_mut().enumerate() {
                    let at = (y * POINTS + x) * layout.sums_len() + from;
                    let vector = &sums[at..][..lanes];
                    // SAFETY: the slice has the length of a vector.
                    *value = unsafe { load(simd, vector.as_ptr()) };
                }
                for (rows, value) in rows.iter_mut().zip(tap_gradients(simd, column)) {
                    rows[x] = value;
                }
            }
            for (row, taps) in rows.into_iter().zip(taps.chunks_exact_mut(TAPS * lanes)) {
                let vectors = taps.chunks_exact_mut(lanes);
                for (vector, value) in vectors.zip(tap_gradients(simd, row)) {
                    // SAFETY: the slice has the length of a vector.
                    unsafe { store(simd, vector.as_mut_ptr(), value) };
                }
            }
        }
        transpose(
            simd,
            &taps,
            lanes,
            weight,
            shape.filter_len(),
            shape.filter_len(),
            outputs,
        );
    }
}
