//! Weights of a file brought to the names and layout of a network.

use std::collections::BTreeMap;
use std::fmt;

use model::{ConvNetConfig, Layer};

use crate::file::Weights;
use crate::layout::Layout;
use crate::tensor::{Dtype, Tensor, Tensors};

/// How the names begin of what a file of Keras holds besides the weights ...
const OPTIMIZER: &str = "optimizer";
/// ... and how they end in a checkpoint of PyTorch: what Adam and momentum keep for each weight.
const MOMENTS: [&str; 4] = [
    ".exp_avg",
    ".exp_avg_sq",
    ".max_exp_avg_sq",
    ".momentum_buffer",
];

/// Why weights are not those of a network: a line for each reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit(pub Vec<String>);

/// A layer of a file.
struct Found<'a> {
    /// As the file has it, without `.weight`.
    name: &'a str,
    weight: (&'a str, &'a Tensor),
    bias: Option<(&'a str, &'a Tensor)>,
}

/// A layer of a network with weights.
struct Wanted<'a> {
    layer: &'a Layer,
    /// The feature maps `[channels, height, width]` that a dense layer takes, if it does.
    maps: Option<[usize; 3]>,
}

/// The weights of a file as those of a network: in single precision, with PyTorch's layout, named
/// `conv1.weight`, `conv1.bias`, ..., `fc1.weight`, ...
///
/// Which layer is which is told by the shapes of their weights, and among equal shapes by the numbers
/// in their names, whatever else these are: `conv1`, `conv2`; `conv_block.0`, `conv_block.3`;
/// `module.features.0`; `conv2d`, `conv2d_1`.
///
/// # Errors
/// When weights are missing, are more than there should be, or have other shapes, or when nothing tells
/// which of two is which.
pub fn fit(weights: &Weights, network: &ConvNetConfig) -> Result<Tensors, Misfit> {
    let layers = network
        .layers()
        .map_err(|error| Misfit(vec![error.to_string()]))?;
    let (wanted_convolutions, wanted_dense) = wanted(&layers, network);
    let (found, mut problems) = found(weights);
    let (convolutions, dense) = by_rank(found);
    let mut fitted = Tensors::new();
    for (wanted, found) in [(wanted_convolutions, convolutions), (wanted_dense, dense)] {
        problems.extend(rivals(&found, weights.layout));
        place(found, &wanted, weights.layout, &mut fitted, &mut problems);
    }
    match problems.is_empty() {
        true => Ok(fitted),
        false => Err(Misfit(problems)),
    }
}

/// The channels of the images that weights seem to be for, and the number of classes: the fewest that
/// any layer takes and gives.
pub fn channels_and_classes(weights: &Weights) -> Option<[usize; 2]> {
    let (convolutions, dense) = by_rank(found(weights).0);
    let shapes = |layers: Vec<Found<'_>>| {
        let shape = |layer: Found<'_>| weights.layout.shape_in_pytorch(&layer.weight.1.shape);
        layers.into_iter().map(shape).collect::<Vec<_>>()
    };
    let channels = shapes(convolutions).iter().map(|shape| shape[1]).min();
    let classes = shapes(dense).iter().map(|shape| shape[0]).min();
    Some([channels?, classes?])
}

/// Tensors with values that are no finite numbers: how many, of how many.
pub fn not_finite(tensors: &Tensors) -> Vec<(&str, usize, usize)> {
    let counts = tensors.iter().filter_map(|(name, tensor)| {
        let values = tensor.values()?;
        let count = values.iter().filter(|value| !value.is_finite()).count();
        Some((name.as_str(), count, values.len()))
    });
    counts.filter(|(_, count, _)| *count > 0).collect()
}

/// The network's convolutions and dense layers, in order.
fn wanted<'a>(layers: &'a [Layer], network: &ConvNetConfig) -> (Vec<Wanted<'a>>, Vec<Wanted<'a>>) {
    let [height, width] = network.input;
    let mut maps = Some([network.channels, height, width]);
    let mut convolutions = Vec::new();
    let mut dense = Vec::new();
    for layer in layers {
        match layer.weights.len() {
            4 => convolutions.push(Wanted { layer, maps: None }),
            // The first of them takes what was flattened.
            2 => dense.push(Wanted {
                layer,
                maps: maps.take(),
            }),
            _ => {}
        }
        if let &[channels, height, width] = layer.output.as_slice() {
            maps = Some([channels, height, width]);
        }
    }
    (convolutions, dense)
}

/// The layers of a file, and a line for each tensor that is part of none.
fn found(weights: &Weights) -> (Vec<Found<'_>>, Vec<String>) {
    let is_weight = |(name, tensor): &(&String, &Tensor)| {
        let is_moment = MOMENTS.iter().any(|ending| name.ends_with(ending));
        // Counters, losses, switches and seeds are single numbers, or a few integers.
        let is_state = match tensor.dtype {
            Dtype::Integer => tensor.shape.len() < 2,
            _ => tensor.shape.is_empty(),
        };
        !is_state && !is_moment && !name.starts_with(OPTIMIZER)
    };
    let mut biases = BTreeMap::new();
    let mut layers = Vec::new();
    let mut problems = Vec::new();
    for (name, tensor) in weights.tensors.iter().filter(is_weight) {
        match (part(name), tensor.shape.len()) {
            (Some((layer, Part::Weight)), 2 | 4) => layers.push(Found {
                name: layer,
                weight: (name, tensor),
                bias: None,
            }),
            (Some((layer, Part::Bias)), 1) => {
                biases.insert(layer, (name.as_str(), tensor));
            }
            _ => problems.push(surplus(name, tensor)),
        }
    }
    for layer in &mut layers {
        layer.bias = biases.remove(layer.name);
    }
    problems.extend(biases.values().map(|(name, tensor)| surplus(name, tensor)));
    (layers, problems)
}

