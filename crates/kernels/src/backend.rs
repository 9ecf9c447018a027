//! The operation as Burn's backends see it.

use burn::tensor::{Device, Tensor};

use crate::shape::BlockShape;

/// Whether the fused operation is registered for a device.
#[cfg(not(any(feature = "flex", feature = "ndarray")))]
pub(crate) fn is_fused(_: &Device) -> bool {
    false
}

/// Never called: no device is fused.
#[cfg(not(any(feature = "flex", feature = "ndarray")))]
pub(crate) fn conv_block(images: Tensor<4>, _: Tensor<4>, _: Tensor<1>, _: BlockShape) -> Tensor<4> {
    images
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) use registered::{conv_block, is_fused};

#[cfg(any(feature = "flex", feature = "ndarray"))]
mod registered {
    use std::borrow::Cow;
    use std::sync::Arc;

    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, backend_extension};
    #[cfg(feature = "flex")]
    use burn::backend::Flex;
    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "deprecated upstream, supported here")]
    use burn::backend::NdArray;
    use burn::tensor::TensorData;

    use super::{BlockShape, Device, Tensor};
    use crate::backward::backward;
    use crate::forward::forward;
    use crate::simd::InstructionSet;

    pub(crate) fn is_fused(device: &Device) -> bool {
        let mut device = device.as_dispatch();
        if let DispatchDevice::Autodiff(autodiff) = device {
            device = autodiff;
        }
        match device {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => true,
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => true,
            #[allow(unreachable_patterns, reason = "reachable where other backends are compiled in")]
            _ => false,
        }
    }

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

    /// A backend whose tensors of `f32` lie in memory as slices.
    pub(crate) trait InMemory: Backend {
        /// The numbers in row-major order, copied only where they lie otherwise.
        fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

        fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FloatTensor<Self>;
    }

    #[cfg(feature = "flex")]
    impl InMemory for Flex {
        fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
            match tensor.as_slice() {
                Some(numbers) => Cow::Borrowed(numbers),
                None => Cow::Owned(
                    tensor.to_contiguous().storage::<f32>()[..tensor.layout().num_elements()]
                        .to_vec(),
                ),
            }
        }

        fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FloatTensor<Self> {
            FloatTensor::<Self>::from_data(TensorData::new(numbers, shape))
        }
    }

    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "deprecated upstream, supported here")]
    impl InMemory for NdArray {
        fn numbers(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
            let FloatTensor::<Self>::F32(storage) = tensor else {
                unreachable!("the caller checked the type of the numbers");
            };
            let view = storage.view();
            match view.to_slice() {
                Some(numbers) => Cow::Borrowed(numbers),
                None => Cow::Owned(view.iter().copied().collect()),
            }
        }

        fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FloatTensor<Self> {
            FloatTensor::<Self>::from_data(TensorData::new(numbers, shape))
        }
    }

    /// The output; and its winners, where a backward pass will need them.
    fn run_forward<B: InMemory>(
        images: &FloatTensor<B>,
        weight: &FloatTensor<B>,
        bias: &FloatTensor<B>,
        shape: BlockShape,
        winners: Option<&mut [u8]>,
    ) -> FloatTensor<B> {
        let mut output = vec![0.0; shape.batch * shape.out_image()];
        forward(
            InstructionSet::best(),
            shape,
            &B::numbers(images),
            &B::numbers(weight),
            &B::numbers(bias),
            &mut output,
            winners,
        );
        let [height, width] = [shape.out_height(), shape.out_width()];
        B::tensor(output, [shape.batch, shape.out_channels, height, width])
    }

    macro_rules! fused {
        ($backend:ty) => {
            impl ConvBlockBackend for $backend {
                fn conv_block(
                    images: FloatTensor<Self>,
                    weight: FloatTensor<Self>,
                    bias: FloatTensor<Self>,
                    shape: BlockShape,
                ) -> FloatTensor<Self> {
                    run_forward::<Self>(&images, &weight, &bias, shape, None)
                }
            }
        };
    }

    #[cfg(feature = "flex")]
    fused!(Flex);
    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "deprecated upstream, supported here")]
    const _: () = {
        fused!(NdArray);
    };

    impl<B: ConvBlockBackend + InMemory, C: CheckpointStrategy> ConvBlockBackend for Autodiff<B, C> {
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
                    let output =
                        run_forward::<B>(&images, &weight, &bias, shape, Some(&mut winners));
                    let state = Saved { images, weight, winners: Arc::new(winners), shape };
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

        fn backward(
            self,
            ops: Ops<Self::State, 3>,
            grads: &mut Gradients,
            _: &mut Checkpointer,
        ) {
            let [image_node, weight_node, bias_node] = ops.parents;
            let Saved { images, weight, winners, shape } = ops.state;
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
            let BlockShape { batch, in_channels, height, width, out_channels, kernel, .. } = shape;
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
}
