//! The evaluation of a graph, node by node.

use std::collections::HashMap;
use std::rc::Rc;

use model::{Activation, PoolKind};

use crate::chain::ChainOperation;
use crate::limits::MemoryBudget;
use crate::onnx::attributes::Attributes;
use crate::onnx::constant::{Constant, Extent, Integers, MAX_INTEGERS};
use crate::onnx::elementwise::{Binary, POWERS};
use crate::onnx::message::{
    BFLOAT16, DOUBLE, FLOAT, FLOAT16, Graph, INT8, INT16, INT32, INT64, Node, UINT8, UINT16,
    ValueInfo, dimension,
};
use crate::onnx::shapes::{image_dims, image_shape};
use crate::onnx::values::{Data, Form, MAX_NAME, Network, Value};
use crate::steps::{Step, StepKind};
use crate::tensor::Tensor;

/// Largest number of nodes; networks for small images have less than a thousand.
const MAX_NODES: usize = 20_000;
/// First operator set in which the axes of reductions are an input.
const AXES_AS_INPUT: i64 = 18;
/// First operator set in which the axes of `Squeeze` and `Unsqueeze` are an input.
const SQUEEZED_AXES_AS_INPUT: i64 = 13;
/// First operator set in which the sizes of `Pad` are an input.
const PADS_AS_INPUT: i64 = 11;
/// First operator set in which the bounds of `Slice` are inputs.
const SLICE_AS_INPUT: i64 = 10;

/// The steps from the image to the output of a graph.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) steps: Vec<Step>,
    /// The step that computes the output.
    pub(super) output: usize,
    /// Shape `[channels, height, width]` of the images.
    pub(super) image: [usize; 3],
    /// Whether the pixels are integers.
    pub(super) has_integer_pixels: bool,
}

/// Evaluates a graph, given its constants.
///
/// # Errors
/// Returns a message that names the node that is not supported.
pub(super) fn evaluate(
    graph: &Graph,
    constants: &HashMap<String, Constant>,
    opset: i64,
    budget: MemoryBudget,
) -> Result<Evaluation, String> {
    if graph.node.len() > MAX_NODES {
        return Err(format!("a graph of more than {MAX_NODES} nodes"));
    }
    let [output] = graph.output.as_slice() else {
        return Err(format!(
            "a graph with {} outputs instead of one",
            graph.output.len()
        ));
    };
    // Old versions list the constants as inputs too.
    let is_input = |input: &&ValueInfo| !constants.contains_key(&input.name);
    let inputs: Vec<&ValueInfo> = graph.input.iter().filter(is_input).collect();
    let [input] = inputs.as_slice() else {
        return Err(format!(
            "a graph with {} inputs instead of one",
            inputs.len()
        ));
    };
    let constants = constants
        .iter()
        .map(|(name, constant)| (name.as_str(), Value::Constant(constant.clone())));
    let mut network = Network {
        opset,
        values: constants.collect(),
        uses: HashMap::new(),
        steps: Vec::new(),
        image: None,
        batch: None,
        budget,
        name: String::new(),
    };
    let used = graph.node.iter().flat_map(|node| &node.input);
    for name in used.chain([&output.name]) {
        *network.uses.entry(name).or_default() += 1;
    }
    let has_integer_pixels = network.add_image(input)?;
    for node in &graph.node {
        let described = if node.name.is_empty() {
            node.output.first().map_or("", String::as_str)
        } else {
            &node.name
        };
        network.name = described.chars().take(MAX_NAME).collect();
        let failed = |reason: String| {
            format!(
                "layer {} ({}): {reason}",
                shortened(described),
                shortened(&node.op_type)
            )
        };
        let value = network.evaluate(node).map_err(failed)?;
        let Some(name) = node.output.first() else {
            continue;
        };
        if network.values.insert(name, value).is_some() {
            return Err(failed(format!(
                "its output {:?} exists before",
                shortened(name)
            )));
        }
    }
    let outputs = [output.name.clone()];
    let failed = |reason| format!("output {}: {reason}", shortened(&output.name));
    let data = network.output(&outputs).map_err(failed)?;
    let square = |pixels: usize| {
        let side = pixels.isqrt();
        (side * side == pixels).then_some([1, side, side])
    };
    let image = match (network.image, data.is_image) {
        (_, true) => return Err("a graph without layers".into()),
        (Some(image), _) => image,
        (None, _) => network
            .flat_image()
            .and_then(square)
            .ok_or("flattened images that are not square and gray")?,
    };
    Ok(Evaluation {
        steps: network.steps,
        output: data.step,
        image,
        has_integer_pixels,
    })
}

fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

