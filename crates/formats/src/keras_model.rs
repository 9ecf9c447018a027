//! Reader of the architecture in Keras's files: `config.json` of a `.keras` archive, or the attribute `model_config` of
//! a whole model in HDF5, of Keras 1, 2 and 3.

use std::collections::BTreeMap;

use data::PerChannel;
use model::{Activation, Initialization, PoolKind};
use serde_json::{Map, Value};

use crate::batch_norm::{KERAS_EPSILON, Normalization};
use crate::chain::{Chain, ChainOperation, ChannelOrder, Padding, Sides};
use crate::layout::Layout;
use crate::steps::{self, Step, StepKind};
use crate::tensor::{Tensor, Tensors};

/// Largest size of images, kernels, strides and padding.
const MAX_SIZE: usize = 1 << 16;
/// Layers without an effect on the output of a trained network.
const WITHOUT_EFFECT: [&str; 8] = [
    "InputLayer",
    "GaussianNoise",
    "GaussianDropout",
    "ActivityRegularization",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
];

/// Where a file keeps the tensors of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// By the layer's class and number: `layers/conv2d_1/vars/0`.
    ByClass,
    /// By the layer's name: `model_weights/conv1/conv1/kernel`.
    ByName,
}

/// Translates the architecture of a model in Keras's JSON.
///
/// # Errors
/// Returns a message that names the layer or property that is not supported.
pub(crate) fn chain(json: &str, tensors: &Tensors, storage: Storage) -> Result<Chain, String> {
    let model: Value =
        serde_json::from_str(json).map_err(|error| format!("model configuration: {error}"))?;
    let Graph { layers, output } = graph(&model)?;
    let sizes = input_shape(&model, &layers);
    let sizes = sizes.ok_or("the model does not state the shape of its images")?;
    let mut reader = Reader {
        tensors,
        storage,
        input: sizes.clone(),
        counts: BTreeMap::new(),
        order: None,
        steps: Vec::new(),
        at: 0,
    };
    reader.add_step("input", StepKind::Image { sizes });
    // The last step of each layer.
    let mut steps = BTreeMap::new();
    for layer in &layers {
        let name = layer.name;
        let failed = |reason| format!("layer {name}: {reason}");
        let inputs = layer.inputs.iter().map(|input| steps.get(input).copied());
        let inputs: Option<Vec<usize>> = inputs.collect();
        let inputs = inputs.ok_or_else(|| failed("an input that is not a layer before".into()))?;
        reader.read_at(layer, &inputs).map_err(failed)?;
        if steps.insert(name, reader.at).is_some() {
            return Err(failed("another layer has this name".into()));
        }
    }
    let output = steps.get(output).copied();
    let output = output.ok_or("the model does not state its output")?;
    let order = reader.order.unwrap_or(ChannelOrder::Last);
    let input = match (reader.input.as_slice(), order) {
        (&[height, width], _) => [1, height, width],
        (&[height, width, channels], ChannelOrder::Last)
        | (&[channels, height, width], ChannelOrder::First) => [channels, height, width],
        (&[pixels], _) if pixels == pixels.isqrt().pow(2) => [1, pixels.isqrt(), pixels.isqrt()],
        (shape, _) => return Err(format!("images of shape {shape:?}")),
    };
    Ok(Chain {
        input,
        layers: steps::layers(reader.steps, output)?,
        initialization: Initialization::Keras,
    })
}

/// A layer of the configuration.
#[derive(Clone, Debug)]
struct LayerConfig<'a> {
    class: &'a str,
    name: &'a str,
    config: &'a Map<String, Value>,
    /// Names of the layers that its inputs come from; empty for an `InputLayer`.
    inputs: Vec<&'a str>,
}

/// The layers of a model, in order.
#[derive(Debug)]
struct Graph<'a> {
    layers: Vec<LayerConfig<'a>>,
    /// Name of the output layer.
    output: &'a str,
}

impl<'a> LayerConfig<'a> {
    fn new(layer: &'a Value) -> Option<Self> {
        let config = layer.get("config")?.as_object()?;
        let name = config.get("name").or_else(|| layer.get("name"));
        Some(Self {
            class: layer.get("class_name")?.as_str()?,
            name: name.and_then(Value::as_str).unwrap_or("without a name"),
            config,
            inputs: inbound_names(layer),
        })
    }

