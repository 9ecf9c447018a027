//! The gradient with respect to the weights: at each point, the products of the transformed images and the transformed
//! gradients of the outputs, summed over all tiles.
//!
//! Tiles are transformed in parallel over parts of the batch, then multiplied in parallel over panels of the weights.
//! A sum has the same order for any number of threads.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::product::{Product, VECTORS, max_rows};
use super::tiles::{PointLayout, TileTransform, TiledImages, Tiling};
use super::transform::{OUTPUTS, POINTS, TAPS, tap_gradients};
use crate::cpu::conv_block::shape::BlockShape;
use crate::cpu::simd::{InstructionSet, ScratchBuffer, load, store, transpose};

/// Tiles of a part of the batch: enough terms for each load and store of a sum.
const PART_TILES: usize = 64;
/// Size of the transformed tiles that are kept at once, in bytes: they stay in the third-level cache.
const KEPT_BYTES: usize = 8 << 20;
/// Input channels of a panel. Its tiles and its sums at one point stay in the first-level cache.
const PANEL_INPUTS: usize = 64;

/// Computes the gradient `[O, C, 3, 3]` for the gradient with respect to the convolution's output, `[N, O, H', W']`.
pub(super) fn weight_gradient(
    set: InstructionSet,
    shape: &BlockShape,
    images: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    let layout = Layout::new(set, shape);
    let mut sums = ScratchBuffer::new(layout.panels * layout.panel_len());
    let rows = shape.batch * layout.tiling.rows;
    let parts = rows.div_ceil(layout.part_rows);
    let part_len = layout.images.len() + layout.gradient.len();
    let parts_at_once = (KEPT_BYTES / (part_len * size_of::<f32>()))
        .max(rayon::current_num_threads())
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
        let panels = sums.par_chunks_exact_mut(layout.panel_len()).enumerate();
        panels.for_each(|(panel, sums)| {
            for (part, points) in points.chunks_exact(part_len).enumerate() {
                set.run(AddProducts {
                    layout: &layout,
                    panel: layout.panel(panel, shape),
                    tiles: part_rows(part).len() * layout.tiling.columns,
                    points,
                    add: first + part > 0,
                    sums,
                });
            }
        });
    }
    let mut weight = vec![0.0; shape.out_channels * shape.filter_len()];
    let groups = weight.par_chunks_mut(layout.group * shape.filter_len());
    groups.enumerate().for_each(|(group, weight)| {
        let panels = shape.in_channels.div_ceil(PANEL_INPUTS);
        for panel in group * panels..(group + 1) * panels {
            set.run(TransformSums {
                shape,
                layout: &layout,
                panel: layout.panel(panel, shape),
                sums: &sums[panel * layout.panel_len()..][..layout.panel_len()],
                weight,
            });
        }
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
    /// Output channels of a panel.
    group: usize,
    panels: usize,
}

/// The weights of some output and input channels. Their sums are `[points, PANEL_INPUTS, group]`.
struct Panel {
    first_output: usize,
    outputs: usize,
    first_input: usize,
    inputs: usize,
}

impl Layout {
    fn new(set: InstructionSet, shape: &BlockShape) -> Self {
        let tiling = Tiling::new(shape);
        let part_rows = (PART_TILES / tiling.columns).max(1);
        let tiles = part_rows * tiling.columns;
        let group = VECTORS * set.lanes();
        Self {
            tiling,
            part_rows,
            images: PointLayout::new(tiles, shape.in_channels),
            gradient: PointLayout::new(tiles, shape.out_channels),
            group,
            panels: shape.out_channels.div_ceil(group) * shape.in_channels.div_ceil(PANEL_INPUTS),
        }
    }

    /// Floats of a panel at one point.
    fn point_len(&self) -> usize {
        PANEL_INPUTS * self.group
    }

    /// Floats of a panel.
    fn panel_len(&self) -> usize {
        POINTS * POINTS * self.point_len()
    }

    fn panel(&self, index: usize, shape: &BlockShape) -> Panel {
        let per_group = shape.in_channels.div_ceil(PANEL_INPUTS);
        let first_output = index / per_group * self.group;
        let first_input = index % per_group * PANEL_INPUTS;
        Panel {
            first_output,
            outputs: self.group.min(shape.out_channels - first_output),
            first_input,
            inputs: PANEL_INPUTS.min(shape.in_channels - first_input),
        }
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

/// Adds the products of the tiles of a part to the sums of a panel.
struct AddProducts<'a> {
    layout: &'a Layout,
    panel: Panel,
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
            layout,
            panel,
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
            sums_row: layout.group,
            add,
        };
        assert!(points.len() >= images.len() + gradient.len());
        assert!(tiles * images.pitch <= images.point_len);
        assert!(panel.first_input + panel.inputs <= images.pitch);
        assert!(tiles * gradient.pitch <= gradient.point_len);
        assert!(
            panel.first_output + panel.outputs.next_multiple_of(S::F32_LANES) <= gradient.pitch
        );
        assert!(sums.len() >= layout.panel_len() && panel.inputs <= PANEL_INPUTS);
        let blocks = panel.inputs.div_ceil(max_rows(S::REGISTER_COUNT));
        for point in 0..POINTS * POINTS {
            for block in 0..blocks {
                let start = block * panel.inputs / blocks;
                let rows = (block + 1) * panel.inputs / blocks - start;
                let left = point * images.point_len + panel.first_input + start;
                let right = images.len() + point * gradient.point_len + panel.first_output;
                let to = point * layout.point_len() + start * layout.group;
                // SAFETY: the matrices lie within the slices by the assertions.
                unsafe {
                    let (left, right) = (points.as_ptr().add(left), points.as_ptr().add(right));
                    let to = sums.as_mut_ptr().add(to);
                    if panel.outputs > S::F32_LANES {
                        product.run::<S, VECTORS>(simd, rows, left, right, to);
                    } else {
                        product.run::<S, 1>(simd, rows, left, right, to);
                    }
                }
            }
        }
    }
}

