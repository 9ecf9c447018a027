//! The devices that learn: one, or several together.
//!
//! Of several, each has a copy of the network, and a part of every batch. Burn's multi-device step runs
//! them at the same time; their gradients are summed up on the first device, in the order of the devices,
//! and there one optimizer makes the step for all. Between devices, what takes time is that something crosses
//! at all: weights go as one tensor, and what they come to is another one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow, ensure};
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::train::{MultiDeviceStepError, MultiDevicesTrainStep};
use burn::train::{ClassificationOutput, InferenceStep, ItemLazy, TrainOutput, TrainStep};
use data::Batch;
use model::{ConvNet, Objective, TrainingBatch, gradients};

use crate::device::Found;
use crate::panics::quietly;

/// Devices that learn together.
pub(crate) struct Learners {
    /// With gradients.
    devices: Vec<Device>,
    names: Vec<String>,
    /// Of several.
    engine: Option<Mutex<MultiDevicesTrainStep<Replica>>>,
    /// Of several.
    networks: Networks,
}

/// A network for each device, whose parameters its thread replaces in each step. What another thread made is costly
/// to share: Burn finishes all work on it first, and frees what is dropped there only when the thread computes
/// something else on that tensor's device.
type Networks = Arc<Vec<Mutex<ConvNet>>>;

impl Learners {
    /// Those that will learn what `model` is to learn.
    ///
    /// # Panics
    /// When there is no device.
    pub(crate) fn on(found: &[Found], model: &ConvNet) -> Self {
        assert!(!found.is_empty(), "no device");
        let devices = found.iter().map(|found| found.device.clone().autodiff());
        let devices: Vec<Device> = devices.collect();
        Self {
            engine: (devices.len() > 1).then(|| Mutex::new(MultiDevicesTrainStep::new(&devices))),
            networks: Arc::new(devices.iter().map(|_| Mutex::new(model.clone())).collect()),
            names: found.iter().map(|found| found.name.clone()).collect(),
            devices,
        }
    }

    /// Where the parts of a batch belong.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Sets the generators of random numbers, each to another point. Those of one CPU that is there several
    /// times are one, from which they draw at the same time: no run with dropout there is like another.
    pub(crate) fn seed(&self, seed: u64) {
        for (device, number) in self.devices.iter().zip(0..) {
            device.seed(seed.wrapping_add(number));
        }
    }

    /// What a batch comes to, and the gradients of its mean loss, as a part of `images`.
    ///
    /// # Errors
    /// When one of several devices fails.
    pub(crate) fn learn(
        &self,
        model: &ConvNet,
        parts: Vec<Batch>,
        images: usize,
        objective: Objective,
    ) -> Result<(ClassificationOutput, GradientsParams)> {
        // Batches count by their images: the last one may have fewer.
        let weight = |batch: &Batch| batch.targets.dims()[0] as f64 / images as f64;
        let mut parts = parts.into_iter().enumerate().map(|(index, batch)| Part {
            index,
            weight: weight(&batch),
            batch,
        });
        let Some(engine) = &self.engine else {
            let Part { batch, weight, .. } = parts.next().context("a batch without images")?;
            let batch = TrainingBatch {
                batch,
                objective,
                weight,
            };
            let TrainOutput { grads, item } = TrainStep::step(model, batch);
            return Ok((item, grads));
        };
        let replica = Replica {
            parameters: Param::from_tensor(Tensor::from_inner(model.flatten_parameters())),
            networks: Arc::clone(&self.networks),
            objective,
        };
        let mut loaders: Vec<Box<dyn DataLoaderIterator<Part>>> = parts
            .map(|part| Box::new(Once(Some(part))) as Box<_>)
            .collect();
        let count = loaders.len();
        // A last batch may have fewer images than there are devices.
        loaders.resize_with(self.devices.len(), || Box::new(Once(None)));
        let engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = engine.step(&mut loaders, &replica);
        let (learned, _) = learned.map_err(|error| self.failure(error))?;
        ensure!(learned.len() == count, "a device gave no answer");
        // They come in the order in which they were ready.
        let learned = learned.into_iter().map(|learned| learned.output.item);
        let mut learned: Vec<Learned> = learned.collect();
        learned.sort_by_key(|learned| learned.index);
        self.sum(model, learned)
    }

