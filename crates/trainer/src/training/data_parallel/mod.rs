//! Training on several devices at once.
//!
//! Each device has a replica of the network and computes a part of every batch, in burn-train's
//! multi-device step. The first device sums the gradients in the order of the devices and updates the
//! weights. A transfer between devices costs mostly its latency, so the weights go to each replica as one
//! tensor, and its results come back as another (see `packing.rs`).

mod packing;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow, ensure};
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn::train::train::{MultiDeviceStepError, MultiDevicesTrainStep};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use data::Batch;
use model::{ConvNet, TrainingBatch, gradients};

use crate::device::OpenDevice;
use crate::device::panics::catch_panic;
use crate::training::data_parallel::packing::{Packed, Unpacked};

/// Several devices that train together.
pub(crate) struct DataParallel {
    /// The devices, with autodiff.
    devices: Vec<Device>,
    names: Vec<String>,
    engine: Mutex<MultiDevicesTrainStep<Replica>>,
    networks: Networks,
}

/// A network for each device. The thread of a device replaces the parameters of its network in each step:
/// Burn synchronizes tensors shared between threads, and frees them only at their thread's next operation.
type Networks = Arc<Vec<Mutex<ConvNet>>>;

impl DataParallel {
    /// Prepares devices to train `model`.
    ///
    /// Devices that name the same CPU share one random number generator, so with dropout their results
    /// differ from run to run.
    ///
    /// # Panics
    /// Panics if there is no device.
    pub(crate) fn new(devices: &[OpenDevice], model: &ConvNet) -> Self {
        assert!(!devices.is_empty(), "no device");
        let names = devices.iter().map(|device| device.name.clone()).collect();
        let devices = devices.iter().map(|open| open.device.clone().autodiff());
        let devices: Vec<Device> = devices.collect();
        Self {
            engine: Mutex::new(MultiDevicesTrainStep::new(&devices)),
            networks: Arc::new(devices.iter().map(|_| Mutex::new(model.clone())).collect()),
            names,
            devices,
        }
    }

    /// Returns the devices, with autodiff.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Computes the output of one batch and its gradients, from one part of the batch for each device.
    ///
    /// # Errors
    /// Returns an error if a device fails.
    pub(crate) fn step(
        &self,
        model: &ConvNet,
        parts: Vec<TrainingBatch>,
    ) -> Result<(ClassificationOutput, GradientsParams)> {
        let replica = Replica {
            parameters: Param::from_tensor(Tensor::from_inner(model.flatten_parameters())),
            networks: Arc::clone(&self.networks),
        };
        let parts = parts
            .into_iter()
            .enumerate()
            .map(|(device, batch)| DevicePart { device, batch });
        let mut loaders: Vec<Box<dyn DataLoaderIterator<DevicePart>>> = parts
            .map(|part| Box::new(OnePart(Some(part))) as Box<_>)
            .collect();
        let count = loaders.len();
        // The last batch may have fewer images than there are devices.
        loaders.resize_with(self.devices.len(), || Box::new(OnePart(None)));

        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = engine.step(&mut loaders, &replica);
        let (outputs, _) = outputs.map_err(|error| self.step_error(error))?;
        ensure!(outputs.len() == count, "a device returned no output");
        // burn-train returns them in the order of completion.
        let mut outputs: Vec<Packed> = outputs
            .into_iter()
            .map(|output| output.output.item)
            .collect();
        outputs.sort_by_key(|output| output.device);
        self.sum(model, outputs)
    }

    /// Sums the outputs of all devices on the first one.
    fn sum(
        &self,
        model: &ConvNet,
        outputs: Vec<Packed>,
    ) -> Result<(ClassificationOutput, GradientsParams)> {
        let main = self.devices[0].clone().inner();
        let weights: f64 = outputs.iter().map(|output| output.weight).sum();
        let (mut losses, mut logits, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut sum: Option<Tensor<1>> = None;
        for packed in outputs {
            let (device, weight) = (packed.device, packed.weight);
            // The transfer waits for the device, which may be gone.
            let Unpacked { output, gradients } = catch_panic(|| packed.unpack(&main))
                .map_err(|panic| self.device_error(device, &panic))?;
            losses.push(output.loss.mul_scalar(weight / weights));
            logits.push(output.output);
            targets.push(output.targets);
            sum = Some(match sum {
                None => gradients,
                Some(sum) => sum + gradients,
            });
        }
        let output = ClassificationOutput::new(
            Tensor::cat(losses, 0).sum(),
            Tensor::cat(logits, 0),
            Tensor::cat(targets, 0),
        );
        let sum = sum.context("a batch without images")?;
        Ok((output, gradients::unflatten(sum, model)))
    }

    fn step_error(&self, error: MultiDeviceStepError) -> Error {
        match error {
            MultiDeviceStepError::Dataset(error) => error.into(),
            MultiDeviceStepError::Workers(failures) => match failures.first() {
                Some(first) => self.device_error(first.device_id, &first.message),
                None => anyhow!("a device failed"),
            },
        }
    }

    fn device_error(&self, device: usize, message: &str) -> Error {
        let message = message.lines().next().unwrap_or_default();
        anyhow!("device {} failed: {message}", self.names[device])
    }
}

/// The network as burn-train's multi-device step sends it to each device.
#[derive(Module, Debug)]
struct Replica {
    /// All parameters, `[P]`.
    parameters: Param<Tensor<1>>,
    #[module(skip)]
    networks: Networks,
}

impl Replica {
    /// Returns the network of a device, with the current parameters.
    fn network(&self, device: usize) -> ConvNet {
        let network = &self.networks[device];
        let mut network = network.lock().unwrap_or_else(PoisonError::into_inner);
        *network = network.clone().with_flat_parameters(self.parameters.val());
        network.clone()
    }
}

/// The part of a batch that one device computes.
struct DevicePart {
    /// Index of the device.
    device: usize,
    batch: TrainingBatch,
}

impl TrainStep for Replica {
    type Input = DevicePart;
    type Output = Packed;

    fn step(&self, DevicePart { device, batch }: DevicePart) -> TrainOutput<Packed> {
        let network = self.network(device);
        let weight = batch.weight;
        let TrainOutput { item, grads } = TrainStep::step(&network, batch);
        let gradients = gradients::flatten(grads, &network);
        TrainOutput {
            grads: GradientsParams::new(),
            item: Packed::new(device, weight, item, gradients),
        }
    }
}

/// Required by burn-train; evaluation uses the network itself.
impl InferenceStep for Replica {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        InferenceStep::step(&self.network(0), batch)
    }
}

/// A loader of one part, or none.
struct OnePart(Option<DevicePart>);

impl Iterator for OnePart {
    type Item = Result<DevicePart, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl DataLoaderIterator<DevicePart> for OnePart {
    fn progress(&self) -> Progress {
        Progress::new(0, 1, None)
    }
}
