//! Activations for any device.

use std::f64::consts::SQRT_2;

use burn::tensor::activation::{relu, silu, tanh};
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

/// Composes an activation function of Burn's operations.
pub(crate) fn composed<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Relu => relu(x),
        // Burn's `gelu` differentiates an approximation on some backends.
        Activation::Gelu => {
            let erf = x.clone().div_scalar(SQRT_2).erf();
            x * erf.add_scalar(1.0).mul_scalar(0.5)
        }
        Activation::Silu => silu(x),
        Activation::Tanh => tanh(x),
        Activation::None => x,
    }
}
