//! Batch normalization with activation for any device.

use burn::tensor::{DType, Tensor};

use crate::activation;
use crate::backend::{self, NormOptions};
use crate::cpu::activation::Activation;
use crate::cpu::batch_norm::{EPSILON, Moments, NormShape, channel_moments};
use crate::cpu::simd::InstructionSet;

/// Normalizes each channel to mean 0 and variance 1 over the batch, multiplies it by its scale, adds its bias, and
/// applies an activation: Ioffe and Szegedy, "Batch normalization" (2015). Without `scale`, the factor is 1.
///
/// # Shapes
/// - `images` and output: `[N, C, H, W]`
/// - `scale` and `bias`: `[C]`
///
/// As in PyTorch's training mode, the variance is the biased one of the batch (divided by `N * H * W`), plus 1e-5.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn batch_norm(
    images: Tensor<4>,
    scale: Option<Tensor<1>>,
    bias: Tensor<1>,
    activation: Activation,
) -> Tensor<4> {
    let shape = NormShape::new(images.dims());
    let is_supported =
        |values: &Tensor<1>| values.dtype() == DType::F32 && values.dims() == [shape.channels];
    let is_f32 = images.dtype() == DType::F32
        && scale.as_ref().is_none_or(is_supported)
        && is_supported(&bias);
    if is_f32 && backend::is_cpu(&images.device()) {
        let scale = scale.unwrap_or_else(|| bias.ones_like());
        backend::batch_norm(images, scale, bias, NormOptions { shape, activation })
    } else {
        composed(images, scale, bias, activation)
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
fn composed(
    images: Tensor<4>,
    scale: Option<Tensor<1>>,
    bias: Tensor<1>,
    activation: Activation,
) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let channels_first: Tensor<2> = images.swap_dims(0, 1).flatten(1, 3);
    let centered = channels_first.clone() - channels_first.mean_dim(1);
    let variance = centered.clone().powi_scalar(2).mean_dim(1);
    let normalized = centered / variance.add_scalar(EPSILON).sqrt();
    let scaled = match scale {
        Some(scale) => normalized * scale.unsqueeze_dim(1),
        None => normalized,
    };
    activation::composed(scaled + bias.unsqueeze_dim(1), activation)
        .reshape([channels, batch, height, width])
        .swap_dims(0, 1)
}
