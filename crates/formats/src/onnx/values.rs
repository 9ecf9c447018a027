//! The values of a graph, and the steps of the network that compute them.

use std::collections::HashMap;

use data::PerChannel;
use model::Activation;

use crate::batch_norm::Normalization;
use crate::chain::ChainOperation;
use crate::limits::MemoryBudget;
use crate::onnx::constant::Constant;
use crate::steps::{Step, StepKind};
use crate::tensor::{Dtype, Tensor};

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Constant),
    Data(Data),
}

/// A value for each image of the batch: a function of the output of a step.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) step: usize,
    pub(super) form: Form,
    /// The dimensions after the first one, the batch.
    pub(super) dims: Vec<Dim>,
    /// Whether the value is the image, perhaps with other pixel values.
    pub(super) is_image: bool,
}

/// A dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dim {
    pub(super) axis: Axis,
    pub(super) size: usize,
}

/// The meaning of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Channel,
    Row,
    Column,
    /// Flattened images, or the outputs of a dense layer.
    Feature,
}

/// A function that is applied to each output of a step. Several nodes can be one layer, such as GELU.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// `factor * x + shift`, with one number for all or one for each channel or feature.
    Affine { factor: Vec<f64>, shift: Vec<f64> },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `factor * erf(x / sqrt(2)) + shift`
    Erf { factor: f64, shift: f64 },
    /// `x * (factor * erf(x / sqrt(2)) + shift)`
    ErfProduct { factor: f64, shift: f64 },
}

impl Form {
    pub(super) fn identity() -> Self {
        Self::Affine {
            factor: vec![1.0],
            shift: vec![0.0],
        }
    }
}

/// Longest name of a node or value in a message.
pub(super) const MAX_NAME: usize = 100;

/// Relative difference of constants that is rounding, also in half precision.
const TOLERANCE: f64 = 5e-4;

/// Whether numbers are equal up to rounding.
pub(super) fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b.abs()
}

/// The values and steps so far.
#[derive(Debug)]
pub(super) struct Network<'a> {
    pub(super) opset: i64,
    pub(super) values: HashMap<&'a str, Value>,
    /// Number of uses of each value by nodes and outputs.
    pub(super) uses: HashMap<&'a str, usize>,
    pub(super) steps: Vec<Step>,
    /// Shape `[channels, height, width]` of the images, once it is known.
    pub(super) image: Option<[usize; 3]>,
    /// The number of images, if the graph fixes it.
    pub(super) batch: Option<i64>,
    /// For derived constants and the weights of steps.
    pub(super) budget: MemoryBudget,
    /// Name of the current node.
    pub(super) name: String,
}

impl<'a> Network<'a> {
    fn value(&self, name: &str) -> Result<&Value, String> {
        self.values
            .get(name)
            .ok_or_else(|| format!("no node before it computes its input {name:?}"))
    }

