//! Registers activations and their gradients with Burn.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::activation::{Activation, backward, forward};
use crate::cpu::simd::InstructionSet;

pub(crate) fn activate<const D: usize>(values: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as ActivationBackend>::activate(
        values.into_dispatch(),
        activation,
    ))
}

/// A backend with fast activations.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait ActivationBackend: Backend {
    /// Values to output of the same shape, both `f32`.
    fn activate(values: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
}

impl<B: CpuBackend> ActivationBackend for B {
    fn activate(values: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let output = forward(InstructionSet::best(), activation, &B::contiguous(&values));
        B::from_vec(output, values.shape())
    }
}

impl<B: CpuBackend, C: CheckpointStrategy> ActivationBackend for Autodiff<B, C> {
    fn activate(values: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (values, node) = values.into_parts();
        let output = B::activate(values.clone(), activation);
        match ActivationBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(operation) => operation.finish((values, activation), output),
            OpsKind::UnTracked(operation) => operation.finish(output),
        }
    }
}

#[derive(Debug)]
struct ActivationBackward;

impl<B: CpuBackend> Backward<B, 1> for ActivationBackward {
    /// The input of the forward pass.
    type State = (FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node] = ops.parents;
        let (values, activation) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            let gradient = backward(
                InstructionSet::best(),
                activation,
                &B::contiguous(&values),
                &B::contiguous(&gradient),
            );
            grads.register::<B>(node.id, B::from_vec(gradient, values.shape()));
        }
    }
}
