//! Writer of ONNX files.

use data::PerChannel;
use model::{Activation, ConvNetConfig, Layer, Operation, Pool, PoolKind};
use prost::Message;

use crate::export::{Export, ExportError, ONNX_OPSETS};
use crate::onnx::message::{
    Attribute, Dimension, FLOAT, FLOAT16, Graph, INT, INTS, Model, Node, OperatorSet, Shape,
    StringStringEntry, TensorMessage, TensorType, Type, UINT8, ValueInfo, dimension,
};
use crate::tensor::{Dtype, Tensor};

/// First operator set with the operator `Erf`.
const ERF: u32 = 9;
/// First operator set with the operator `Gelu`.
const GELU: u32 = 20;
/// First operator set in which the bias of `Gemm` is optional.
const OPTIONAL_BIAS: u32 = 11;
/// First version of the file format in which initializers need not be inputs of the graph.
const CONSTANTS: i64 = 4;

/// Returns the version of the file format that was released with a version of the operator set.
fn ir_version(opset: u32) -> i64 {
    match opset {
        ..9 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21.. => 10,
    }
}

/// Returns an ONNX file that uses a version of the operator set, one of [`ONNX_OPSETS`].
///
/// The input is `images`, single precision `[N, channels, height, width]`, or with normalization `pixels`,
/// unsigned bytes of that shape. The output is `logits`, `[N, classes]`.
///
/// # Errors
/// Returns an error if the description is invalid, a weight is missing, or the version of the operator set is
/// unknown or lacks an operator.
pub fn to_onnx(export: &Export<'_>, opset: u32) -> Result<Vec<u8>, ExportError> {
    match ONNX_OPSETS.contains(&opset) {
        true => Writer { export, opset }.write(),
        false => Err(ExportError::UnknownOpset(opset)),
    }
}

struct Writer<'a> {
    export: &'a Export<'a>,
    /// Version of the operator set.
    opset: u32,
}

impl Writer<'_> {
    fn write(&self) -> Result<Vec<u8>, ExportError> {
        let export = self.export;
        let ConvNetConfig {
            channels,
            input: [height, width],
            classes,
            ..
        } = *export.network;
        let mut graph = Graph::default();
        let (input, kind) = match export.normalization {
            None => ("images", FLOAT),
            Some(_) => ("pixels", UINT8),
        };
        let mut value = input.to_string();
        if let Some(scaling) = export.normalization {
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
        for (number, layer) in export.network.folded().layers()?.iter().enumerate() {
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
                    self.activation(&mut graph, name, sums, then.activation)?
                }
                Operation::Pooling { pool, then } => {
                    let pooled = graph.pooling(name, value, pool);
                    self.activation(&mut graph, name, pooled, then.activation)?
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
                    self.activation(&mut graph, name, sum, activation)?
                }
                Operation::Flatten => graph.node("Flatten", name, &[&value], vec![int("axis", 1)]),
                Operation::Dense { activation } => {
                    let transposed = vec![int("transB", 1)];
                    let sums = self.layer(&mut graph, "Gemm", layer, name, value, transposed)?;
                    self.activation(&mut graph, name, sums, activation)?
                }
                Operation::Logits { .. } => {
                    let transposed = vec![int("transB", 1)];
                    self.layer(&mut graph, "Gemm", layer, "logits", value, transposed)?
                }
                // Dropout is for training only.
                Operation::Dropout(_) => value,
            };
        }
        graph.name = export.name.into();
        graph.input = vec![value_info(input, kind, &[channels, height, width])];
        graph.output = vec![value_info("logits", FLOAT, &[classes])];
        let entry = |(key, value): &(&str, String)| StringStringEntry {
            key: (*key).into(),
            value: value.clone(),
        };
        let ir_version = ir_version(self.opset);
        if ir_version < CONSTANTS {
            graph.list_constants();
        }
        let model = Model {
            ir_version,
            producer_name: "trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet {
                domain: String::new(),
                version: self.opset.into(),
            }],
            metadata_props: export.metadata.iter().map(entry).collect(),
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
        for (name, tensor) in self.export.tensors(layer)? {
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
        if operator == "Gemm" && !layer.bias && self.opset < OPTIONAL_BIAS {
            let name = format!("{}.zeros", layer.name);
            let outputs = layer.output.first().copied().unwrap_or_default();
            let zeros = Tensor::from_values(vec![outputs], &vec![0.0; outputs]);
            graph.constant(&name, FLOAT, &zeros);
            inputs.push(name);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(graph.node(operator, output, &inputs, attributes))
    }

    /// Adds the nodes of an activation of layer `name`, and returns the name of their output.
    fn activation(
        &self,
        graph: &mut Graph,
        name: &str,
        input: String,
        activation: Activation,
    ) -> Result<String, ExportError> {
        let (input, part) = (input.as_str(), |part: &str| format!("{name}.{part}"));
        Ok(match activation {
            Activation::None => input.into(),
            Activation::Relu => graph.node("Relu", &part("relu"), &[input], Vec::new()),
            Activation::Tanh => graph.node("Tanh", &part("tanh"), &[input], Vec::new()),
            Activation::Gelu if self.opset >= GELU => {
                graph.node("Gelu", &part("gelu"), &[input], Vec::new())
            }
            Activation::Gelu if self.opset >= ERF => graph.gelu(name, input),
            Activation::Gelu => {
                return Err(ExportError::MissingOperator {
                    function: activation,
                    operator: "Erf",
                    opset: self.opset,
                    least: ERF,
                });
            }
            Activation::Silu => {
                let sigmoid = graph.node("Sigmoid", &part("sigmoid"), &[input], Vec::new());
                graph.node("Mul", &part("silu"), &[input, &sigmoid], Vec::new())
            }
        })
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
            domain: String::new(),
        });
        name.into()
    }

    /// Adds `x / 2 (1 + erf(x / sqrt(2)))`, which opset 20 has an operator for.
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
            ..TensorMessage::default()
        });
    }

    /// Lists the constants as inputs too.
    fn list_constants(&mut self) {
        let constants = self.initializer.iter().map(|tensor| {
            let sizes = tensor.dims.iter().copied();
            let sizes = sizes.map(dimension::Value::Size);
            typed(&tensor.name, tensor.data_type, sizes)
        });
        let constants: Vec<ValueInfo> = constants.collect();
        self.input.extend(constants);
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
        kind: INT,
        ..Attribute::default()
    }
}

