//! The networks that weights without a description may belong to.
//!
//! Shapes determine kernels, channels and dense layers; the number of inputs of the first dense layer limits padding and
//! pools. The rest is open: the caller compares the readings on images.

use std::fmt;

use model::{Activation, Initialization, PoolKind};

use crate::architecture::{Architecture, translate};
use crate::chain::{Chain, ChainLayer, ChainOperation, ChannelOrder, Padding};
use crate::file_layers::{FileLayer, FileLayers};
use crate::hint::{LayerHint, LayerKind};
use crate::layout::Layout;
use crate::weights::Weights;

/// Largest number of arrangements of padding and pools of a kind that are tried.
const MAX_GEOMETRIES: usize = 24;
/// Largest number of arrangements that are listed before the best ones are taken.
const MAX_LISTED: usize = 100_000;
/// Largest number of assignments of batch normalization to layers.
const MAX_ASSIGNMENTS: usize = 8;
/// Largest number of layers of a kind.
const MAX_LAYERS: usize = 32;

/// The readings of a file.
#[derive(Debug)]
pub struct Readings {
    layers: FileLayers,
    input: [usize; 3],
    initialization: Initialization,
    readings: Vec<Reading>,
}

/// A network that the weights of a file may belong to.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Whether networks of this kind are common.
    pub is_usual: bool,
    /// Activation of all layers but the last.
    pub activation: Activation,
    /// Whether the file states the activation, or has batch normalization, whose statistics depend on it.
    pub is_certain: bool,
    geometry: Geometry,
    /// Index of the layer of each batch normalization, convolutions before dense layers.
    norms: Vec<usize>,
    position: Position,
    pool: PoolKind,
    order: ChannelOrder,
    /// The description for messages.
    description: String,
}

/// Padding, strides and pools.
#[derive(Clone, Debug, PartialEq)]
struct Geometry {
    blocks: Vec<Placement>,
    /// Whether a global pool follows the last convolution.
    is_global: bool,
}

impl Geometry {
    /// Whether all convolutions are padded, or none, with stride 1 and 2x2 pools.
    fn is_regular(&self, layers: &[FileLayer]) -> bool {
        let is_padded = |is_padded: bool| {
            let mut pairs = self.blocks.iter().zip(layers);
            pairs.all(|(block, layer)| (block.padding > 0) == is_padded || !is_paddable(layer))
        };
        let is_usual =
            |block: &Placement| block.stride == 1 && matches!(block.pool, None | Some([2, 2]));
        (is_padded(true) || is_padded(false)) && self.blocks.iter().all(is_usual)
    }
}

/// Padding, stride and pool of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Placement {
    padding: usize,
    stride: usize,
    /// Size and stride of the pool.
    pool: Option<[usize; 2]>,
}

/// The position of batch normalization and pool relative to the activation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Position {
    /// Normalization, activation, pool.
    NormFirst,
    /// Activation, normalization, pool.
    NormSecond,
    /// Activation, pool, normalization.
    NormLast,
    /// Pool, normalization, activation.
    PoolFirst,
}

/// What the modules in a file state about its network.
#[derive(Debug, Default)]
struct Statement {
    /// Padding and stride of convolutions by name.
    convolutions: Vec<(String, (usize, usize))>,
    /// The activation, if all modules agree.
    activation: Option<Activation>,
    /// The kind of pools, and size and stride of their windows, if all modules agree.
    pool: Option<(PoolKind, Option<[usize; 2]>)>,
}

impl Statement {
    fn new(hints: &[LayerHint]) -> Self {
        let mut statement = Self::default();
        let mut activations = Vec::new();
        let mut pools = Vec::new();
        for LayerHint { name, kind } in hints {
            match kind {
                LayerKind::Convolution {
                    stride: [stride, other],
                    padding: [padding, others @ ..],
                    ..
                } if stride == other && others == &[*padding; 3] => {
                    statement
                        .convolutions
                        .push((name.clone(), (*padding, *stride)));
                }
                LayerKind::Activation(activation) => activations.push(*activation),
                LayerKind::Pool {
                    kind,
                    size: [size, height],
                    stride: [stride, other],
                    padding: [0, 0],
                    is_ceil: false,
                } if size == height && stride == other => {
                    pools.push((*kind, Some([*size, *stride])))
                }
                LayerKind::AdaptivePool { kind, .. } => pools.push((*kind, None)),
                _ => {}
            }
        }
        statement.activation = unanimous(&activations);
        statement.pool = unanimous(&pools);
        statement
    }