    /// Returns the first of the keys that the layer has: versions of Keras name properties differently.
    fn get(&self, keys: &[&str]) -> Option<&'a Value> {
        let mut values = keys.iter().filter_map(|key| self.config.get(*key));
        values.find(|value| !value.is_null())
    }

    fn text(&self, keys: &[&str]) -> Option<&'a str> {
        self.get(keys)?.as_str()
    }

    fn number(&self, keys: &[&str]) -> Option<f64> {
        self.get(keys)?.as_f64()
    }

    /// Returns a size that is the same in both dimensions.
    fn size(&self, keys: &[&str]) -> Result<Option<usize>, String> {
        let Some(value) = self.get(keys) else {
            return Ok(None);
        };
        let sizes = match value {
            Value::Array(sizes) => sizes.iter().map(whole).collect(),
            size => whole(size).map(|size| vec![size]),
        };
        match sizes.as_deref() {
            Some(&[size]) => Ok(Some(size)),
            Some(&[height, width]) if height == width => Ok(Some(height)),
            _ => Err(format!(
                "{} {value}; only equal sizes are supported",
                keys[0]
            )),
        }
    }

    fn padding(&self) -> Result<Padding, String> {
        match self.text(&["padding", "border_mode"]).unwrap_or("valid") {
            "valid" => Ok(Padding::Each(0)),
            "same" => Ok(Padding::Same),
            other => Err(format!("padding {other:?}")),
        }
    }

    fn order(&self) -> Result<ChannelOrder, String> {
        match self
            .text(&["data_format", "dim_ordering"])
            .unwrap_or("channels_last")
        {
            "channels_last" | "tf" | "default" => Ok(ChannelOrder::Last),
            "channels_first" | "th" => Ok(ChannelOrder::First),
            other => Err(format!("data format {other:?}")),
        }
    }
}

/// Returns a size; `None` if it is not a whole number or above [`MAX_SIZE`].
fn whole(value: &Value) -> Option<usize> {
    let value = value.as_u64().and_then(|value| usize::try_from(value).ok());
    value.filter(|&value| value <= MAX_SIZE)
}

/// Returns the layers of a sequential or functional model.
fn graph(model: &Value) -> Result<Graph<'_>, String> {
    let class = model
        .get("class_name")
        .and_then(Value::as_str)
        .unwrap_or("");
    let config = model
        .get("config")
        .ok_or("the model has no configuration")?;
    // Keras 1 and early versions of Keras 2 have the list itself.
    let layers = config.get("layers").unwrap_or(config).as_array();
    let layers =
        layers.ok_or_else(|| format!("a model of class {class:?} does not list its layers"))?;
    let configs: Option<Vec<_>> = layers.iter().map(LayerConfig::new).collect();
    let mut layers = configs.ok_or("a layer without class or configuration")?;
    let last = layers.last().ok_or("a model without layers")?.name;
    match class {
        "Sequential" => {
            let mut before = None;
            for layer in &mut layers {
                layer.inputs = before.into_iter().collect();
                before = Some(layer.name);
            }
            Ok(Graph {
                layers,
                output: last,
            })
        }
        "Functional" | "Model" => {
            let mut images = layers.iter().filter(|layer| layer.inputs.is_empty());
            if let Some(second) = images.nth(1) {
                return Err(format!(
                    "layer {}: a model of several inputs is not supported",
                    second.name
                ));
            }
            let mut outputs = Vec::new();
            if let Some(layers) = config.get("output_layers") {
                collect_inbound(layers, &mut outputs);
            }
            match *outputs.as_slice() {
                [] => Ok(Graph {
                    layers,
                    output: last,
                }),
                [output] => Ok(Graph { layers, output }),
                [..] => Err(format!(
                    "a model of several outputs is not supported: {}",
                    outputs.join(", ")
                )),
            }
        }
        other => Err(format!(
            "a model of class {other:?} has no list of layers; save its weights, and describe it with --config"
        )),
    }
}

/// Returns the names of the input layers of a layer.
fn inbound_names(layer: &Value) -> Vec<&str> {
    let mut names = Vec::new();
    if let Some(nodes) = layer.get("inbound_nodes").and_then(Value::as_array) {
        nodes
            .iter()
            .for_each(|node| collect_inbound(node, &mut names));
    }
    names
}

