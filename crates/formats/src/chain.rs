//! The layers of a network in a file, one after another, and their translation to a description of this project.
//!
//! Each reader of an architecture translates its file to a [`Chain`]. The layers that this project does not support are
//! refused here, by name.

use data::Scaling;
use model::{Activation, BlockConfig, ConvNetConfig, Initialization, Pool, PoolKind, Stage};

use crate::batch_norm::Normalization;
use crate::layout::permute;
use crate::tensor::{Tensor, Tensors};

/// The layers of a network, in order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Shape of the images, `[channels, height, width]`.
    pub(crate) input: [usize; 3],
    pub(crate) layers: Vec<ChainLayer>,
    /// The initialization of the framework, for layers that are trained anew.
    pub(crate) initialization: Initialization,
}

/// A layer with its name in the file.
#[derive(Debug)]
pub(crate) struct ChainLayer {
    pub(crate) name: String,
    pub(crate) operation: ChainOperation,
}

/// The operation of a layer. Weights are in PyTorch's layout, except that [`Flatten`](Self::Flatten) determines the
/// order of the inputs of the first dense layer.
#[derive(Debug)]
pub(crate) enum ChainOperation {
    /// A value `x` becomes `scale * x + offset`. Before other layers, `x` is a pixel from 0 to 255.
    Rescale {
        scale: f64,
        offset: f64,
    },
    /// Zeros on each side.
    Pad(usize),
    /// A convolution with a weight `[out, in, ky, kx]`.
    Convolution {
        weight: Tensor,
        bias: Option<Tensor>,
        stride: usize,
        padding: Padding,
    },
    /// Batch normalization.
    Normalize(Normalization),
    Activate(Activation),
    Pool {
        kind: PoolKind,
        size: usize,
        stride: usize,
        padding: Padding,
    },
    GlobalPool(PoolKind),
    Dropout(f64),
    Flatten {
        order: ChannelOrder,
    },
    /// A dense layer with a weight `[out, in]`.
    Dense {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Softmax,
}

/// The padding of a convolution or pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// This many pixels on each side.
    Each(usize),
    /// As many pixels as needed for an output of the size of the input, divided by the stride and rounded up.
    Same,
}

/// The position of the channels among the values of flattened feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelOrder {
    First,
    Last,
}

/// A network that a file describes.
#[derive(Debug, PartialEq)]
pub struct Architecture {
    /// The description. Batch normalization is part of the weights.
    pub network: ConvNetConfig,
    /// Normalization of the pixels, if the network contains it.
    pub scaling: Option<Scaling>,
    /// The weights, in PyTorch's layout, with this project's names.
    pub tensors: Tensors,
    /// What differs from the file without an effect on the logits, such as a dropout that is left out.
    pub notes: Vec<String>,
}

/// Translates a chain.
///
/// # Errors
/// Returns a message with the name of the unsupported layer.
pub(crate) fn translate(chain: Chain) -> Result<Architecture, String> {
    let mut translation = Translation::new(chain.input);
    for ChainLayer { name, operation } in chain.layers {
        translation
            .add(operation)
            .map_err(|reason| format!("layer {name}: {reason}"))?;
    }
    translation.finish(chain.input, chain.initialization)
}

/// The values between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Feature maps `[channels, height, width]`.
    Maps([usize; 3]),
    /// Flattened feature maps, and their order.
    Flattened([usize; 3], ChannelOrder),
    /// The outputs of a dense layer.
    Features(usize),
}

/// A dense layer.
#[derive(Debug)]
struct Dense {
    activation: Activation,
    /// Dropout after the layer.
    dropout: f64,
}

/// The layers so far.
#[derive(Debug)]
struct Translation {
    values: Values,
    blocks: Vec<BlockConfig>,
    dense: Vec<Dense>,
    /// Weight and bias of each layer, in order.
    parameters: Vec<Parameters>,
    /// Scale and offset of the pixels.
    rescale: Option<[f64; 2]>,
    /// Padding before the next convolution.
    pad: usize,
    is_softmax: bool,
    notes: Vec<String>,
}