    /// Returns padding and stride of a convolution.
    fn convolution(&self, name: &str) -> Option<(usize, usize)> {
        let stated = self.convolutions.iter().find(|(other, _)| other == name);
        stated.map(|(_, numbers)| *numbers)
    }
}

/// Returns the element that all others equal.
fn unanimous<T: Copy + PartialEq>(items: &[T]) -> Option<T> {
    let first = items.first().copied()?;
    items.iter().all(|item| *item == first).then_some(first)
}

impl Readings {
    /// Lists the readings of a file for square images of `size` pixels.
    ///
    /// # Errors
    /// Returns a message if the file has another network than convolutions followed by dense layers, or no arrangement of
    /// pools fits its first dense layer.
    pub fn new(weights: &Weights, size: usize) -> Result<Self, String> {
        let layers = FileLayers::of(weights)?;
        let FileLayers {
            convolutions,
            dense,
            ..
        } = &layers;
        if convolutions.len().max(dense.len()) > MAX_LAYERS {
            return Err(format!("more than {MAX_LAYERS} layers of a kind"));
        }
        let input = match (convolutions.first(), dense.first()) {
            (Some(first), _) => [first.inputs(), size, size],
            (None, Some(first)) => flat_input(first.inputs())?,
            (None, None) => return Err("the file has no convolution and no dense layer".into()),
        };
        let statement = Statement::new(&weights.hints);
        let geometries = geometries(&layers, &statement, input)?;
        let assignments = assignments(&layers)?;
        let mut readings = Readings {
            layers,
            input,
            initialization: match weights.layout {
                Layout::Keras => Initialization::Keras,
                Layout::PyTorch | Layout::Burn => Initialization::Pytorch,
            },
            readings: Vec::new(),
        };
        for geometry in &geometries {
            for norms in &assignments {
                readings.add(geometry, norms, &statement, weights.layout);
            }
        }
        Ok(readings)
    }

    /// Returns the readings.
    pub fn iter(&self) -> impl Iterator<Item = &Reading> {
        self.readings.iter()
    }

