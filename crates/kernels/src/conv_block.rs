//! The convolution block for any device.

use std::sync::Arc;

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Tensor};

use crate::backend;
use crate::cpu::conv_block::{BlockShape, ConvBlockOptions, FilterCache};

/// Computes a convolution with stride 1 and bias, followed by ReLU and 2x2 max-pooling if `options` enable them.
///
/// # Shapes
/// - `images`: `[N, C, H, W]`
/// - `weight`: `[O, C, K, K]`
/// - `bias`: `[O]`
/// - output: `[N, O, H', W']` with `H' = H + 2 padding - K + 1`, halved by the pooling; `W'` likewise
///
/// The values equal those of Burn's operations on `flex`, and of PyTorch, up to rounding: sums are computed in another
/// order. If several pixels of a pooling window are equal, the first one gets the gradient; NaN counts as the maximum.
/// Most shapes skip gradients of zero, so the result is zero where Burn's operations compute NaN from zero times
/// infinity.
///
/// # Panics
/// Panics where Burn's operations do: if the shapes do not match.
pub fn conv_block(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvBlockOptions,
) -> Tensor<4> {
    run(images, weight, bias, options, None)
}

/// The filters of one block in the layouts of the CPU kernels, which saves their computation in every call.
#[derive(Clone, Debug, Default)]
pub struct PackedFilters(Arc<FilterCache>);

impl PackedFilters {
    /// Same as [`conv_block`], for inference. Every call must be with the same weight and bias.
    ///
    /// # Panics
    /// Panics where [`conv_block`] does.
    pub fn conv_block(
        &self,
        images: Tensor<4>,
        weight: Tensor<4>,
        bias: Option<Tensor<1>>,
        options: ConvBlockOptions,
    ) -> Tensor<4> {
        run(images, weight, bias, options, Some(Arc::clone(&self.0)))
    }
}

fn run(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvBlockOptions,
    cache: Option<Arc<FilterCache>>,
) -> Tensor<4> {
    match fused_shape(&images, &weight, bias.as_ref(), options) {
        Some(shape) => {
            let bias = bias.unwrap_or_else(|| {
                Tensor::zeros([shape.out_channels], (&weight.device(), DType::F32))
            });
            backend::conv_block(images, weight, bias, shape, cache)
        }
        None => composed(images, weight, bias, options),
    }
}

/// Returns the shape of the block if the fused operation supports it.
fn fused_shape(
    images: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: ConvBlockOptions,
) -> Option<BlockShape> {
    let shape = BlockShape::supported(images.dims(), weight.dims(), options)?;
    let bias_matches = bias.is_none_or(|bias| bias.dims() == [shape.out_channels]);
    let is_f32 = images.dtype() == DType::F32
        && weight.dtype() == DType::F32
        && bias.is_none_or(|bias| bias.dtype() == DType::F32);
    (bias_matches && is_f32 && backend::is_fused(&images.device())).then_some(shape)
}

/// Composes the block of Burn's operations.
fn composed(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvBlockOptions,
) -> Tensor<4> {
    let padding = [options.padding; 2];
    let mut output = conv2d(
        images,
        weight,
        bias,
        ConvOptions::new([1, 1], padding, [1, 1], 1),
    );
    if options.relu {
        output = relu(output);
    }
    if options.pool {
        output = max_pool2d(output, MaxPoolOptions::new([2, 2]));
    }
    output
}