fn ints(name: &str, values: Vec<i64>) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values,
        kind: INTS,
        ..Attribute::default()
    }
}

/// Returns the type of an input or output: a batch of any size N of tensors of this shape.
fn value_info(name: &str, kind: i32, shape: &[usize]) -> ValueInfo {
    let count = dimension::Value::Name("N".into());
    let sizes = shape
        .iter()
        .map(|&size| dimension::Value::Size(size as i64));
    typed(name, kind, [count].into_iter().chain(sizes))
}

fn typed(name: &str, kind: i32, sizes: impl Iterator<Item = dimension::Value>) -> ValueInfo {
    let shape = Shape {
        dim: sizes
            .map(|value| Dimension { value: Some(value) })
            .collect(),
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

#[cfg(test)]
mod tests {
    use data::Scaling;
    use model::BlockConfig;

    use super::*;
    use crate::export::DEFAULT_ONNX_OPSET;
    use crate::tensor::Tensors;

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
        let export = Export {
            name: "test",
            network: &network,
            weights: &Tensors::from([(format!("{name}.weight"), weight)]),
            normalization: Some(scaling),
            metadata: &[],
        };
        let model =
            Model::decode(to_onnx(&export, DEFAULT_ONNX_OPSET).unwrap().as_slice()).unwrap();
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

    /// Returns the graph of a network of one dense layer without bias after a block with GELU.
    fn gelu(opset: u32) -> Result<Model, ExportError> {
        let block = BlockConfig {
            channels: 1,
            kernel: 1,
            padding: 0,
            bias: false,
            activation: Activation::Gelu,
            pool: Pool::None,
            ..BlockConfig::default()
        };
        let network = ConvNetConfig {
            input: [1, 1],
            classes: 2,
            dense: Vec::new(),
            blocks: vec![block.into()],
            output_bias: false,
            ..ConvNetConfig::default()
        };
        let weights = [("conv1.weight", vec![1; 4]), ("fc1.weight", vec![2, 1])];
        let weights = weights.map(|(name, shape)| {
            let values = vec![1.0; shape.iter().product()];
            (name.into(), Tensor::from_values(shape, &values))
        });
        let export = Export {
            name: "test",
            network: &network,
            weights: &Tensors::from(weights),
            normalization: None,
            metadata: &[],
        };
        Ok(Model::decode(to_onnx(&export, opset)?.as_slice()).unwrap())
    }

    #[test]
    fn each_opset_has_its_operators() {
        let operators = |opset| {
            let model = gelu(opset).unwrap();
            let graph = model.graph.unwrap();
            let operators = graph.node.iter().map(|node| node.op_type.clone());
            let inputs = graph.node.last().unwrap().input.len();
            (
                operators.collect::<Vec<_>>().join(" "),
                inputs,
                graph.input.len(),
            )
        };
        let erf = "Conv Div Erf Add Mul Mul Flatten Gemm";
        assert_eq!(operators(9), (erf.into(), 3, 1));
        assert_eq!(operators(17), (erf.into(), 2, 1));
        assert_eq!(operators(20), ("Conv Gelu Flatten Gemm".into(), 2, 1));
        assert_eq!(
            gelu(8).unwrap_err().to_string(),
            "GELU needs the operator Erf, which opset 8 lacks: choose opset 9 or later"
        );
        assert_eq!(
            gelu(22).unwrap_err().to_string(),
            "opset 22: expected 7 to 21"
        );
    }

    #[test]
    fn constants_are_inputs_of_old_versions() {
        let mut graph = Graph::default();
        graph.constant_once("one", 1.0);
        graph.list_constants();
        assert_eq!(graph.input, [typed("one", FLOAT, [].into_iter())]);
        let versions = [7, 9, 11, 13, 17, 21].map(ir_version);
        assert_eq!(versions, [3, 4, 6, 7, 8, 10]);
    }
}