    /// Adds the readings with a geometry and an assignment of batch normalization.
    fn add(&mut self, geometry: &Geometry, norms: &[usize], statement: &Statement, layout: Layout) {
        let has_pools =
            geometry.is_global || geometry.blocks.iter().any(|block| block.pool.is_some());
        let pools: &[PoolKind] = match has_pools {
            true => &[PoolKind::Max, PoolKind::Average],
            false => &[PoolKind::Max],
        };
        let activations = match self.layers.convolutions.len() + self.layers.dense.len() {
            // A single layer has no activation.
            1 => &[Activation::Relu][..],
            _ => &[
                Activation::Relu,
                Activation::Tanh,
                Activation::Gelu,
                Activation::Silu,
            ],
        };
        // Keras flattens the channels last, unless its images have them first.
        let orders: &[ChannelOrder] = match layout {
            Layout::Keras => &[ChannelOrder::Last, ChannelOrder::First],
            Layout::PyTorch | Layout::Burn => &[ChannelOrder::First, ChannelOrder::Last],
        };
        let is_flat = geometry.is_global || self.layers.convolutions.is_empty();
        let orders = if is_flat { &orders[..1] } else { orders };
        let is_regular = geometry.is_regular(&self.layers.convolutions);
        let is_stated = |activation: &Activation| {
            statement
                .activation
                .is_none_or(|stated| stated == *activation)
        };
        let is_stated_pool =
            |pool: &PoolKind| statement.pool.is_none_or(|(stated, _)| stated == *pool);
        for &pool in pools
            .iter()
            .filter(|pool| !has_pools || is_stated_pool(pool))
        {
            for &activation in activations
                .iter()
                .filter(|activation| is_stated(activation))
            {
                let is_rising = matches!(activation, Activation::Relu | Activation::Tanh);
                let positions: &[Position] = match (norms.is_empty(), has_pools) {
                    (true, true) if pool == PoolKind::Average || !is_rising => {
                        &[Position::NormFirst, Position::PoolFirst]
                    }
                    (true, _) => &[Position::NormFirst],
                    (false, false) => &[Position::NormFirst, Position::NormSecond],
                    (false, true) => &[
                        Position::NormFirst,
                        Position::NormSecond,
                        Position::NormLast,
                        Position::PoolFirst,
                    ],
                };
                for &position in positions {
                    for &order in orders {
                        let mut reading = Reading {
                            is_usual: (is_regular || !statement.convolutions.is_empty())
                                && (is_rising || statement.activation.is_some())
                                && order == orders[0]
                                && (position != Position::PoolFirst || !norms.is_empty()),
                            is_certain: statement.activation.is_some() || !norms.is_empty(),
                            geometry: geometry.clone(),
                            norms: norms.to_vec(),
                            position,
                            activation,
                            pool,
                            order,
                            description: String::new(),
                        };
                        reading.description = reading.describe(&self.layers, is_flat);
                        self.readings.push(reading);
                    }
                }
            }
        }
    }

    /// Returns the network of a reading, with its weights.
    ///
    /// # Errors
    /// Returns a message if this project has no such network.
    pub fn architecture(&self, reading: &Reading) -> Result<Architecture, String> {
        let FileLayers {
            convolutions,
            dense,
            norms,
        } = &self.layers;
        let norm = |layer: usize| {
            let index = reading.norms.iter().position(|&owner| owner == layer)?;
            let norm = norms.get(index)?.normalization.clone();
            Some(ChainOperation::Normalize(norm))
        };
        let activation = || Some(ChainOperation::Activate(reading.activation));
        let mut layers = Vec::new();
        for (index, (layer, placement)) in convolutions
            .iter()
            .zip(&reading.geometry.blocks)
            .enumerate()
        {
            let is_last = index + 1 == convolutions.len();
            let pool = match placement.pool {
                _ if is_last && reading.geometry.is_global => {
                    Some(ChainOperation::GlobalPool(reading.pool))
                }
                Some([size, stride]) => Some(ChainOperation::Pool {
                    kind: reading.pool,
                    size,
                    stride,
                    padding: Padding::Each(0),
                }),
                None => None,
            };
            // Without dense layers, the last convolution computes the logits.
            let activation = (!is_last || !dense.is_empty()).then(activation).flatten();
            let convolution = ChainOperation::Convolution {
                weight: layer.weight.clone(),
                bias: layer.bias.clone(),
                stride: placement.stride,
                padding: Padding::Each(placement.padding),
                dilation: 1,
                groups: 1,
            };
            let rest = match reading.position {
                Position::NormFirst => [norm(index), activation, pool],
                Position::NormSecond => [activation, norm(index), pool],
                Position::NormLast => [activation, pool, norm(index)],
                Position::PoolFirst => [pool, norm(index), activation],
            };
            let operations = [Some(convolution)].into_iter().chain(rest).flatten();
            layers.extend(operations.map(|operation| named(layer, operation)));
        }
        if let Some(first) = dense.first() {
            let order = reading.order;
            layers.push(named(first, ChainOperation::Flatten { order }));
        }
        for (index, layer) in dense.iter().enumerate() {
            let activation = (index + 1 < dense.len()).then(activation).flatten();
            let norm = norm(convolutions.len() + index);
            let weight = ChainOperation::Dense {
                weight: layer.weight.clone(),
                bias: layer.bias.clone(),
            };
            let rest = match reading.position {
                Position::NormFirst | Position::PoolFirst => [norm, activation],
                Position::NormSecond | Position::NormLast => [activation, norm],
            };
            let operations = [Some(weight)].into_iter().chain(rest).flatten();
            layers.extend(operations.map(|operation| named(layer, operation)));
        }
        translate(Chain {
            input: self.input,
            layers,
            initialization: self.initialization,
        })
    }
}