/// Convolutions, whose weights have four dimensions, and dense layers, whose weights have two.
fn by_rank(layers: Vec<Found<'_>>) -> (Vec<Found<'_>>, Vec<Found<'_>>) {
    layers
        .into_iter()
        .partition(|layer| layer.weight.1.shape.len() == 4)
}

enum Part {
    Weight,
    Bias,
}

/// The layer that a tensor is a part of, and which part.
fn part(name: &str) -> Option<(&str, Part)> {
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

/// A line for each set of layers of equal shape whose names do not tell their order.
fn rivals(found: &[Found<'_>], layout: Layout) -> Vec<String> {
    let mut of_shape: BTreeMap<&[usize], Vec<&Found<'_>>> = BTreeMap::new();
    for layer in found {
        of_shape
            .entry(&layer.weight.1.shape)
            .or_default()
            .push(layer);
    }
    // Before Keras 3 layers are numbered as they were made, which need not be as they are used.
    let is_numbered =
        |layer: &Found<'_>| layout != Layout::Keras || layer.weight.0.ends_with("/vars/0");
    let is_told = |layers: &[&Found<'_>]| {
        let mut patterns = layers.iter().map(|layer| pattern(layer.name, layout).0);
        let first = patterns.next();
        layers.len() == 1
            || patterns.all(|pattern| Some(&pattern) == first.as_ref())
                && layers.iter().all(|layer| is_numbered(layer))
    };
    let rivals = of_shape.iter().filter(|(_, layers)| !is_told(layers));
    let line = |(shape, layers): (&&[usize], &Vec<&Found<'_>>)| {
        let names: Vec<_> = layers
            .iter()
            .map(|layer| layer.name.escape_debug().to_string())
            .collect();
        format!(
            "which is the first of {}? all are {shape:?}: call them alike, numbered in order",
            names.join(", ")
        )
    };
    rivals.map(line).collect()
}

/// A name without its numbers, and these: the order of names that are alike.
fn pattern(name: &str, layout: Layout) -> (String, Vec<u64>) {
    let name = match layout {
        // Keras leaves the number out of the first of a kind.
        Layout::Keras => {
            let parts = name.split('/').map(|part| match part.rsplit_once('_') {
                Some((_, number)) if number.parse::<u64>().is_ok() => part.into(),
                _ => format!("{part}_0"),
            });
            parts.collect::<Vec<String>>().join("/")
        }
        // The dense layer after the hidden ones.
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

/// Puts layers of a file in their places, and says what does not fit.
fn place(
    mut found: Vec<Found<'_>>,
    wanted: &[Wanted<'_>],
    layout: Layout,
    fitted: &mut Tensors,
    problems: &mut Vec<String>,
) {
    found.sort_by_cached_key(|layer| pattern(layer.name, layout));
    let fitting: Vec<Option<Found<'_>>> = wanted
        .iter()
        .map(|wanted| {
            let shape = layout.shape(&wanted.layer.weights);
            let at = found
                .iter()
                .position(|layer| layer.weight.1.shape == shape)?;
            Some(found.remove(at))
        })
        .collect();
    // Of the others, each is held against a place that is left, to say what is different.
    let mut others = found.into_iter();
    for (Wanted { layer, maps }, fitting) in wanted.iter().zip(fitting) {
        let found = fitting.or_else(|| others.next());
        let weight = found.as_ref().map(|layer| layer.weight);
        let bias = found.as_ref().and_then(|layer| layer.bias);
        let outputs = [layer.output[0]];
        for (part, tensor, shape, maps) in [
            ("weight", weight, &layer.weights[..], *maps),
            ("bias", bias, &outputs, None),
        ] {
            let place = format!("{}.{part}", layer.name);
            match values(&place, tensor, shape, layout) {
                Ok(values) => {
                    let values = layout.to_pytorch(values, shape, maps);
                    fitted.insert(place, Tensor::from_values(shape.to_vec(), &values));
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    for layer in others {
        let parts = [Some(layer.weight), layer.bias].into_iter().flatten();
        problems.extend(parts.map(|(name, tensor)| surplus(name, tensor)));
    }
}

/// The values of a tensor, or why it cannot take its place.
fn values(
    place: &str,
    tensor: Option<(&str, &Tensor)>,
    shape: &[usize],
    layout: Layout,
) -> Result<Vec<f32>, String> {
    let expected = layout.shape(shape);
    let Some((name, tensor)) = tensor else {
        return Err(format!("{place} {expected:?}: missing"));
    };
    let place = match place == name {
        true => String::new(),
        false => format!(" for {place}"),
    };
    let shown = shown(name, &tensor.shape);
    if tensor.shape != expected {
        return Err(format!("{shown}: expected {expected:?}{place}"));
    }
    let dtype = tensor.dtype;
    tensor
        .values()
        .ok_or_else(|| format!("{shown}: {dtype}, expected floating-point numbers{place}"))
}

fn surplus(name: &str, tensor: &Tensor) -> String {
    format!("{}: {SURPLUS}", shown(name, &tensor.shape))
}

/// What is said of a tensor that has no place.
const SURPLUS: &str = "not part of the network";

/// A name, which may hold anything, and a shape.
fn shown(name: &str, shape: &[usize]) -> String {
    format!("{} {shape:?}", name.escape_debug())
}

impl Misfit {
    /// Whether the file has all that the network needs, and more.
    pub fn is_surplus(&self) -> bool {
        self.0.iter().all(|problem| problem.ends_with(SURPLUS))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Misfit {}
