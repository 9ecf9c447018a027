//! Writer of ONNX files.
//!
//! The protobuf messages are the subset of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto> (IR version
//! 8) that a convolutional network needs. The operators are those of opset 17.

use data::{PerChannel, Scaling};
use model::{Activation, ConvNetConfig, Layer, Operation, Pool, PoolKind, ShapeError};
use prost::Message;

use crate::tensor::{Dtype, Tensor, Tensors};

/// Version of the file format that was released with the opset.
const IR_VERSION: i64 = 8;
/// Version of the operator set.
const OPSET: i64 = 17;

/// Values of `TensorProto.DataType`.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const FLOAT16: i32 = 10;
/// Values of `AttributeProto.AttributeType`.
const INT: i32 = 2;
const INTS: i32 = 7;

/// A network to write as an ONNX file.
#[derive(Debug)]
pub struct OnnxExport<'a> {
    /// Name of the graph.
    pub name: &'a str,
    /// Description of the network, whose folded form the weights belong to.
    pub network: &'a ConvNetConfig,
    /// Weights with PyTorch's names and layout, in single or half precision. The graph computes in single
    /// precision.
    pub weights: &'a Tensors,
    /// Normalization of pixels from 0 to 255, to include it in the graph; `None` for a graph whose input is
    /// normalized images.
    pub normalization: Option<Scaling>,
    /// Metadata: keys and values.
    pub metadata: &'a [(&'a str, String)],
}

/// The reason why a network cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The description is invalid.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A weight is missing.
    #[error("missing tensor {0}")]
    Missing(String),
}

impl OnnxExport<'_> {
    /// Returns the ONNX file.
    ///
    /// The input is `images`, single precision `[N, channels, height, width]`, or with normalization `pixels`,
    /// unsigned bytes of that shape. The output is `logits`, `[N, classes]`.
    ///
    /// # Errors
    /// Returns an error if the description is invalid or a weight is missing.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ExportError> {
        let ConvNetConfig {
            channels,
            input: [height, width],
            classes,
            ..
        } = *self.network;
        let mut graph = Graph::default();
        let (input, kind) = match self.normalization {
            None => ("images", FLOAT),
            Some(_) => ("pixels", UINT8),
        };
        let mut value = input.to_string();
        if let Some(scaling) = self.normalization {
            value = graph.node("Cast", "numbers", &[&value], vec![int("to", FLOAT.into())]);
            // (x / 255 - mean) / std
            let (factor, shift) = scaling.factor_and_shift();
            for (operator, name, constant, numbers) in [
                ("Mul", "scaled", "factor", factor),
                ("Sub", "images", "shift", shift),
            ] {
                let numbers = match numbers {
                    PerChannel::Same(number) => Tensor::from_values(Vec::new(), &[number as f32]),
                    PerChannel::Each(numbers) => {
                        Tensor::from_values(vec![3, 1, 1], &numbers.map(|number| number as f32))
                    }
                };
                graph.constant(constant, FLOAT, &numbers);
                value = graph.node(operator, name, &[&value, constant], Vec::new());
            }
        }
        // The value before each layer.
        let mut inputs: Vec<String> = Vec::new();
        for (number, layer) in self.network.folded().layers()?.iter().enumerate() {
            let name = layer.name.as_str();
            inputs.push(value.clone());
            value = match layer.operation {
                Operation::Convolution {
                    kernel,
                    stride,
                    padding,
                    then,
                } => {
                    let attributes = windows(kernel, stride, padding);
                    let sums = self.layer(&mut graph, "Conv", layer, name, value, attributes)?;
                    graph.activation(name, sums, then.activation)
                }
                Operation::Pooling { pool, then } => {
                    let pooled = graph.pooling(name, value, pool);
                    graph.activation(name, pooled, then.activation)
                }
                Operation::Projection { start, stride, .. } => {
                    let attributes = windows(1, stride, 0);
                    let input = inputs[start].clone();
                    self.layer(&mut graph, "Conv", layer, name, input, attributes)?
                }
                Operation::Addition {
                    start,
                    projection,
                    activation,
                } => {
                    let other = match projection {
                        // The input of the projection's row: the output of the blocks.
                        true => &inputs[number - 1],
                        false => &inputs[start],
                    };
                    let sum = graph.node("Add", name, &[&value, other], Vec::new());
                    graph.activation(name, sum, activation)
                }
                Operation::Flatten => graph.node("Flatten", name, &[&value], vec![int("axis", 1)]),
                Operation::Dense { activation } => {
                    let transposed = vec![int("transB", 1)];
                    let sums = self.layer(&mut graph, "Gemm", layer, name, value, transposed)?;
                    graph.activation(name, sums, activation)
                }
                Operation::Logits { .. } => {
                    let transposed = vec![int("transB", 1)];
                    self.layer(&mut graph, "Gemm", layer, "logits", value, transposed)?
                }
                // Dropout is for training only.
                Operation::Dropout(_) => value,
            };
        }
        graph.name = self.name.into();
        graph.input = vec![value_info(input, kind, &[channels, height, width])];
        graph.output = vec![value_info("logits", FLOAT, &[classes])];
        let entry = |(key, value): &(&str, String)| StringStringEntry {
            key: (*key).into(),
            value: value.clone(),
        };
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: "trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet {
                domain: String::new(),
                version: OPSET,
            }],
            metadata_props: self.metadata.iter().map(entry).collect(),
        };
        Ok(model.encode_to_vec())
    }

    /// Adds a node with the weight and bias of a layer, and returns the name of its output.
    fn layer(
        &self,
        graph: &mut Graph,
        operator: &str,
        layer: &Layer,
        output: &str,
        input: String,
        attributes: Vec<Attribute>,
    ) -> Result<String, ExportError> {
        let mut inputs = vec![input];
        let bias = layer.bias.then_some("bias");
        for part in ["weight"].into_iter().chain(bias) {
            let name = format!("{}.{part}", layer.name);
            let tensor = self.weights.get(&name);
            let tensor = tensor.ok_or_else(|| ExportError::Missing(name.clone()))?;
            match tensor.dtype {
                Dtype::F16 => {
                    let half = format!("{name}.half");
                    graph.constant(&half, FLOAT16, tensor);
                    graph.node("Cast", &name, &[&half], vec![int("to", FLOAT.into())]);
                }
                _ => graph.constant(&name, FLOAT, tensor),
            }
            inputs.push(name);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(graph.node(operator, output, &inputs, attributes))
    }
}

