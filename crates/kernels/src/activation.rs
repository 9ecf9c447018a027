//! Activations for any device.

use burn::tensor::activation::{gelu, relu, silu, tanh};
use burn::tensor::{DType, Tensor};

use crate::backend;
use crate::cpu::activation::Activation;

/// Applies an activation function to each value.
pub fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    if activation == Activation::None {
        return x;
    }
    if x.dtype() == DType::F32 && backend::is_cpu(&x.device()) {
        return backend::activate(x, activation);
    }
    composed(x, activation)
}

/// Applies an activation function of Burn.
pub(crate) fn composed<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Relu => relu(x),
        Activation::Gelu => gelu(x),
        Activation::Silu => silu(x),
        Activation::Tanh => tanh(x),
        Activation::None => x,
    }
}
