//! Matching of a file's tensors to the layers of a network, by shapes and names.

use std::collections::BTreeMap;
use std::fmt;

use model::{ConvNetConfig, Epilogue, Layer, Operation, Pool, PoolKind};

use crate::batch_norm::{self, Folded};
use crate::layout::Layout;
use crate::tensor::{Dtype, Tensor, Tensors};
use crate::weights::Weights;

/// Prefix of optimizer state in Keras files.
const KERAS_OPTIMIZER: &str = "optimizer";
/// The reasons why weights do not match a network, one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch(pub Vec<String>);

/// A layer in a file: the name and tensor of its weight and bias.
struct FileLayer<'a> {
    /// Common prefix of the tensors' names: without `.weight`.
    name: &'a str,
    weight: (&'a str, &'a Tensor),
    bias: Option<(&'a str, &'a Tensor)>,
    /// Whether a folded normalization multiplied a channel by a negative number.
    is_negated: bool,
}

/// A layer of the network that has weights.
struct NetworkLayer<'a> {
    layer: &'a Layer,
    /// Shape `[channels, height, width]` of the flattened feature maps, for the first dense layer.
    maps: Option<[usize; 3]>,
    /// Whether max-pooling precedes the normalization of the layer.
    is_pooled_first: bool,
}

/// Converts the weights of a file to those of a network: in single precision and PyTorch's layout, named
/// `conv1.weight`, `conv1.bias`, ..., `fc1.weight`, ...
///
/// Batch normalization of PyTorch is folded into the convolution before it. Layers are matched by the shapes of their
/// weights. Layers of equal shape are ordered by the numbers in their
/// names, such as `conv1`, `conv2`; `conv_block.0`, `conv_block.3`; `conv2d`, `conv2d_1`.
///
/// # Errors
/// Returns an error if tensors are missing, superfluous or of another shape, or if the order of layers of equal
/// shape is ambiguous.
pub fn match_to_network(weights: &Weights, network: &ConvNetConfig) -> Result<Tensors, Mismatch> {
    let layers = network
        .folded()
        .layers()
        .map_err(|error| Mismatch(vec![error.to_string()]))?;
    let (network_convolutions, network_dense) = network_layers(&layers, network);
    let folded = batch_norm::fold(&weights.tensors, &weights.hints);
    let (file_layers, mut problems) = file_layers(&folded);
    let (file_convolutions, file_dense) = by_rank(file_layers);
    let mut matched = Tensors::new();
    for (network_layers, file_layers) in [
        (network_convolutions, file_convolutions),
        (network_dense, file_dense),
    ] {
        problems.extend(ambiguous_orders(&file_layers, weights.layout));
        assign(
            file_layers,
            &network_layers,
            weights.layout,
            &mut matched,
            &mut problems,
        );
    }
    match problems.is_empty() {
        true => Ok(matched),
        false => Err(Mismatch(problems)),
    }
}

/// Guesses the number of image channels and of classes from the weights: the smallest numbers of inputs of a
/// convolution and of outputs of a dense layer.
pub fn channels_and_classes(weights: &Weights) -> Option<[usize; 2]> {
    let folded = batch_norm::fold(&weights.tensors, &weights.hints);
    let (convolutions, dense) = by_rank(file_layers(&folded).0);
    let shapes = |layers: Vec<FileLayer<'_>>| {
        let shape = |layer: FileLayer<'_>| weights.layout.shape_to_pytorch(&layer.weight.1.shape);
        layers.into_iter().map(shape).collect::<Vec<_>>()
    };
    let channels = shapes(convolutions).iter().map(|shape| shape[1]).min();
    let classes = shapes(dense).iter().map(|shape| shape[0]).min();
    Some([channels?, classes?])
}

/// Returns the name of each tensor with infinite or NaN values, the number of these values, and the number of all
/// its values.
pub fn not_finite(tensors: &Tensors) -> Vec<(&str, usize, usize)> {
    let counts = tensors.iter().filter_map(|(name, tensor)| {
        let values = tensor.values()?;
        let count = values.iter().filter(|value| !value.is_finite()).count();
        Some((name.as_str(), count, values.len()))
    });
    counts.filter(|(_, count, _)| *count > 0).collect()
}

/// Returns the network's convolutions and dense layers, in order.
fn network_layers<'a>(
    layers: &'a [Layer],
    network: &ConvNetConfig,
) -> (Vec<NetworkLayer<'a>>, Vec<NetworkLayer<'a>>) {
    let [height, width] = network.input;
    let mut maps = Some([network.channels, height, width]);
    let mut convolutions = Vec::new();
    let mut dense = Vec::new();
    let pooled_first = layers_pooled_first(network);
    for layer in layers {
        let network_layer = |maps| NetworkLayer {
            layer,
            maps,
            is_pooled_first: pooled_first.contains(&layer.name),
        };
        match layer.weights.len() {
            4 => convolutions.push(network_layer(None)),
            2 => dense.push(network_layer(maps.take())),
            _ => {}
        }
        if let &[channels, height, width] = layer.output.as_slice() {
            maps = Some([channels, height, width]);
        }
    }
    (convolutions, dense)
}

