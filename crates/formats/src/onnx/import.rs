//! Reader of ONNX files.

use std::collections::HashMap;

use prost::Message;

use crate::architecture::{Architecture, translate};
use crate::error::FormatError;
use crate::limits::MemoryBudget;
use crate::onnx::constant::Constant;
use crate::onnx::graph::evaluate;
use crate::onnx::message::{Graph, Model};
use crate::onnx::{pixels, wire};
use crate::preprocessing;
use crate::tensor::{Dtype, Tensors};

/// The supported versions of the operator set.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// Reads the weights and the architecture of a file. If the architecture is not supported, the
/// weights are the constants of the graph.
///
/// # Errors
/// Returns an error if the file is damaged, exceeds a limit, or has its weights in another file.
pub(crate) fn read(bytes: &[u8]) -> Result<(Tensors, Result<Architecture, String>), FormatError> {
    wire::check(bytes)?;
    let model = Model::decode(bytes)?;
    let Model {
        graph: Some(mut graph),
        opset_import,
        metadata_props,
        producer_name,
        ..
    } = model
    else {
        return Err("no graph".into());
    };
    let mut budget = MemoryBudget::for_file(bytes.len());
    let constants = constants(&mut graph, &mut budget)?;
    let is_standard = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opset = opset_import
        .iter()
        .find(|set| is_standard(&set.domain))
        .map(|set| set.version);
    let metadata = metadata_props
        .iter()
        .find(|entry| producer_name == "trainer" && entry.key == preprocessing::KEY);
    let scaling = metadata.and_then(|entry| preprocessing::scaling(&entry.value));
    let architecture = match opset {
        Some(opset) if OPSETS.contains(&opset) => {
            // A few transposed weights and the weights of layers.
            let budget = MemoryBudget::for_file(2 * bytes.len() + (1 << 20));
            evaluate(&graph, &constants, opset, budget)
                .and_then(|evaluation| pixels::chain(evaluation, scaling))
                .and_then(translate)
        }
        opset => Err(format!(
            "operators of version {}; {} to {} are supported",
            opset.unwrap_or(0),
            OPSETS.start(),
            OPSETS.end()
        )),
    };
    let tensors = match &architecture {
        Ok(architecture) => architecture.tensors.clone(),
        Err(_) => tensors(constants),
    };
    Ok((tensors, architecture))
}

/// Moves the constants out of a graph.
fn constants(
    graph: &mut Graph,
    budget: &mut MemoryBudget,
) -> Result<HashMap<String, Constant>, FormatError> {
    let mut constants = HashMap::new();
    for mut message in std::mem::take(&mut graph.initializer) {
        let name = std::mem::take(&mut message.name);
        let shortened = || name.chars().take(100).collect::<String>();
        let constant = Constant::new(&mut message, budget);
        let constant = constant.map_err(|reason| format!("tensor {}: {reason}", shortened()))?;
        if constants.insert(name.clone(), constant).is_some() {
            return Err(format!("two tensors {}", shortened()).into());
        }
    }
    Ok(constants)
}

