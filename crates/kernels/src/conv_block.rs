//! The operation as a user sees it.

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Tensor};

use crate::backend;
use crate::shape::BlockShape;

/// What a block does besides convolving with stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvBlockOptions {
    /// Zeros on each side of the image.
    pub padding: usize,
    /// Whether negative numbers become zero.
    pub relu: bool,
    /// Whether 2x2 windows are max-pooled with stride 2. An odd last row or column is dropped.
    pub pool: bool,
}

/// Convolution with stride 1, bias, and as `options` say ReLU and 2x2 max-pooling.
///
/// # Shapes
/// - `images`: `[N, C, H, W]`
/// - `weight`: `[O, C, K, K]`
/// - `bias`: `[O]`
/// - output: `[N, O, H', W']` with `H' = H + 2 padding - K + 1`, halved by the pool; W' alike
///
/// The values are those of Burn's operations on `flex`, and of PyTorch's, but for rounding: sums run
/// in another order. Of equal pixels of a window the first gets the gradient; NaN wins its window.
/// A gradient of zero is not multiplied out, so that it stays zero where Burn's operations would
/// meet an infinite weight or pixel and make it NaN.
///
/// # Panics
/// Where Burn's operations do: when the shapes do not fit together.
pub fn conv_block(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvBlockOptions,
) -> Tensor<4> {
    match fused_shape(&images, &weight, bias.as_ref(), options) {
        Some(shape) => {
            let bias = bias.unwrap_or_else(|| {
                Tensor::zeros([shape.out_channels], (&weight.device(), DType::F32))
            });
            backend::conv_block(images, weight, bias, shape)
        }
        None => composed(images, weight, bias, options),
    }
}

/// The block's shape, if the fused operation takes it.
fn fused_shape(
    images: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: ConvBlockOptions,
) -> Option<BlockShape> {
    let shape = BlockShape::of(images.dims(), weight.dims(), options)?;
    let fits = bias.is_none_or(|bias| bias.dims() == [shape.out_channels]);
    let single = images.dtype() == DType::F32
        && weight.dtype() == DType::F32
        && bias.is_none_or(|bias| bias.dtype() == DType::F32);
    (fits && single && backend::is_fused(&images.device())).then_some(shape)
}

/// The same of Burn's operations.
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