    /// Returns the input `index` of a node; `None` if it is left out.
    pub(super) fn optional(
        &self,
        inputs: &[String],
        index: usize,
    ) -> Result<Option<&Value>, String> {
        match inputs.get(index).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(name) => self.value(name).map(Some),
        }
    }

    pub(super) fn input(&self, inputs: &[String], index: usize) -> Result<&Value, String> {
        let input = self.optional(inputs, index)?;
        input.ok_or_else(|| format!("no input {}", index + 1))
    }

    /// Returns a constant input; `None` if it is left out.
    pub(super) fn optional_constant(
        &self,
        inputs: &[String],
        index: usize,
    ) -> Result<Option<Constant>, String> {
        match self.optional(inputs, index)? {
            None => Ok(None),
            Some(Value::Constant(constant)) => Ok(Some(constant.clone())),
            Some(Value::Data(_)) => Err(format!("an input {} that is not a constant", index + 1)),
        }
    }

    pub(super) fn constant(&self, inputs: &[String], index: usize) -> Result<Constant, String> {
        let constant = self.optional_constant(inputs, index)?;
        constant.ok_or_else(|| format!("no input {}", index + 1))
    }

    /// Returns a weight, and deducts it from the budget.
    pub(super) fn weight(&mut self, inputs: &[String], index: usize) -> Result<Tensor, String> {
        match self.constant(inputs, index)? {
            Constant::Tensor(tensor) => {
                self.budget.deduct(&tensor.shape, tensor.dtype)?;
                Ok(Tensor::clone(&tensor))
            }
            Constant::Integers(_) => Err("integers as weights".into()),
        }
    }

    /// Returns an integer input as numbers; `None` if it is left out.
    pub(super) fn optional_numbers(
        &self,
        inputs: &[String],
        index: usize,
    ) -> Result<Option<Vec<i64>>, String> {
        let Some(constant) = self.optional_constant(inputs, index)? else {
            return Ok(None);
        };
        let numbers = match constant {
            Constant::Integers(integers) => integers.numbers(),
            Constant::Tensor(_) => None,
        };
        let numbers = numbers.ok_or_else(|| format!("an input {} that is not integers", index + 1));
        numbers.map(Some)
    }

    /// Returns an input as the output of a step.
    pub(super) fn data(&mut self, inputs: &[String], index: usize) -> Result<Data, String> {
        match self.input(inputs, index)? {
            Value::Constant(_) => return Err(format!("a constant as input {}", index + 1)),
            Value::Data(data) if data.form == Form::identity() => return Ok(data.clone()),
            Value::Data(_) => {}
        }
        let name = inputs.get(index).map_or("", String::as_str);
        // The function of a step becomes a step of its own, for all uses of the value.
        let Some(Value::Data(data)) = self.values.get(name).cloned() else {
            return Err(format!("no input {}", index + 1));
        };
        let data = self.materialize(data).map_err(|reason| {
            let name: String = name.chars().take(MAX_NAME).collect();
            format!("input {name}: {reason}")
        })?;
        if let Some(value) = self.values.get_mut(name) {
            *value = Value::Data(data.clone());
        }
        Ok(data)
    }

    /// Returns an input as a function of a step. A value with several uses becomes a step, unless it is part of an
    /// activation.
    pub(super) fn function(&mut self, inputs: &[String], index: usize) -> Result<Data, String> {
        let name = inputs.get(index).map_or("", String::as_str);
        let is_shared = self.uses.get(name).is_some_and(|uses| *uses > 1);
        match self.input(inputs, index)? {
            Value::Data(data) if !is_shared || !matches!(data.form, Form::Affine { .. }) => {
                Ok(data.clone())
            }
            _ => self.data(inputs, index),
        }
    }

    /// Makes the function of a step a step of its own.
    fn materialize(&mut self, data: Data) -> Result<Data, String> {
        let kind = match data.form.clone() {
            Form::Affine { factor, shift } if data.is_image => {
                let [scale, offset] = [factor, shift].map(per_channel);
                StepKind::Layer(ChainOperation::Rescale {
                    scale: scale?,
                    offset: offset?,
                })
            }
            Form::Affine { factor, shift } => {
                let channels = data.channels();
                self.budget.deduct(&[channels, 2], Dtype::F64)?;
                let repeated = |numbers: Vec<f64>| match numbers.as_slice() {
                    &[number] => vec![number; channels],
                    _ => numbers,
                };
                StepKind::Layer(ChainOperation::Normalize(Normalization {
                    factor: repeated(factor),
                    shift: repeated(shift),
                }))
            }
            Form::Sigmoid => return Err("Sigmoid is only supported as part of SiLU".into()),
            Form::ErfProduct { factor, shift } if is_close(factor, 0.5) && is_close(shift, 0.5) => {
                StepKind::Layer(ChainOperation::Activate(Activation::Gelu))
            }
            Form::Erf { .. } | Form::ErfProduct { .. } => {
                return Err("Erf is only supported as part of GELU".into());
            }
        };
        self.add_step(&data, kind)
    }

    /// Adds a step on the output of another one, which must not have a function.
    pub(super) fn step(&mut self, data: &Data, operation: ChainOperation) -> Result<Data, String> {
        self.add_step(data, StepKind::Layer(operation))
    }

    pub(super) fn add_step(&mut self, data: &Data, kind: StepKind) -> Result<Data, String> {
        let is_rescaling = matches!(kind, StepKind::Layer(ChainOperation::Rescale { .. }));
        let is_image = data.is_image && is_rescaling;
        self.steps.push(Step {
            name: self.name.clone(),
            input: data.step,
            kind,
        });
        Ok(Data {
            step: self.steps.len() - 1,
            form: Form::identity(),
            dims: data.dims.clone(),
            is_image,
        })
    }
}

/// Returns the numbers of a normalization of the image.
fn per_channel(numbers: Vec<f64>) -> Result<PerChannel, String> {
    match *numbers.as_slice() {
        [number] => Ok(PerChannel::Same(number)),
        [red, green, blue] => Ok(PerChannel::Each([red, green, blue])),
        _ => Err(format!("a normalization of {} channels", numbers.len())),
    }
}

impl Data {
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.dims.iter().map(|dim| dim.size).collect()
    }

    pub(super) fn has_axes(&self, axes: &[Axis]) -> bool {
        self.dims
            .iter()
            .map(|dim| dim.axis)
            .eq(axes.iter().copied())
    }

    /// Returns `[channels, height, width]`.
    pub(super) fn maps(&self) -> Result<[usize; 3], String> {
        match self.dims.as_slice() {
            &[channels, rows, columns]
                if self.has_axes(&[Axis::Channel, Axis::Row, Axis::Column]) =>
            {
                Ok([channels.size, rows.size, columns.size])
            }
            _ => Err(format!(
                "an input of {}, not of images with the channels first",
                self.description()
            )),
        }
    }

    /// Returns the number of channels or features.
    pub(super) fn channels(&self) -> usize {
        match self.dims.as_slice() {
            [features] => features.size,
            dims => {
                let channel = dims.iter().find(|dim| dim.axis == Axis::Channel);
                channel.map_or(1, |dim| dim.size)
            }
        }
    }

    pub(super) fn description(&self) -> String {
        let dim = |dim: &Dim| match dim.axis {
            Axis::Channel => format!("{} channels", dim.size),
            Axis::Row => format!("{} rows", dim.size),
            Axis::Column => format!("{} columns", dim.size),
            Axis::Feature => format!("{} features", dim.size),
        };
        let dims: Vec<String> = self.dims.iter().map(dim).collect();
        dims.join(" x ")
    }
}

/// Returns the dimensions of feature maps.
pub(super) fn maps(sizes: [usize; 3]) -> Vec<Dim> {
    let axes = [Axis::Channel, Axis::Row, Axis::Column];
    let dims = axes.into_iter().zip(sizes);
    dims.map(|(axis, size)| Dim { axis, size }).collect()
}
