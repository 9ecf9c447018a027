//! Registers the convolution block and its gradient with Burn.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::conv_block::{BlockShape, FilterCache, backward, forward};
use crate::cpu::simd::InstructionSet;

pub(crate) fn conv_block(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    shape: BlockShape,
    cache: Option<Arc<FilterCache>>,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ConvBlockBackend>::conv_block(
        images.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        shape,
        cache,
    ))
}

/// A backend with the fused block as a differentiable operation.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Remote: cfg(feature = "remote")
)]
pub(crate) trait ConvBlockBackend: Backend {
    /// Images `[N, C, H, W]`, weight `[O, C, K, K]` and bias `[O]` to output `[N, O, H', W']`, all `f32`. `cache`
    /// belongs to the weight and the bias; remote devices and training ignore it.
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        cache: Option<Arc<FilterCache>>,
    ) -> FloatTensor<Self>;
}

/// A backend with the forward and the backward pass of the block.
pub(crate) trait ConvBlockPasses: Backend {
    /// The argmax of each pooling window.
    type PoolArgmax: Clone + Debug + Send + 'static;

    /// Returns the output, and the pool argmax if `save_argmax`.
    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        cache: Option<Arc<FilterCache>>,
        save_argmax: bool,
    ) -> (FloatTensor<Self>, Option<Self::PoolArgmax>);

    /// Returns the gradients for `gradient`, the gradient with respect to the output.
    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        pool_argmax: Self::PoolArgmax,
        shape: BlockShape,
        needs_images: bool,
    ) -> BlockGradients<Self>;
}

/// Gradients with respect to the inputs of a block.
pub(crate) struct BlockGradients<B: Backend> {
    /// Present if requested.
    pub(crate) images: Option<FloatTensor<B>>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) bias: FloatTensor<B>,
}

impl<B: CpuBackend> ConvBlockPasses for B {
    type PoolArgmax = Arc<Vec<u8>>;

    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        cache: Option<Arc<FilterCache>>,
        save_argmax: bool,
    ) -> (FloatTensor<Self>, Option<Self::PoolArgmax>) {
        let mut pool_argmax = save_argmax.then(|| vec![0; shape.argmax_len()]);
        let output = forward(
            InstructionSet::best(),
            shape,
            &B::contiguous(&images),
            &B::contiguous(&weight),
            &B::contiguous(&bias),
            pool_argmax.as_deref_mut(),
            cache.as_deref(),
        );
        let output = B::from_vec(output, shape.output_dims());
        (output, pool_argmax.map(Arc::new))
    }

    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        pool_argmax: Self::PoolArgmax,
        shape: BlockShape,
        needs_images: bool,
    ) -> BlockGradients<Self> {
        let gradients = backward(
            InstructionSet::best(),
            shape,
            &B::contiguous(&images),
            &B::contiguous(&weight),
            &B::contiguous(&gradient),
            &pool_argmax,
            needs_images,
        );
        let images = gradients.images;
        BlockGradients {
            images: images.map(|images| B::from_vec(images, shape.images_dims())),
            weight: B::from_vec(gradients.weight, shape.weight_dims()),
            bias: B::from_vec(gradients.bias, [shape.out_channels]),
        }
    }
}

impl<B: ConvBlockPasses> ConvBlockBackend for B {
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        cache: Option<Arc<FilterCache>>,
    ) -> FloatTensor<Self> {
        B::forward(images, weight, bias, shape, cache, false).0
    }
}

impl<B: ConvBlockPasses, C: CheckpointStrategy> ConvBlockBackend for Autodiff<B, C> {
    fn conv_block(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        cache: Option<Arc<FilterCache>>,
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
                let (output, pool_argmax) =
                    B::forward(images.clone(), weight.clone(), bias, shape, None, true);
                let state = SavedForBackward {
                    images,
                    weight,
                    pool_argmax: pool_argmax.expect("the argmax was requested"),
                    shape,
                };
                operation.finish(state, output)
            }
            OpsKind::UnTracked(operation) => {
                operation.finish(B::conv_block(images, weight, bias, shape, cache))
            }
        }
    }
}

#[derive(Debug)]
struct ConvBlockBackward;

/// State of the forward pass that the backward pass needs.
#[derive(Clone, Debug)]
struct SavedForBackward<B: ConvBlockPasses> {
    images: FloatTensor<B>,
    weight: FloatTensor<B>,
    pool_argmax: B::PoolArgmax,
    shape: BlockShape,
}

impl<B: ConvBlockPasses> Backward<B, 3> for ConvBlockBackward {
    type State = SavedForBackward<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [image_node, weight_node, bias_node] = ops.parents;
        let SavedForBackward {
            images,
            weight,
            pool_argmax,
            shape,
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let needs_images = image_node.is_some();
        let gradients = B::backward(images, weight, gradient, pool_argmax, shape, needs_images);
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
