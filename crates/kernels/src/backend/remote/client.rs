//! The client: fused operations of the remote backend.

use std::sync::Arc;

use burn::backend::ir::{CustomOpIr, ScalarIr, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Remote, TensorMetadata};
use burn::remote::CustomOpClient;
use burn::tensor::{DType, Shape};

use super::protocol::{ADAM, BACKWARD, FORWARD, adam_scalars, block_scalars};
use crate::backend::adam::AdamBackend;
use crate::backend::conv_block::{BlockGradients, ConvBlockPasses};
use crate::cpu::adam::AdamStep;
use crate::cpu::conv_block::{BlockShape, FilterCache};

impl ConvBlockPasses for Remote {
    type PoolArgmax = FloatTensor<Self>;

    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        _: Option<Arc<FilterCache>>,
        save_argmax: bool,
    ) -> (FloatTensor<Self>, Option<Self::PoolArgmax>) {
        let dims: &[&[usize]] = &[&shape.output_dims(), &shape.output_dims()];
        let dims = if save_argmax { dims } else { &dims[..1] };
        let inputs = vec![images, weight, bias];
        let mut outputs = request(FORWARD, inputs, dims, block_scalars(shape));
        let pool_argmax = if save_argmax { outputs.pop() } else { None };
        (present(outputs.pop()), pool_argmax)
    }

    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        pool_argmax: Self::PoolArgmax,
        shape: BlockShape,
        needs_images: bool,
    ) -> BlockGradients<Self> {
        let bias = [shape.out_channels];
        let dims: &[&[usize]] = &[&shape.weight_dims(), &bias, &shape.images_dims()];
        let dims = if needs_images { dims } else { &dims[..2] };
        let inputs = vec![images, weight, gradient, pool_argmax];
        let mut outputs = request(BACKWARD, inputs, dims, block_scalars(shape));
        let images = if needs_images { outputs.pop() } else { None };
        BlockGradients {
            images,
            bias: present(outputs.pop()),
            weight: present(outputs.pop()),
        }
    }
}

impl AdamBackend for Remote {
    fn adam_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let shape = parameter.shape();
        let inputs = vec![parameter, gradient, first, second];
        let mut outputs = request(ADAM, inputs, &[shape.as_slice(); 3], adam_scalars(step));
        let second = present(outputs.pop());
        let first = present(outputs.pop());
        (present(outputs.pop()), first, second)
    }
}

fn present(output: Option<FloatTensor<Remote>>) -> FloatTensor<Remote> {
    output.expect("a request returns as many outputs as it names")
}

/// Sends a request to the worker of the first input. `outputs` holds the dimensions of the outputs. Returns the outputs,
/// whose data stays on the worker.
fn request(
    operation: &'static str,
    inputs: Vec<FloatTensor<Remote>>,
    outputs: &[&[usize]],
    scalars: Vec<ScalarIr>,
) -> Vec<FloatTensor<Remote>> {
    let client = CustomOpClient::new(&inputs[0].device());
    let inputs: Vec<TensorIr> = inputs.into_iter().map(|input| input.into_ir()).collect();
    let output = |dims: &&[usize]| {
        TensorIr::uninit(
            client.create_empty_handle(),
            Shape::from(dims.to_vec()),
            DType::F32,
        )
    };
    let outputs: Vec<TensorIr> = outputs.iter().map(output).collect();
    client.register(CustomOpIr::with_scalars(
        operation, &inputs, &outputs, scalars,
    ))
}