/// Transforms the sums of a panel to the gradients of its weights.
struct TransformSums<'a> {
    shape: &'a BlockShape,
    layout: &'a Layout,
    panel: Panel,
    sums: &'a [f32],
    /// The weights of the output channels of the panel, `[outputs, C, 3, 3]`.
    weight: &'a mut [f32],
}

impl WithSimd for TransformSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            shape,
            layout,
            panel,
            sums,
            weight,
        } = self;
        let lanes = S::F32_LANES;
        let filter = TAPS * TAPS;
        let mut taps = ScratchBuffer::new(panel.inputs * filter * lanes);
        for first in (0..panel.outputs).step_by(lanes) {
            for (input, taps) in taps.chunks_exact_mut(filter * lanes).enumerate() {
                let from = input * layout.group + first;
                let mut rows = [[simd.splat_f32s(0.0); POINTS]; TAPS];
                for x in 0..POINTS {
                    let mut column = [simd.splat_f32s(0.0); POINTS];
                    for (y, value) in column.iter_mut().enumerate() {
                        let at = (y * POINTS + x) * layout.point_len() + from;
                        let vector = &sums[at..][..lanes];
                        // SAFETY: the slice has the length of a vector.
                        *value = unsafe { load(simd, vector.as_ptr()) };
                    }
                    for (rows, value) in rows.iter_mut().zip(tap_gradients(simd, column)) {
                        rows[x] = value;
                    }
                }
                let values = rows.map(
                    #[inline(always)]
                    |row| tap_gradients(simd, row),
                );
                let vectors = taps.chunks_exact_mut(lanes);
                for (vector, &value) in vectors.zip(values.as_flattened()) {
                    // SAFETY: the slice has the length of a vector.
                    unsafe { store(simd, vector.as_mut_ptr(), value) };
                }
            }
            let to = first * shape.filter_len() + panel.first_input * filter;
            transpose(
                simd,
                &taps,
                lanes,
                &mut weight[to..],
                shape.filter_len(),
                panel.inputs * filter,
                lanes.min(panel.outputs - first),
            );
        }
    }
}
