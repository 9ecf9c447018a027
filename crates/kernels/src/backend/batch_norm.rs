//! Registers batch normalization with activation, and its gradient, with Burn.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

use super::cpu_backend::CpuBackend;
use crate::cpu::activation::Activation;
use crate::cpu::batch_norm::{Moments, NormGradients, NormShape, ScaleAndBias, backward, forward};
use crate::cpu::simd::InstructionSet;

/// Shape and activation of a normalization.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormOptions {
    pub(crate) shape: NormShape,
    pub(crate) activation: Activation,
}

pub(crate) fn batch_norm(
    images: Tensor<4>,
    scale: Tensor<1>,
    bias: Tensor<1>,
    options: NormOptions,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as BatchNormBackend>::batch_norm(
        images.into_dispatch(),
        scale.into_dispatch(),
        bias.into_dispatch(),
        options,
    ))
}

/// A backend with fused batch normalization.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait BatchNormBackend: Backend {
    /// Images `[N, C, H, W]`, scale `[C]` and bias `[C]` to output `[N, C, H, W]`, all `f32`.
    fn batch_norm(
        images: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self>;
}

/// Returns the output, and the moments of the images.
fn run_forward<B: CpuBackend>(
    images: &FloatTensor<B>,
    scale: &FloatTensor<B>,
    bias: &FloatTensor<B>,
    options: NormOptions,
) -> (FloatTensor<B>, Vec<Moments>) {
    let affine = ScaleAndBias {
        scale: &B::contiguous(scale),
        bias: &B::contiguous(bias),
    };
    let (output, moments) = forward(
        InstructionSet::best(),
        options.shape,
        &B::contiguous(images),
        affine,
        options.activation,
    );
    (B::from_vec(output, images.shape().dims::<4>()), moments)
}

impl<B: CpuBackend> BatchNormBackend for B {
    fn batch_norm(
        images: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        run_forward::<Self>(&images, &scale, &bias, options).0
    }
}

impl<B: CpuBackend, C: CheckpointStrategy> BatchNormBackend for Autodiff<B, C> {
    fn batch_norm(
        images: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        let (images, image_node) = images.into_parts();
        let (scale, scale_node) = scale.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (output, moments) = run_forward::<B>(&images, &scale, &bias, options);
        match BatchNormBackward
            .prepare::<C>([image_node, scale_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(operation) => {
                let state = SavedForBackward {
                    images,
                    scale,
                    bias,
                    moments: Arc::new(moments),
                    options,
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
    scale: FloatTensor<B>,
    bias: FloatTensor<B>,
    moments: Arc<Vec<Moments>>,
    options: NormOptions,
}

impl<B: CpuBackend> Backward<B, 3> for BatchNormBackward {
    type State = SavedForBackward<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [image_node, scale_node, bias_node] = ops.parents;
        let SavedForBackward {
            images,
            scale,
            bias,
            moments,
            options: NormOptions { shape, activation },
        } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let affine = ScaleAndBias {
            scale: &B::contiguous(&scale),
            bias: &B::contiguous(&bias),
        };
        let gradients: NormGradients = backward(
            InstructionSet::best(),
            shape,
            &B::contiguous(&images),
            affine,
            activation,
            &moments,
            &B::contiguous(&gradient),
        );
        if let Some(node) = image_node {
            let dims = images.shape().dims::<4>();
            grads.register::<B>(node.id, B::from_vec(gradients.images, dims));
        }
        if let Some(node) = scale_node {
            grads.register::<B>(node.id, B::from_vec(gradients.scale, [shape.channels]));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::from_vec(gradients.bias, [shape.channels]));
        }
    }
}
