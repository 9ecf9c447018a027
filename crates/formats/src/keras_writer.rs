//! Writer of Keras's files: a functional model of Keras 3, or its weights.
//!
//! Weights are in channels-last order, in groups named after the class and number of their layer, as Keras names
//! them: `layers/conv2d_1/vars/0`.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use data::PerChannel;
use hdf5_writer::{ByteOrder, DatasetBuilder, Datatype, Hdf5Builder, WriteOptions};
use model::{Activation, Layer, Operation, Pool, PoolKind};
use serde_json::{Map, Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::FormatError;
use crate::export::{Export, ExportError};
use crate::keras::{CONFIG_ENTRY, ENTRY, METADATA_ENTRY};
use crate::layout::Layout;
use crate::tensor::{Dtype, Tensor};

/// The first version of Keras with this format.
const KERAS_VERSION: &str = "3.0.0";

/// Returns a `.keras` archive for `keras.saving.load_model` of Keras 3.
///
/// The input is `images`, single precision `[N, height, width, channels]`, or with normalization `pixels`, of the same
/// type. The output is `logits`, `[N, classes]`.
///
/// # Errors
/// Returns an error if the description is invalid, a weight is missing, or Keras lacks a layer.
pub fn to_keras(export: &Export<'_>) -> Result<Vec<u8>, ExportError> {
    let model = Model::new(export)?;
    let weights = hdf5(model.weights)?;
    let config = functional(export.name, model.layers, &model.value.name);
    let mut metadata = Map::from_iter([("keras_version".into(), KERAS_VERSION.into())]);
    for (key, value) in export.metadata {
        metadata.insert((*key).into(), value.as_str().into());
    }
    Ok(zip([
        (METADATA_ENTRY, Value::from(metadata).to_string().as_bytes()),
        (CONFIG_ENTRY, config.to_string().as_bytes()),
        (ENTRY, &weights),
    ])?)
}

/// Returns a `.weights.h5` file for `load_weights` of the model of [`to_keras`], or of a sequential model with the same
/// convolutions and dense layers.
///
/// # Errors
/// Returns the errors of [`to_keras`].
pub fn to_keras_weights(export: &Export<'_>) -> Result<Vec<u8>, ExportError> {
    Ok(hdf5(Model::new(export)?.weights)?)
}

fn zip(entries: [(&str, &[u8]); 3]) -> Result<Vec<u8>, FormatError> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in entries {
        archive.start_file(name, options)?;
        archive.write_all(content)?;
    }
    Ok(archive.finish()?.into_inner())
}

fn hdf5(weights: Vec<DatasetBuilder>) -> Result<Vec<u8>, FormatError> {
    let file = weights
        .into_iter()
        .fold(Hdf5Builder::new(), Hdf5Builder::dataset);
    Ok(file.into_plan()?.encode(WriteOptions::default())?)
}

/// Returns the configuration of a functional model.
fn functional(name: &str, layers: Vec<Value>, output: &str) -> Value {
    let input = layers.first().and_then(|layer| layer.get("name")).cloned();
    json!({
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {
            "name": name,
            "trainable": true,
            "layers": layers,
            "input_layers": [[input, 0, 0]],
            "output_layers": [[output, 0, 0]],
        },
    })
}

/// The layers of a model, and their weights.
struct Model {
    layers: Vec<Value>,
    weights: Vec<DatasetBuilder>,
    /// Shape `[channels, height, width]` of flattened feature maps, for the first dense layer.
    flattened: Option<[usize; 3]>,
    /// Number of layers of each class.
    counts: BTreeMap<&'static str, usize>,
    /// The output of the last layer.
    value: Output,
}

/// The output of a layer.
#[derive(Clone, Debug)]
struct Output {
    /// Name of the layer.
    name: String,
    /// Shape for one image.
    shape: Vec<usize>,
    /// Whether no number is negative.
    is_rectified: bool,
}

