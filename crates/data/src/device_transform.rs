//! The random transforms of images on a device.
//!
//! Each is the formula of the host, in the order of operations of the host, so that a CPU computes the same
//! pixels. The parameters of all images are one tensor, for one transfer to the device.

use burn::tensor::ops::PadMode;
use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::augmentation::Transform;
use crate::color_jitter::{ColorJitter, HUE_PHASES, LUMA};
use crate::crop::CropPadding;
use crate::elastic::Displacements;

/// The transforms of the images of a batch.
pub(crate) struct DeviceTransforms<'a> {
    transforms: &'a [Transform],
    /// Coordinates x and y of the pixels of an image, `[1, H * W]` each.
    columns: Tensor<2>,
    rows: Tensor<2>,
    size: [usize; 2],
    /// [`parameters`] of each image, `[N, PARAMETERS]`.
    parameters: Tensor<2>,
}

/// Number of parameters of an image.
const PARAMETERS: usize = 21;
/// Indices of the parameters: the affine map, row-major.
const AFFINE: usize = 0;
/// Top, left, bottom and right of a rectangle.
const ERASED: usize = 6;
const CUTOUT: usize = 10;
/// Whether the image is mirrored, and the offset down and to the right.
const CROP: usize = 14;
const BRIGHTNESS: usize = 17;
const CONTRAST: usize = 18;
const SATURATION: usize = 19;
const HUE: usize = 20;

fn parameters(transform: &Transform) -> [f32; PARAMETERS] {
    let Transform {
        color,
        warp,
        crop,
        erased,
        cutout,
    } = transform;
    let mut parameters = [0.0; PARAMETERS];
    if let Some(warp) = warp {
        parameters[AFFINE..ERASED].copy_from_slice(warp.affine.as_flattened());
    }
    parameters[ERASED..CUTOUT].copy_from_slice(&erased.corners());
    parameters[CUTOUT..CROP].copy_from_slice(&cutout.corners());
    let [down, right] = crop.offset.map(|offset| offset as f32);
    let is_mirrored = f32::from(u8::from(crop.is_mirrored));
    parameters[CROP..BRIGHTNESS].copy_from_slice(&[is_mirrored, down, right]);
    let &ColorJitter {
        brightness,
        contrast,
        saturation,
        hue,
    } = color;
    parameters[BRIGHTNESS..].copy_from_slice(&[brightness, contrast, saturation, hue]);
    parameters
}

impl<'a> DeviceTransforms<'a> {
    /// Transfers the parameters of the transforms to the device of the coordinates.
    pub(crate) fn new(
        transforms: &'a [Transform],
        [columns, rows]: [Tensor<2>; 2],
        size: [usize; 2],
    ) -> Self {
        let parameters: Vec<f32> = transforms.iter().flat_map(parameters).collect();
        let parameters = TensorData::new(parameters, [transforms.len(), PARAMETERS]);
        Self {
            parameters: Tensor::from_data(parameters, &columns.device()),
            transforms,
            columns,
            rows,
            size,
        }
    }

    /// Applies one transform to each image, pixels `[N, C, H, W]` from 0 to 255, as
    /// [`Augmentation::apply`](crate::Augmentation::apply) does on the host.
    pub(crate) fn apply(&self, pixels: Tensor<4>, fill: [u8; 3]) -> Tensor<4> {
        let shape = pixels.dims();
        let any = |has: fn(&Transform) -> bool| self.transforms.iter().any(has);
        let mut values = pixels.flatten(2, 3);
        if any(|transform| transform.color != ColorJitter::IDENTITY) {
            values = self.color(values);
        }
        if any(|transform| transform.warp.is_some()) {
            values = self.warp(values.reshape(shape));
        }
        if any(|transform| !transform.crop.is_identity()) {
            values = self.crop(values);
        }
        if any(|transform| transform.erased.area() > 0) {
            values = self.fill_rectangle(values, ERASED, [0; 3]);
        }
        if any(|transform| transform.cutout.area() > 0) {
            values = self.fill_rectangle(values, CUTOUT, fill);
        }
        values.reshape(shape)
    }

    /// Returns one parameter of each image, `[N, 1]`.
    fn parameter(&self, at: usize) -> Tensor<2> {
        let count = self.transforms.len();
        self.parameters.clone().slice([0..count, at..at + 1])
    }