/// Weight and bias of a layer.
#[derive(Debug)]
struct Parameters {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Parameters {
    fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self, String> {
        let outputs = *weight.shape.first().ok_or("a weight without dimensions")?;
        match &bias {
            Some(bias) if bias.shape != [outputs] => {
                Err(format!("a bias that does not fit its {outputs} outputs"))
            }
            _ => Ok(Self { weight, bias }),
        }
    }
}

impl Translation {
    fn new(input: [usize; 3]) -> Self {
        Self {
            values: Values::Maps(input),
            blocks: Vec::new(),
            dense: Vec::new(),
            parameters: Vec::new(),
            rescale: None,
            pad: 0,
            is_softmax: false,
            notes: Vec::new(),
        }
    }

    fn add(&mut self, operation: ChainOperation) -> Result<(), String> {
        if self.is_softmax {
            return Err("a layer after the softmax".into());
        }
        let is_convolution = matches!(
            operation,
            ChainOperation::Convolution { .. } | ChainOperation::Pad(_)
        );
        if self.pad > 0 && !is_convolution {
            return Err("padding that no convolution follows".into());
        }
        match operation {
            ChainOperation::Rescale { scale, offset } => self.rescale(scale, offset),
            ChainOperation::Pad(pixels) => {
                self.pad += pixels;
                self.maps().map(drop)
            }
            ChainOperation::Convolution {
                weight,
                bias,
                stride,
                padding,
            } => self.convolution(weight, bias, stride, padding),
            ChainOperation::Normalize(normalization) => self.normalize(&normalization),
            ChainOperation::Activate(activation) => self.activate(activation),
            ChainOperation::Pool {
                kind,
                size,
                stride,
                padding,
            } => self.pool(kind, size, stride, padding),
            ChainOperation::GlobalPool(kind) => {
                let [channels, ..] = self.maps()?;
                self.pooled_block()?.pool = Pool::Global(kind);
                self.values = Values::Maps([channels, 1, 1]);
                Ok(())
            }
            ChainOperation::Dropout(probability) => self.dropout(probability),
            ChainOperation::Flatten { order } => {
                if let Values::Maps(maps) = self.values {
                    self.values = Values::Flattened(maps, order);
                }
                Ok(())
            }
            ChainOperation::Dense { weight, bias } => self.dense(weight, bias),
            ChainOperation::Softmax => match self.values {
                Values::Features(_) => {
                    self.is_softmax = true;
                    Ok(())
                }
                _ => Err("a softmax over feature maps".into()),
            },
        }
    }

    /// Returns the shape of the feature maps.
    fn maps(&self) -> Result<[usize; 3], String> {
        match self.values {
            Values::Maps(maps) => Ok(maps),
            _ => Err("a layer for images after the images were flattened".into()),
        }
    }

    fn rescale(&mut self, scale: f64, offset: f64) -> Result<(), String> {
        if !self.parameters.is_empty() {
            return Err("a rescaling after the first layer".into());
        }
        let [before, shift] = self.rescale.unwrap_or([1.0, 0.0]);
        self.rescale = Some([before * scale, shift * scale + offset]);
        Ok(())
    }