impl Model {
    fn new(export: &Export<'_>) -> Result<Self, ExportError> {
        let network = export.network;
        let [height, width] = network.input;
        let shape = vec![height, width, network.channels];
        let name = match export.normalization {
            None => "images",
            Some(_) => "pixels",
        };
        let config = json!({ "batch_shape": batch(&shape), "dtype": "float32" });
        let mut model = Self {
            layers: vec![layer("InputLayer", name, config, &[])],
            weights: Vec::new(),
            flattened: None,
            counts: BTreeMap::new(),
            value: Output {
                name: name.into(),
                shape,
                is_rectified: false,
            },
        };
        if let Some(scaling) = export.normalization {
            let (factor, shift) = scaling.factor_and_shift();
            let config = json!({
                "scale": numbers(factor),
                "offset": numbers(shift.zip(shift, |shift, _| -shift)),
            });
            model.push("Rescaling", "normalization", config);
        }
        // The outputs before each layer of the table.
        let mut inputs: Vec<Output> = Vec::new();
        for (number, layer) in network.folded().layers()?.iter().enumerate() {
            inputs.push(model.value.clone());
            match layer.operation {
                Operation::Convolution {
                    kernel,
                    stride,
                    padding,
                    then,
                } => {
                    let sizes = [kernel, stride, padding];
                    model.convolution(export, layer, sizes, then.activation)?;
                }
                Operation::Pooling { pool, then } => model.pooling(layer, pool, then.activation)?,
                Operation::Projection { start, stride, .. } => {
                    model.value = inputs[start].clone();
                    model.convolution(export, layer, [1, stride, 0], Activation::None)?;
                }
                Operation::Addition {
                    start,
                    projection,
                    activation,
                } => {
                    // Keras numbers the weights of layers of equal distance to the output in the order of the inputs
                    // of their sum: the blocks come before the projection.
                    let shortcut = match projection {
                        true => {
                            // The input of the projection's row.
                            let blocks = inputs[number - 1].clone();
                            std::mem::replace(&mut model.value, blocks)
                        }
                        false => inputs[start].clone(),
                    };
                    model.add(layer, shortcut, activation);
                }
                Operation::Flatten => {
                    if let [height, width, channels] = *model.value.shape.as_slice() {
                        model.flattened = Some([channels, height, width]);
                    }
                    model.push("Flatten", &layer.name, json!({}));
                }
                Operation::Dense { activation } => {
                    model.dense(export, layer, &layer.name, activation)?;
                }
                Operation::Logits { .. } => {
                    model.dense(export, layer, "logits", Activation::None)?;
                }
                Operation::Dropout(rate) => {
                    model.push("Dropout", &layer.name, json!({ "rate": rate }));
                }
            }
            model.value.shape = match layer.output.as_slice() {
                &[channels, height, width] => vec![height, width, channels],
                features => features.to_vec(),
            };
        }
        Ok(model)
    }

    /// Adds a convolution of this kernel, stride and padding.
    fn convolution(
        &mut self,
        export: &Export<'_>,
        layer: &Layer,
        [kernel, stride, padding]: [usize; 3],
        activation: Activation,
    ) -> Result<(), ExportError> {
        // Keras pads by as much as keeps the size of the image, or not at all.
        let is_same = stride == 1 && 2 * padding + 1 == kernel;
        if padding > 0 && !is_same {
            self.zeros(layer, padding);
        }
        let config = json!({
            "filters": layer.output.first(),
            "kernel_size": [kernel, kernel],
            "strides": [stride, stride],
            "padding": if is_same { "same" } else { "valid" },
            "data_format": "channels_last",
            "activation": activation_name(activation),
            "use_bias": layer.bias,
        });
        self.weights(export, layer, "conv2d", None)?;
        self.push("Conv2D", &layer.name, config);
        self.value.is_rectified = activation == Activation::Relu;
        Ok(())
    }

    fn dense(
        &mut self,
        export: &Export<'_>,
        layer: &Layer,
        name: &str,
        activation: Activation,
    ) -> Result<(), ExportError> {
        let config = json!({
            "units": layer.output.first(),
            "activation": activation_name(activation),
            "use_bias": layer.bias,
        });
        let maps = self.flattened.take();
        self.weights(export, layer, "dense", maps)?;
        self.push("Dense", name, config);
        Ok(())
    }

