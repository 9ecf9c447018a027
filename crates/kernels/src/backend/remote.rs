//! Fused operations on devices of other processes: a request to a worker, and what it does there.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{DispatchDevice, Remote, RemoteDevice, TensorMetadata};
use burn::remote::CustomOpClient;
use burn::server::RemoteServer;
use burn::tensor::{DType, Device, Shape};

use super::InMemory;
use super::adam::AdamBackend;
use super::conv_block::{Fused, Gradients};
use crate::adam::AdamStep;
use crate::conv_block::ConvBlockOptions;
use crate::epilogue::NO_WINNER;
use crate::shape::BlockShape;

/// Images, weight and bias to the output and, where they are asked for, its winners.
const FORWARD: &str = "trainer conv_block 1";
/// Images, weight, the output's gradient and its winners to the gradients of weight, bias and, where they
/// are asked for, images.
const BACKWARD: &str = "trainer conv_block backward 1";
/// Parameter, gradient, first and second moment to parameter and moments.
const ADAM: &str = "trainer adam 1";

/// Devices of workers that have the operations.
static KNOWN: Mutex<Vec<RemoteDevice>> = Mutex::new(Vec::new());

/// From now on, blocks and steps of Adam on this device of a worker are asked of it as one operation. The worker
/// must have been given the operations, by [`with_fused`].
pub fn declare_fused(device: &Device) {
    if let DispatchDevice::Remote(remote) = device.clone().inner().as_dispatch() {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(remote) {
            known.push(remote.clone());
        }
    }
}

pub(super) fn is_declared(device: &RemoteDevice) -> bool {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.contains(device)
}

/// A server of these devices that has the operations, and whether it has: those of CPUs do.
pub fn with_fused(server: RemoteServer, devices: &[Device]) -> (RemoteServer, bool) {
    match devices.first().map(|device| device.clone().inner()) {
        #[cfg(feature = "flex")]
        Some(device) if matches!(device.as_dispatch(), DispatchDevice::Flex(_)) => {
            (with_fused_of::<burn::backend::Flex>(server), true)
        }
        #[cfg(feature = "ndarray")]
        Some(device) if matches!(device.as_dispatch(), DispatchDevice::NdArray(_)) => {
            (with_fused_of::<burn::backend::NdArray>(server), true)
        }
        _ => (server, false),
    }
}

fn with_fused_of<B: InMemory + BackendIr>(server: RemoteServer) -> RemoteServer {
    server
        .with_custom_op::<B, _>(FORWARD, |handles, asked, _| {
            run_forward::<B>(handles, asked)
        })
        .with_custom_op::<B, _>(BACKWARD, |handles, asked, _| {
            run_backward::<B>(handles, asked)
        })
        .with_custom_op::<B, _>(ADAM, |handles, asked, _| run_adam::<B>(handles, asked))
}

/// # Panics
/// When the request is none: Burn tells the client that its session failed.
fn run_forward<B: InMemory + BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    asked: &CustomOpIr,
) {
    let shape = shape_of(asked);
    let [images, weight, bias] =
        [0, 1, 2].map(|at| handles.get_float_tensor::<B>(&asked.inputs[at]));
    let with_winners = asked.outputs.len() > 1;
    let (output, winners) = B::forward(images, weight, bias, shape, with_winners);
    handles.register_float_tensor::<B>(&asked.outputs[0].id, output);
    if let Some(winners) = winners {
        // An operation's tensors are of one kind.
        let numbers = winners.iter().map(|&winner| winner.into()).collect();
        let winners = B::tensor(numbers, shape.output());
        handles.register_float_tensor::<B>(&asked.outputs[1].id, winners);
    }
}

/// # Panics
/// As [`run_forward`] does.
fn run_backward<B: InMemory + BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    asked: &CustomOpIr,
) {
    let shape = shape_of(asked);
    let [images, weight, gradient, winners] =
        [0, 1, 2, 3].map(|at| handles.get_float_tensor::<B>(&asked.inputs[at]));
    // The backward pass goes where winners lead it.
    let numbers = B::numbers(&winners);
    let winners = numbers.iter().map(|&winner| (winner as u8).min(NO_WINNER));
    let winners = Arc::new(winners.collect());
    let wants_images = asked.outputs.len() > 2;
    let found = B::backward(images, weight, gradient, winners, shape, wants_images);
    let gradients = [Some(found.weight), Some(found.bias), found.images];
    for (gradient, output) in gradients.into_iter().flatten().zip(&asked.outputs) {
        handles.register_float_tensor::<B>(&output.id, gradient);
    }
}