fn named(layer: &FileLayer, operation: ChainOperation) -> ChainLayer {
    ChainLayer {
        name: layer.name.clone(),
        operation,
    }
}

impl fmt::Display for Reading {
    /// Writes the layers: `2 x (3x3 convolution, no padding, ReLU, 2x2 max-pool), flattened channels last`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

impl Reading {
    /// Whether another reading has the same padding, strides and pools, and the same order of flattened channels.
    pub fn is_similar(&self, other: &Self) -> bool {
        self.geometry == other.geometry && self.order == other.order && self.norms == other.norms
    }

    fn describe(&self, layers: &FileLayers, is_flat: bool) -> String {
        let blocks = layers.convolutions.iter().zip(&self.geometry.blocks);
        let mut runs: Vec<(usize, String)> = Vec::new();
        for (index, (layer, placement)) in blocks.enumerate() {
            let is_last = index + 1 == layers.convolutions.len();
            let text = self.describe_block(layers, index, layer, placement, is_last);
            match runs.last_mut() {
                Some((count, last)) if *last == text => *count += 1,
                _ => runs.push((1, text)),
            }
        }
        let mut parts: Vec<String> = runs
            .into_iter()
            .map(|(count, text)| match count {
                1 => text,
                count => format!("{count} x ({text})"),
            })
            .collect();
        if !is_flat && !layers.dense.is_empty() {
            let order = match self.order {
                ChannelOrder::First => "first",
                ChannelOrder::Last => "last",
            };
            parts.push(format!("flattened channels {order}"));
        }
        if layers.dense.len() > 1 {
            let count = layers.dense.len() - 1;
            let s = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} dense layer{s} with {}", self.activation));
        }
        if parts.is_empty() {
            parts.push("a dense layer".into());
        }
        parts.join(", ")
    }

    fn describe_block(
        &self,
        layers: &FileLayers,
        index: usize,
        layer: &FileLayer,
        placement: &Placement,
        is_last: bool,
    ) -> String {
        let &[.., height, width] = layer.weight.shape.as_slice() else {
            return String::new();
        };
        let mut parts = vec![format!("{height}x{width} convolution")];
        if placement.stride != 1 {
            parts.push(format!("stride {}", placement.stride));
        }
        let padding = match placement.padding {
            0 => "no padding".into(),
            pixels => format!("padding {pixels}"),
        };
        parts.push(padding);
        let kind = match self.pool {
            PoolKind::Max => "max-pool",
            PoolKind::Average => "average pool",
        };
        let pool = match placement.pool {
            _ if is_last && self.geometry.is_global => Some(format!("global {kind}")),
            pool => pool.map(|[size, _]| format!("{size}x{size} {kind}")),
        };
        let norm = self.norms.contains(&index).then(|| "batch norm".to_owned());
        let has_activation = !is_last || !layers.dense.is_empty();
        let activation = has_activation.then(|| self.activation.to_string());
        let rest = match self.position {
            Position::NormFirst => [norm, activation, pool],
            Position::NormSecond => [activation, norm, pool],
            Position::NormLast => [activation, pool, norm],
            Position::PoolFirst => [pool, norm, activation],
        };
        parts.extend(rest.into_iter().flatten());
        parts.join(", ")
    }
}

/// Returns the shape of the images of a network without convolutions.
fn flat_input(inputs: usize) -> Result<[usize; 3], String> {
    let shape = |channels: usize| {
        let pixels = inputs / channels;
        let size = pixels.isqrt();
        (size * size * channels == inputs).then_some([channels, size, size])
    };
    shape(1).or_else(|| shape(3)).ok_or_else(|| {
        format!("{inputs} inputs of the first layer are not those of a square image")
    })
}