    fn pooling(
        &mut self,
        layer: &Layer,
        pool: Pool,
        activation: Activation,
    ) -> Result<(), ExportError> {
        let name = layer.name.as_str();
        match pool {
            Pool::None => {}
            Pool::Global(kind) => {
                let class = match kind {
                    PoolKind::Max => "GlobalMaxPooling2D",
                    PoolKind::Average => "GlobalAveragePooling2D",
                };
                let config = json!({ "data_format": "channels_last", "keepdims": true });
                self.push(class, name, config);
            }
            Pool::Windows {
                kind,
                size,
                stride,
                padding,
            } => {
                let class = match kind {
                    PoolKind::Max => "MaxPooling2D",
                    PoolKind::Average => "AveragePooling2D",
                };
                if padding > 0 {
                    // The maximum with zeros is that without them after a ReLU, and equal after the next one.
                    let is_exact = kind == PoolKind::Average
                        || self.value.is_rectified
                        || activation == Activation::Relu;
                    if !is_exact {
                        return Err(ExportError::MaxPoolPadding(name.into()));
                    }
                    self.zeros(layer, padding);
                }
                let config = json!({
                    "pool_size": [size, size],
                    "strides": [stride, stride],
                    "padding": "valid",
                    "data_format": "channels_last",
                });
                self.push(class, name, config);
            }
        }
        self.activation(layer, activation);
        Ok(())
    }

    /// Adds the sum of the last output and another one.
    fn add(&mut self, layer: &Layer, other: Output, activation: Activation) {
        self.value.is_rectified &= other.is_rectified;
        let inputs = [self.value.clone(), other];
        self.layers
            .push(self::layer("Add", &layer.name, json!({}), &inputs));
        self.value.name = layer.name.clone();
        self.activation(layer, activation);
    }

    fn activation(&mut self, layer: &Layer, activation: Activation) {
        if activation != Activation::None {
            let config = json!({ "activation": activation_name(activation) });
            self.push("Activation", &format!("{}.activation", layer.name), config);
            self.value.is_rectified = activation == Activation::Relu;
        }
    }

    /// Adds this many zeros on each side of the input of a layer.
    fn zeros(&mut self, layer: &Layer, padding: usize) {
        let config = json!({
            "padding": [[padding, padding], [padding, padding]],
            "data_format": "channels_last",
        });
        self.push("ZeroPadding2D", &format!("{}.padding", layer.name), config);
        if let [height, width, _] = self.value.shape.as_mut_slice() {
            *height += 2 * padding;
            *width += 2 * padding;
        }
    }

    /// Appends a layer to the last output. The caller updates the shape and sign of the output if the layer changes them.
    fn push(&mut self, class: &str, name: &str, config: Value) {
        let input = std::slice::from_ref(&self.value);
        self.layers.push(layer(class, name, config, input));
        self.value.name = name.into();
    }

    /// Adds the weights of a layer. `maps` is the shape of the feature maps that a dense layer flattens.
    fn weights(
        &mut self,
        export: &Export<'_>,
        layer: &Layer,
        class: &'static str,
        maps: Option<[usize; 3]>,
    ) -> Result<(), ExportError> {
        let count = self.counts.entry(class).or_default();
        let folder = match *count {
            0 => format!("layers/{class}"),
            number => format!("layers/{class}_{number}"),
        };
        *count += 1;
        for (index, (name, tensor)) in export.tensors(layer)?.into_iter().enumerate() {
            let path = format!("{folder}/vars/{index}");
            self.weights.push(dataset(path, &name, tensor, maps)?);
        }
        Ok(())
    }
}

/// Returns a weight in Keras's layout.
fn dataset(
    path: String,
    name: &str,
    tensor: &Tensor,
    maps: Option<[usize; 3]>,
) -> Result<DatasetBuilder, FormatError> {
    if tensor.dtype != Dtype::F32 {
        return Err(format!("{name}: {}, expected single precision", tensor.dtype).into());
    }
    let datatype = Datatype::FloatingPoint {
        size: 4,
        byte_order: ByteOrder::LittleEndian,
    };
    let shape = tensor.shape.as_slice();
    let (numbers, _) = tensor.bytes.as_chunks::<4>();
    let numbers = Layout::Keras.values_from_pytorch(numbers, shape, maps);
    let shape = Layout::Keras.shape_from_pytorch(shape);
    let sizes = shape.iter().map(|&size| u64::try_from(size));
    let sizes = sizes.collect::<Result<Vec<u64>, _>>()?;
    Ok(DatasetBuilder::new(path, datatype, sizes).raw_data(numbers.into_flattened()))
}

