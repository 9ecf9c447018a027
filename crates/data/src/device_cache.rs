//! A dataset stored on a device, where batches are gathered and augmented.
//!
//! For each batch, only image indices and transform parameters are transferred. Without the cache,
//! a GPU waits longer for a batch than it trains on it.

use burn::tensor::ops::PadMode;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::augmentation::Transform;
use crate::batch::{Batch, normalize, supports_u8};
use crate::elastic::Displacements;
use crate::image_dataset::ImageDataset;
use crate::normalization::Scaling;
use crate::picture_store::PixelError;

/// Maximum size of the pixels on a device. It also limits the message that Burn sends to a remote
/// device.
const MAX_BYTES: usize = 512 << 20;

/// The images and labels of a dataset on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceCache {
    device: Device,
    pixels: Pixels,
    /// `[count]`
    labels: Tensor<1, Int>,
    /// Shape of an image, `[channels, height, width]`.
    shape: [usize; 3],
    /// Coordinates x and y of the pixels of an image, `[1, height * width]` each.
    coordinates: [Tensor<2>; 2],
}

/// Pixel values 0 to 255, `[count, channels * height * width]`.
#[derive(Clone, Debug)]
enum Pixels {
    Bytes(Tensor<2, Int>),
    /// For devices that do not support `u8`.
    Floats(Tensor<2>),
}

impl DeviceCache {
    /// Copies a dataset to a device. Returns `None` if it is empty or exceeds [`MAX_BYTES`].
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn new(device: &Device, dataset: &ImageDataset) -> Result<Option<Self>, PixelError> {
        let shape = [dataset.channels(), dataset.height(), dataset.width()];
        let [count, size] = [dataset.len(), shape.iter().product()];
        let has_u8 = supports_u8(device);
        let bytes = count * size * if has_u8 { 1 } else { 4 };
        if bytes > MAX_BYTES || count == 0 {
            return Ok(None);
        }
        let mut pixels = Vec::with_capacity(count * size);
        for index in 0..count {
            pixels.extend_from_slice(&dataset.pixels(index)?);
        }
        let pixels = TensorData::new(pixels, [count, size]);
        let labels: Vec<i32> = dataset.labels().map(i32::from).collect();
        let [_, height, width] = shape;
        let axis = |coordinate: fn(usize, usize) -> usize| -> Tensor<2> {
            let values = (0..height * width).map(|at| coordinate(at, width) as f32);
            let values = TensorData::new(values.collect::<Vec<f32>>(), [1, height * width]);
            Tensor::from_data(values, device)
        };
        Ok(Some(Self {
            pixels: match has_u8 {
                true => Pixels::Bytes(Tensor::from_data(pixels, (device, DType::U8))),
                false => Pixels::Floats(Tensor::from_data(pixels, device)),
            },
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
            device: device.clone(),
            shape,
            coordinates: [axis(|at, width| at % width), axis(|at, width| at / width)],
        }))
    }

    /// Returns whether the cache is on `device`.
    pub(crate) fn is_on(&self, device: &Device) -> bool {
        self.device == *device
    }

    /// Returns a batch of the images at `indices`. `transforms` has one transform per image, or is
    /// empty.
    pub(crate) fn batch(
        &self,
        indices: &[u32],
        transforms: &[Transform],
        scaling: Scaling,
    ) -> Batch {
        let [channels, height, width] = self.shape;
        let count = indices.len();
        let indices: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
        let indices = TensorData::new(indices, [count]);
        let indices = Tensor::<1, Int>::from_data(indices, &self.device);
        let pixels = match &self.pixels {
            Pixels::Bytes(pixels) => pixels.clone().select(0, indices.clone()).float(),
            Pixels::Floats(pixels) => pixels.clone().select(0, indices.clone()),
        };
        let mut images = pixels.reshape([count, channels, height, width]);
        if !transforms.is_empty() {
            images = transform(images, transforms, self.coordinates.clone());
        }
        Batch {
            images: normalize(images, scaling),
            targets: self.labels.clone().select(0, indices),
        }
    }
}

/// Applies one transform to each image, pixels `[N, C, H, W]` from 0 to 255, as
/// [`Augmentation::apply`](crate::Augmentation::apply) does on the host.
fn transform(
    pixels: Tensor<4>,
    transforms: &[Transform],
    [columns, rows]: [Tensor<2>; 2],
) -> Tensor<4> {
    let [count, channels, height, width] = pixels.dims();
    let device = pixels.device();
    let parameters: Vec<f32> = transforms.iter().flat_map(Transform::parameters).collect();
    let per_image = parameters.len() / count;
    let parameters = TensorData::new(parameters, [count, per_image]);
    let parameters = Tensor::<2>::from_data(parameters, &device);
    let parameter = |at: usize| parameters.clone().slice([0..count, at..at + 1]);

    // Source coordinates of each pixel, `[N, H * W]`.
    let [center_x, center_y] = [width, height].map(|size| (size as f32 - 1.0) / 2.0);
    let x = columns.clone().sub_scalar(center_x);
    let y = rows.clone().sub_scalar(center_y);
    let source = |first: usize, center: f32| {
        let linear = parameter(first) * x.clone() + parameter(first + 1) * y.clone();
        (linear + parameter(first + 2)).add_scalar(center)
    };
    let (mut x, mut y) = (source(0, center_x), source(3, center_y));
    let elastic = transforms
        .iter()
        .filter_map(|transform| transform.warp.elastic.as_ref());
    if let Some([right, down]) = displacements(elastic, [height, width], &device) {
        x = x + right;
        y = y + down;
    }

    // Bilinear interpolation between four pixels of the zero-padded images.
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
    let values = (upper.clone() + down * (lower - upper))
        .add_scalar(0.5)
        .floor();

    let [top, left, bottom, right] = [6, 7, 8, 9].map(parameter);
    let erased: Tensor<2, Bool> = rows
        .clone()
        .greater_equal(top)
        .bool_and(rows.lower(bottom))
        .bool_and(columns.clone().greater_equal(left))
        .bool_and(columns.lower(right));
    let erased = erased.unsqueeze_dim::<3>(1).repeat_dim(1, channels);
    let values = values.mask_fill(erased, 0.0);
    values.reshape([count, channels, height, width])
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
