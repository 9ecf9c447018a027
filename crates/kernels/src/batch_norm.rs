//! Batch normalization with ReLU for any device.

use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};

use crate::backend;
use crate::cpu::batch_norm::{EPSILON, Moments, NormShape, channel_moments};
use crate::cpu::simd::InstructionSet;

/// Normalizes each channel to mean 0 and variance 1 over the batch, adds the bias of the channel, and applies ReLU:
/// Ioffe and Szegedy, "Batch normalization" (2015). There is no scale per channel: the weights of the layer after the
/// ReLU make it redundant.
///
/// # Shapes
/// - `images` and output: `[N, C, H, W]`
/// - `bias`: `[C]`
///
/// As in PyTorch's training mode, the variance is the biased one of the batch (divided by `N * H * W`), plus 1e-5.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn batch_norm_relu(images: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let shape = NormShape::new(images.dims());
    let is_f32 = images.dtype() == DType::F32 && bias.dtype() == DType::F32;
    if is_f32 && bias.dims() == [shape.channels] && backend::is_cpu(&images.device()) {
        backend::batch_norm_relu(images, bias, shape)
    } else {
        composed(images, bias)
    }
}

/// Returns the mean and variance of each channel of images `[N, C, H, W]`. Waits for the device.
///
/// # Panics
/// Panics if the images cannot be read from their device.
pub fn moments(images: Tensor<4>) -> Vec<Moments> {
    let shape = NormShape::new(images.dims());
    let data = images.into_data().convert::<f32>();
    let values = data.as_slice().expect("the data was converted to f32");
    channel_moments(InstructionSet::best(), shape, values)
}

/// Composes the operation of Burn's operations.
fn composed(images: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let channels_first: Tensor<2> = images.swap_dims(0, 1).flatten(1, 3);
    let centered = channels_first.clone() - channels_first.mean_dim(1);
    let variance = centered.clone().powi_scalar(2).mean_dim(1);
    let normalized = centered / variance.add_scalar(EPSILON).sqrt() + bias.unsqueeze_dim(1);
    relu(
        normalized
            .reshape([channels, batch, height, width])
            .swap_dims(0, 1),
    )
}