/// # Panics
/// As [`run_forward`] does.
fn run_adam<B: InMemory + BackendIr>(handles: &mut HandleContainer<B::Handle>, asked: &CustomOpIr) {
    let size = asked.inputs[0].shape.num_elements();
    let is_alike =
        |input: &TensorIr| input.dtype == DType::F32 && input.shape.num_elements() == size;
    assert!(asked.inputs.iter().all(is_alike));
    let [beta_1, beta_2, epsilon, rate, keep] =
        [0, 1, 2, 3, 4].map(|at| asked.scalars[at].elem::<f32>());
    let by = AdamStep {
        beta_1,
        beta_2,
        epsilon,
        rate,
        keep,
    };
    let [parameter, gradient, first, second] =
        [0, 1, 2, 3].map(|at| handles.get_float_tensor::<B>(&asked.inputs[at]));
    let (parameter, first, second) = B::adam_step(parameter, gradient, first, second, by);
    for (tensor, output) in [parameter, first, second].into_iter().zip(&asked.outputs) {
        handles.register_float_tensor::<B>(&output.id, tensor);
    }
}

/// The shape that a request is about.
///
/// # Panics
/// When it has none that the block can take.
fn shape_of(asked: &CustomOpIr) -> BlockShape {
    let dims = |at: usize| asked.inputs[at].shape.dims::<4>();
    let scalar = |at: usize| asked.scalars[at].elem::<i64>();
    let options = ConvBlockOptions {
        padding: usize::try_from(scalar(0)).expect("padding is no negative number"),
        relu: scalar(1) != 0,
        pool: scalar(2) != 0,
    };
    assert!(asked.inputs.iter().all(|input| input.dtype == DType::F32));
    BlockShape::of(dims(0), dims(1), options).expect("a shape that the block takes")
}

impl Fused for Remote {
    type Winners = FloatTensor<Self>;

    fn forward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: BlockShape,
        with_winners: bool,
    ) -> (FloatTensor<Self>, Option<Self::Winners>) {
        let dims: &[&[usize]] = &[&shape.output(), &shape.output()];
        let dims = if with_winners { dims } else { &dims[..1] };
        let inputs = vec![images, weight, bias];
        let mut outputs = ask(FORWARD, inputs, dims, scalars_of(shape));
        let winners = if with_winners { outputs.pop() } else { None };
        (only(outputs.pop()), winners)
    }

    fn backward(
        images: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        winners: Self::Winners,
        shape: BlockShape,
        wants_images: bool,
    ) -> Gradients<Self> {
        let bias = [shape.out_channels];
        let dims: &[&[usize]] = &[&shape.weight(), &bias, &shape.input()];
        let dims = if wants_images { dims } else { &dims[..2] };
        let inputs = vec![images, weight, gradient, winners];
        let mut outputs = ask(BACKWARD, inputs, dims, scalars_of(shape));
        let images = if wants_images { outputs.pop() } else { None };
        Gradients {
            images,
            bias: only(outputs.pop()),
            weight: only(outputs.pop()),
        }
    }
}

impl AdamBackend for Remote {
    fn adam_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        by: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let shape = parameter.shape();
        let AdamStep {
            beta_1,
            beta_2,
            epsilon,
            rate,
            keep,
        } = by;
        let scalars = [beta_1, beta_2, epsilon, rate, keep];
        let scalars = scalars.map(|scalar| ScalarIr::Float(scalar.into()));
        let mut outputs = ask(
            ADAM,
            vec![parameter, gradient, first, second],
            &[shape.as_slice(); 3],
            scalars.to_vec(),
        );
        let second = only(outputs.pop());
        let first = only(outputs.pop());
        (only(outputs.pop()), first, second)
    }
}

/// What [`shape_of`] reads.
fn scalars_of(shape: BlockShape) -> Vec<ScalarIr> {
    let scalars = [shape.padding as i64, shape.relu.into(), shape.pool.into()];
    scalars.map(ScalarIr::Int).to_vec()
}

fn only(output: Option<FloatTensor<Remote>>) -> FloatTensor<Remote> {
    output.expect("an operation has the outputs it was asked for")
}

/// Asks the worker of the first input, and gives back tensors that will lie there.
fn ask(
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