/// Returns the arrangements of padding and pools that give the first dense layer its number of inputs: the most regular
/// ones.
fn geometries(
    layers: &FileLayers,
    statement: &Statement,
    [_, height, _]: [usize; 3],
) -> Result<Vec<Geometry>, String> {
    let convolutions = &layers.convolutions;
    let Some(last) = convolutions.last() else {
        return Ok(vec![Geometry {
            blocks: Vec::new(),
            is_global: false,
        }]);
    };
    let inputs = layers.dense.first().map(FileLayer::inputs);
    let pixels = match inputs {
        Some(inputs) if inputs.is_multiple_of(last.outputs()) => Some(inputs / last.outputs()),
        Some(inputs) => {
            return Err(format!(
                "the {inputs} inputs of {} are not a multiple of the {} channels before",
                layers.dense[0].name.escape_debug(),
                last.outputs()
            ));
        }
        None => None,
    };
    let usual: &[Option<[usize; 2]>] = &[None, Some([2, 2])];
    let rare: &[Option<[usize; 2]>] =
        &[None, Some([2, 2]), Some([3, 2]), Some([3, 3]), Some([4, 4])];
    let mut geometries: Vec<Geometry> = Vec::new();
    for (strides, pools) in [(&[1][..], usual), (&[1, 2], usual), (&[1, 2], rare)] {
        let mut search = Search {
            layers: convolutions,
            statement,
            pixels,
            strides,
            pools,
            found: Vec::new(),
            listed: 0,
        };
        search.extend(&mut Vec::new(), height);
        let mut found = search.found;
        found.retain(|geometry| !geometries.contains(geometry));
        found.sort_by_key(|geometry| irregularity(geometry, convolutions));
        found.truncate(MAX_GEOMETRIES);
        geometries.extend(found);
    }
    if !geometries.is_empty() {
        return Ok(geometries);
    }
    Err(format!(
        "no arrangement of padding and pools on images of {height}x{height} pixels gives {} its {} inputs; \
         choose another size with --image-size, or describe the network with --config",
        layers
            .dense
            .first()
            .map_or("the last layer", |layer| &layer.name)
            .escape_debug(),
        inputs.unwrap_or(0)
    ))
}

/// Returns a number that is lower for more usual arrangements.
fn irregularity(geometry: &Geometry, layers: &[FileLayer]) -> usize {
    let blocks = &geometry.blocks;
    let is_mixed = |pair: &&[Placement]| (pair[0].padding > 0) != (pair[1].padding > 0);
    let mixed = blocks.windows(2).filter(is_mixed).count();
    let unpooled = blocks.iter().filter(|block| block.pool.is_none()).count();
    10 * usize::from(!geometry.is_regular(layers))
        + 2 * mixed
        + usize::from(unpooled == blocks.len())
}

/// Whether padding can keep the size of the image.
fn is_paddable(layer: &FileLayer) -> bool {
    matches!(layer.weight.shape.as_slice(), &[_, _, height, width] if height == width && height % 2 == 1 && height > 1)
}

/// A search for arrangements of padding and pools.
struct Search<'a> {
    layers: &'a [FileLayer],
    /// Pixels of the feature maps before the first dense layer; any number without dense layers.
    pixels: Option<usize>,
    statement: &'a Statement,
    strides: &'a [usize],
    pools: &'a [Option<[usize; 2]>],
    found: Vec<Geometry>,
    listed: usize,
}

