//! The worker: runs the kernels that a client requests.
//!
//! A malformed request makes a `run_` function panic. Burn catches the panic and tells the client that its session
//! failed.

use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, TensorIr};
use burn::server::RemoteServer;
use burn::tensor::{DType, Device};

use super::protocol::{ADAM, BACKWARD, FORWARD, adam_step, block_shape};
use crate::backend::adam::AdamBackend;
use crate::backend::conv_block::ConvBlockPasses;
use crate::backend::cpu_backend::CpuBackend;
use crate::cpu::conv_block::RELU_CLIPPED;

/// Adds the fused operations to a server of `devices` if the first of them is a CPU. Returns the server, and whether
/// the operations were added.
pub fn with_fused(server: RemoteServer, devices: &[Device]) -> (RemoteServer, bool) {
    match devices.first().map(|device| device.clone().inner()) {
        #[cfg(feature = "flex")]
        Some(device) if matches!(device.as_dispatch(), DispatchDevice::Flex(_)) => {
            (add_operations::<burn::backend::Flex>(server), true)
        }
        #[cfg(feature = "ndarray")]
        Some(device) if matches!(device.as_dispatch(), DispatchDevice::NdArray(_)) => {
            (add_operations::<burn::backend::NdArray>(server), true)
        }
        _ => (server, false),
    }
}

fn add_operations<B: CpuBackend + BackendIr>(server: RemoteServer) -> RemoteServer {
    server
        .with_custom_op::<B, _>(FORWARD, |handles, request, _| {
            run_forward::<B>(handles, request)
        })
        .with_custom_op::<B, _>(BACKWARD, |handles, request, _| {
            run_backward::<B>(handles, request)
        })
        .with_custom_op::<B, _>(ADAM, |handles, request, _| run_adam::<B>(handles, request))
}

/// # Panics
/// Panics if the request is malformed.
fn run_forward<B: CpuBackend + BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    request: &CustomOpIr,
) {
    let shape = block_shape(request);
    let [images, weight, bias] =
        [0, 1, 2].map(|at| handles.get_float_tensor::<B>(&request.inputs[at]));
    let save_argmax = request.outputs.len() > 1;
    let (output, pool_argmax) = B::forward(images, weight, bias, shape, None, save_argmax);
    handles.register_float_tensor::<B>(&request.outputs[0].id, output);
    if let Some(pool_argmax) = pool_argmax {
        // All tensors of a custom operation are float tensors.
        let mut floats: Vec<f32> = pool_argmax.iter().map(|&argmax| argmax.into()).collect();
        // The client allocates the argmax of every output.
        floats.resize(shape.batch * shape.out_image_len(), 0.0);
        let pool_argmax = B::from_vec(floats, shape.output_dims());
        handles.register_float_tensor::<B>(&request.outputs[1].id, pool_argmax);
    }
}

/// # Panics
/// Panics if the request is malformed.
fn run_backward<B: CpuBackend + BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    request: &CustomOpIr,
) {
    let shape = block_shape(request);
    let [images, weight, gradient, pool_argmax] =
        [0, 1, 2, 3].map(|at| handles.get_float_tensor::<B>(&request.inputs[at]));
    // The values come from the client: those out of range count as clipped.
    let floats = B::contiguous(&pool_argmax);
    let pool_argmax = floats[..shape.argmax_len()]
        .iter()
        .map(|&argmax| (argmax as u8).min(RELU_CLIPPED));
    let pool_argmax = Arc::new(pool_argmax.collect());
    let needs_images = request.outputs.len() > 2;
    let gradients = B::backward(images, weight, gradient, pool_argmax, shape, needs_images);
    let gradients = [
        Some(gradients.weight),
        Some(gradients.bias),
        gradients.images,
    ];
    for (gradient, output) in gradients.into_iter().flatten().zip(&request.outputs) {
        handles.register_float_tensor::<B>(&output.id, gradient);
    }
}

/// # Panics
/// Panics if the request is malformed.
fn run_adam<B: CpuBackend + BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    request: &CustomOpIr,
) {
    let len = request.inputs[0].shape.num_elements();
    let matches = |input: &TensorIr| input.dtype == DType::F32 && input.shape.num_elements() == len;
    assert!(
        request.inputs.iter().all(matches),
        "all inputs must be f32 and have the same number of elements"
    );
    let step = adam_step(request);
    let [parameter, gradient, first, second] =
        [0, 1, 2, 3].map(|at| handles.get_float_tensor::<B>(&request.inputs[at]));
    let (parameter, first, second) = B::adam_step(parameter, gradient, first, second, step);
    for (tensor, output) in [parameter, first, second].into_iter().zip(&request.outputs) {
        handles.register_float_tensor::<B>(&output.id, tensor);
    }
}
