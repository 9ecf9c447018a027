//! Batch normalization as a user sees it.

use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};

use crate::backend;
use crate::channels::{EPSILON, Moments, Planes, moments_of};
use crate::simd::InstructionSet;

/// Each channel brought to mean 0 and variance 1 over the batch, its bias added, and ReLU: Ioffe and Szegedy,
/// "Batch normalization" (2015), without a factor per channel, which the weights after the ReLU make
/// superfluous.
///
/// # Shapes
/// - `images`: `[N, C, H, W]`, as is the output
/// - `bias`: `[C]`
///
/// The variance is that of the batch itself, divided by its count, as PyTorch's layer takes it, and has
/// 1e-5 added.
///
/// # Panics
/// When the shapes do not fit together.
pub fn batch_norm_relu(images: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let is_single = images.dtype() == DType::F32 && bias.dtype() == DType::F32;
    if is_single && bias.dims() == [channels] && backend::is_cpu(&images.device()) {
        let planes = Planes {
            batch,
            channels,
            plane: height * width,
        };
        backend::batch_norm_relu(images, bias, planes)
    } else {
        composed(images, bias)
    }
}

/// Mean and variance of each channel of images `[N, C, H, W]`. Waits for the device.
///
/// # Panics
/// When the images cannot be read from their device.
pub fn moments(images: Tensor<4>) -> Vec<Moments> {
    let [batch, channels, height, width] = images.dims();
    let planes = Planes {
        batch,
        channels,
        plane: height * width,
    };
    let data = images.into_data().convert::<f32>();
    let numbers = data.as_slice().expect("they were converted to f32");
    moments_of(InstructionSet::best(), planes, numbers)
}

/// The same of Burn's operations.
fn composed(images: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let channels_first: Tensor<2> = images.swap_dims(0, 1).flatten(1, 3);
    let centred = channels_first.clone() - channels_first.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let normal = centred / variance.add_scalar(EPSILON).sqrt() + bias.unsqueeze_dim(1);
    relu(
        normal
            .reshape([channels, batch, height, width])
            .swap_dims(0, 1),
    )
}