impl Search<'_> {
    fn extend(&mut self, blocks: &mut Vec<Placement>, size: usize) {
        self.listed += 1;
        if self.listed > MAX_LISTED {
            return;
        }
        let Some(layer) = self.layers.get(blocks.len()) else {
            self.add(blocks, size);
            return;
        };
        let kernel = layer.weight.shape.get(2).copied().unwrap_or(0);
        let window = self.statement.pool.and_then(|(_, window)| window);
        let pools = &[None, window];
        let pools = if window.is_some() { pools } else { self.pools };
        let stated = self.statement.convolution(&layer.name);
        let usual = if is_paddable(layer) {
            &[kernel / 2, 0][..]
        } else {
            &[0]
        };
        let paddings = stated
            .as_ref()
            .map_or(usual, |(padding, _)| std::slice::from_ref(padding));
        let strides = stated
            .as_ref()
            .map_or(self.strides, |(_, stride)| std::slice::from_ref(stride));
        for &padding in paddings {
            for &stride in strides {
                let Some(room) = (size + 2 * padding).checked_sub(kernel) else {
                    continue;
                };
                let convolved = room / stride + 1;
                for &pool in pools {
                    let pooled = match pool {
                        None => Some(convolved),
                        Some([window, step]) => {
                            convolved.checked_sub(window).map(|room| room / step + 1)
                        }
                    };
                    let Some(pooled) = pooled else { continue };
                    blocks.push(Placement {
                        padding,
                        stride,
                        pool,
                    });
                    self.extend(blocks, pooled);
                    blocks.pop();
                }
            }
        }
    }

    fn add(&mut self, blocks: &[Placement], size: usize) {
        let is_unpooled = blocks.last().is_none_or(|last| last.pool.is_none());
        let is_flat = self.pixels == Some(size * size);
        let is_global = self.pixels.is_none_or(|pixels| pixels == 1) && size > 1 && is_unpooled;
        if is_flat || is_global {
            self.found.push(Geometry {
                blocks: blocks.to_vec(),
                is_global: !is_flat,
            });
        }
    }
}

/// Returns the possible layers of each batch normalization.
fn assignments(layers: &FileLayers) -> Result<Vec<Vec<usize>>, String> {
    let FileLayers {
        convolutions,
        dense,
        norms,
    } = layers;
    let all: Vec<&FileLayer> = convolutions.iter().chain(dense).collect();
    if let Some(owners) = named_owners(layers, &all) {
        return Ok(vec![owners]);
    }
    let mut found = Vec::new();
    let channels: Vec<usize> = norms
        .iter()
        .map(|norm| norm.normalization.factor.len())
        .collect();
    assign(&all, &channels, &mut Vec::new(), &mut found);
    match found.is_empty() {
        true => Err(format!(
            "the batch normalization {} fits no layer",
            norms.first().map_or("", |norm| &norm.name).escape_debug()
        )),
        false => Ok(found),
    }
}

/// Returns the layer of each batch normalization by the names: `features.0` of `features.1`, `conv1.conv` of `conv1.norm`.
fn named_owners(layers: &FileLayers, all: &[&FileLayer]) -> Option<Vec<usize>> {
    let owner = |name: &str| {
        let (parent, last) = name.rsplit_once('.')?;
        let number = |name: &str| -> Option<usize> {
            let (other, last) = name.rsplit_once('.')?;
            (other == parent).then(|| last.parse().ok()).flatten()
        };
        let (index, _) = match last.parse::<usize>() {
            Ok(own) => {
                let before = all.iter().enumerate().filter_map(|(index, layer)| {
                    Some((index, number(&layer.name).filter(|number| *number < own)?))
                });
                before.max_by_key(|(_, number)| *number)?
            }
            Err(_) => {
                let mut siblings = all.iter().enumerate().filter(|(_, layer)| {
                    layer
                        .name
                        .rsplit_once('.')
                        .is_some_and(|(other, _)| other == parent)
                });
                let (index, _) = siblings.next()?;
                siblings.next().is_none().then_some((index, 0))?
            }
        };
        Some(index)
    };
    let mut owners = Vec::new();
    for norm in &layers.norms {
        let index = owner(&norm.name)?;
        let fits = all[index].outputs() == norm.normalization.factor.len();
        if !fits || owners.contains(&index) {
            return None;
        }
        owners.push(index);
    }
    Some(owners)
}