/// Collects the names in a node: `["name", 0, 0]` within lists, or `{"keras_history": ["name", 0, 0]}` in Keras 3.
fn collect_inbound<'a>(node: &'a Value, names: &mut Vec<&'a str>) {
    match node {
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::Number(_), ..] => names.push(name),
            items => items.iter().for_each(|item| collect_inbound(item, names)),
        },
        Value::Object(fields) => fields
            .values()
            .for_each(|field| collect_inbound(field, names)),
        _ => {}
    }
}

/// Returns the shape of an image as the file states it.
fn input_shape(model: &Value, layers: &[LayerConfig<'_>]) -> Option<Vec<usize>> {
    let keys = ["batch_shape", "batch_input_shape"];
    let stated = layers.iter().find_map(|layer| layer.get(&keys));
    let built = || model.get("config")?.get("build_input_shape");
    let shape = stated.or_else(built)?.as_array()?;
    // The first dimension is the batch.
    shape.get(1..)?.iter().map(whole).collect()
}

fn shape(value: &Value) -> Option<Vec<usize>> {
    value.as_array()?.iter().map(whole).collect()
}

/// The translation of layers.
struct Reader<'a> {
    tensors: &'a Tensors,
    storage: Storage,
    /// Shape of an image, in the order of its dimensions in the file.
    input: Vec<usize>,
    /// Number of layers of each class so far.
    counts: BTreeMap<&'a str, usize>,
    /// Order of the dimensions of images.
    order: Option<ChannelOrder>,
    steps: Vec<Step>,
    /// The step that the next one is applied to.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a layer that is applied to the outputs of these steps.
    fn read_at(&mut self, layer: &LayerConfig<'a>, inputs: &[usize]) -> Result<(), String> {
        match *inputs {
            [] => self.at = 0,
            [input] => self.at = input,
            [first, second] if layer.class == "Add" => {
                self.at = first;
                self.add_step(layer.name, StepKind::Add { other: second });
                return Ok(());
            }
            [..] => {
                return Err(format!(
                    "{} of {} inputs is not supported",
                    layer.class,
                    inputs.len()
                ));
            }
        }
        self.read(layer)
    }

    fn read(&mut self, layer: &LayerConfig<'a>) -> Result<(), String> {
        let number = self.counts.entry(layer.class).or_default();
        let number = std::mem::replace(number, *number + 1);
        match layer.class {
            class if WITHOUT_EFFECT.contains(&class) => {}
            "Reshape" => {
                if self.operations().any(|operation| !is_rescaling(operation)) {
                    return Err("reshaping after the first layer".into());
                }
                let shape = layer.get(&["target_shape", "dims"]).and_then(shape);
                self.input = shape.ok_or("a shape that is not stated")?;
            }
            "Rescaling" => {
                let scale = layer.get(&["scale"]).and_then(per_channel);
                let scale = scale.ok_or("a scale that is not one number, or three")?;
                let offset = match layer.get(&["offset"]) {
                    None => Some(PerChannel::Same(0.0)),
                    Some(offset) => per_channel(offset),
                };
                let offset = offset.ok_or("an offset that is not one number, or three")?;
                self.push(layer, ChainOperation::Rescale { scale, offset });
            }
            "Normalization" => {
                let statistic = |key: &str| per_channel(layer.get(&[key])?);
                let (mean, variance) = statistic("mean").zip(statistic("variance")).ok_or(
                    "mean and variance that the configuration does not state as one number each, or three",
                )?;
                let scale = variance.zip(variance, |variance, _| 1.0 / variance.sqrt().max(1e-7));
                let offset = mean.zip(scale, |mean, scale| -mean * scale);
                self.push(layer, ChainOperation::Rescale { scale, offset });
            }
            "ZeroPadding2D" => {
                let sides = layer
                    .get(&["padding"])
                    .map_or(Some([1; 4]), padding_sides)
                    .ok_or("padding that is not a number of pixels")?;
                self.push(layer, ChainOperation::Pad(sides));
            }
            "Conv2D" | "Convolution2D" => self.convolution(layer, number)?,
            "Dense" => {
                let [weight, bias] = self.weight_and_bias(layer, number, 2)?;
                let weight = weight.ok_or("no weights in the file")?;
                self.push(layer, ChainOperation::Dense { weight, bias });
                self.activation(layer)?;
            }
            "BatchNormalization" => self.batch_normalization(layer, number)?,
            "MaxPooling2D" | "MaxPool2D" => self.pool(layer, PoolKind::Max)?,
            "AveragePooling2D" | "AvgPool2D" => self.pool(layer, PoolKind::Average)?,
            "GlobalMaxPooling2D" | "GlobalMaxPool2D" => {
                self.push(layer, ChainOperation::GlobalPool(PoolKind::Max));
            }
            "GlobalAveragePooling2D" | "GlobalAvgPool2D" => {
                self.push(layer, ChainOperation::GlobalPool(PoolKind::Average));
            }
            "Activation" => self.activation(layer)?,
            "ReLU" => {
                let has_default = |key| {
                    layer
                        .get(&[key])
                        .is_none_or(|value| single(value) == Some(0.0))
                };
                let is_relu = ["negative_slope", "threshold"].into_iter().all(has_default);
                if !is_relu || layer.get(&["max_value"]).is_some() {
                    return Err("a ReLU with a slope, a threshold or a maximum".into());
                }
                self.push(layer, ChainOperation::Activate(Activation::Relu));
            }
            "Softmax" => self.push(layer, ChainOperation::Softmax),
            "Dropout" | "SpatialDropout2D" => {
                let probability = layer.number(&["rate", "p"]).unwrap_or(0.0);
                self.push(layer, ChainOperation::Dropout(probability));
            }
            "Flatten" => {
                let order = match (layer.order()?, self.order) {
                    // Flatten moves the channels of such images to the end.
                    (ChannelOrder::First, Some(ChannelOrder::First)) => ChannelOrder::Last,
                    (ChannelOrder::First, _) => {
                        return Err("channels first after channels last".into());
                    }
                    (ChannelOrder::Last, order) => order.unwrap_or(ChannelOrder::Last),
                };
                self.push(layer, ChainOperation::Flatten { order });
            }
            class => return Err(format!("{class} is not supported")),
        }
        Ok(())
    }

    fn push(&mut self, layer: &LayerConfig<'_>, operation: ChainOperation) {
        self.add_step(layer.name, StepKind::Layer(operation));
    }

    fn add_step(&mut self, name: &str, kind: StepKind) {
        self.steps.push(Step {
            name: name.to_owned(),
            input: self.at,
            kind,
        });
        self.at = self.steps.len() - 1;
    }

    /// Returns the operations so far.
    fn operations(&self) -> impl Iterator<Item = &ChainOperation> {
        self.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Layer(operation) => Some(operation),
            StepKind::Image { .. } | StepKind::Add { .. } => None,
        })
    }

    /// Checks that a layer has the order of dimensions of the layers before.
    fn check_order(&mut self, layer: &LayerConfig<'_>) -> Result<(), String> {
        let order = layer.order()?;
        match self.order.replace(order) {
            Some(before) if before != order => {
                Err("another data format than the layers before".into())
            }
            _ => Ok(()),
        }
    }

    fn convolution(&mut self, layer: &LayerConfig<'a>, number: usize) -> Result<(), String> {
        self.check_order(layer)?;
        if layer.text(&["dim_ordering"]) == Some("th") {
            return Err("filters of Keras 1 in Theano's order, which may be mirrored".into());
        }
        let stride = layer.size(&["strides", "subsample"])?.unwrap_or(1);
        let padding = layer.padding()?;
        let dilation = layer.size(&["dilation_rate"])?.unwrap_or(1);
        let groups = layer.size(&["groups"])?.unwrap_or(1);
        let [weight, bias] = self.weight_and_bias(layer, number, 4)?;
        let convolution = ChainOperation::Convolution {
            weight: weight.ok_or("no weights in the file")?,
            bias,
            stride,
            padding,
            dilation,
            groups,
        };
        self.push(layer, convolution);
        self.activation(layer)
    }

    fn pool(&mut self, layer: &LayerConfig<'_>, kind: PoolKind) -> Result<(), String> {
        self.check_order(layer)?;
        let size = layer.size(&["pool_size"])?.unwrap_or(2);
        let pool = ChainOperation::Pool {
            kind,
            size,
            stride: layer.size(&["strides"])?.unwrap_or(size),
            padding: layer.padding()?,
        };
        self.push(layer, pool);
        Ok(())
    }

    /// Adds the activation that a layer names.
    fn activation(&mut self, layer: &LayerConfig<'a>) -> Result<(), String> {
        let activation = match layer.get(&["activation"]) {
            None => return Ok(()),
            Some(Value::String(name)) => name.as_str(),
            // A layer, with settings of its own.
            Some(value) => {
                let layer = LayerConfig::new(value);
                let layer = layer.filter(|layer| ["ReLU", "Softmax"].contains(&layer.class));
                return self.read(&layer.ok_or("an activation of its own is not supported")?);
            }
        };
        let activation = match activation {
            "linear" => return Ok(()),
            "softmax" | "log_softmax" => {
                self.push(layer, ChainOperation::Softmax);
                return Ok(());
            }
            "sigmoid" => {
                self.push(layer, ChainOperation::Sigmoid);
                return Ok(());
            }
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            other => return Err(format!("activation {other} is not supported")),
        };
        self.push(layer, ChainOperation::Activate(activation));
        Ok(())
    }

    /// Checks that batch normalization normalizes the channels.
    fn check_axis(&self, layer: &LayerConfig<'_>) -> Result<(), String> {
        let is_flat = self.operations().any(|operation| {
            matches!(
                operation,
                ChainOperation::Flatten { .. }
                    | ChainOperation::Dense { .. }
                    | ChainOperation::GlobalPool(_)
            )
        });
        let expected: &[f64] = match (is_flat, self.order) {
            (true, _) => &[-1.0, 1.0],
            (false, Some(ChannelOrder::First)) => &[1.0],
            (false, _) => &[-1.0, 3.0],
        };
        let axis = layer.get(&["axis"]).map_or(Some(-1.0), single);
        match axis {
            Some(axis) if expected.contains(&axis) => Ok(()),
            _ => Err("batch normalization over an axis that is not the channels".into()),
        }
    }

    fn batch_normalization(
        &mut self,
        layer: &LayerConfig<'a>,
        number: usize,
    ) -> Result<(), String> {
        self.check_axis(layer)?;
        let has = |key| layer.get(&[key]).and_then(Value::as_bool).unwrap_or(true);
        let mut tensors = self.layer_tensors(layer, number)?.into_iter();
        let mut next = |name: &str| {
            let tensor = tensors.next();
            let values = tensor.and_then(Tensor::values);
            values.ok_or_else(|| format!("no {name} in the file"))
        };
        let scale = has("scale").then(|| next("scale")).transpose()?;
        let center = has("center").then(|| next("offset")).transpose()?;
        let (mean, variance) = (next("mean")?, next("variance")?);
        let epsilon = layer.number(&["epsilon"]).unwrap_or(KERAS_EPSILON);
        let normalization = Normalization::new([&mean, &variance], [scale, center], epsilon)
            .ok_or("statistics of different lengths")?;
        self.push(layer, ChainOperation::Normalize(normalization));
        Ok(())
    }

    /// Returns weight and bias of a layer, in PyTorch's layout.
    fn weight_and_bias(
        &self,
        layer: &LayerConfig<'_>,
        number: usize,
        rank: usize,
    ) -> Result<[Option<Tensor>; 2], String> {
        let mut tensors = self.layer_tensors(layer, number)?.into_iter();
        let (weight, bias) = (tensors.next(), tensors.next());
        let weight = weight.map(|weight| {
            let values = weight.values().ok_or("weights that are not numbers")?;
            let shape = Layout::Keras.shape_to_pytorch(&weight.shape);
            match shape.len() == rank {
                true => {
                    let values = Layout::Keras.values_to_pytorch(values, &shape, None);
                    Ok(Tensor::from_values(shape, &values))
                }
                false => Err(format!("a weight of shape {:?}", weight.shape)),
            }
        });
        Ok([weight.transpose()?, bias.cloned()])
    }

    /// Returns the tensors of a layer in Keras's order: kernel, bias; or scale, offset, mean, variance.
    fn layer_tensors(
        &self,
        layer: &LayerConfig<'_>,
        number: usize,
    ) -> Result<Vec<&'a Tensor>, String> {
        let mut tensors = Vec::new();
        match self.storage {
            Storage::ByClass => {
                let class = snake_case(layer.class);
                let folder = match number {
                    0 => class,
                    number => format!("{class}_{number}"),
                };
                let is_layer = |name: &str| {
                    let (path, variable) = name.rsplit_once("/vars/")?;
                    let parent = path.strip_suffix(folder.as_str())?;
                    let is_whole = parent.is_empty() || parent.ends_with('/');
                    let is_weight = is_whole && !parent.starts_with("optimizer");
                    is_weight.then(|| variable.parse::<usize>().ok()).flatten()
                };
                for (name, tensor) in self.tensors {
                    if let Some(variable) = is_layer(name) {
                        tensors.push((variable, tensor));
                    }
                }
            }
            Storage::ByName => {
                let group = format!("model_weights/{}/", layer.name);
                for (name, tensor) in self.tensors {
                    if let Some(rest) = name.strip_prefix(group.as_str()) {
                        let rank = variable_rank(rest)
                            .ok_or_else(|| format!("unknown variable {rest}"))?;
                        tensors.push((rank, tensor));
                    }
                }
            }
        }
        tensors.sort_by_key(|(rank, _)| *rank);
        match tensors.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            true => Err("several weights of the same name".into()),
            false => Ok(tensors.into_iter().map(|(_, tensor)| tensor).collect()),
        }
    }
}

