//! Dense layers for any device.

use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};

use crate::activation::activate;
use crate::backend;
use crate::cpu::activation::Activation;

/// Applies a dense layer and an activation function: `input` `[N, inputs]`, `weight` `[inputs, outputs]`, `bias`
/// `[outputs]`. One image without autodiff on a CPU takes a fused kernel.
pub fn dense_layer(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<2> {
    let device = input.device();
    let is_f32 = |dtype| dtype == DType::F32;
    if input.dims()[0] == 1
        && is_f32(input.dtype())
        && is_f32(weight.dtype())
        && bias.as_ref().is_none_or(|bias| is_f32(bias.dtype()))
        && !device.is_autodiff()
        && backend::is_cpu(&device)
    {
        let outputs = weight.dims()[1];
        let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &device));
        return backend::dense_layer(input, weight, bias, activation);
    }
    activate(linear(input, weight, bias), activation)
}