/// Returns the names of convolutions whose max-pooling precedes their normalization.
fn layers_pooled_first(network: &ConvNetConfig) -> Vec<String> {
    let layers = network.layers().unwrap_or_default();
    let pooled_first = layers.windows(2).filter(|pair| {
        matches!(
            pair[1].operation,
            Operation::Pooling {
                pool: Pool::Global(PoolKind::Max)
                    | Pool::Windows {
                        kind: PoolKind::Max,
                        ..
                    },
                then: Epilogue { norm: true, .. },
            }
        )
    });
    pooled_first.map(|pair| pair[0].name.clone()).collect()
}

/// Whether a tensor is a weight, rather than the state of an optimizer, a counter or a loss.
pub(crate) fn is_weight((name, tensor): &(&String, &Tensor)) -> bool {
    // Counters, losses, flags and seeds are scalars or short lists of integers.
    let is_state = match tensor.dtype {
        Dtype::Integer => tensor.shape.len() < 2,
        _ => tensor.shape.is_empty(),
    };
    !is_state && !name.starts_with(KERAS_OPTIMIZER)
}

/// Returns the layers of a file, and a line for each tensor that belongs to no layer.
fn file_layers<'a>(folded: &'a Folded<'_>) -> (Vec<FileLayer<'a>>, Vec<String>) {
    let mut biases = BTreeMap::new();
    let mut layers = Vec::new();
    let mut problems = Vec::new();
    for (name, tensor) in folded.tensors.iter().filter(is_weight) {
        match (part(name), tensor.shape.len()) {
            (Some((layer, Part::Weight)), 2 | 4) => layers.push(FileLayer {
                name: layer,
                weight: (name, tensor),
                bias: None,
                is_negated: folded.negated.iter().any(|negated| negated == layer),
            }),
            (Some((layer, Part::Bias)), 1) => {
                biases.insert(layer, (name.as_str(), tensor));
            }
            _ => problems.push(extra(name, tensor)),
        }
    }
    for layer in &mut layers {
        layer.bias = biases.remove(layer.name);
    }
    problems.extend(biases.values().map(|(name, tensor)| extra(name, tensor)));
    (layers, problems)
}

/// Separates convolutions, whose weights have four dimensions, from dense layers, whose weights have two.
fn by_rank(layers: Vec<FileLayer<'_>>) -> (Vec<FileLayer<'_>>, Vec<FileLayer<'_>>) {
    layers
        .into_iter()
        .partition(|layer| layer.weight.1.shape.len() == 4)
}

/// The part of a layer that a tensor is.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    Weight,
    Bias,
}

/// Returns whether a tensor is the weight of a convolution or dense layer.
pub(crate) fn is_layer_weight(name: &str, tensor: &Tensor) -> bool {
    let part = part(name);
    matches!((part, tensor.shape.len()), (Some((_, Part::Weight)), 2 | 4))
}

/// Splits the name of a tensor into the name of its layer and its part in it.
pub(crate) fn part(name: &str) -> Option<(&str, Part)> {
    let (layer, last) = name.rsplit_once(['.', '/'])?;
    let numbered = layer.strip_suffix("/vars");
    match (last, numbered) {
        ("weight" | "kernel" | "kernel:0", _) => Some((layer, Part::Weight)),
        ("bias" | "bias:0", _) => Some((layer, Part::Bias)),
        ("0", Some(layer)) => Some((layer, Part::Weight)),
        ("1", Some(layer)) => Some((layer, Part::Bias)),
        _ => None,
    }
}