    /// Changes the colors of the images, `[N, C, H * W]`.
    fn color(&self, mut values: Tensor<3>) -> Tensor<3> {
        let any = |has: fn(&ColorJitter) -> bool| self.transforms.iter().any(|it| has(&it.color));
        let parameter = |at: usize| self.parameter(at).unsqueeze_dim::<3>(2);
        if any(|color| color.brightness != 1.0) {
            values = (parameter(BRIGHTNESS) * values).clamp(0.0, 255.0);
        }
        if any(|color| color.contrast != 1.0) {
            let rounded = luma(values.clone()).add_scalar(0.5).floor();
            let [_, _, pixels] = values.dims();
            let mean = rounded.int().sum_dim(2).float().div_scalar(pixels as f32);
            values = blend(parameter(CONTRAST), values, mean);
        }
        if values.dims()[1] == 3 {
            if any(|color| color.saturation != 1.0) {
                let luma = luma(values.clone());
                values = blend(parameter(SATURATION), values, luma);
            }
            if any(|color| color.hue != 0.0) {
                values = rotate_hue(values, parameter(HUE));
            }
        }
        values.add_scalar(0.5).floor()
    }

    /// Interpolates the images, `[N, C, H, W]`, bilinearly between four pixels of the zero-padded images.
    fn warp(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [_, channels, height, width] = pixels.dims();
        // Source coordinates of each pixel, `[N, H * W]`.
        let [center_x, center_y] = [width, height].map(|size| (size as f32 - 1.0) / 2.0);
        let x = self.columns.clone().sub_scalar(center_x);
        let y = self.rows.clone().sub_scalar(center_y);
        let source = |first: usize, center: f32| {
            let linear = self.parameter(first) * x.clone() + self.parameter(first + 1) * y.clone();
            (linear + self.parameter(first + 2)).add_scalar(center)
        };
        let (mut x, mut y) = (source(AFFINE, center_x), source(AFFINE + 3, center_y));
        let warps = self.transforms.iter().filter_map(|it| it.warp.as_ref());
        let elastic = warps.filter_map(|warp| warp.elastic.as_ref());
        if let Some([right, down]) = displacements(elastic, [height, width], &pixels.device()) {
            x = x + right;
            y = y + down;
        }

        let (x, y) = (
            x.clamp(-1.0, width as f32).add_scalar(1.0),
            y.clamp(-1.0, height as f32).add_scalar(1.0),
        );
        let (left, above) = (x.clone().floor(), y.clone().floor());
        let right = (x - left.clone()).unsqueeze_dim::<3>(1);
        let down = (y - above.clone()).unsqueeze_dim::<3>(1);
        let pitch = width + 3;
        let upper_left = (above.mul_scalar(pitch as f32) + left).int();
        let upper_left = upper_left.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
        let padded = pixels.pad([(1, 2), (1, 2)], PadMode::Constant(0.0));
        let padded: Tensor<3> = padded.flatten(2, 3);
        let value = |offset: usize| {
            let at = upper_left.clone().add_scalar(offset as i32);
            padded.clone().gather(2, at)
        };
        let along_row = |offset: usize| {
            let first = value(offset);
            first.clone() + right.clone() * (value(offset + 1) - first)
        };
        let upper = along_row(0);
        let lower = along_row(pitch);
        (upper.clone() + down * (lower - upper))
            .add_scalar(0.5)
            .floor()
    }

    /// Mirrors and crops the images, `[N, C, H * W]`.
    fn crop(&self, values: Tensor<3>) -> Tensor<3> {
        let [_, channels, _] = values.dims();
        let [last_row, last_column] = self.size.map(|size| size as f32 - 1.0);
        let [is_mirrored, down, right] = [CROP, CROP + 1, CROP + 2].map(|at| self.parameter(at));
        let row = self.rows.clone() + down;
        let column = self.columns.clone() + right;
        let is_outside = |at: &Tensor<2>, last: f32| {
            let below = at.clone().lower_scalar(0.0);
            below.bool_or(at.clone().greater_scalar(last))
        };
        let outside = is_outside(&row, last_row).bool_or(is_outside(&column, last_column));
        // An offset is less than the size, so one reflection at each side suffices. Pixels that are filled
        // below have any source.
        let reflect =
            |at: Tensor<2>, last: f32| at.abs().neg().add_scalar(last).abs().neg().add_scalar(last);
        let (row, column) = (reflect(row, last_row), reflect(column, last_column));
        let to_mirrored = column.clone().mul_scalar(-2.0).add_scalar(last_column);
        let column = column + is_mirrored * to_mirrored;
        let at = row.mul_scalar(last_column + 1.0) + column;
        let at = at.int().unsqueeze_dim::<3>(1).repeat_dim(1, channels);
        let cropped = values.gather(2, at);
        match self.transforms[0].crop.padding {
            CropPadding::Reflect => cropped,
            CropPadding::Zero => {
                let outside = outside.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
                cropped.mask_fill(outside, 0.0)
            }
        }
    }