impl Graph {
    /// Adds a node and returns the name of its output, which is that of the node.
    fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
    ) -> String {
        self.node.push(Node {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: operator.into(),
            attribute,
        });
        name.into()
    }

    /// Adds the nodes of an activation of layer `name`, and returns the name of their output.
    fn activation(&mut self, name: &str, input: String, activation: Activation) -> String {
        let (input, part) = (input.as_str(), |part: &str| format!("{name}.{part}"));
        match activation {
            Activation::None => input.into(),
            Activation::Relu => self.node("Relu", &part("relu"), &[input], Vec::new()),
            Activation::Tanh => self.node("Tanh", &part("tanh"), &[input], Vec::new()),
            Activation::Gelu => self.gelu(name, input),
            Activation::Silu => {
                let sigmoid = self.node("Sigmoid", &part("sigmoid"), &[input], Vec::new());
                self.node("Mul", &part("silu"), &[input, &sigmoid], Vec::new())
            }
        }
    }

    /// Adds `x / 2 (1 + erf(x / sqrt(2)))`. Opset 20 has an operator for it.
    fn gelu(&mut self, name: &str, input: &str) -> String {
        let constants = [
            ("gelu.sqrt_2", std::f32::consts::SQRT_2),
            ("gelu.one", 1.0),
            ("gelu.half", 0.5),
        ];
        for (constant, number) in constants {
            self.constant_once(constant, number);
        }
        let mut add = |operator: &str, part: &str, inputs: &[&str]| {
            self.node(operator, &format!("{name}.{part}"), inputs, Vec::new())
        };
        let scaled = add("Div", "gelu.scaled", &[input, "gelu.sqrt_2"]);
        let erf = add("Erf", "gelu.erf", &[&scaled]);
        let sum = add("Add", "gelu.sum", &[&erf, "gelu.one"]);
        let probability = add("Mul", "gelu.probability", &[&sum, "gelu.half"]);
        add("Mul", "gelu", &[input, &probability])
    }

    /// Adds a pooling node and returns the name of its output.
    fn pooling(&mut self, name: &str, input: String, pool: Pool) -> String {
        let (operator, attributes) = match pool {
            Pool::None => return input,
            Pool::Global(PoolKind::Max) => ("GlobalMaxPool", Vec::new()),
            Pool::Global(PoolKind::Average) => ("GlobalAveragePool", Vec::new()),
            Pool::Windows {
                kind: PoolKind::Max,
                size,
                stride,
                padding,
            } => ("MaxPool", windows(size, stride, padding)),
            Pool::Windows {
                kind: PoolKind::Average,
                size,
                stride,
                padding,
            } => {
                let mut attributes = windows(size, stride, padding);
                attributes.push(int("count_include_pad", 1));
                ("AveragePool", attributes)
            }
        };
        self.node(operator, name, &[&input], attributes)
    }

    /// Adds a constant number, unless there is one of this name.
    fn constant_once(&mut self, name: &str, number: f32) {
        if !self.initializer.iter().any(|tensor| tensor.name == name) {
            self.constant(name, FLOAT, &Tensor::from_values(Vec::new(), &[number]));
        }
    }

    /// Adds a constant tensor.
    fn constant(&mut self, name: &str, kind: i32, tensor: &Tensor) {
        self.initializer.push(TensorMessage {
            dims: tensor.shape.iter().map(|&size| size as i64).collect(),
            data_type: kind,
            name: name.into(),
            raw_data: tensor.bytes.clone(),
        });
    }
}

