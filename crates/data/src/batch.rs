//! Batches: images and targets as tensors.

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::normalization::Scaling;
use crate::per_channel::PerChannel;
use crate::sample::Sample;

/// A batch of normalized images and their targets.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Normalized images, `[N, C, H, W]`.
    pub images: Tensor<4>,
    /// Class indices, `[N]`. Of a mixed image, the class with the larger weight.
    pub targets: Tensor<1, Int>,
    /// The other classes of mixed images.
    pub mixed: Option<MixedTargets>,
}

/// The second targets of a batch of mixed images: the loss is `(1 - weight)` times that of the targets plus
/// `weight` times that of these.
#[derive(Clone, Debug)]
pub struct MixedTargets {
    /// Class indices, `[N]`.
    pub targets: Tensor<1, Int>,
    /// Weight of these targets, at most 0.5.
    pub weight: f64,
}

/// Stacks samples into a batch, and normalizes it on the device.
#[derive(Clone, Copy, Debug)]
pub struct MnistBatcher {
    /// Parameters of the normalization.
    pub scaling: Scaling,
}

impl Batcher<Sample, Batch> for MnistBatcher {
    /// # Panics
    /// Panics if `items` is empty, or if the shapes of the images differ.
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
        // `u8` takes a quarter of the transfer to the device.
        let images = if supports_u8(device) {
            Tensor::<4, Int>::from_data(pixels, (device, DType::U8)).float()
        } else {
            Tensor::<4>::from_data(pixels, device)
        };
        let labels: Vec<i32> = items.iter().map(|item| i32::from(item.label)).collect();
        let labels = TensorData::new(labels, [items.len()]);
        Batch {
            images: normalize(images, self.scaling),
            targets: Tensor::from_data(labels, device),
            mixed: None,
        }
    }
}

/// Returns whether a device can store pixels as `u8`.
pub(crate) fn supports_u8(device: &Device) -> bool {
    device.supports_dtype(DType::U8)
}

/// Normalizes pixels of 0 to 255, `[N, C, H, W]`: computes `(x / 255 - mean) / std` as one multiplication and one
/// subtraction.
pub fn normalize(pixels: Tensor<4>, scaling: Scaling) -> Tensor<4> {
    let device = pixels.device();
    // [1, 3, 1, 1]
    let tensor = |numbers: [f64; 3]| {
        Tensor::<1>::from_floats(numbers.map(|number| number as f32), &device).reshape([1, 3, 1, 1])
    };
    let (factor, shift) = scaling.factor_and_shift();
    let scaled = match factor {
        PerChannel::Same(factor) => pixels.mul_scalar(factor),
        PerChannel::Each(factors) => pixels * tensor(factors),
    };
    match shift {
        PerChannel::Same(0.0) => scaled,
        PerChannel::Same(shift) => scaled.sub_scalar(shift),
        PerChannel::Each(shifts) => scaled - tensor(shifts),
    }
}
