//! The devices that learn: one, or several together.
//!
//! Of several, each has a copy of the network, and a part of every batch. Burn's multi-device step runs
//! them at the same time; their gradients are summed up on the first device, in the order of the devices,
//! and there one optimizer makes the step for all.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow, ensure};
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::train::{MultiDeviceStepError, MultiDevicesTrainStep};
use burn::train::{ClassificationOutput, InferenceStep, ItemLazy, TrainOutput, TrainStep};
use data::Batch;
use model::ConvNet;

use crate::device::Found;
use crate::objective::Objective;
use crate::panics::quietly;

/// Devices that learn together.
pub(crate) struct Learners {
    /// With gradients.
    devices: Vec<Device>,
    names: Vec<String>,
    /// Of several.
    engine: Option<Mutex<MultiDevicesTrainStep<Replica>>>,
}

impl Learners {
    /// # Panics
    /// When there is no device.
    pub(crate) fn on(found: &[Found]) -> Self {
        assert!(!found.is_empty(), "no device");
        let devices = found.iter().map(|found| found.device.clone().autodiff());
        let devices: Vec<Device> = devices.collect();
        Self {
            engine: (devices.len() > 1).then(|| Mutex::new(MultiDevicesTrainStep::new(&devices))),
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
        let replica = Replica {
            network: model.clone(),
            objective,
        };
        // Batches count by their images: the last one may have fewer.
        let weight = |batch: &Batch| batch.targets.dims()[0] as f64 / images as f64;
        let parts = parts.into_iter().enumerate().map(|(index, batch)| Part {
            index,
            weight: weight(&batch),
            batch,
        });
        let Some(engine) = &self.engine else {
            let mut learned = parts.map(|part| TrainStep::step(&replica, part));
            let TrainOutput { grads, item } = learned.next().context("a batch without images")?;
            return Ok((item.output, grads));
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
        let mut learned: Vec<_> = learned.into_iter().map(|learned| learned.output).collect();
        learned.sort_by_key(|learned| learned.item.index);
        self.sum(model, learned)
    }

    /// All parts together, on the first device.
    ///
    /// # Errors
    /// When what a device computed cannot be had.
    fn sum(
        &self,
        model: &ConvNet,
        learned: Vec<TrainOutput<Learned>>,
    ) -> Result<(ClassificationOutput, GradientsParams)> {
        let main = self.devices[0].clone().inner();
        let weights: f64 = learned.iter().map(|learned| learned.item.weight).sum();
        let mut gradients = GradientsAccumulator::new();
        let (mut losses, mut logits, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for TrainOutput { grads, item } in learned {
            let Learned {
                index,
                weight,
                output,
            } = item;
            // Here the first has to wait for the others, one of which may be gone.
            quietly(|| {
                gradients.accumulate(model, grads.to_device(&main, model));
                let loss = output.loss.inner().to_device(&main);
                losses.push(loss.mul_scalar(weight / weights));
                logits.push(output.output.inner().to_device(&main));
                targets.push(output.targets.inner().to_device(&main));
            })
            .map_err(|panic| self.failed(index, &panic))?;
        }
        let output = ClassificationOutput::new(
            Tensor::cat(losses, 0).sum(),
            Tensor::cat(logits, 0),
            Tensor::cat(targets, 0),
        );
        Ok((output, gradients.grads()))
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
    network: ConvNet,
    #[module(skip)]
    objective: Objective,
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
    output: ClassificationOutput,
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
        let (output, grads) = self.objective.learn(&self.network, batch, weight);
        let item = Learned {
            index,
            weight,
            output,
        };
        TrainOutput { grads, item }
    }
}

/// Burn asks this of whatever learns; judging is done with the network itself.
impl InferenceStep for Replica {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        InferenceStep::step(&self.network, batch)
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
