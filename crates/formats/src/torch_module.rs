//! Whole modules of PyTorch, `torch.save(model, path)`: their layers and settings as data, and the translation of
//! sequential ones.

use std::collections::HashSet;

use model::{Activation, Initialization, PoolKind};

use pickle::{Id, Object, Pickle, Value};

use crate::architecture::{Architecture, translate};
use crate::batch_norm::{EPSILON, Normalization};
use crate::chain::{Chain, ChainLayer, ChainOperation, ChannelOrder, Padding};
use crate::hint::{LayerHint, LayerKind};
use crate::tensor::{Tensor, Tensors};

/// Largest accepted kernel, stride, padding and dilation.
const MAX_SIZE: usize = 1 << 16;
/// Sides of the images that are tried first: those of MNIST for gray images, of CIFAR for color images.
const COMMON_SIDES: [usize; 2] = [28, 32];
/// Smallest and largest side of an image that is tried.
const SIDES: std::ops::RangeInclusive<usize> = 8..=256;
/// Largest accepted nesting of sequential modules.
const MAX_DEPTH: usize = 32;
/// Largest accepted number of layers.
const MAX_LAYERS: usize = 500;
/// The class of modules that apply their children one after another.
const SEQUENTIAL: &str = "torch.nn.modules.container.Sequential";
/// Classes of modules that only call another module.
const WRAPPERS: [&str; 4] = [
    "torch.optim.swa_utils.AveragedModel",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
];
/// Attributes that hold functions which change the input, the output or the weights of a module.
const HOOKS: [&str; 2] = ["_forward_pre_hooks", "_forward_hooks"];

/// A module of a pickle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module<'p> {
    pickle: &'p Pickle<'p>,
    object: &'p Object,
    attributes: &'p [(Id, Id)],
}

impl<'p> Module<'p> {
    /// Returns the module, if the value is one.
    pub(crate) fn new(pickle: &'p Pickle<'p>, id: Id) -> Option<Self> {
        let object = pickle.object(id)?;
        let attributes = pickle.attributes(object);
        let module = Self {
            pickle,
            object,
            attributes,
        };
        let is_module = module.dict("_modules").is_some() && module.dict("_parameters").is_some();
        is_module.then_some(module)
    }

    /// Returns the number of attributes.
    pub(crate) fn len(&self) -> usize {
        self.attributes.len()
    }

    fn get(&self, name: &str) -> Option<Id> {
        self.pickle.get(self.attributes, name)
    }

