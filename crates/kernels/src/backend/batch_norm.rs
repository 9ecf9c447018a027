//! Registers batch normalization with ReLU, and its gradient, with Burn.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::batch_norm::{Moments, NormShape, backward, forward};
use crate::cpu::simd::InstructionSet;

pub(crate) fn batch_norm_relu(images: Tensor<4>, bias: Tensor<1>, shape: NormShape) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as BatchNormBackend>::batch_norm_relu(
        images.into_dispatch(),
        bias.into_dispatch(),
        shape,
    ))
}

/// A backend with fused batch normalization.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait BatchNormBackend: Backend {
    /// Images `[N, C, H, W]` and bias `[C]` to output `[N, C, H, W]`, all `f32`.
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;
}

/// Returns the output, and the moments of the images.
fn run_forward<B: CpuBackend>(
    images: &FloatTensor<B>,
    bias: &FloatTensor<B>,
    shape: NormShape,
) -> (FloatTensor<B>, Vec<Moments>) {
    let set = InstructionSet::best();
    let dims = images.shape().dims::<4>();
    let (output, moments) = forward(set, shape, &B::contiguous(images), &B::contiguous(bias));
    (B::from_vec(output, dims), moments)
}

impl<B: CpuBackend> BatchNormBackend for B {
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self> {
        run_forward::<Self>(&images, &bias, shape).0
    }
}

impl<B: CpuBackend, C: CheckpointStrategy> BatchNormBackend for Autodiff<B, C> {
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self> {
        let (images, image_node) = images.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, moments) = run_forward::<B>(&images, &bias, shape);
        match BatchNormBackward
            .prepare::<C>([image_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(operation) => {
                let state = SavedForBackward {
                    images,
                    bias,
                    moments: Arc::new(moments),
                    shape,
                };
                operation.finish(state, output)
            }
            OpsKind::UnTracked(operation) => operation.finish(output),
        }
    }
}

#[derive(Debug)]
struct BatchNormBackward;

/// State of the forward pass that the backward pass needs.
#[derive(Clone, Debug)]
struct SavedForBackward<B: Backend> {
    images: FloatTensor<B>,
    bias: FloatTensor<B>,
    moments: Arc<Vec<Moments>>,
    shape: NormShape,
}

impl<B: CpuBackend> Backward<B, 2> for BatchNormBackward {
    type State = SavedForBackward<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [image_node, bias_node] = ops.parents;
        let SavedForBackward {
            images,
            bias,
            moments,
            shape,
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (image_gradient, bias_gradient) = backward(
            InstructionSet::best(),
            shape,
            &B::contiguous(&images),
            &B::contiguous(&bias),
            &moments,
            &B::contiguous(&gradient),
        );
        if let Some(node) = image_node {
            let dims = images.shape().dims::<4>();
            grads.register::<B>(node.id, B::from_vec(image_gradient, dims));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::from_vec(bias_gradient, [shape.channels]));
        }
    }
}