/// Returns the constants that can be weights.
fn tensors(constants: HashMap<String, Constant>) -> Tensors {
    let weights = constants
        .into_iter()
        .filter_map(|(name, constant)| match constant {
            Constant::Tensor(tensor) if !matches!(tensor.dtype, Dtype::Integer | Dtype::Other) => {
                let tensor = std::rc::Rc::unwrap_or_clone(tensor);
                Some((name, tensor))
            }
            _ => None,
        });
    weights.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use data::Scaling;
    use model::{Activation, ConvNetConfig, Initialization, Operation, Pool};

    use super::*;
    use crate::export::samples::{self, Sample, block};
    use crate::onnx::export::to_onnx;
    use crate::onnx::message::{
        Attribute, Dimension, FLOAT, INT64, Node, OperatorSet, Shape, StringStringEntry,
        TensorMessage, TensorType, Type, UINT8, ValueInfo, dimension,
    };

    /// A graph that is built node by node, on the output of the last one.
    struct Builder {
        graph: Graph,
        opset: i64,
        last: String,
    }

    impl Builder {
        /// Begins with an input `x`. The size 0 stands for an unknown one.
        fn new(opset: i64, kind: i32, sizes: &[i64]) -> Self {
            let dimension = |&size| Dimension {
                value: (size > 0).then_some(dimension::Value::Size(size)),
            };
            let tensor = TensorType {
                elem_type: kind,
                shape: Some(Shape {
                    dim: sizes.iter().map(dimension).collect(),
                }),
            };
            let value = |name: &str| ValueInfo {
                name: name.into(),
                kind: Some(Type {
                    tensor_type: Some(tensor.clone()),
                }),
            };
            Self {
                graph: Graph {
                    input: vec![value("x")],
                    output: vec![value("y")],
                    ..Graph::default()
                },
                opset,
                last: "x".into(),
            }
        }

        /// Images of 4x4 pixels.
        fn images() -> Self {
            Self::new(17, FLOAT, &[0, 1, 4, 4])
        }

        /// Adds a constant with the values 1, 2, 3, ...
        fn constant(mut self, name: &str, shape: &[i64]) -> Self {
            let count: i64 = shape.iter().product();
            self.graph.initializer.push(TensorMessage {
                dims: shape.to_vec(),
                data_type: FLOAT,
                float_data: (1..=count).map(|value| value as f32).collect(),
                name: name.into(),
                ..TensorMessage::default()
            });
            self
        }

        fn number(mut self, name: &str, number: f32) -> Self {
            self.graph.initializer.push(TensorMessage {
                data_type: FLOAT,
                float_data: vec![number],
                name: name.into(),
                ..TensorMessage::default()
            });
            self
        }

        fn integers(mut self, name: &str, values: &[i64]) -> Self {
            self.graph.initializer.push(TensorMessage {
                dims: vec![values.len() as i64],
                data_type: INT64,
                int64_data: values.to_vec(),
                name: name.into(),
                ..TensorMessage::default()
            });
            self
        }

        /// Adds a node `OPERATORn` on the last output and further inputs, or on inputs that are all given.
        fn node(mut self, operator: &str, inputs: &[&str], attributes: Vec<Attribute>) -> Self {
            let output = format!("{operator}{}", self.graph.node.len());
            let all = inputs.iter().map(|input| match *input {
                "_" => self.last.clone(),
                input => input.into(),
            });
            self.graph.node.push(Node {
                input: all.collect(),
                output: vec![output.clone()],
                op_type: operator.into(),
                attribute: attributes,
                ..Node::default()
            });
            self.last = output;
            self
        }

        fn then(self, operator: &str) -> Self {
            self.node(operator, &["_"], Vec::new())
        }

        /// A convolution of 3x3 with padding 1.
        fn convolution(self, weight: &str, shape: [i64; 4]) -> Self {
            let attributes = vec![ints("pads", &[1; 4])];
            self.constant(weight, &shape)
                .node("Conv", &["_", weight], attributes)
        }

        fn bytes(mut self) -> Vec<u8> {
            self.graph.output[0].name = self.last;
            let model = Model {
                ir_version: 8,
                graph: Some(self.graph),
                opset_import: vec![OperatorSet {
                    domain: String::new(),
                    version: self.opset,
                }],
                ..Model::default()
            };
            model.encode_to_vec()
        }

        fn read(self) -> Result<Architecture, String> {
            read(&self.bytes()).unwrap().1
        }

        /// Flattens, and adds a dense layer of two outputs.
        fn read_after_dense(self, features: i64) -> Result<Architecture, String> {
            let transposed = vec![int("transB", 1)];
            self.then("Flatten")
                .constant("dense", &[2, features])
                .node("Gemm", &["_", "dense"], transposed)
                .read()
        }
    }

    fn int(name: &str, value: i64) -> Attribute {
        Attribute {
            name: name.into(),
            i: Some(value),
            ..Attribute::default()
        }
    }

    fn ints(name: &str, values: &[i64]) -> Attribute {
        Attribute {
            name: name.into(),
            ints: values.to_vec(),
            ..Attribute::default()
        }
    }

    fn text(name: &str, value: &str) -> Attribute {
        Attribute {
            name: name.into(),
            s: Some(value.as_bytes().to_vec()),
            ..Attribute::default()
        }
    }

    #[test]
    fn exported_networks_are_read_again() {
        let sample = Sample::new(samples::residual());
        for opset in [11, 13, 17, 21] {
            let bytes = to_onnx(&sample.export(None), opset).unwrap();
            let (tensors, architecture) = read(&bytes).unwrap();
            let architecture = architecture.unwrap();
            assert_eq!(architecture.network, sample.network, "opset {opset}");
            assert!(architecture.tensors == sample.weights && tensors == sample.weights);
            // Of the metadata.
            let scaling = architecture.scaling.unwrap();
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!((0..3).all(|channel| close(scaling.mean.of(channel), 0.25)));
            assert!(close(scaling.std.of(0), 0.5) && close(scaling.std.of(2), 1.0));
        }
        let scaling = Scaling::same(0.5, 0.25);
        let bytes = to_onnx(&sample.export(Some(scaling)), 17).unwrap();
        let read = read(&bytes).unwrap().1.unwrap().scaling.unwrap();
        assert!((read.mean.of(0) - 0.5).abs() < 1e-6 && (read.std.of(0) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let network = ConvNetConfig {
            input: [4, 4],
            classes: 2,
            dense: vec![2],
            blocks: vec![block(1, Activation::Gelu, Pool::MAX).into()],
            ..ConvNetConfig::default()
        };
        let sample = Sample::new(network);
        let export = sample.export(Some(Scaling::same(0.5, 0.5)));
        let bytes = to_onnx(&export, 13).unwrap();
        for length in 0..bytes.len() {
            let _ = read(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 8] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn old_flattening_computes_its_shape() {
        let architecture = Builder::new(9, FLOAT, &[0, 1, 4, 4])
            .convolution("w", [2, 1, 3, 3])
            .node("Shape", &["Conv0"], vec![])
            .integers("zero", &[0])
            .integers("minus", &[-1])
            .node("Gather", &["_", "zero"], vec![int("axis", 0)])
            .node("Concat", &["_", "minus"], vec![int("axis", 0)])
            .node("Reshape", &["Conv0", "_"], vec![])
            .constant("dense", &[32, 2])
            .constant("bias", &[2])
            .node("MatMul", &["_", "dense"], vec![])
            .node("Add", &["_", "bias"], vec![])
            .read()
            .unwrap();
        assert_eq!(architecture.network.input, [4, 4]);
        let dense = architecture.tensors["fc1.weight"].values().unwrap();
        assert_eq!(dense[..3], [1.0, 3.0, 5.0]);
        let bias = architecture.tensors["fc1.bias"].values().unwrap();
        assert_eq!(bias, [1.0, 2.0]);
    }

    #[test]
    fn channels_may_come_last() {
        let architecture = Builder::new(13, FLOAT, &[0, 2, 2, 1])
            .node("Transpose", &["_"], vec![ints("perm", &[0, 3, 1, 2])])
            .convolution("w", [2, 1, 3, 3])
            .node("Transpose", &["_"], vec![ints("perm", &[0, 2, 3, 1])])
            .read_after_dense(8)
            .unwrap();
        let dense = architecture.tensors["fc1.weight"].values().unwrap();
        assert_eq!(dense[..8], [1.0, 3.0, 5.0, 7.0, 2.0, 4.0, 6.0, 8.0]);
        // Rows and columns must not be exchanged.
        let error = Builder::images()
            .node("Transpose", &["_"], vec![ints("perm", &[0, 1, 3, 2])])
            .convolution("w", [2, 1, 3, 3])
            .read_after_dense(32)
            .unwrap_err();
        assert_eq!(
            error,
            "layer Conv1 (Conv): an input of 1 channels x 4 columns x 4 rows, not of images with the channels first"
        );
    }

    #[test]
    fn constants_before_the_first_layer_normalize_pixels() {
        let scaling = |kind, factor, shift| {
            let architecture = Builder::new(17, kind, &[0, 1, 4, 4])
                .number("shift", shift)
                .number("factor", factor)
                .node("Cast", &["_"], vec![int("to", FLOAT.into())])
                .node("Sub", &["_", "shift"], vec![])
                .node("Div", &["_", "factor"], vec![])
                .read_after_dense(16)
                .map(|architecture| architecture.scaling.unwrap());
            architecture.map(|scaling| {
                [scaling.mean, scaling.std].map(|number| (number.of(0) * 1e4).round())
            })
        };
        // (x - 0.25) / 0.5 of pixels from 0 to 1, and the same of pixels from 0 to 255.
        assert_eq!(scaling(FLOAT, 0.5, 0.25), Ok([2500.0, 5000.0]));
        assert_eq!(scaling(FLOAT, 127.5, 63.75), Ok([2500.0, 5000.0]));
        assert_eq!(scaling(UINT8, 127.5, 63.75), Ok([2500.0, 5000.0]));
        assert_eq!(
            scaling(FLOAT, 1e4, 0.0).unwrap_err(),
            "a normalization of pixels that suits neither pixels from 0 to 255 nor pixels from 0 to 1"
        );
        let bytes = Builder::new(17, UINT8, &[0, 1, 4, 4])
            .node("Cast", &["_"], vec![int("to", FLOAT.into())])
            .read_after_dense(16)
            .unwrap();
        assert_eq!(bytes.scaling, Some(Scaling::same(0.0, 1.0 / 255.0)));
        assert_eq!(
            Builder::images().read_after_dense(16).unwrap().scaling,
            None
        );
    }

    #[test]
    fn constants_after_a_layer_are_part_of_it() {
        let architecture = Builder::images()
            .convolution("w", [2, 1, 3, 3])
            .constant("bias", &[1, 2, 1, 1])
            .number("two", 2.0)
            .node("Add", &["_", "bias"], vec![])
            .node("Mul", &["two", "_"], vec![])
            .then("Relu")
            .read_after_dense(32)
            .unwrap();
        assert_eq!(
            architecture.tensors["conv1.bias"].values().unwrap(),
            [2.0, 4.0]
        );
        assert_eq!(
            architecture.tensors["conv1.weight"].values().unwrap()[..2],
            [2.0, 4.0]
        );
    }

    #[test]
    fn windows_are_padded_automatically() {
        let layers = |attributes: Vec<Attribute>| {
            let architecture = Builder::images()
                .constant("w", &[1, 1, 3, 3])
                .node("Conv", &["_", "w"], attributes)
                .read_after_dense(16);
            architecture.map(|architecture| architecture.network.layers().unwrap()[0].operation)
        };
        for mode in ["SAME_UPPER", "SAME_LOWER"] {
            let operation = layers(vec![text("auto_pad", mode)]).unwrap();
            assert!(matches!(
                operation,
                Operation::Convolution { padding: 1, .. }
            ));
        }
        assert_eq!(
            layers(vec![ints("pads", &[-1; 4])]).unwrap_err(),
            "layer Conv0 (Conv): pads [-1, -1, -1, -1]"
        );
        assert_eq!(
            layers(vec![ints("strides", &[1, 2])]).unwrap_err(),
            "layer Conv0 (Conv): strides [1, 2]; only equal sizes of two dimensions are supported"
        );
        assert_eq!(
            layers(vec![ints("strides", &[0, 0])]).unwrap_err(),
            "layer Conv0 (Conv): a window of 3x3 on an image of 4 pixels"
        );
    }

    #[test]
    fn unsupported_networks_are_refused_by_the_name_of_the_layer() {
        let convolved = || Builder::images().convolution("w", [2, 1, 3, 3]);
        let pool = |attributes: Vec<Attribute>| {
            let mut all = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])];
            all.extend(attributes);
            all
        };
        let after = |operator: &str, attributes: Vec<Attribute>| {
            convolved()
                .node(operator, &["_"], attributes)
                .read_after_dense(1)
                .unwrap_err()
        };
        let cases: BTreeMap<&str, String> = [
            ("layer Elu1 (Elu): the operator is not supported", after("Elu", vec![])),
            (
                "layer MaxPool1 (MaxPool): ceil_mode, which adds windows that exceed the image",
                after("MaxPool", pool(vec![int("ceil_mode", 1)])),
            ),
            (
                "layer AveragePool1 (AveragePool): an average over windows at the border that leaves the padding out",
                after("AveragePool", pool(vec![ints("pads", &[1; 4])])),
            ),
            (
                "layer Gelu1 (Gelu): the tanh approximation of GELU is not supported",
                after("Gelu", vec![text("approximate", "tanh")]),
            ),
            (
                "layer Mul1 (Mul): powers are not supported, as in the tanh approximation of GELU",
                convolved().node("Mul", &["_", "_"], vec![]).read().unwrap_err(),
            ),
            (
                "layer Flatten2 (Flatten): input Sigmoid1: Sigmoid is only supported as part of SiLU",
                after("Sigmoid", vec![]),
            ),
            (
                "layer Softmax1 (Softmax): a softmax over an axis of 2 channels x 4 rows x 4 columns",
                after("Softmax", vec![]),
            ),
            (
                "layer Concat1 (Concat): branches that are joined are not supported",
                convolved().node("Concat", &["_", "_"], vec![int("axis", 1)]).read().unwrap_err(),
            ),
            (
                "layer Relu1 (Relu): no node before it computes its input \"later\"",
                convolved().node("Relu", &["later"], vec![]).read().unwrap_err(),
            ),
            (
                "layer Reshape1 (Reshape): 2 channels x 4 rows x 4 columns in a shape that does not keep each image apart",
                convolved()
                    .integers("shape", &[-1, 64])
                    .node("Reshape", &["_", "shape"], vec![])
                    .read()
                    .unwrap_err(),
            ),
            (
                "layer Add2: a sum of two branches, of which none is a shortcut",
                convolved()
                    .constant("v", &[2, 1, 3, 3])
                    .node("Conv", &["x", "v"], vec![ints("pads", &[1; 4])])
                    .node("Add", &["Conv0", "_"], vec![])
                    .read_after_dense(32)
                    .unwrap_err(),
            ),
            (
                "input x: the size of the images is not stated; export with a fixed height and width, only the batch may \
                 vary",
                Builder::new(17, FLOAT, &[0, 1, 0, 0]).then("Relu").read().unwrap_err(),
            ),
            (
                "operators of version 6; 7 to 21 are supported",
                Builder::new(6, FLOAT, &[0, 1, 4, 4]).read().unwrap_err(),
            ),
            ("a graph without layers", Builder::images().read().unwrap_err()),
            (
                "a graph with 2 inputs instead of one",
                {
                    let mut builder = convolved();
                    builder.graph.input.push(ValueInfo::default());
                    builder.read().unwrap_err()
                },
            ),
        ]
        .into();
        for (message, error) in cases {
            assert_eq!(error, message);
        }
    }

    #[test]
    fn constants_may_be_listed_as_inputs() {
        let mut builder = Builder::images().convolution("w", [2, 1, 3, 3]);
        builder.graph.input.push(ValueInfo {
            name: "w".into(),
            kind: None,
        });
        let architecture = builder.read_after_dense(32).unwrap();
        assert_eq!(architecture.network.initialization, Initialization::Pytorch);
    }

    #[test]
    fn hostile_graphs_take_little_time_and_memory() {
        // Each node would double the memory of an evaluation that stores sums.
        let mut builder = Builder::images().integers("s", &[1; 60]);
        for _ in 0..40 {
            let last = builder.last.clone();
            let inputs = if last == "x" {
                ["s", "s"]
            } else {
                [last.as_str(), last.as_str()]
            };
            builder = builder.node("Concat", &inputs, vec![int("axis", 0)]);
        }
        assert_eq!(
            builder.read().unwrap_err(),
            "layer Concat0 (Concat): a shape of more than 64 numbers"
        );
        let mut builder = Builder::images();
        for _ in 0..20_001 {
            builder = builder.then("Relu");
        }
        assert_eq!(
            builder.read().unwrap_err(),
            "a graph of more than 20000 nodes"
        );
        // A constant that is transposed again and again.
        let mut builder = Builder::images().constant("w", &[512, 512]);
        builder.last = "w".into();
        for _ in 0..100 {
            builder = builder.then("Transpose");
        }
        let error = builder.read().unwrap_err();
        assert!(
            error.ends_with("the tensors are more than twice as large as the file"),
            "{error}"
        );
    }

    #[test]
    fn weights_in_another_file_are_refused() {
        let mut builder = Builder::images().constant("w", &[1]);
        builder.graph.initializer[0]
            .external_data
            .push(StringStringEntry {
                key: "location".into(),
                value: "w.data".into(),
            });
        let error = read(&builder.bytes()).map(drop).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "tensor w: its weights are in another file, \"w.data\", which is not opened;"
            ),
            "{error}"
        );
    }
}
