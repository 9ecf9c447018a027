//! The convolution block and its gradient, registered with Burn.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::InMemory;
use crate::backward::backward;
use crate::forward::forward;
use crate::shape::BlockShape;
use crate::simd::InstructionSet;

pub(crate) fn conv_block(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    shape: BlockShape,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ConvBlockBackend>::conv_block(
        images.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        shape,
    ))
}

/// A backend with the fused block.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait ConvBlockBackend: Backend {
    /// `[N, O, H', W']` of `[N, C, H, W]`, `[O, C, K, K]` and `[O]`, all `f32`.
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
    ) -> FloatTensor<Self>;
}

/// The output; and its winners, where a backward pass will need them.
fn run_forward<B: InMemory>(
    images: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    bias: &FloatTensor<B>,
    shape: BlockShape,
    winners: Option<&mut [u8]>,
) -> FloatTensor<B> {
    let output = forward(
        InstructionSet::best(),
        shape,
        &B::numbers(images),
        &B::numbers(weight),
        &B::numbers(bias),
        winners,
    );
    let [height, width] = [shape.out_height(), shape.out_width()];
    B::tensor(output, [shape.batch, shape.out_channels, height, width])
}

impl<B: InMemory> ConvBlockBackend for B {
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
    ) -> FloatTensor<Self> {
        run_forward::<Self>(&images, &weight, &bias, shape, None)
    }
}

impl<B: InMemory, C: CheckpointStrategy> ConvBlockBackend for Autodiff<B, C> {
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
    ) -> FloatTensor<Self> {
        let (images, image_node) = images.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        match ConvBlockBackward
            .prepare::<C>([image_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(operation) => {
                let mut winners = vec![0; shape.batch * shape.out_image()];
                let output = run_forward::<B>(&images, &weight, &bias, shape, Some(&mut winners));
                let state = Saved {
                    images,
                    weight,
                    winners: Arc::new(winners),
                    shape,
                };
                operation.finish(state, output)
            }
            OpsKind::UnTracked(operation) => {
                operation.finish(B::conv_block(images, weight, bias, shape))
            }
        }
    }
}

#[derive(Debug)]
struct ConvBlockBackward;

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    images: FloatTensor<B>,
    weight: FloatTensor<B>,
    winners: Arc<Vec<u8>>,
    shape: BlockShape,
}

impl<B: InMemory> Backward<B, 3> for ConvBlockBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [image_node, weight_node, bias_node] = ops.parents;
        let Saved {
            images,
            weight,
            winners,
            shape,
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = backward(
            InstructionSet::best(),
            shape,
            &B::numbers(&images),
            &B::numbers(&weight),
            &B::numbers(&gradient),
            &winners,
            image_node.is_some(),
        );
        let BlockShape {
            batch,
            in_channels,
            height,
            width,
            out_channels,
            kernel,
            ..
        } = shape;
        if let (Some(node), Some(images)) = (image_node, gradients.images) {
            let images = B::tensor(images, [batch, in_channels, height, width]);
            grads.register::<B>(node.id, images);
        }
        if let Some(node) = weight_node {
            let shape = [out_channels, in_channels, kernel, kernel];
            grads.register::<B>(node.id, B::tensor(gradients.weight, shape));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::tensor(gradients.bias, [out_channels]));
        }
    }
}
