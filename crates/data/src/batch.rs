//! Images and targets as tensors.

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::normalization::Scaling;

/// One labelled image, as a dataset hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Values of a pixel: 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[channels, height, width]`, row-major.
    pub pixels: Vec<u8>,
    /// The class.
    pub label: u8,
}

/// Some images and their classes, ready for a network.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Normalised images, `[N, channels, height, width]`.
    pub images: Tensor<4>,
    /// Class of each image, `[N]`.
    pub targets: Tensor<1, Int>,
}

/// Stacks samples and normalises them on the device.
#[derive(Clone, Copy, Debug)]
pub struct MnistBatcher {
    /// The normalisation.
    pub scaling: Scaling,
}

impl Batcher<Sample, Batch> for MnistBatcher {
    /// # Panics
    /// When `items` is empty or holds images of different sizes.
    fn batch(&self, items: Vec<Sample>, device: &Device) -> Batch {
        let Sample {
            channels,
            height,
            width,
            ..
        } = items[0];
        let mut pixels = Vec::with_capacity(items.len() * channels * height * width);
        for item in &items {
            pixels.extend_from_slice(&item.pixels);
        }
        let pixels = TensorData::new(pixels, [items.len(), channels, height, width]);
        // A quarter of the bytes cross to the device where it can hold bytes.
        let images = if takes_bytes(device) {
            Tensor::<4, Int>::from_data(pixels, (device, DType::U8)).float()
        } else {
            Tensor::<4>::from_data(pixels, device)
        };
        let labels: Vec<i32> = items.iter().map(|item| i32::from(item.label)).collect();
        let labels = TensorData::new(labels, [items.len()]);
        Batch {
            images: normalize(images, self.scaling),
            targets: Tensor::from_data(labels, device),
        }
    }
}

/// Whether pixels can lie on a device as they are.
pub(crate) fn takes_bytes(device: &Device) -> bool {
    device.supports_dtype(DType::U8)
}

/// `(x / 255 - mean) / std`, as one multiplication and one addition.
pub(crate) fn normalize(pixels: Tensor<4>, Scaling { mean, std }: Scaling) -> Tensor<4> {
    let scaled = pixels.mul_scalar(1.0 / (255.0 * std));
    if mean == 0.0 {
        return scaled;
    }
    scaled.sub_scalar(mean / std)
}