impl<'a> Network<'a> {
    /// Adds the image, and returns whether its pixels are integers.
    fn add_image(&mut self, input: &'a ValueInfo) -> Result<bool, String> {
        let kind = input
            .kind
            .as_ref()
            .and_then(|kind| kind.tensor_type.as_ref());
        let shape = kind.and_then(|kind| Some((kind.elem_type, kind.shape.as_ref()?)));
        let (element, shape) = shape.ok_or("an input without a shape")?;
        let sizes = shape.dim.iter().map(|dim| match &dim.value {
            Some(dimension::Value::Size(size @ 1..=65536)) => Some(*size as usize),
            _ => None,
        });
        let sizes: Vec<Option<usize>> = sizes.collect();
        let Some((batch, sizes)) = sizes.split_first() else {
            return Err("an input without dimensions".into());
        };
        let sizes: Option<Vec<usize>> = sizes.iter().copied().collect();
        let sizes = sizes.ok_or_else(|| {
            format!(
                "input {}: the size of the images is not stated; export with a fixed height and width, only the batch may \
                 vary",
                shortened(&input.name)
            )
        })?;
        let dims = image_dims(&sizes)?;
        self.batch = batch.map(|batch| batch as i64);
        self.image = image_shape(&dims);
        self.steps.push(Step {
            name: shortened(&input.name),
            input: 0,
            kind: StepKind::Image { sizes },
        });
        let data = Data {
            step: 0,
            form: Form::identity(),
            dims,
            is_image: true,
        };
        if self.values.insert(&input.name, Value::Data(data)).is_some() {
            return Err("an input that is a constant".into());
        }
        match element {
            FLOAT | FLOAT16 | BFLOAT16 | DOUBLE => Ok(false),
            UINT8 | INT8 | UINT16 | INT16 | INT32 | INT64 => Ok(true),
            _ => Err("pixels that are not numbers".into()),
        }
    }

    /// Returns the output, which may be probabilities.
    fn output(&mut self, outputs: &[String]) -> Result<Data, String> {
        match self.function(outputs, 0)? {
            data @ Data {
                form: Form::Sigmoid,
                ..
            } => self.step(&data, ChainOperation::Sigmoid),
            _ => self.data(outputs, 0),
        }
    }

    /// Returns the number of pixels of flattened images.
    fn flat_image(&self) -> Option<usize> {
        match self.steps.first().map(|step| &step.kind) {
            Some(StepKind::Image { sizes }) => match sizes.as_slice() {
                &[pixels] => Some(pixels),
                _ => None,
            },
            _ => None,
        }
    }