/// Returns the attributes of square windows.
fn windows(size: usize, stride: usize, padding: usize) -> Vec<Attribute> {
    let all = |size: usize, count: usize| vec![size as i64; count];
    vec![
        ints("kernel_shape", all(size, 2)),
        ints("strides", all(stride, 2)),
        ints("pads", all(padding, 4)),
    ]
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i: Some(value),
        ints: Vec::new(),
        kind: INT,
    }
}

fn ints(name: &str, values: Vec<i64>) -> Attribute {
    Attribute {
        name: name.into(),
        i: None,
        ints: values,
        kind: INTS,
    }
}

/// Returns the type of an input or output: a batch of any size N of tensors of this shape.
fn value_info(name: &str, kind: i32, shape: &[usize]) -> ValueInfo {
    let count = Dimension {
        value: Some(dimension::Value::Name("N".into())),
    };
    let sizes = shape.iter().map(|&size| Dimension {
        value: Some(dimension::Value::Size(size as i64)),
    });
    let shape = Shape {
        dim: [count].into_iter().chain(sizes).collect(),
    };
    let tensor = TensorType {
        elem_type: kind,
        shape: Some(shape),
    };
    ValueInfo {
        name: name.into(),
        kind: Some(Type {
            tensor_type: Some(tensor),
        }),
    }
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorMessage>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorMessage {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    value: Option<dimension::Value>,
}

mod dimension {
    /// The size of a dimension, or a name for a variable size.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(int64, tag = "1")]
        Size(i64),
        #[prost(string, tag = "2")]
        Name(String),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the shape and the values of the constants of a graph with this normalization, by name.
    fn constants(scaling: Scaling) -> Vec<(String, Vec<i64>, Vec<f32>)> {
        let network = ConvNetConfig {
            channels: 3,
            input: [1, 2],
            classes: 2,
            dense: Vec::new(),
            blocks: Vec::new(),
            output_bias: false,
            ..ConvNetConfig::default()
        };
        let name = network.layers().unwrap().pop().unwrap().name;
        let weight = Tensor::from_values(vec![2, 6], &[1.0; 12]);
        let export = OnnxExport {
            name: "test",
            network: &network,
            weights: &Tensors::from([(format!("{name}.weight"), weight)]),
            normalization: Some(scaling),
            metadata: &[],
        };
        let model = Model::decode(export.to_bytes().unwrap().as_slice()).unwrap();
        let constants = model.graph.unwrap().initializer.into_iter();
        let constants = constants.map(|tensor| {
            let values = tensor.raw_data.chunks_exact(4);
            let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            (tensor.name, tensor.dims, values.collect())
        });
        constants.take(2).collect()
    }

    #[test]
    fn normalization_has_a_number_for_all_channels_or_one_for_each() {
        assert_eq!(
            constants(Scaling::same(0.5, 0.25)),
            [
                ("factor".into(), vec![], vec![4.0 / 255.0]),
                ("shift".into(), vec![], vec![2.0])
            ]
        );
        let each = Scaling {
            mean: PerChannel::Each([0.5, 0.25, 0.0]),
            std: PerChannel::Each([0.25, 0.5, 1.0]),
        };
        let factors = [4.0, 2.0, 1.0].map(|factor: f32| factor / 255.0);
        assert_eq!(
            constants(each),
            [
                ("factor".into(), vec![3, 1, 1], factors.to_vec()),
                ("shift".into(), vec![3, 1, 1], vec![2.0, 0.5, 0.0])
            ]
        );
    }
}