fn is_rescaling(operation: &ChainOperation) -> bool {
    matches!(operation, ChainOperation::Rescale { .. })
}

/// Returns the index of a variable in Keras's order.
fn variable_rank(path: &str) -> Option<usize> {
    let name = path.rsplit('/').next()?;
    let name = name.split(':').next()?;
    // Keras 1 puts the name of the layer before: `dense_1_W`.
    const NAMES: [[&str; 2]; 6] = [
        ["kernel", "_W"],
        ["bias", "_b"],
        ["gamma", "_gamma"],
        ["beta", "_beta"],
        ["moving_mean", "_running_mean"],
        ["moving_variance", "_running_std"],
    ];
    NAMES
        .iter()
        .position(|[plain, suffix]| name == *plain || name.ends_with(suffix))
}

/// Returns the one number that a value holds, within lists.
fn single(value: &Value) -> Option<f64> {
    match value {
        Value::Array(items) if items.len() == 1 => single(&items[0]),
        value => value.as_f64(),
    }
}

/// Returns the one number that a value holds, or the three of the channels, within lists.
fn per_channel(value: &Value) -> Option<PerChannel> {
    match value {
        Value::Array(items) if items.len() == 1 => per_channel(&items[0]),
        value => serde_json::from_value(value.clone()).ok(),
    }
}