/// Assigns batch normalization of `channels` to layers in order, in all ways.
fn assign(
    all: &[&FileLayer],
    channels: &[usize],
    owners: &mut Vec<usize>,
    found: &mut Vec<Vec<usize>>,
) {
    if found.len() >= MAX_ASSIGNMENTS {
        return;
    }
    let Some(&count) = channels.get(owners.len()) else {
        found.push(owners.clone());
        return;
    };
    let start = owners.last().map_or(0, |last| last + 1);
    for index in start..all.len() {
        if all[index].outputs() == count {
            owners.push(index);
            assign(all, channels, owners, found);
            owners.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tests::weights as zero_weights;

    fn weights(layout: Layout, tensors: &[(&str, &[usize])]) -> Weights {
        Weights {
            layout,
            ..zero_weights(tensors)
        }
    }

    /// Returns the descriptions of the usual readings with ReLU.
    fn usual(weights: &Weights) -> Vec<String> {
        let readings = Readings::new(weights, 28).unwrap();
        let is_usual =
            |reading: &&Reading| reading.is_usual && reading.activation == Activation::Relu;
        readings
            .iter()
            .filter(is_usual)
            .map(Reading::to_string)
            .collect()
    }

    #[test]
    fn the_first_dense_layer_limits_padding_and_pools() {
        let file = |inputs| {
            weights(
                Layout::PyTorch,
                &[
                    ("conv1.weight", &[4, 1, 3, 3]),
                    ("conv2.weight", &[8, 4, 3, 3]),
                    ("fc1.weight", &[16, inputs]),
                    ("fc2.weight", &[10, 16]),
                ],
            )
        };
        let rest = "flattened channels first, 1 dense layer with ReLU";
        assert_eq!(
            usual(&file(200)),
            ["max-pool", "average pool"]
                .map(|pool| format!("2 x (3x3 convolution, no padding, ReLU, 2x2 {pool}), {rest}"))
        );
        assert_eq!(
            usual(&file(8 * 49))[0],
            format!("2 x (3x3 convolution, padding 1, ReLU, 2x2 max-pool), {rest}")
        );
        let error = Readings::new(&file(9), 28).unwrap_err();
        assert_eq!(
            error,
            "the 9 inputs of fc1 are not a multiple of the 8 channels before"
        );
        let error = Readings::new(&file(8 * 31 * 31), 28).unwrap_err();
        assert!(error.starts_with("no arrangement of padding and pools on images of 28x28 pixels gives fc1 its 7688 inputs"));
    }

    #[test]
    fn every_reading_is_a_network() {
        let weights = weights(
            Layout::Keras,
            &[
                ("conv2d/vars/0", &[3, 3, 1, 4]),
                ("batch_normalization/vars/0", &[4]),
                ("batch_normalization/vars/1", &[4]),
                ("batch_normalization/vars/2", &[4]),
                ("batch_normalization/vars/3", &[4]),
                ("dense/vars/0", &[4 * 169, 10]),
            ],
        );
        let readings = Readings::new(&weights, 28).unwrap();
        assert!(readings.iter().count() > 50);
        for reading in readings.iter() {
            let architecture = readings.architecture(reading).unwrap();
            assert_eq!(architecture.network.classes, 10, "{reading}");
        }
    }

    #[test]
    fn batch_normalization_belongs_to_the_layer_before_or_to_one_of_its_width() {
        let layers = |names: [&str; 3]| {
            let [first, second, norm] = names;
            let (mean, variance) = (
                format!("{norm}.running_mean"),
                format!("{norm}.running_var"),
            );
            let first = format!("{first}.weight");
            let second = format!("{second}.weight");
            let file = weights(
                Layout::PyTorch,
                &[
                    (&first, &[4, 1, 3, 3]),
                    (&second, &[4, 4, 3, 3]),
                    (&mean, &[4]),
                    (&variance, &[4]),
                    ("fc.weight", &[10, 4]),
                ],
            );
            assignments(&FileLayers::of(&file).unwrap()).unwrap()
        };
        assert_eq!(layers(["features.0", "features.3", "features.4"]), [[1]]);
        assert_eq!(layers(["a.conv", "b.conv", "a.norm"]), [[0]]);
        assert_eq!(layers(["conv1", "conv2", "bn"]), [[0], [1]]);
    }
}
