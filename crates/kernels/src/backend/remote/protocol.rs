//! Requests of a client to a worker: the names of the operations and the encoding of their scalars.

use burn::backend::ir::{CustomOpIr, ScalarIr};
use burn::tensor::DType;

use crate::cpu::adam::AdamStep;
use crate::cpu::conv_block::{BlockShape, ConvBlockOptions};

/// Inputs: images, weight, bias. Outputs: output and, if requested, pool argmax.
pub(super) const FORWARD: &str = "trainer conv_block 1";
/// Inputs: images, weight, gradient of the output, pool argmax. Outputs: gradients of weight, bias and, if requested,
/// images.
pub(super) const BACKWARD: &str = "trainer conv_block backward 1";
/// Inputs: parameter, gradient, first moment, second moment. Outputs: parameter, first moment, second moment.
pub(super) const ADAM: &str = "trainer adam 1";

/// Returns the scalars of a `FORWARD` or `BACKWARD` request.
pub(super) fn block_scalars(shape: BlockShape) -> Vec<ScalarIr> {
    let scalars = [shape.padding as i64, shape.relu.into(), shape.pool.into()];
    scalars.map(ScalarIr::Int).to_vec()
}

/// Returns the shape of the block of a `FORWARD` or `BACKWARD` request.
///
/// # Panics
/// Panics if the request is malformed or the kernels do not support the shape.
pub(super) fn block_shape(request: &CustomOpIr) -> BlockShape {
    let dims = |at: usize| request.inputs[at].shape.dims::<4>();
    let scalar = |at: usize| request.scalars[at].elem::<i64>();
    let options = ConvBlockOptions {
        padding: usize::try_from(scalar(0)).expect("padding must not be negative"),
        relu: scalar(1) != 0,
        pool: scalar(2) != 0,
    };
    let is_f32 = request.inputs.iter().all(|input| input.dtype == DType::F32);
    assert!(is_f32, "all inputs must be f32");
    BlockShape::supported(dims(0), dims(1), options)
        .expect("the convolution block must support the shape")
}

/// Returns the scalars of an `ADAM` request.
pub(super) fn adam_scalars(step: AdamStep) -> Vec<ScalarIr> {
    let AdamStep {
        beta_1,
        beta_2,
        epsilon,
        step_size,
        decay_factor,
    } = step;
    let scalars = [beta_1, beta_2, epsilon, step_size, decay_factor];
    let scalars = scalars.map(|scalar| ScalarIr::Float(scalar.into()));
    scalars.to_vec()
}

/// Returns the coefficients of the step of an `ADAM` request.
///
/// # Panics
/// Panics if the request lacks scalars.
pub(super) fn adam_step(request: &CustomOpIr) -> AdamStep {
    let [beta_1, beta_2, epsilon, step_size, decay_factor] =
        [0, 1, 2, 3, 4].map(|at| request.scalars[at].elem::<f32>());
    AdamStep {
        beta_1,
        beta_2,
        epsilon,
        step_size,
        decay_factor,
    }
}