/// Returns the configuration of a layer that is applied to these outputs.
fn layer(class: &str, name: &str, mut config: Value, inputs: &[Output]) -> Value {
    config["name"] = name.into();
    let tensor = |output: &Output| {
        json!({
            "class_name": "__keras_tensor__",
            "config": {
                "shape": batch(&output.shape),
                "dtype": "float32",
                "keras_history": [output.name, 0, 0],
            },
        })
    };
    let tensors = Vec::from_iter(inputs.iter().map(tensor));
    let arguments = match tensors.as_slice() {
        [] => json!([]),
        [input] => json!([{ "args": [input], "kwargs": {} }]),
        inputs => json!([{ "args": [inputs], "kwargs": {} }]),
    };
    json!({
        "module": "keras.layers",
        "class_name": class,
        "config": config,
        "registered_name": null,
        "name": name,
        "inbound_nodes": arguments,
    })
}

/// Returns the shape of a batch of any size.
fn batch(shape: &[usize]) -> Value {
    let sizes = shape.iter().map(|&size| Some(size));
    json!(Vec::from_iter([None].into_iter().chain(sizes)))
}

fn numbers(numbers: PerChannel) -> Value {
    match numbers {
        PerChannel::Same(number) => json!(number),
        PerChannel::Each(numbers) => json!(numbers),
    }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "linear",
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::Silu => "silu",
        Activation::Tanh => "tanh",
    }
}

#[cfg(test)]
mod tests {
    use data::Scaling;
    use model::{BlockConfig, ConvNetConfig, Initialization};

    use super::*;
    use crate::export::samples::{self, Sample, block};
    use crate::keras;

    #[test]
    fn exported_networks_are_read_again() {
        let sample = Sample::new(ConvNetConfig {
            initialization: Initialization::Keras,
            ..samples::residual()
        });
        for normalization in [None, Some(Scaling::same(0.25, 0.5))] {
            let bytes = to_keras(&sample.export(normalization)).unwrap();
            let (_, architecture) = keras::read_archive(&bytes).unwrap();
            let architecture = architecture.unwrap().unwrap();
            assert_eq!(architecture.network, sample.network);
            assert!(architecture.tensors == sample.weights);
            // Of the layer, or of the metadata.
            let scaling = architecture.scaling.unwrap();
            assert!(
                (scaling.mean.of(0) - 0.25).abs() < 1e-9 && (scaling.std.of(1) - 0.5).abs() < 1e-9
            );
        }
        let bytes = to_keras_weights(&sample.export(None)).unwrap();
        let (tensors, architecture) = keras::read(bytes).unwrap();
        assert!(architecture.is_none());
        let first = &tensors["layers/conv2d/vars/0"];
        assert_eq!(first.shape, [3, 3, 3, 4]);
        assert!(tensors.contains_key("layers/dense_2/vars/0"));
    }

    #[test]
    fn padded_max_pools_are_exact_or_refused() {
        let pool = Pool::Windows {
            kind: PoolKind::Max,
            size: 3,
            stride: 2,
            padding: 1,
        };
        let network = |activation| ConvNetConfig {
            channels: 3,
            input: [16, 16],
            blocks: vec![
                BlockConfig {
                    pool_first: false,
                    ..block(4, activation, pool)
                }
                .into(),
            ],
            ..ConvNetConfig::default()
        };
        let exported = |activation| to_keras(&Sample::new(network(activation)).export(None));
        let bytes = exported(Activation::Relu).unwrap();
        let (_, architecture) = keras::read_archive(&bytes).unwrap();
        let layers = architecture.unwrap().unwrap().network.layers().unwrap();
        assert_eq!(layers, network(Activation::Relu).layers().unwrap());
        assert_eq!(
            exported(Activation::Tanh).unwrap_err().to_string(),
            "pool1: Keras cannot pad the input of a max-pool if values are negative: choose another format"
        );
    }
}