    /// Returns the entries of an attribute that is a dictionary.
    pub(crate) fn dict(&self, name: &str) -> Option<&'p [(Id, Id)]> {
        self.pickle.entries(self.get(name)?)
    }

    /// Returns the names of buffers that a `state_dict` leaves out.
    pub(crate) fn non_persistent(&self) -> HashSet<&'p str> {
        let names = self.get("_non_persistent_buffers_set");
        let names = names.and_then(|names| self.pickle.elements(names));
        let names = names.unwrap_or_default().iter();
        names.filter_map(|name| self.pickle.text(*name)).collect()
    }

    /// Returns the class, as `module.name`.
    pub(crate) fn class(&self) -> String {
        let class = match *self.pickle.value(self.object.class) {
            // ("module", class, source file, source) in legacy files
            Value::Persistent(identifier) => {
                let parts = self.pickle.elements(identifier);
                parts.and_then(|parts| parts.get(1).copied())
            }
            _ => Some(self.object.class),
        };
        let class = class.and_then(|class| self.pickle.global(class));
        class.unwrap_or_else(|| "a computed class".into())
    }

    /// Returns the names and values of the child modules, in order.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&'p str, Module<'p>)> {
        let pickle = self.pickle;
        let children = self.dict("_modules").unwrap_or_default().iter();
        children.filter_map(move |(name, module)| {
            Some((pickle.text(*name)?, Module::new(pickle, *module)?))
        })
    }

    fn flag(&self, name: &str) -> bool {
        let value = self.get(name).map(|id| self.pickle.value(id));
        matches!(value, Some(Value::Bool(true)))
    }

    fn text(&self, name: &str) -> Option<&'p str> {
        self.pickle.text(self.get(name)?)
    }

    fn float(&self, name: &str) -> Option<f64> {
        self.pickle.float(self.get(name)?)
    }

    /// Returns an integer, which may be negative.
    fn integer(&self, name: &str) -> Option<i64> {
        match self.pickle.value(self.get(name)?) {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    fn is_none(&self, name: &str) -> bool {
        self.get(name)
            .is_none_or(|id| *self.pickle.value(id) == Value::None)
    }

    /// Returns sizes: one number for all, or a tuple.
    fn sizes<const N: usize>(&self, name: &str) -> Option<[usize; N]> {
        let id = self.get(name)?;
        let size = |id| self.pickle.size(id).filter(|size| *size <= MAX_SIZE);
        match self.pickle.elements(id) {
            None => Some([size(id)?; N]),
            Some(elements) => {
                let sizes: Option<Vec<_>> = elements.iter().map(|id| size(*id)).collect();
                sizes?.try_into().ok()
            }
        }
    }

    /// Returns the sizes of an adaptive pool, where None keeps the size of the image.
    fn output_size(&self) -> Option<[Option<usize>; 2]> {
        let id = self.get("output_size")?;
        let size = |id: Id| match self.pickle.value(id) {
            Value::None => Some(None),
            _ => self.pickle.size(id).map(Some),
        };
        match self.pickle.elements(id) {
            None => Some([size(id)?; 2]),
            Some(&[height, width]) => Some([size(height)?, size(width)?]),
            Some(_) => None,
        }
    }

    /// Returns the kind of the module with its settings.
    pub(crate) fn kind(&self) -> LayerKind {
        let class = self.class();
        let other = |reason: &str| {
            let class = short(&class);
            LayerKind::Other(format!("{class}{reason}"))
        };
        let is_hooked = |name: &&&str| self.dict(name).is_some_and(|hooks| !hooks.is_empty());
        if let Some(hook) = HOOKS.iter().find(is_hooked) {
            return other(&format!(" with {}", hook.trim_start_matches('_')));
        }
        if !class.starts_with("torch.nn.modules.") {
            // Before PyTorch 1.2, every program had a class for this.
            let is_flatten = short(&class) == "Flatten" && self.attributes_of_layers() == 0;
            return match is_flatten {
                true => LayerKind::Flatten,
                false => other(""),
            };
        }
        let kind = match short(&class) {
            "Conv2d" => self.convolution(),
            "Linear" => Some(LayerKind::Dense),
            "MaxPool2d" => self.pool(PoolKind::Max),
            "AvgPool2d" => self.pool(PoolKind::Average),
            "AdaptiveMaxPool2d" if !self.flag("return_indices") => self.adaptive(PoolKind::Max),
            "AdaptiveAvgPool2d" => self.adaptive(PoolKind::Average),
            "BatchNorm1d" | "BatchNorm2d" | "SyncBatchNorm" => Some(LayerKind::BatchNorm {
                eps: self.float("eps").unwrap_or(EPSILON),
            }),
            "ReLU" => Some(LayerKind::Activation(Activation::Relu)),
            "Tanh" => Some(LayerKind::Activation(Activation::Tanh)),
            "SiLU" => Some(LayerKind::Activation(Activation::Silu)),
            "GELU" => match self.text("approximate") {
                None | Some("none") => Some(LayerKind::Activation(Activation::Gelu)),
                Some(_) => return other(" with an approximation"),
            },
            "Softmax" | "LogSoftmax" => match self.integer("dim") {
                None | Some(1 | -1) => Some(LayerKind::Softmax),
                Some(_) => None,
            },
            "Flatten" => match (self.integer("start_dim"), self.integer("end_dim")) {
                (None | Some(1), None | Some(-1 | 3)) => Some(LayerKind::Flatten),
                _ => None,
            },
            "Dropout"
            | "Dropout1d"
            | "Dropout2d"
            | "Dropout3d"
            | "AlphaDropout"
            | "FeatureAlphaDropout" => Some(LayerKind::Dropout {
                p: self.float("p").unwrap_or(0.5),
            }),
            "Sigmoid" => Some(LayerKind::Sigmoid),
            "Identity" => Some(LayerKind::Identity),
            "ZeroPad2d" => self.padding_sides(),
            "ConstantPad2d" if self.float("value") == Some(0.0) => self.padding_sides(),
            _ => return other(""),
        };
        kind.unwrap_or_else(|| other(" with these settings"))
    }

    /// Returns the number of parameters, buffers and children.
    fn attributes_of_layers(&self) -> usize {
        let dicts = ["_parameters", "_buffers", "_modules"].into_iter();
        let dicts = dicts.filter_map(|name| self.dict(name));
        dicts.map(<[_]>::len).sum()
    }

    fn convolution(&self) -> Option<LayerKind> {
        let is_zeros = matches!(self.text("padding_mode"), None | Some("zeros"));
        if !is_zeros || self.flag("transposed") {
            return None;
        }
        let dilation = self.sizes("dilation")?;
        let padding = match self.text("padding") {
            Some("valid") => [0; 4],
            Some("same") => {
                let kernel: [usize; 2] = self.sizes("kernel_size")?;
                // The odd pixel is below and on the right.
                let total = |axis: usize| dilation[axis] * kernel[axis].saturating_sub(1);
                let [height, width] = [total(0), total(1)];
                [height / 2, width / 2, height.div_ceil(2), width.div_ceil(2)]
            }
            Some(_) => return None,
            None => {
                let [height, width] = self.sizes("padding")?;
                [height, width, height, width]
            }
        };
        Some(LayerKind::Convolution {
            stride: self.sizes("stride")?,
            padding,
            dilation,
            groups: self.sizes::<1>("groups").map_or(1, |[groups]| groups),
        })
    }

    fn pool(&self, kind: PoolKind) -> Option<LayerKind> {
        let size = self.sizes("kernel_size")?;
        let stride = match self.is_none("stride") {
            true => size,
            false => self.sizes("stride")?,
        };
        let padding = self.sizes("padding").unwrap_or([0; 2]);
        let counts_padding = padding == [0; 2] || self.flag("count_include_pad");
        let is_supported = match kind {
            PoolKind::Max => {
                let dilation = self.sizes("dilation").unwrap_or([1; 2]);
                dilation == [1; 2] && !self.flag("return_indices")
            }
            PoolKind::Average => counts_padding && self.is_none("divisor_override"),
        };
        is_supported.then_some(LayerKind::Pool {
            kind,
            size,
            stride,
            padding,
            is_ceil: self.flag("ceil_mode"),
        })
    }

    fn adaptive(&self, kind: PoolKind) -> Option<LayerKind> {
        let output = self.output_size()?;
        Some(LayerKind::AdaptivePool { kind, output })
    }

    /// Returns the sides of a padding layer, which states left, right, top and bottom.
    fn padding_sides(&self) -> Option<LayerKind> {
        let [left, right, top, bottom] = self.sizes("padding")?;
        Some(LayerKind::Pad([top, left, bottom, right]))
    }
}

/// Returns the last part of a class's name.
fn short(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

/// Translates a sequential module to a network; `None` if its class has a `forward` of its own, which is not part of
/// the file. `layers` are its modules without children, and `tensors` those of the file, both with names that begin with
/// `prefix`.
pub(crate) fn architecture(
    module: Module<'_>,
    prefix: &str,
    tensors: &Tensors,
) -> Option<Result<Architecture, String>> {
    let (name, module) = match WRAPPERS.contains(&module.class().as_str()) {
        true => module.children().next()?,
        false => ("", module),
    };
    if module.class() != SEQUENTIAL {
        return None;
    }
    if let LayerKind::Other(class) = module.kind()
        && class != short(SEQUENTIAL)
    {
        return Some(Err(format!("{class} is not supported")));
    }
    let mut hints = Vec::new();
    sequence(module, name, &mut hints, 0)?;
    let layers = hints.into_iter().map(|LayerHint { name, kind }| Layer {
        parameters: parameters(tensors, prefix, &name),
        name,
        kind,
    });
    Some(translated(&layers.collect::<Vec<_>>()))
}

/// Collects the layers of nested sequential modules, in order; `None` if there are too many.
fn sequence(
    module: Module<'_>,
    prefix: &str,
    layers: &mut Vec<LayerHint>,
    depth: usize,
) -> Option<()> {
    if depth > MAX_DEPTH || layers.len() > MAX_LAYERS {
        return None;
    }
    for (name, child) in module.children() {
        let name = match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}.{name}"),
        };
        match child.kind() {
            LayerKind::Other(class)
                if class == short(SEQUENTIAL) && child.class() == SEQUENTIAL =>
            {
                sequence(child, &name, layers, depth + 1)?;
            }
            kind => layers.push(LayerHint { name, kind }),
        }
    }
    Some(())
}