    /// All parts together, on the first device.
    ///
    /// # Errors
    /// When what a device computed cannot be had.
    fn sum(
        &self,
        model: &ConvNet,
        learned: Vec<Learned>,
    ) -> Result<(ClassificationOutput, GradientsParams)> {
        let main = self.devices[0].clone().inner();
        let weights: f64 = learned.iter().map(|learned| learned.weight).sum();
        let (mut losses, mut logits, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut sum: Option<Tensor<1>> = None;
        for learned in learned {
            let Learned { index, weight, .. } = learned;
            // Here the first has to wait for the others, one of which may be gone.
            let (output, gradients) =
                quietly(|| learned.unpacked(&main)).map_err(|panic| self.failed(index, &panic))?;
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

    fn failure(&self, error: MultiDeviceStepError) -> Error {
        match error {
            MultiDeviceStepError::Dataset(error) => error.into(),
            MultiDeviceStepError::Workers(failures) => match failures.first() {
                Some(first) => self.failed(first.device_id, &first.message),
                None => anyhow!("a device failed"),
            },
        }
    }

    fn failed(&self, device: usize, message: &str) -> Error {
        let message = message.lines().next().unwrap_or_default();
        anyhow!("device {} failed: {message}", self.names[device])
    }
}

impl fmt::Display for Learners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}", self.names.join(" or "))
    }
}

/// The network on one of the devices.
#[derive(Module, Debug)]
struct Replica {
    /// All of them, `[P]`.
    parameters: Param<Tensor<1>>,
    /// Those that are to have them.
    #[module(skip)]
    networks: Networks,
    #[module(skip)]
    objective: Objective,
}

impl Replica {
    /// That of a device.
    fn network(&self, index: usize) -> ConvNet {
        let network = &self.networks[index];
        let mut network = network.lock().unwrap_or_else(PoisonError::into_inner);
        *network = network.clone().with_flat_parameters(self.parameters.val());
        network.clone()
    }
}

/// One device's part of a batch.
struct Part {
    index: usize,
    batch: Batch,
    /// What its mean loss counts in the step.
    weight: f64,
}

/// What came of it.
struct Learned {
    index: usize,
    weight: f64,
    /// `[N, classes]` of the logits.
    shape: [usize; 2],
    /// The loss, the logits, the targets and the gradients.
    packed: Tensor<1>,
}

impl Learned {
    /// On another device.
    fn unpacked(self, device: &Device) -> (ClassificationOutput, Tensor<1>) {
        let [batch, classes] = self.shape;
        // Shared with this thread once, not once for each part.
        let packed = self.packed.clone().to_device(device);
        let sizes = [1, batch * classes, batch];
        let gradients = packed.dims()[0] - sizes.iter().sum::<usize>();
        let parts = packed.split_with_sizes([sizes.as_slice(), &[gradients]].concat(), 0);
        let [loss, logits, targets, gradients] = parts.try_into().expect("as many as sizes");
        let logits = logits.reshape(self.shape);
        let output = ClassificationOutput::new(loss, logits, targets.int());
        (output, gradients)
    }
}

impl ItemLazy for Learned {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl TrainStep for Replica {
    type Input = Part;
    type Output = Learned;

    fn step(&self, part: Part) -> TrainOutput<Learned> {
        let Part {
            index,
            batch,
            weight,
        } = part;
        let network = self.network(index);
        let batch = TrainingBatch {
            batch,
            objective: self.objective,
            weight,
        };
        let TrainOutput {
            grads,
            item: output,
        } = TrainStep::step(&network, batch);
        let shape = output.output.dims();
        let packed = vec![
            output.loss.inner(),
            output.output.inner().flatten(0, 1),
            // Whole numbers below 2^24 are exact.
            output.targets.inner().float(),
            gradients::flatten(grads, &network),
        ];
        let item = Learned {
            index,
            weight,
            shape,
            packed: Tensor::cat(packed, 0),
        };
        TrainOutput {
            grads: GradientsParams::new(),
            item,
        }
    }
}

/// Burn asks this of whatever learns; judging is done with the network itself.
impl InferenceStep for Replica {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        InferenceStep::step(&self.network(0), batch)
    }
}

/// A loader of one part, or none.
struct Once(Option<Part>);

impl Iterator for Once {
    type Item = Result<Part, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl DataLoaderIterator<Part> for Once {
    fn progress(&self) -> Progress {
        Progress::new(0, 1, None)
    }
}