/// Returns the padding at the top, left, bottom and right: `1`, `[1, 2]` or `[[1, 1], [2, 2]]`.
fn padding_sides(value: &Value) -> Option<Sides> {
    let pair = |value: &Value| match value {
        Value::Array(items) => match items.as_slice() {
            [before, after] => Some([whole(before)?, whole(after)?]),
            _ => None,
        },
        value => whole(value).map(|pixels| [pixels; 2]),
    };
    let ([top, bottom], [left, right]) = match value {
        Value::Array(items) => match items.as_slice() {
            [vertical, horizontal] => (pair(vertical)?, pair(horizontal)?),
            _ => return None,
        },
        value => (pair(value)?, pair(value)?),
    };
    Some([top, left, bottom, right])
}

/// Returns the name that Keras 3 gives to the weights of a class: `batch_normalization` for `BatchNormalization`.
fn snake_case(class: &str) -> String {
    let mut name = String::new();
    let mut previous = None;
    let letters = Vec::from_iter(class.chars());
    for (at, &letter) in letters.iter().enumerate() {
        let next_is_lower = letters
            .get(at + 1)
            .is_some_and(|next| next.is_ascii_lowercase());
        let is_start = previous.is_some_and(|previous: char| {
            previous.is_ascii_lowercase() || (previous.is_ascii_uppercase() && next_is_lower)
        });
        if letter.is_ascii_uppercase() && is_start {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
        previous = Some(letter);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_keras_names() {
        assert_eq!(snake_case("Conv2D"), "conv2d");
        assert_eq!(snake_case("BatchNormalization"), "batch_normalization");
        assert_eq!(snake_case("Dense"), "dense");
    }

    /// Returns the error of a model with these layers, after an input of 8x8 pixels.
    fn error(class: &str, layers: &str) -> String {
        let input = r#"{"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [null, 8, 8, 1]}}"#;
        let json =
            format!(r#"{{"class_name": "{class}", "config": {{"layers": [{input}, {layers}]}}}}"#);
        chain(&json, &Tensors::new(), Storage::ByClass).unwrap_err()
    }

    #[test]
    fn unsupported_models_are_refused_by_the_name_of_the_layer() {
        let layer = |class: &str, config: &str| {
            let layer =
                format!(r#"{{"class_name": "{class}", "config": {{"name": "a"{config}}}}}"#);
            error("Sequential", &layer)
        };
        assert_eq!(layer("Lambda", ""), "layer a: Lambda is not supported");
        assert_eq!(layer("Dense", ""), "layer a: no weights in the file");
        let dilated = layer("Conv2D", r#", "dilation_rate": [1, 2]"#);
        assert_eq!(
            dilated,
            "layer a: dilation_rate [1,2]; only equal sizes are supported"
        );
        let stride = layer("Conv2D", r#", "strides": [1, 2]"#);
        assert_eq!(
            stride,
            "layer a: strides [1,2]; only equal sizes are supported"
        );
        let huge = layer("ZeroPadding2D", r#", "padding": 18446744073709551615"#);
        assert_eq!(huge, "layer a: padding that is not a number of pixels");
        let theano = layer("Convolution2D", r#", "dim_ordering": "th""#);
        assert!(theano.contains("may be mirrored"), "{theano}");
        let activation = layer("Activation", r#", "activation": "selu""#);
        assert_eq!(activation, "layer a: activation selu is not supported");
        let relu6 = r#", "activation": {"class_name": "ReLU", "config": {"max_value": 6.0}}"#;
        let relu6 = layer("Activation", relu6);
        assert_eq!(
            relu6,
            "layer a: a ReLU with a slope, a threshold or a maximum"
        );
        let offset = layer("Rescaling", r#", "scale": 1.0, "offset": [1.0, 2.0]"#);
        assert_eq!(
            offset,
            "layer a: an offset that is not one number, or three"
        );
        let rows = layer("BatchNormalization", r#", "axis": 1"#);
        assert_eq!(
            rows,
            "layer a: batch normalization over an axis that is not the channels"
        );
        // The second layer takes its own output.
        let branch = r#"{"class_name": "Flatten", "config": {"name": "a"}, "inbound_nodes": [[["a", 0, 0, {}]]]}"#;
        assert_eq!(
            error("Functional", branch),
            "layer a: an input that is not a layer before"
        );
        assert!(error("Subclassed", branch).contains("has no list of layers"));
        let second =
            r#"{"class_name": "InputLayer", "config": {"name": "b"}, "inbound_nodes": []}"#;
        assert_eq!(
            error("Functional", second),
            "layer b: a model of several inputs is not supported"
        );
        let outputs = r#"{"class_name": "Functional", "config": {"layers": [{"class_name": "InputLayer", "config":
            {"name": "a", "batch_shape": [null, 8, 8, 1]}}], "output_layers": [["a", 0, 0], ["b", 0, 0]]}}"#;
        assert_eq!(
            chain(outputs, &Tensors::new(), Storage::ByClass).unwrap_err(),
            "a model of several outputs is not supported: a, b"
        );
    }

    #[test]
    fn a_reshaped_image_has_the_shape_that_the_layer_states() {
        let json = r#"{"class_name": "Sequential", "config": {"layers": [
            {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [null, 64]}},
            {"class_name": "Reshape", "config": {"name": "a", "target_shape": [4, 16, 1]}}]}}"#;
        let chain = chain(json, &Tensors::new(), Storage::ByClass).unwrap();
        assert_eq!(chain.input, [1, 4, 16]);
    }

    #[test]
    fn models_of_keras_1_have_other_names() {
        let json = r#"{"class_name": "Sequential", "config": [
            {"class_name": "Flatten", "config": {"name": "flatten_1", "batch_input_shape": [null, 8, 8, 1]}},
            {"class_name": "Dense", "config": {"name": "dense_1", "output_dim": 2, "activation": "softmax"}}]}"#;
        let weight = Tensor::from_values(vec![64, 2], &[0.0; 128]);
        let tensors = Tensors::from([("model_weights/dense_1/dense_1_W".into(), weight)]);
        let chain = chain(json, &tensors, Storage::ByName).unwrap();
        assert_eq!(chain.input, [1, 8, 8]);
        let names: Vec<_> = chain
            .layers
            .iter()
            .map(|layer| layer.name.as_str())
            .collect();
        assert_eq!(names, ["flatten_1", "dense_1", "dense_1"]);
    }
}