/// Returns a line for each set of layers of equal shape whose names do not give an order.
fn ambiguous_orders(layers: &[FileLayer<'_>], layout: Layout) -> Vec<String> {
    let mut by_shape: BTreeMap<&[usize], Vec<&FileLayer<'_>>> = BTreeMap::new();
    for layer in layers {
        by_shape
            .entry(&layer.weight.1.shape)
            .or_default()
            .push(layer);
    }
    // Before Keras 3, layers are numbered by creation, which may differ from their order in the network.
    let has_network_order =
        |layer: &FileLayer<'_>| layout != Layout::Keras || layer.weight.0.ends_with("/vars/0");
    let is_ordered = |layers: &[&FileLayer<'_>]| {
        let mut patterns = layers.iter().map(|layer| pattern(layer.name, layout).0);
        let first = patterns.next();
        layers.len() == 1
            || patterns.all(|pattern| Some(&pattern) == first.as_ref())
                && layers.iter().all(|layer| has_network_order(layer))
    };
    let ambiguous = by_shape.iter().filter(|(_, layers)| !is_ordered(layers));
    let line = |(shape, layers): (&&[usize], &Vec<&FileLayer<'_>>)| {
        let names: Vec<_> = layers
            .iter()
            .map(|layer| layer.name.escape_debug().to_string())
            .collect();
        format!(
            "ambiguous order of {}, all {shape:?}: give them names that differ only in their numbers",
            names.join(", ")
        )
    };
    ambiguous.map(line).collect()
}

/// Splits a name into its text, with `#` for each number, and its numbers. Names of equal text are ordered by
/// their numbers.
pub(crate) fn pattern(name: &str, layout: Layout) -> (String, Vec<u64>) {
    let name = match layout {
        // Keras omits the number of the first layer of a class.
        Layout::Keras => {
            let parts = name.split('/').map(|part| match part.rsplit_once('_') {
                Some((_, number)) if number.parse::<u64>().is_ok() => part.into(),
                _ => format!("{part}_0"),
            });
            parts.collect::<Vec<String>>().join("/")
        }
        // The output layer follows the hidden layers.
        Layout::Burn if name == "output" => format!("hidden.{}", u64::MAX),
        _ => name.into(),
    };
    let mut text = String::new();
    let mut numbers = Vec::new();
    for run in name.split_inclusive(|letter: char| !letter.is_ascii_digit()) {
        let end = run.find(|letter: char| !letter.is_ascii_digit());
        let (digits, rest) = run.split_at(end.unwrap_or(run.len()));
        if !digits.is_empty() {
            text.push('#');
            numbers.push(digits.parse().unwrap_or(u64::MAX));
        }
        text.push_str(rest);
    }
    (text, numbers)
}

/// Assigns a file's layers to the network's: adds the converted tensors to `matched`, and a line to `problems`
/// for each tensor that does not match.
fn assign(
    mut file_layers: Vec<FileLayer<'_>>,
    network_layers: &[NetworkLayer<'_>],
    layout: Layout,
    matched: &mut Tensors,
    problems: &mut Vec<String>,
) {
    file_layers.sort_by_cached_key(|layer| pattern(layer.name, layout));
    let equal_shapes: Vec<Option<FileLayer<'_>>> = network_layers
        .iter()
        .map(|network_layer| {
            let shape = layout.shape_from_pytorch(&network_layer.layer.weights);
            let index = file_layers
                .iter()
                .position(|layer| layer.weight.1.shape == shape)?;
            Some(file_layers.remove(index))
        })
        .collect();
    // The remaining layers are paired in order, so that messages can name the difference in shape.
    let mut remaining = file_layers.into_iter();
    for (network_layer, equal_shape) in network_layers.iter().zip(equal_shapes) {
        let NetworkLayer {
            layer,
            maps,
            is_pooled_first,
        } = network_layer;
        let file_layer = equal_shape.or_else(|| remaining.next());
        if let Some(file_layer) = &file_layer
            && file_layer.is_negated
            && *is_pooled_first
        {
            problems.push(format!(
                "{}: a scale of its batch normalization is negative, which max-pooling must follow: set pool_first = \
                 false for {}",
                file_layer.name.escape_debug(),
                layer.name
            ));
        }
        let weight = file_layer.as_ref().map(|layer| layer.weight);
        let bias = file_layer.as_ref().and_then(|layer| layer.bias);
        let outputs = [layer.output[0]];
        if let (Some((name, tensor)), false) = (bias, layer.bias) {
            problems.push(extra(name, tensor));
        }
        let bias = layer.bias.then_some(("bias", bias, &outputs[..], None));
        let weight = ("weight", weight, &layer.weights[..], *maps);
        for (part, tensor, shape, maps) in [weight].into_iter().chain(bias) {
            let name = format!("{}.{part}", layer.name);
            match values(&name, tensor, shape, layout) {
                Ok(values) => {
                    let values = layout.values_to_pytorch(values, shape, maps);
                    matched.insert(name, Tensor::from_values(shape.to_vec(), &values));
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    for layer in remaining {
        let parts = [Some(layer.weight), layer.bias].into_iter().flatten();
        problems.extend(parts.map(|(name, tensor)| extra(name, tensor)));
    }
}

/// Returns the values of a file's tensor, or the reason why it cannot be the network's tensor `target` of PyTorch
/// shape `shape`.
fn values(
    target: &str,
    tensor: Option<(&str, &Tensor)>,
    shape: &[usize],
    layout: Layout,
) -> Result<Vec<f32>, String> {
    let expected = layout.shape_from_pytorch(shape);
    let Some((name, tensor)) = tensor else {
        return Err(format!("{target} {expected:?}: missing"));
    };
    let target = match target == name {
        true => String::new(),
        false => format!(" for {target}"),
    };
    let described = describe(name, &tensor.shape);
    if tensor.shape != expected {
        return Err(format!("{described}: expected {expected:?}{target}"));
    }
    let dtype = tensor.dtype;
    tensor
        .values()
        .ok_or_else(|| format!("{described}: {dtype}, expected floating-point numbers{target}"))
}

fn extra(name: &str, tensor: &Tensor) -> String {
    format!("{}: {EXTRA}", describe(name, &tensor.shape))
}

/// The problem of a tensor that the network does not have.
const EXTRA: &str = "not part of the network";

/// Formats a name, escaped because it may contain any character, and a shape.
fn describe(name: &str, shape: &[usize]) -> String {
    format!("{} {shape:?}", name.escape_debug())
}

impl Mismatch {
    /// Returns whether the file has all tensors of the network, and the only problem is that it has more.
    pub fn has_only_extra_tensors(&self) -> bool {
        self.0.iter().all(|problem| problem.ends_with(EXTRA))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mismatch {}