    fn convolution(
        &mut self,
        weight: Tensor,
        bias: Option<Tensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<(), String> {
        let [channels, height, width] = self.maps()?;
        let &[outputs, inputs, kernel, kernel_width] = weight.shape.as_slice() else {
            return Err(format!(
                "a convolution with a weight of shape {:?}",
                weight.shape
            ));
        };
        if kernel != kernel_width {
            return Err(format!(
                "a kernel of {kernel}x{kernel_width}; only square kernels are supported"
            ));
        }
        if inputs != channels {
            return Err(format!(
                "{inputs} input channels where the images have {channels}"
            ));
        }
        let padding = self.pad + symmetric(padding, [height, width], kernel, stride)?;
        self.pad = 0;
        let size = |size| windows(size, kernel, stride, padding);
        self.values = Values::Maps([outputs, size(height)?, size(width)?]);
        self.blocks.push(BlockConfig {
            channels: outputs,
            kernel,
            stride,
            padding,
            bias: bias.is_some(),
            activation: Activation::None,
            pool: Pool::None,
            ..BlockConfig::default()
        });
        self.parameters.push(Parameters::new(weight, bias)?);
        Ok(())
    }

    fn normalize(&mut self, normalization: &Normalization) -> Result<(), String> {
        const POSITION: &str =
            "batch normalization is supported directly after a convolution or dense layer";
        let is_direct = match self.dense.last() {
            Some(dense) => dense.activation == Activation::None && dense.dropout == 0.0,
            None => self.blocks.last().is_some_and(|block| {
                let is_bare = block.activation == Activation::None && block.pool == Pool::None;
                is_bare && block.dropout == 0.0 && matches!(self.values, Values::Maps(_))
            }),
        };
        match self.parameters.last_mut() {
            Some(Parameters { weight, bias }) if is_direct => {
                let [scaled, shifted] = normalization
                    .apply(weight, bias.as_ref())
                    .ok_or("another number of channels than the layer before")?;
                (*weight, *bias) = (scaled, Some(shifted));
            }
            _ => return Err(POSITION.into()),
        }
        if self.dense.is_empty()
            && let Some(block) = self.blocks.last_mut()
        {
            block.bias = true;
        }
        Ok(())
    }

    fn activate(&mut self, activation: Activation) -> Result<(), String> {
        let current = match (self.dense.last_mut(), self.blocks.last_mut()) {
            (Some(dense), _) => &mut dense.activation,
            (None, Some(block)) => {
                // A maximum commutes with an increasing function, an average does not.
                let is_average = |kind| kind == PoolKind::Average;
                block.pool_first = match block.pool {
                    Pool::None => false,
                    Pool::Windows { kind, .. } | Pool::Global(kind) => {
                        is_average(kind) || !is_increasing(activation)
                    }
                };
                &mut block.activation
            }
            (None, None) => return Err("an activation before the first layer".into()),
        };
        match (*current, activation) {
            (Activation::None, _) => *current = activation,
            (_, Activation::None) | (Activation::Relu, Activation::Relu) => {}
            (first, second) => return Err(format!("{second} after {first}")),
        }
        Ok(())
    }

    /// Returns the last block, to add its pool.
    fn pooled_block(&mut self) -> Result<&mut BlockConfig, String> {
        let block = self
            .blocks
            .last_mut()
            .ok_or("a pool before the first convolution")?;
        match block.pool {
            Pool::None => Ok(block),
            _ => Err("a pool after a pool".into()),
        }
    }

    fn pool(
        &mut self,
        kind: PoolKind,
        size: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<(), String> {
        let [channels, height, width] = self.maps()?;
        let is_same = padding == Padding::Same;
        let padding = symmetric(padding, [height, width], size, stride)?;
        if is_same && padding > 0 && kind == PoolKind::Average {
            return Err("an average over windows at the border that leaves the padding out".into());
        }
        let pooled = |length| windows(length, size, stride, padding);
        let values = Values::Maps([channels, pooled(height)?, pooled(width)?]);
        self.pooled_block()?.pool = Pool::Windows {
            kind,
            size,
            stride,
            padding,
        };
        self.values = values;
        Ok(())
    }

    fn dropout(&mut self, probability: f64) -> Result<(), String> {
        let dropout = match (self.dense.last_mut(), self.blocks.last_mut()) {
            (Some(dense), _) => &mut dense.dropout,
            (None, Some(block)) => &mut block.dropout,
            (None, None) => {
                self.notes.push("dropout of the pixels is left out".into());
                return Ok(());
            }
        };
        *dropout = 1.0 - (1.0 - *dropout) * (1.0 - probability);
        Ok(())
    }

    fn dense(&mut self, mut weight: Tensor, bias: Option<Tensor>) -> Result<(), String> {
        let &[outputs, inputs] = weight.shape.as_slice() else {
            return Err(format!(
                "a dense layer with a weight of shape {:?}",
                weight.shape
            ));
        };
        let features = match self.values {
            Values::Features(features) => features,
            // Maps of one pixel have one order.
            Values::Maps([channels, 1, 1]) => channels,
            Values::Maps(_) => return Err("a dense layer on images that are not flattened".into()),
            Values::Flattened([channels, height, width], order) => {
                let features = channels.saturating_mul(height).saturating_mul(width);
                if order == ChannelOrder::Last && inputs == features {
                    let maps = [outputs, height, width, channels];
                    let values = weight.values().ok_or("weights that are not numbers")?;
                    let values = permute(&values, maps, [0, 3, 1, 2]);
                    weight = Tensor::from_values(weight.shape, &values);
                }
                features
            }
        };
        if inputs != features {
            return Err(format!(
                "{inputs} inputs where the layers before have {features} outputs"
            ));
        }
        self.values = Values::Features(outputs);
        self.parameters.push(Parameters::new(weight, bias)?);
        self.dense.push(Dense {
            activation: Activation::None,
            dropout: 0.0,
        });
        Ok(())
    }

    fn finish(
        mut self,
        [channels, height, width]: [usize; 3],
        initialization: Initialization,
    ) -> Result<Architecture, String> {
        let Values::Features(classes) = self.values else {
            return Err("the network has no dense layer at its end".into());
        };
        if self.pad > 0 {
            return Err("padding that no convolution follows".into());
        }
        if let Some(output) = self.dense.pop()
            && output.activation != Activation::None
        {
            return Err(format!("{} after the last layer", output.activation));
        }
        let dense_activation = match self.dense.first() {
            Some(first) => first.activation,
            None => Activation::Relu,
        };
        let differs = |dense: &Dense| dense.activation != dense_activation;
        if let Some(other) = self.dense.iter().find(|dense| differs(dense)) {
            let other = other.activation;
            return Err(format!(
                "{dense_activation} and {other} after dense layers; only one activation is supported"
            ));
        }
        let network = ConvNetConfig {
            channels,
            input: [height, width],
            classes,
            dense: self.parameters[self.blocks.len()..self.parameters.len() - 1]
                .iter()
                .map(|parameters| parameters.weight.shape[0])
                .collect(),
            dense_activation,
            dropout: self.head_dropout(),
            output_bias: self
                .parameters
                .last()
                .is_some_and(|output| output.bias.is_some()),
            logit_scale: 1.0,
            initialization,
            blocks: self.blocks.iter().copied().map(Stage::Block).collect(),
        };
        Ok(Architecture {
            tensors: self.tensors(&network)?,
            scaling: self.scaling()?,
            network,
            notes: self.notes,
        })
    }

    /// Returns the dropout before the last layer. Without hidden layers, it is that of the last block.
    fn head_dropout(&mut self) -> f64 {
        let Some((last, others)) = self.dense.split_last() else {
            let block = self.blocks.last_mut();
            return block.map_or(0.0, |block| std::mem::take(&mut block.dropout));
        };
        if others.iter().any(|dense| dense.dropout > 0.0) {
            self.notes
                .push("dropout between hidden dense layers is left out".into());
        }
        last.dropout
    }

    /// Returns the weights by the names of the layers of `network`.
    fn tensors(&self, network: &ConvNetConfig) -> Result<Tensors, String> {
        let layers = network.layers().map_err(|error| error.to_string())?;
        let layers = layers.iter().filter(|layer| !layer.weights.is_empty());
        let mut tensors = Tensors::new();
        for (layer, parameters) in layers.zip(&self.parameters) {
            let Parameters { weight, bias } = parameters;
            if layer.weights != weight.shape {
                return Err(format!(
                    "{}: a weight of shape {:?} instead of {:?}",
                    layer.name, weight.shape, layer.weights
                ));
            }
            tensors.insert(format!("{}.weight", layer.name), weight.clone());
            // Hidden dense layers always have a bias.
            let outputs = weight.shape[0];
            let zeros = || Tensor::from_values(vec![outputs], &vec![0.0; outputs]);
            if let Some(bias) = bias.clone().or_else(|| layer.bias.then(zeros)) {
                tensors.insert(format!("{}.bias", layer.name), bias);
            }
        }
        Ok(tensors)
    }

    /// Returns the normalization that the rescaling of the pixels amounts to.
    fn scaling(&self) -> Result<Option<Scaling>, String> {
        let Some([scale, offset]) = self.rescale else {
            return Ok(None);
        };
        // scale * 255 * x + offset = (x - mean) / std
        let std = 1.0 / (255.0 * scale);
        let mean = -offset * std;
        match mean.is_finite() && std.is_finite() && std > 0.0 {
            true => Ok(Some(Scaling::same(mean, std))),
            false => Err(format!("a rescaling of the pixels by {scale}")),
        }
    }
}

/// Whether the function increases everywhere.
fn is_increasing(activation: Activation) -> bool {
    match activation {
        Activation::Relu | Activation::Tanh | Activation::None => true,
        Activation::Gelu | Activation::Silu => false,
    }
}

/// Returns the number of windows along a side.
fn windows(length: usize, size: usize, stride: usize, padding: usize) -> Result<usize, String> {
    let padded = length.checked_add(2 * padding);
    let room = padded.and_then(|padded| padded.checked_sub(size));
    match room {
        Some(room) if stride > 0 => Ok(room / stride + 1),
        _ => Err(format!(
            "a window of {size}x{size} on an image of {length} pixels"
        )),
    }
}

/// Returns the padding on each side.
fn symmetric(
    padding: Padding,
    sizes: [usize; 2],
    size: usize,
    stride: usize,
) -> Result<usize, String> {
    if let Padding::Each(pixels) = padding {
        return Ok(pixels);
    }
    let total = |length: usize| {
        let outputs = length.div_ceil(stride.max(1));
        (outputs.saturating_sub(1) * stride + size).saturating_sub(length)
    };
    match sizes.map(total) {
        [height, width] if height == width && height.is_multiple_of(2) => Ok(height / 2),
        _ => Err(format!(
            "padding \"same\" of {size}x{size} windows with stride {stride} adds more pixels on one side of the image \
             than on the other, which is not supported"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tensor of zeros.
    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::from_values(shape.to_vec(), &vec![0.0; shape.iter().product()])
    }

    fn convolution(shape: [usize; 4], padding: Padding) -> ChainOperation {
        ChainOperation::Convolution {
            weight: zeros(&shape),
            bias: None,
            stride: 1,
            padding,
        }
    }

    fn dense(shape: [usize; 2]) -> ChainOperation {
        let weight = zeros(&shape);
        ChainOperation::Dense { weight, bias: None }
    }

    /// 2x2 pooling.
    fn pool(kind: PoolKind) -> ChainOperation {
        ChainOperation::Pool {
            kind,
            size: 2,
            stride: 2,
            padding: Padding::Each(0),
        }
    }

    const FLATTEN: ChainOperation = ChainOperation::Flatten {
        order: ChannelOrder::Last,
    };
    const RELU: ChainOperation = ChainOperation::Activate(Activation::Relu);
    const TANH: ChainOperation = ChainOperation::Activate(Activation::Tanh);

    /// Translates layers named `0`, `1`, ... on images of 4x4 pixels.
    fn translated(operations: Vec<ChainOperation>) -> Result<Architecture, String> {
        let layers = operations.into_iter().enumerate();
        let layers = layers.map(|(index, operation)| ChainLayer {
            name: index.to_string(),
            operation,
        });
        translate(Chain {
            input: [1, 4, 4],
            layers: layers.collect(),
            initialization: Initialization::Keras,
        })
    }

    #[test]
    fn layers_become_blocks_and_dense_layers() {
        let architecture = translated(vec![
            ChainOperation::Rescale {
                scale: 1.0 / 127.5,
                offset: -1.0,
            },
            convolution([2, 1, 3, 3], Padding::Same),
            RELU,
            pool(PoolKind::Max),
            ChainOperation::Dropout(0.25),
            FLATTEN,
            dense([5, 8]),
            TANH,
            ChainOperation::Dropout(0.5),
            dense([3, 5]),
            ChainOperation::Softmax,
        ])
        .unwrap();
        let block = BlockConfig {
            channels: 2,
            bias: false,
            dropout: 0.25,
            ..BlockConfig::default()
        };
        let expected = ConvNetConfig {
            input: [4, 4],
            classes: 3,
            dense: vec![5],
            dense_activation: Activation::Tanh,
            dropout: 0.5,
            output_bias: false,
            initialization: Initialization::Keras,
            blocks: vec![block.into()],
            ..ConvNetConfig::default()
        };
        assert_eq!(architecture.network, expected);
        let scaling = architecture.scaling.unwrap();
        assert!((scaling.mean.of(0) - 0.5).abs() < 1e-9 && (scaling.std.of(0) - 0.5).abs() < 1e-9);
        let names: Vec<_> = architecture.tensors.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["conv1.weight", "fc1.bias", "fc1.weight", "fc2.weight"]
        );
    }

    #[test]
    fn an_average_stays_before_its_activation() {
        let is_pool_first = |kind, activation| {
            let layers = vec![
                convolution([1, 1, 3, 3], Padding::Same),
                pool(kind),
                ChainOperation::Activate(activation),
                FLATTEN,
                dense([2, 4]),
            ];
            let network = translated(layers).unwrap().network;
            network.conv_blocks().all(|block| block.pool_first)
        };
        assert!(is_pool_first(PoolKind::Average, Activation::Relu));
        assert!(is_pool_first(PoolKind::Max, Activation::Silu));
        assert!(!is_pool_first(PoolKind::Max, Activation::Relu));
    }

    #[test]
    fn normalization_is_folded_into_the_layer_before() {
        let identity = Tensor::from_values(vec![2, 2], &[1.0, 0.0, 0.0, 1.0]);
        let layer = |weight: &Tensor| ChainOperation::Dense {
            weight: weight.clone(),
            bias: Some(Tensor::from_values(vec![2], &[1.0, 1.0])),
        };
        let normalize = ChainOperation::Normalize(
            Normalization::new(
                [&[0.0, 0.0], &[1.0, 1.0]],
                [Some(vec![2.0, 4.0]), Some(vec![10.0, 20.0])],
                0.0,
            )
            .unwrap(),
        );
        let architecture = translated(vec![
            convolution([2, 1, 4, 4], Padding::Each(0)),
            FLATTEN,
            layer(&identity),
            normalize,
            RELU,
            layer(&identity),
        ]);
        let tensors = architecture.unwrap().tensors;
        assert_eq!(
            tensors["fc1.weight"].values().unwrap(),
            [2.0, 0.0, 0.0, 4.0]
        );
        assert_eq!(tensors["fc1.bias"].values().unwrap(), [12.0, 24.0]);
    }

    #[test]
    fn what_a_network_cannot_express_is_refused_by_the_name_of_the_layer() {
        let convolution = || convolution([1, 1, 3, 3], Padding::Same);
        let normalize = || {
            let normalization = Normalization::new([&[0.0], &[1.0]], [None, None], 0.0);
            ChainOperation::Normalize(normalization.unwrap())
        };
        let strided = ChainOperation::Convolution {
            weight: zeros(&[1, 1, 3, 3]),
            bias: None,
            stride: 2,
            padding: Padding::Same,
        };
        for (layers, message) in [
            (
                vec![convolution(), RELU, normalize()],
                "layer 2: batch normalization is supported directly after",
            ),
            (vec![convolution(), RELU, TANH], "layer 2: tanh after ReLU"),
            (
                vec![pool(PoolKind::Max)],
                "layer 0: a pool before the first convolution",
            ),
            (
                vec![convolution(), pool(PoolKind::Max), pool(PoolKind::Max)],
                "layer 2: a pool after a pool",
            ),
            (
                vec![convolution(), ChainOperation::Softmax],
                "layer 1: a softmax over feature maps",
            ),
            (
                vec![convolution(), dense([2, 16])],
                "layer 1: a dense layer on images that are not flattened",
            ),
            (
                vec![FLATTEN, dense([2, 9])],
                "layer 1: 9 inputs where the layers before have 16 outputs",
            ),
            (
                vec![FLATTEN, dense([2, 16]), convolution()],
                "layer 2: a layer for images after",
            ),
            (
                vec![ChainOperation::Pad(1), FLATTEN],
                "layer 1: padding that no convolution follows",
            ),
            (
                vec![strided],
                "layer 0: padding \"same\" of 3x3 windows with stride 2",
            ),
            (
                vec![convolution()],
                "the network has no dense layer at its end",
            ),
            (
                vec![FLATTEN, dense([2, 16]), RELU],
                "ReLU after the last layer",
            ),
            (
                vec![
                    FLATTEN,
                    dense([4, 16]),
                    RELU,
                    dense([4, 4]),
                    TANH,
                    dense([2, 4]),
                ],
                "ReLU and tanh after dense layers",
            ),
        ] {
            let error = translated(layers).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
