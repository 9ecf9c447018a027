//! Batch normalization and its gradient, registered with Burn.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::InMemory;
use crate::channels::{Moments, Planes, backward, forward};
use crate::simd::InstructionSet;

pub(crate) fn batch_norm_relu(images: Tensor<4>, bias: Tensor<1>, planes: Planes) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as BatchNormBackend>::batch_norm_relu(
        images.into_dispatch(),
        bias.into_dispatch(),
        planes,
    ))
}

/// A backend with fused batch normalization.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait BatchNormBackend: Backend {
    /// `[N, C, H, W]` of `[N, C, H, W]` and `[C]`, all `f32`.
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        planes: Planes,
    ) -> FloatTensor<Self>;
}

/// The output, and the moments of the images.
fn run_forward<B: InMemory>(
    images: &FloatTensor<B>,
    bias: &FloatTensor<B>,
    planes: Planes,
) -> (FloatTensor<B>, Vec<Moments>) {
    let set = InstructionSet::best();
    let shape = images.shape().dims::<4>();
    let (output, moments) = forward(set, planes, &B::numbers(images), &B::numbers(bias));
    (B::tensor(output, shape), moments)
}

impl<B: InMemory> BatchNormBackend for B {
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        planes: Planes,
    ) -> FloatTensor<Self> {
        run_forward::<Self>(&images, &bias, planes).0
    }
}

impl<B: InMemory, C: CheckpointStrategy> BatchNormBackend for Autodiff<B, C> {
    fn batch_norm_relu(
        images: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        planes: Planes,
    ) -> FloatTensor<Self> {
        let (images, image_node) = images.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, moments) = run_forward::<B>(&images, &bias, planes);
        match BatchNormBackward
            .prepare::<C>([image_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(operation) => {
                let state = Saved {
                    images,
                    bias,
                    moments: Arc::new(moments),
                    planes,
                };
                operation.finish(state, output)
            }
            OpsKind::UnTracked(operation) => operation.finish(output),
        }
    }
}

#[derive(Debug)]
struct BatchNormBackward;

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    images: FloatTensor<B>,
    bias: FloatTensor<B>,
    moments: Arc<Vec<Moments>>,
    planes: Planes,
}

impl<B: InMemory> Backward<B, 2> for BatchNormBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [image_node, bias_node] = ops.parents;
        let Saved {
            images,
            bias,
            moments,
            planes,
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (of_images, of_bias) = backward(
            InstructionSet::best(),
            planes,
            &B::numbers(&images),
            &B::numbers(&bias),
            &moments,
            &B::numbers(&gradient),
        );
        if let Some(node) = image_node {
            let shape = images.shape().dims::<4>();
            grads.register::<B>(node.id, B::tensor(of_images, shape));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::tensor(of_bias, [planes.channels]));
        }
    }
}