/// A layer with its weights.
struct Layer<'a> {
    name: String,
    kind: LayerKind,
    parameters: LayerTensors<'a>,
}

/// The tensors of a layer.
#[derive(Clone, Copy)]
struct LayerTensors<'a> {
    weight: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    mean: Option<&'a Tensor>,
    variance: Option<&'a Tensor>,
}

fn parameters<'a>(tensors: &'a Tensors, prefix: &str, layer: &str) -> LayerTensors<'a> {
    let get = |part: &str| tensors.get(&format!("{prefix}{layer}.{part}"));
    LayerTensors {
        weight: get("weight"),
        bias: get("bias"),
        mean: get("running_mean"),
        variance: get("running_var"),
    }
}

/// Translates the layers. PyTorch stores no size of images: the first size is taken that gives the first dense layer as
/// many inputs as it has.
fn translated(layers: &[Layer<'_>]) -> Result<Architecture, String> {
    let mut inputs = channels(layers).into_iter().flat_map(|channels| {
        let mut common = COMMON_SIDES;
        if channels == 3 {
            common.reverse();
        }
        let others = SIDES.filter(|side| !COMMON_SIDES.contains(side));
        let sides = common.into_iter().chain(others);
        sides.map(move |side| [channels, side, side])
    });
    let usual = inputs.clone().next();
    let fitting = inputs.find(|input| fits(layers, *input));
    let input = fitting.or(usual).ok_or("no layers")?;
    // Without a fitting size, the translation names the layer that does not fit.
    let mut architecture = chain(layers, input).and_then(translate)?;
    let [_, side, _] = input;
    architecture.notes.push(format!(
        "the file states no size of images; {side}x{side} pixels fit the layers"
    ));
    Ok(architecture)
}

/// Returns the possible numbers of channels of the images.
fn channels(layers: &[Layer<'_>]) -> Vec<usize> {
    let first = layers.iter().find_map(|layer| match layer.kind {
        LayerKind::Convolution { groups, .. } => Some((layer.parameters.weight?, groups)),
        _ => None,
    });
    match first.map(|(weight, groups)| (weight.shape.as_slice(), groups)) {
        Some((&[_, inputs, ..], groups)) => vec![inputs.saturating_mul(groups)],
        _ => vec![1, 3],
    }
}

/// Returns whether the first dense layer has as many inputs as an image of this shape gives.
fn fits(layers: &[Layer<'_>], input: [usize; 3]) -> bool {
    let mut maps = Maps(input);
    for layer in layers {
        if layer.kind == LayerKind::Dense {
            let weight = layer
                .parameters
                .weight
                .map(|weight| weight.shape.as_slice());
            let Maps([channels, height, width]) = maps;
            let values = channels.saturating_mul(height).saturating_mul(width);
            return matches!(weight, Some(&[_, inputs]) if inputs == values);
        }
        match maps.after(layer) {
            Some(next) => maps = next,
            None => return false,
        }
    }
    true
}

/// The shape `[channels, height, width]` of the feature maps between two layers.
#[derive(Clone, Copy, Debug)]
struct Maps([usize; 3]);

impl Maps {
    /// Returns the maps after a layer; `None` if the layer does not fit.
    fn after(self, layer: &Layer<'_>) -> Option<Self> {
        let Self([channels, height, width]) = self;
        let each = |output: &dyn Fn(usize, usize) -> Option<usize>| {
            Some([output(0, height)?, output(1, width)?])
        };
        let (channels, sizes) = match &layer.kind {
            LayerKind::Convolution {
                stride,
                padding,
                dilation,
                ..
            } => {
                let &[outputs, _, kernel_height, kernel_width] =
                    layer.parameters.weight?.shape.as_slice()
                else {
                    return None;
                };
                let kernel = [kernel_height, kernel_width];
                let output = |axis: usize, size: usize| {
                    let spread = kernel[axis].checked_sub(1)?.checked_mul(dilation[axis])?;
                    let room = size + padding[axis] + padding[axis + 2];
                    let room = room.checked_sub(spread.checked_add(1)?)?;
                    Some(room.checked_div(stride[axis])? + 1)
                };
                (outputs, each(&output)?)
            }
            LayerKind::Pool {
                size,
                stride,
                padding,
                is_ceil,
                ..
            } => {
                let window = |axis: usize, length: usize| Window {
                    length,
                    size: size[axis],
                    stride: stride[axis],
                    padding: padding[axis],
                };
                let output = |axis, length| window(axis, length).count(*is_ceil);
                (channels, each(&output)?)
            }
            LayerKind::AdaptivePool { output, .. } => {
                let [rows, columns] = *output;
                (channels, [rows.unwrap_or(height), columns.unwrap_or(width)])
            }
            LayerKind::Pad([top, left, bottom, right]) => {
                (channels, [height + top + bottom, width + left + right])
            }
            _ => return Some(self),
        };
        let [height, width] = sizes;
        Some(Self([channels, height, width]))
    }
}

/// The windows of a pool along one side of an image.
struct Window {
    length: usize,
    size: usize,
    stride: usize,
    padding: usize,
}

impl Window {
    /// Returns the number of windows. With `is_ceil`, a last window may exceed the image, if it begins before its end.
    fn count(&self, is_ceil: bool) -> Option<usize> {
        let room = (self.length + 2 * self.padding).checked_sub(self.size)?;
        let whole = room.checked_div(self.stride)? + 1;
        let begins_inside = whole * self.stride < self.length + self.padding;
        let is_more = is_ceil && !room.is_multiple_of(self.stride) && begins_inside;
        Some(whole + usize::from(is_more))
    }

    /// Returns the padding after the image.
    fn padding_after(&self, is_ceil: bool) -> Option<usize> {
        let count = self.count(is_ceil)?;
        let covered = count.checked_sub(1)? * self.stride + self.size;
        let needed = covered.saturating_sub(self.length + self.padding);
        Some(needed.max(self.padding))
    }
}

/// Returns the layers as a chain, for images of this shape.
fn chain(layers: &[Layer<'_>], input: [usize; 3]) -> Result<Chain, String> {
    let mut maps = Maps(input);
    let mut chain = Chain {
        input,
        layers: Vec::new(),
        initialization: Initialization::Pytorch,
    };
    for layer in layers {
        let operation = operation(layer, maps);
        let operation = operation.map_err(|reason| format!("layer {}: {reason}", layer.name))?;
        chain.layers.extend(operation.map(|operation| ChainLayer {
            name: layer.name.clone(),
            operation,
        }));
        // The translation refuses a layer that does not fit.
        maps = maps.after(layer).unwrap_or(maps);
    }
    Ok(chain)
}

/// Returns the operation of a layer on maps; `None` if it has no effect.
fn operation(layer: &Layer<'_>, maps: Maps) -> Result<Option<ChainOperation>, String> {
    let Maps([_, height, width]) = maps;
    let tensor = |tensor: Option<&Tensor>, rank: usize| {
        let tensor = tensor.ok_or("no weights in the file")?;
        match tensor.shape.len() == rank && !tensor.shape.contains(&0) {
            true => Ok(tensor.clone()),
            false => Err(format!("a weight of shape {:?}", tensor.shape)),
        }
    };
    let LayerTensors {
        weight,
        bias,
        mean,
        variance,
    } = layer.parameters;
    Ok(Some(match &layer.kind {
        LayerKind::Convolution {
            stride,
            padding,
            dilation,
            groups,
        } => ChainOperation::Convolution {
            weight: tensor(weight, 4)?,
            bias: bias.cloned(),
            stride: equal(*stride, "strides")?,
            padding: Padding::Sides(*padding),
            dilation: equal(*dilation, "dilations")?,
            groups: *groups,
        },
        LayerKind::Dense => ChainOperation::Dense {
            weight: tensor(weight, 2)?,
            bias: bias.cloned(),
        },
        LayerKind::Pool {
            kind,
            size,
            stride,
            padding,
            is_ceil,
        } => {
            let size = equal(*size, "sizes of windows")?;
            let stride = equal(*stride, "strides")?;
            let after = |axis: usize, length| {
                let window = Window {
                    length,
                    size,
                    stride,
                    padding: padding[axis],
                };
                window.padding_after(*is_ceil)
            };
            let [top, left] = *padding;
            let (bottom, right) = after(0, height).zip(after(1, width)).ok_or_else(|| {
                format!("a window of {size}x{size} on an image of {height}x{width} pixels")
            })?;
            if *kind == PoolKind::Average && [bottom, right] != *padding {
                return Err("an average over windows that exceed the image".into());
            }
            ChainOperation::Pool {
                kind: *kind,
                size,
                stride,
                padding: Padding::Sides([top, left, bottom, right]),
            }
        }
        LayerKind::AdaptivePool { kind, output } => {
            let output = [output[0].unwrap_or(height), output[1].unwrap_or(width)];
            match output {
                [1, 1] => ChainOperation::GlobalPool(*kind),
                output if output == [height, width] => return Ok(None),
                [rows, columns]
                    if rows > 0
                        && columns > 0
                        && height.is_multiple_of(rows)
                        && width.is_multiple_of(columns)
                        && height / rows == width / columns =>
                {
                    let size = height / rows;
                    ChainOperation::Pool {
                        kind: *kind,
                        size,
                        stride: size,
                        padding: Padding::Each(0),
                    }
                }
                [rows, columns] => {
                    return Err(format!(
                        "an adaptive pool from {height}x{width} to {rows}x{columns} pixels, whose windows differ in \
                         size, is not supported"
                    ));
                }
            }
        }
        LayerKind::BatchNorm { eps } => {
            let values = |tensor: Option<&Tensor>| tensor.and_then(Tensor::values);
            let (mean, variance) = values(mean)
                .zip(values(variance))
                .ok_or("batch normalization without running statistics is not supported")?;
            let learned = [values(weight), values(bias)];
            let normalization = Normalization::new([&mean, &variance], learned, *eps)
                .ok_or("statistics of different lengths")?;
            ChainOperation::Normalize(normalization)
        }
        LayerKind::Activation(activation) => ChainOperation::Activate(*activation),
        LayerKind::Dropout { p } => ChainOperation::Dropout(*p),
        LayerKind::Flatten => ChainOperation::Flatten {
            order: ChannelOrder::First,
        },
        LayerKind::Softmax => ChainOperation::Softmax,
        LayerKind::Sigmoid => ChainOperation::Sigmoid,
        LayerKind::Pad(sides) => ChainOperation::Pad(*sides),
        LayerKind::Identity => return Ok(None),
        LayerKind::Other(class) => return Err(format!("{class} is not supported")),
    }))
}

/// Returns the number that both dimensions have.
fn equal([height, width]: [usize; 2], what: &str) -> Result<usize, String> {
    match height == width {
        true => Ok(height),
        false => Err(format!(
            "{what} of {height}x{width}; only equal ones are supported"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pytorch::tests::{archive, float_tensor, module};

    /// Returns a pickled module of `torch.nn.modules` with these attributes, given as opcodes.
    fn layer(class: &str, attributes: &[(&str, &str)]) -> Vec<u8> {
        module(
            &format!("torch.nn.modules.x\n{class}"),
            attributes,
            &[],
            &[],
        )
    }

    /// Returns a layer with a weight of zeros.
    fn weighted(class: &str, attributes: &[(&str, &str)], shape: &[usize]) -> Vec<u8> {
        let weight = float_tensor(shape);
        module(
            &format!("torch.nn.modules.x\n{class}"),
            attributes,
            &[("weight", weight)],
            &[],
        )
    }

    const CONVOLUTION: [(&str, &str); 4] = [
        ("stride", "I1\n"),
        ("padding", "I0\n"),
        ("dilation", "I1\n"),
        ("kernel_size", "I3\n"),
    ];
    const POOL: [(&str, &str); 2] = [("kernel_size", "I2\n"), ("stride", "I2\n")];

    /// Returns the network of a sequence of layers.
    fn network(layers: &[Vec<u8>]) -> Result<Architecture, String> {
        let names: Vec<String> = (0..layers.len()).map(|index| index.to_string()).collect();
        let children: Vec<_> = names
            .iter()
            .map(String::as_str)
            .zip(layers.to_vec())
            .collect();
        let pickle = module(&SEQUENTIAL.replace(".Seq", "\nSeq"), &[], &[], &children);
        let content = crate::pytorch::read(&archive(&pickle)).unwrap();
        let mut groups = content.groups;
        assert_eq!(groups.len(), 1);
        groups.remove(0).architecture.unwrap()
    }

    #[test]
    fn sequences_of_known_layers_are_networks() {
        let architecture = network(&[
            weighted("Conv2d", &CONVOLUTION, &[2, 1, 3, 3]),
            layer("ReLU", &[]),
            layer("MaxPool2d", &POOL),
            layer("Dropout2d", &[("p", "F0.25\n")]),
            layer("Flatten", &[("start_dim", "I1\n"), ("end_dim", "I-1\n")]),
            weighted("Linear", &[], &[5, 2 * 13 * 13]),
            layer("Tanh", &[]),
            weighted("Linear", &[], &[4, 5]),
            layer("LogSoftmax", &[("dim", "I1\n")]),
        ])
        .unwrap();
        let network = architecture.network;
        assert_eq!((network.input, network.classes), ([28, 28], 4));
        assert_eq!(network.dense, [5]);
        assert_eq!(network.dense_activation, Activation::Tanh);
        assert_eq!(network.initialization, Initialization::Pytorch);
        assert_eq!(
            architecture.notes,
            ["the file states no size of images; 28x28 pixels fit the layers"]
        );
    }

    #[test]
    fn the_first_dense_layer_determines_the_size_of_images() {
        let side = |channels: usize, inputs: usize| {
            let network = network(&[
                weighted("Conv2d", &CONVOLUTION, &[1, channels, 3, 3]),
                layer("Flatten", &[]),
                weighted("Linear", &[], &[2, inputs]),
            ]);
            network.map(|architecture| architecture.network.input[0])
        };
        assert_eq!(side(1, 26 * 26), Ok(28));
        assert_eq!(side(3, 30 * 30), Ok(32));
        assert_eq!(side(1, 62 * 62), Ok(64));
        assert_eq!(
            side(1, 37),
            Err("layer 2: 37 inputs where the layers before have 676 outputs".into())
        );
        // Sizes with global pooling: the one of MNIST for gray images, of CIFAR for color images.
        let pooled = |channels| {
            let network = network(&[
                weighted("Conv2d", &CONVOLUTION, &[6, channels, 3, 3]),
                layer("AdaptiveAvgPool2d", &[("output_size", "(I1\nI1\nt")]),
                layer("Flatten", &[]),
                weighted("Linear", &[], &[2, 6]),
            ]);
            network.unwrap().network.input[0]
        };
        assert_eq!((pooled(1), pooled(3)), (28, 32));
        // Without a convolution, the images are gray, or in color.
        let dense = |inputs| {
            let layers = [layer("Flatten", &[]), weighted("Linear", &[], &[2, inputs])];
            let network = network(&layers).unwrap().network;
            (network.channels, network.input[0])
        };
        assert_eq!((dense(28 * 28), dense(3 * 32 * 32)), ((1, 28), (3, 32)));
    }

    #[test]
    fn unsupported_layers_are_refused_by_name() {
        let error = |layer: Vec<u8>| network(&[layer]).unwrap_err();
        let convolution = |changed: (&str, &str)| {
            let others = CONVOLUTION
                .into_iter()
                .filter(|(name, _)| *name != changed.0);
            let attributes: Vec<_> = others.chain([changed]).collect();
            error(weighted("Conv2d", &attributes, &[2, 2, 3, 3]))
        };
        for (message, expected) in [
            (
                error(layer("Hardswish", &[])),
                "layer 0: Hardswish is not supported",
            ),
            (
                error(module("__main__\nNet", &[], &[], &[])),
                "layer 0: Net is not supported",
            ),
            (
                error(layer("GELU", &[("approximate", "Vtanh\n")])),
                "layer 0: GELU with an approximation is not supported",
            ),
            (
                error(layer("Linear", &[("_forward_pre_hooks", "}I0\nNs")])),
                "layer 0: Linear with forward_pre_hooks is not supported",
            ),
            (
                error(layer("Linear", &[])),
                "layer 0: no weights in the file",
            ),
            (
                convolution(("padding_mode", "Vreflect\n")),
                "layer 0: Conv2d with these settings is not supported",
            ),
            (
                convolution(("stride", "(I1\nI2\nt")),
                "layer 0: strides of 1x2; only equal ones are supported",
            ),
            (
                convolution(("groups", "I2\n")),
                "layer 0: a convolution of 2 groups of channels is not supported",
            ),
            (
                convolution(("stride", "I0\n")),
                "layer 0: a window of 3x3 on an image of 28 pixels",
            ),
            (
                convolution(("padding", "I99999999\n")),
                "layer 0: Conv2d with these settings is not supported",
            ),
            (
                error(layer(
                    "MaxPool2d",
                    &[POOL[0], POOL[1], ("dilation", "I2\n")],
                )),
                "layer 0: MaxPool2d with these settings is not supported",
            ),
            (
                error(layer(
                    "AvgPool2d",
                    &[("kernel_size", "I3\n"), ("padding", "I1\n")],
                )),
                "layer 0: AvgPool2d with these settings is not supported",
            ),
            (
                error(layer("AdaptiveMaxPool2d", &[("output_size", "I5\n")])),
                "layer 0: an adaptive pool from 28x28 to 5x5 pixels, whose windows differ in size, is not supported",
            ),
            (
                error(weighted("Conv2d", &CONVOLUTION, &[2, 0, 3, 3])),
                "layer 0: a weight of shape [2, 0, 3, 3]",
            ),
            (
                error(layer("BatchNorm2d", &[])),
                "layer 0: batch normalization without running statistics is not supported",
            ),
        ] {
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn windows_may_exceed_the_image() {
        let window = |length, size, stride, padding| Window {
            length,
            size,
            stride,
            padding,
        };
        // As in PyTorch: ceil_mode of MaxPool2d(2) on 7 pixels, MaxPool2d(3, 2) on 28, MaxPool2d(1, 3) on 3.
        assert_eq!(window(7, 2, 2, 0).count(true), Some(4));
        assert_eq!(window(7, 2, 2, 0).padding_after(true), Some(1));
        assert_eq!(window(28, 3, 2, 0).count(true), Some(14));
        assert_eq!(window(28, 3, 2, 0).count(false), Some(13));
        assert_eq!(window(3, 1, 3, 0).count(true), Some(1));
        assert_eq!(window(2, 5, 1, 0).count(true), None);
        assert_eq!(window(8, 2, 0, 0).count(true), None);
    }

    #[test]
    fn adaptive_pools_have_equal_windows_or_no_effect() {
        let pool = |output: &str| {
            let adaptive = layer("AdaptiveAvgPool2d", &[("output_size", output)]);
            let inputs = if output == "I13\n" { 169 } else { 26 * 26 };
            let network = network(&[
                weighted("Conv2d", &CONVOLUTION, &[1, 1, 3, 3]),
                adaptive,
                layer("Flatten", &[]),
                weighted("Linear", &[], &[2, inputs]),
            ]);
            network.unwrap().network.conv_blocks().next().unwrap().pool
        };
        let halves = model::Pool::Windows {
            kind: PoolKind::Average,
            size: 2,
            stride: 2,
            padding: 0,
        };
        assert_eq!(pool("I13\n"), halves);
        assert_eq!(pool("I26\n"), model::Pool::None);
        assert_eq!(pool("(NNt"), model::Pool::None);
    }

    #[test]
    fn a_module_of_its_own_class_has_hints() {
        let children = [
            ("conv", weighted("Conv2d", &CONVOLUTION, &[2, 1, 3, 3])),
            ("norm", weighted("BatchNorm2d", &[("eps", "F0.5\n")], &[2])),
            (
                "pool",
                layer("AvgPool2d", &[("kernel_size", "I2\n"), ("stride", "N")]),
            ),
            ("drop", layer("Dropout", &[("p", "F0.25\n")])),
            ("other", layer("LSTM", &[])),
        ];
        let pickle = module("__main__\nNet", &[], &[], &children);
        let content = crate::pytorch::read(&archive(&pickle)).unwrap();
        assert!(content.groups[0].architecture.is_none());
        let hints: Vec<_> = content
            .hints
            .into_iter()
            .map(|hint| (hint.name, hint.kind))
            .collect();
        let expected = [
            (
                "conv",
                LayerKind::Convolution {
                    stride: [1; 2],
                    padding: [0; 4],
                    dilation: [1; 2],
                    groups: 1,
                },
            ),
            ("norm", LayerKind::BatchNorm { eps: 0.5 }),
            (
                "pool",
                LayerKind::Pool {
                    kind: PoolKind::Average,
                    size: [2; 2],
                    stride: [2; 2],
                    padding: [0; 2],
                    is_ceil: false,
                },
            ),
            ("drop", LayerKind::Dropout { p: 0.25 }),
            ("other", LayerKind::Other("LSTM".into())),
        ];
        assert_eq!(hints, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }
}
