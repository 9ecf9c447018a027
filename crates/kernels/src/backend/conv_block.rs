//! The convolution block and its gradient, registered with Burn.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients as GradientsOfGraph;
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
    NdArray: cfg(feature = "ndarray"),
    Remote: cfg(feature = "remote")
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

/// A backend that computes the block, and its gradients.
pub(crate) trait Fused: Backend {
    /// Which pixel of each window won.
    type Winners: Clone + Debug + Send + 'static;

    /// The output; and its winners, where a backward pass will need them.
    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        with_winners: bool,
    ) -> (FloatTensor<Self>, Option<Self::Winners>);

    /// The gradients, from that of the output.
    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        winners: Self::Winners,
        shape: BlockShape,
        wants_images: bool,
    ) -> Gradients<Self>;
}

/// The gradients of the block's inputs.
pub(crate) struct Gradients<B: Backend> {
    pub(crate) images: Option<FloatTensor<B>>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) bias: FloatTensor<B>,
}

impl<B: InMemory> Fused for B {
    type Winners = Arc<Vec<u8>>;

    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        with_winners: bool,
    ) -> (FloatTensor<Self>, Option<Self::Winners>) {
        let mut winners = with_winners.then(|| vec![0; shape.batch * shape.out_image()]);
        let output = forward(
            InstructionSet::best(),
            shape,
            &B::numbers(&images),
            &B::numbers(&weight),
            &B::numbers(&bias),
            winners.as_deref_mut(),
        );
        (B::tensor(output, shape.output()), winners.map(Arc::new))
    }

    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        winners: Self::Winners,
        shape: BlockShape,
        wants_images: bool,
    ) -> Gradients<Self> {
        let gradients = backward(
            InstructionSet::best(),
            shape,
            &B::numbers(&images),
            &B::numbers(&weight),
            &B::numbers(&gradient),
            &winners,
            wants_images,
        );
        let images = gradients.images;
        Gradients {
            images: images.map(|images| B::tensor(images, shape.input())),
            weight: B::tensor(gradients.weight, shape.weight()),
            bias: B::tensor(gradients.bias, [shape.out_channels]),
        }
    }
}

impl<B: Fused> ConvBlockBackend for B {
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
    ) -> FloatTensor<Self> {
        B::forward(images, weight, bias, shape, false).0
    }
}

impl<B: Fused, C: CheckpointStrategy> ConvBlockBackend for Autodiff<B, C> {
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
                let (output, winners) =
                    B::forward(images.clone(), weight.clone(), bias, shape, true);
                let state = Saved {
                    images,
                    weight,
                    winners: winners.expect("they were asked for"),
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
struct Saved<B: Fused> {
    images: FloatTensor<B>,
    weight: FloatTensor<B>,
    winners: B::Winners,
    shape: BlockShape,
}

impl<B: Fused> Backward<B, 3> for ConvBlockBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut GradientsOfGraph,
        _: &mut Checkpointer,
    ) {
        let [image_node, weight_node, bias_node] = ops.parents;
        let Saved {
            images,
            weight,
            winners,
            shape,
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let wants_images = image_node.is_some();
        let gradients = B::backward(images, weight, gradient, winners, shape, wants_images);
        if let (Some(node), Some(images)) = (image_node, gradients.images) {
            grads.register::<B>(node.id, images);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, gradients.weight);
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, gradients.bias);
        }
    }
}
