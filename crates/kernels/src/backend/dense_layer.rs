//! Registers the dense layer of one image with Burn.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::activation::Activation;
use crate::cpu::dense_layer::forward;
use crate::cpu::simd::InstructionSet;

pub(crate) fn dense_layer(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    activation: Activation,
) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as DenseLayerBackend>::dense_layer(
        input.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        activation,
    ))
}

/// A backend with the dense layer of one image. It is not differentiable.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait DenseLayerBackend: Backend {
    /// Input `[1, inputs]`, weight `[inputs, outputs]` and bias `[outputs]` to output `[1, outputs]`, all `f32`.
    fn dense_layer(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;
}

impl<B: CpuBackend> DenseLayerBackend for B {
    fn dense_layer(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let output = forward(
            InstructionSet::best(),
            &B::contiguous(&input),
            &B::contiguous(&weight),
            &B::contiguous(&bias),
            activation,
        );
        B::from_vec(output, [1, bias.shape()[0]])
    }
}
