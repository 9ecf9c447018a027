//! A dataset stored on a device, where batches are gathered and augmented.
//!
//! For each batch, only image indices and transform parameters are transferred. Without the cache,
//! a GPU waits longer for a batch than it trains on it.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::augmentation::Transform;
use crate::batch::{Batch, normalize, supports_u8};
use crate::device_transform::DeviceTransforms;
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
            let coordinates = self.coordinates.clone();
            images = DeviceTransforms::new(transforms, coordinates, [height, width])
                .apply(images, scaling.zero());
        }
        Batch {
            images: normalize(images, scaling),
            targets: self.labels.clone().select(0, indices),
            mixed: None,
        }
    }
}