    /// Sets the pixels of a rectangle of each image, `[N, C, H * W]`, to the value of each channel.
    fn fill_rectangle(&self, values: Tensor<3>, corners: usize, fill: [u8; 3]) -> Tensor<3> {
        let shape = values.dims();
        let channels = shape[1];
        let [top, left, bottom, right] = [0, 1, 2, 3].map(|at| self.parameter(corners + at));
        let (rows, columns) = (self.rows.clone(), self.columns.clone());
        let inside: Tensor<2, Bool> = rows
            .clone()
            .greater_equal(top)
            .bool_and(rows.lower(bottom))
            .bool_and(columns.clone().greater_equal(left))
            .bool_and(columns.lower(right));
        let inside = inside.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
        let fill: Vec<f32> = fill[..channels].iter().map(|&pixel| pixel.into()).collect();
        let fill = TensorData::new(fill, [1, channels, 1]);
        let fill = Tensor::<3>::from_data(fill, &values.device());
        values.mask_where(inside, fill.expand(shape))
    }
}

/// Computes the displacements in x and y, `[N, H * W]` each. Returns `None` without elastic
/// distortion.
fn displacements<'a>(
    elastic: impl Iterator<Item = &'a Displacements> + Clone,
    [height, width]: [usize; 2],
    device: &Device,
) -> Option<[Tensor<2>; 2]> {
    let count = elastic.clone().count();
    let [(rows, grid_rows), (columns, grid_columns)] = elastic.clone().next()?.weights();
    let points: Vec<f32> = elastic.flat_map(Displacements::points).collect();
    let tensor = |values: Vec<f32>, shape: [usize; 4]| {
        Tensor::<4>::from_data(TensorData::new(values, shape), device)
    };
    let rows = tensor(rows, [1, 1, height, grid_rows]);
    let columns = tensor(columns, [1, 1, width, grid_columns]).transpose();
    let points = tensor(points, [count, 2, grid_rows, grid_columns]);
    let field = rows.matmul(points).matmul(columns);
    Some([0..1, 1..2].map(|axis| {
        let field = field.clone().slice([0..count, axis]);
        field.reshape([count, height * width])
    }))
}

/// Moves values away from `center` by a factor, `[N, 1, 1]`.
fn blend(factor: Tensor<3>, values: Tensor<3>, center: Tensor<3>) -> Tensor<3> {
    let rest = factor.clone().neg().add_scalar(1.0);
    (factor * values + rest * center).clamp(0.0, 255.0)
}

/// Computes the luma of images, `[N, 1, H * W]`, of `[N, C, H * W]`.
fn luma(values: Tensor<3>) -> Tensor<3> {
    match values.dims() {
        [_, 3, _] => {
            let [red, green, blue] = channels(values);
            let [red_weight, green_weight, blue_weight] = LUMA;
            red.mul_scalar(red_weight)
                + green.mul_scalar(green_weight)
                + blue.mul_scalar(blue_weight)
        }
        [count, _, pixels] => values.slice([0..count, 0..1, 0..pixels]),
    }
}

/// Rotates the hue of RGB images by a fraction of the circle, `[N, 1, 1]`.
fn rotate_hue(values: Tensor<3>, fraction: Tensor<3>) -> Tensor<3> {
    let [red, green, blue] = channels(values);
    let max = red.clone().max_pair(green.clone()).max_pair(blue.clone());
    let min = red.clone().min_pair(green.clone()).min_pair(blue.clone());
    let chroma = max.clone() - min;
    let divisor = chroma
        .clone()
        .mask_fill(chroma.clone().equal_scalar(0.0), 1.0);
    let (is_red, is_green) = (
        max.clone().equal(red.clone()),
        max.clone().equal(green.clone()),
    );
    let of_red = (green.clone() - blue.clone()) / divisor.clone();
    let of_green = ((blue - red.clone()) / divisor.clone()).add_scalar(2.0);
    let of_blue = ((red - green) / divisor).add_scalar(4.0);
    let hue = of_blue
        .mask_where(is_green, of_green)
        .mask_where(is_red, of_red);
    let hue = hue + fraction.mul_scalar(6.0);
    let channels = HUE_PHASES.map(|phase| {
        let angle = hue.clone().add_scalar(phase);
        let turns = angle.clone().div_scalar(6.0).floor();
        let angle = angle - turns.mul_scalar(6.0);
        let part = angle.clone().min_pair(angle.neg().add_scalar(4.0));
        max.clone() - chroma.clone() * part.clamp(0.0, 1.0)
    });
    Tensor::cat(channels.to_vec(), 1)
}

/// Splits RGB images, `[N, 3, H * W]`, into channels, `[N, 1, H * W]`.
fn channels(values: Tensor<3>) -> [Tensor<3>; 3] {
    let [count, _, pixels] = values.dims();
    [0, 1, 2].map(|channel| {
        let planes = [0..count, channel..channel + 1, 0..pixels];
        values.clone().slice(planes)
    })
}