    fn evaluate(&mut self, node: &Node) -> Result<Value, String> {
        let attributes = Attributes(&node.attribute);
        let inputs = node.input.as_slice();
        let operator = node.op_type.as_str();
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!(
                "operators of {} are not supported",
                shortened(&node.domain)
            ));
        }
        let axes = |network: &Self, first: i64| match network.opset < first {
            true => Ok(attributes.ints("axes")),
            false => network.optional_numbers(inputs, 1),
        };
        match operator {
            "Conv" => self.convolution(inputs, attributes),
            "MaxPool" => self.pool(PoolKind::Max, inputs, attributes),
            "AveragePool" => self.pool(PoolKind::Average, inputs, attributes),
            "GlobalMaxPool" => self.global_pool(PoolKind::Max, inputs),
            "GlobalAveragePool" => self.global_pool(PoolKind::Average, inputs),
            "ReduceMean" | "ReduceMax" => {
                let kind = match operator {
                    "ReduceMean" => PoolKind::Average,
                    _ => PoolKind::Max,
                };
                let axes = match attributes.ints("axes") {
                    Some(axes) => Some(axes),
                    None if self.opset >= AXES_AS_INPUT => self.optional_numbers(inputs, 1)?,
                    None => None,
                };
                let keeps_dimensions = attributes.int("keepdims").unwrap_or(1) != 0;
                self.reduce(kind, inputs, axes, keeps_dimensions)
            }
            "Gemm" => self.gemm(inputs, attributes),
            "MatMul" => self.matmul(inputs),
            "BatchNormalization" => self.batch_normalization(inputs, attributes),
            "Softmax" | "LogSoftmax" => self.softmax(inputs, attributes.int("axis")),
            "Pad" => {
                let is_input = self.opset >= PADS_AS_INPUT;
                let pads = match is_input {
                    true => self.optional_numbers(inputs, 1)?,
                    false => attributes.ints("pads"),
                };
                let value = match self.optional_constant(inputs, 2)? {
                    Some(constant) => constant.floats()?.first().copied(),
                    None => attributes.float("value"),
                };
                let axes = self.optional_numbers(inputs, 3)?;
                let mode = attributes.text("mode").unwrap_or("constant");
                self.pad(inputs, mode, pads, value.unwrap_or(0.0), axes)
            }
            "Relu" => self.activation(Activation::Relu, inputs),
            "Tanh" => self.activation(Activation::Tanh, inputs),
            "Gelu" => match attributes.text("approximate").unwrap_or("none") {
                "none" => self.activation(Activation::Gelu, inputs),
                _ => Err("the tanh approximation of GELU is not supported".into()),
            },
            "Pow" => Err(POWERS.into()),
            "Sigmoid" => self.sigmoid(inputs),
            "Erf" => self.erf(inputs),
            "Add" => self.binary(Binary::Add, inputs),
            "Sub" => self.binary(Binary::Sub, inputs),
            "Mul" => self.binary(Binary::Mul, inputs),
            "Div" => self.binary(Binary::Div, inputs),
            "Flatten" => self.flatten(inputs, attributes.int("axis").unwrap_or(1)),
            "Reshape" => self.reshape(inputs, attributes.int("allowzero").unwrap_or(0) != 0),
            "Squeeze" => {
                let axes = axes(self, SQUEEZED_AXES_AS_INPUT)?;
                self.squeeze(inputs, axes)
            }
            "Unsqueeze" => {
                let axes = axes(self, SQUEEZED_AXES_AS_INPUT)?;
                self.unsqueeze(inputs, axes)
            }
            "Transpose" => self.transpose(inputs, attributes.ints("perm")),
            "Shape" => {
                let bound = |name, default| attributes.int(name).unwrap_or(default);
                self.shape(inputs, [bound("start", 0), bound("end", i64::MAX)])
            }
            "Gather" => self.gather(inputs, attributes.int("axis").unwrap_or(0)),
            "Slice" => {
                let mut bounds =
                    ["starts", "ends", "axes", "steps"].map(|name| attributes.ints(name));
                if self.opset >= SLICE_AS_INPUT {
                    for (index, bound) in bounds.iter_mut().enumerate() {
                        *bound = self.optional_numbers(inputs, index + 1)?;
                    }
                }
                self.slice(inputs, bounds)
            }
            "Concat" => self.concat(inputs, attributes.int("axis").unwrap_or(0)),
            "Constant" => self.constant_node(attributes),
            "ConstantOfShape" => {
                let value = attributes.tensor("value").cloned();
                let value = value.map(|mut value| Constant::new(&mut value, &mut self.budget));
                self.constant_of_shape(inputs, value.transpose()?)
            }
            "Identity" => self.input(inputs, 0).cloned(),
            "Dropout" => match self.optional_numbers(inputs, 2).ok().flatten() {
                Some(mode) if mode != [0] => {
                    Err("dropout in training mode; export the network in evaluation mode".into())
                }
                _ => self.input(inputs, 0).cloned(),
            },
            "Cast" => self.cast(inputs, attributes.int("to").unwrap_or(0)),
            _ => Err("the operator is not supported".into()),
        }
    }

    fn constant_node(&mut self, attributes: Attributes<'_>) -> Result<Value, String> {
        if let Some(value) = attributes.tensor("value") {
            return Constant::new(&mut value.clone(), &mut self.budget).map(Value::Constant);
        }
        let floats = |shape, values: &[f32]| {
            let tensor = Rc::new(Tensor::from_values(shape, values));
            Ok(Value::Constant(Constant::Tensor(tensor)))
        };
        let integers = |shape, values: Vec<i64>| {
            let values = values.into_iter().map(Extent::Number).collect();
            Ok(Value::Constant(Constant::Integers(Integers {
                shape,
                values,
            })))
        };
        if let Some(value) = attributes.float("value_float") {
            return floats(Vec::new(), &[value as f32]);
        }
        if let Some(values) = attributes.floats("value_floats") {
            return floats(vec![values.len()], values);
        }
        if let Some(value) = attributes.int("value_int") {
            return integers(Vec::new(), vec![value]);
        }
        match attributes.ints("value_ints") {
            Some(values) if values.len() <= MAX_INTEGERS => integers(vec![values.len()], values),
            _ => Err("a constant that is not numbers".into()),
        }
    }

    fn cast(&mut self, inputs: &[String], to: i64) -> Result<Value, String> {
        let to = i32::try_from(to).unwrap_or(0);
        let is_float = matches!(to, FLOAT | FLOAT16 | BFLOAT16 | DOUBLE);
        let is_integer = matches!(to, INT8 | UINT8 | INT16 | UINT16 | INT32 | INT64);
        match self.input(inputs, 0)?.clone() {
            Value::Data(data) if is_float => Ok(Value::Data(data)),
            Value::Data(_) => Err("values are rounded to integers".into()),
            Value::Constant(Constant::Integers(integers)) if is_float => {
                let constant = Constant::Integers(integers.clone());
                let values: Vec<f32> = constant
                    .floats()?
                    .iter()
                    .map(|value| *value as f32)
                    .collect();
                let tensor = Tensor::from_values(integers.shape, &values);
                Ok(Value::Constant(Constant::Tensor(Rc::new(tensor))))
            }
            Value::Constant(Constant::Tensor(tensor)) if is_integer => {
                let values = tensor
                    .values()
                    .filter(|values| values.len() <= MAX_INTEGERS);
                let values = values.ok_or("integers that are too many to compute with")?;
                let values = values
                    .iter()
                    .map(|value| Extent::Number(*value as i64))
                    .collect();
                let shape = tensor.shape.clone();
                Ok(Value::Constant(Constant::Integers(Integers {
                    shape,
                    values,
                })))
            }
            Value::Constant(constant) if is_float || is_integer => Ok(Value::Constant(constant)),
            Value::Constant(_) => Err("a constant that is not numbers".into()),
        }
    }
}
