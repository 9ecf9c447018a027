//! The translation of a chain of layers to a description of this project.
//!
//! A layer that a network of this project has at another place only becomes an equal one: batch normalization is part of
//! the weights of its neighbors, or a 1x1 convolution between them. Other layers are refused by name.

use data::{PerChannel, Scaling};
use model::{
    Activation, BlockConfig, ConvNetConfig, Initialization, Operation, Pool, PoolKind,
    ResidualConfig, Stage,
};

use crate::batch_norm::Normalization;
use crate::chain::{Chain, ChainLayer, ChainOperation, ChannelOrder, Padding, Projection, Sides};
use crate::layout::permute;
use crate::limits::MAX_BYTES;
use crate::tensor::{Dtype, Tensor, Tensors};
use crate::windows::{self, SquareKernel};

/// Largest number of channels of a layer that is inserted between two layers of the file.
const MAX_INSERTED: usize = 2048;
/// Largest number of weights that all inserted layers and enlarged kernels add.
const MAX_ADDED: usize = 1 << 27;
/// Largest number of flattened values that are normalized separately.
const MAX_FLATTENED: usize = 1 << 24;

/// A network that a file describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The description. Batch normalization is part of the weights.
    pub network: ConvNetConfig,
    /// Normalization of the pixels, if the network contains it.
    pub scaling: Option<Scaling>,
    /// The weights, in PyTorch's layout, with this project's names.
    pub tensors: Tensors,
    /// Differences from the file without an effect on the logits, such as a dropout that is left out.
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
    /// Weight and bias of each layer, in order, without those of projections.
    parameters: Vec<Parameters>,
    /// Number of bytes of all weights.
    bytes: usize,
    groups: Vec<Group>,
    /// The feature maps before the first dense layer.
    flattened: [usize; 3],
    /// Scale and offset of the pixels.
    rescale: Option<[PerChannel; 2]>,
    /// Padding before the next convolution.
    pad: Sides,
    /// Normalization of the values, not yet part of a layer: of each channel, or of each of flattened values.
    pending: Option<Normalization>,
    /// The function of the logits, once the network has ended.
    probabilities: Option<&'static str>,
    /// Number of weights that the file does not have.
    added: usize,
    notes: Vec<String>,
}

/// A residual group.
#[derive(Debug)]
struct Group {
    /// Number of blocks before it.
    start: usize,
    /// Number of blocks before its end; `None` within it.
    end: Option<usize>,
    /// Shape of its input.
    input: [usize; 3],
    /// Projection of its input, and its stride.
    projection: Option<(Parameters, usize)>,
    activation: Activation,
    pool: Pool,
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
            bytes: 0,
            groups: Vec::new(),
            flattened: input,
            rescale: None,
            pad: [0; 4],
            pending: None,
            probabilities: None,
            added: 0,
            notes: Vec::new(),
        }
    }

    fn add(&mut self, operation: ChainOperation) -> Result<(), String> {
        if let Some(probabilities) = self.probabilities {
            return Err(format!(
                "a layer after a {probabilities}, which is only supported at the end"
            ));
        }
        let is_convolution = matches!(
            operation,
            ChainOperation::Convolution { .. } | ChainOperation::Pad(_)
        );
        if self.pad != [0; 4] && !is_convolution {
            return Err("padding that no convolution follows".into());
        }
        match operation {
            ChainOperation::Rescale { scale, offset } => self.rescale(scale, offset),
            ChainOperation::Pad(sides) => {
                for (pad, side) in self.pad.iter_mut().zip(sides) {
                    *pad = pad.saturating_add(side);
                }
                self.maps().map(drop)
            }
            ChainOperation::Convolution {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                if groups != 1 {
                    return Err(format!(
                        "a convolution of {groups} groups of channels is not supported"
                    ));
                }
                self.convolution(Parameters::new(weight, bias)?, stride, padding, dilation)
            }
            ChainOperation::Normalize(normalization) => self.normalize(normalization),
            ChainOperation::Activate(activation) => self.activate(activation),
            ChainOperation::Pool {
                kind,
                size,
                stride,
                padding,
            } => self.pool(kind, size, stride, padding),
            ChainOperation::GlobalPool(kind) => {
                let [channels, ..] = self.maps()?;
                *self.free_pool(kind, true)? = Pool::Global(kind);
                self.values = Values::Maps([channels, 1, 1]);
                Ok(())
            }
            ChainOperation::ResidualStart => self.start_group(),
            ChainOperation::ResidualEnd { projection } => self.end_group(projection),
            ChainOperation::Dropout(probability) => self.dropout(probability),
            ChainOperation::Flatten { order } => self.flatten(order),
            ChainOperation::Dense { weight, bias } => self.dense(Parameters::new(weight, bias)?),
            ChainOperation::Softmax => match self.values {
                Values::Maps([_, height, width]) if height * width != 1 => {
                    Err("a softmax over feature maps".into())
                }
                _ => {
                    self.probabilities = Some("softmax");
                    Ok(())
                }
            },
            ChainOperation::Sigmoid => {
                self.probabilities = Some("sigmoid");
                self.notes.push(
                    "probabilities are a softmax of the logits; in the file, each is a sigmoid"
                        .into(),
                );
                Ok(())
            }
        }
    }

    /// Returns the shape of the feature maps.
    fn maps(&self) -> Result<[usize; 3], String> {
        match self.values {
            Values::Maps(maps) => Ok(maps),
            _ => Err("a layer for images after the images were flattened".into()),
        }
    }

    /// Returns the number of values that are normalized separately.
    fn channels(&self) -> usize {
        match self.values {
            Values::Maps([channels, ..]) => channels,
            Values::Flattened([channels, height, width], _) => {
                channels.saturating_mul(height).saturating_mul(width)
            }
            Values::Features(features) => features,
        }
    }

    fn rescale(&mut self, scale: PerChannel, offset: PerChannel) -> Result<(), String> {
        let channels = self.channels();
        if !(scale.fits(channels) && offset.fits(channels)) {
            return Err(format!("one factor for each of {channels} channels"));
        }
        if self.parameters.is_empty() && self.pending.is_none() {
            let [before, shift] = self
                .rescale
                .unwrap_or([PerChannel::Same(1.0), PerChannel::Same(0.0)]);
            let shift = shift.zip(scale, |shift, scale| shift * scale);
            self.rescale = Some([
                before.zip(scale, |before, scale| before * scale),
                shift.zip(offset, |shift, offset| shift + offset),
            ]);
            return Ok(());
        }
        let numbers =
            |number: PerChannel| (0..channels).map(|channel| number.of(channel)).collect();
        self.normalize(Normalization {
            factor: numbers(scale),
            shift: numbers(offset),
        })
    }

    /// Returns the residual group that ends with the last block.
    fn ended_group(&mut self) -> Option<&mut Group> {
        let blocks = self.blocks.len();
        let group = self
            .groups
            .last_mut()
            .filter(|group| group.end == Some(blocks));
        group.filter(|_| self.dense.is_empty())
    }

    /// Returns the last block, if the last layer is part of it.
    fn last_block(&mut self) -> Option<&mut BlockConfig> {
        let blocks = self.blocks.len();
        let is_border = |group: &Group| match group.end {
            Some(end) => end == blocks,
            None => group.start == blocks,
        };
        let is_other = self.groups.last().is_some_and(is_border);
        self.blocks.last_mut().filter(|_| !is_other)
    }

    /// Returns activation and pool of the last block or residual group.
    fn last_maps(&mut self) -> Option<(Activation, Pool)> {
        if let Some(group) = self.ended_group() {
            return Some((group.activation, group.pool));
        }
        let block = self.last_block()?;
        Some((block.activation, block.pool))
    }

    fn start_group(&mut self) -> Result<(), String> {
        if self.groups.last().is_some_and(|group| group.end.is_none()) {
            return Err("residual layers within residual layers".into());
        }
        self.maps()?;
        self.insert_pending()?;
        self.groups.push(Group {
            start: self.blocks.len(),
            end: None,
            input: self.maps()?,
            projection: None,
            activation: Activation::None,
            pool: Pool::None,
        });
        Ok(())
    }

    fn end_group(&mut self, projection: Option<Projection>) -> Result<(), String> {
        self.insert_pending()?;
        if self
            .groups
            .last()
            .is_some_and(|group| group.start == self.blocks.len())
        {
            self.insert_identity()?;
        }
        let output = self.maps()?;
        let end = self.blocks.len();
        let last = self
            .blocks
            .last_mut()
            .ok_or("residual layers without a convolution")?;
        let group = self.groups.last_mut().filter(|group| group.end.is_none());
        let group = group.ok_or("the end of residual layers without their start")?;
        group.end = Some(end);
        match (projection, group.input == output) {
            (None, true) => {}
            (Some(_), true) => {
                return Err("a convolution of the shortcut of residual layers that keep their shape is not supported".into());
            }
            (None, false) => {
                let input = group.input;
                return Err(format!(
                    "a sum of images of shapes {output:?} and {input:?}"
                ));
            }
            (Some(projection), false) => {
                let Projection {
                    weight,
                    bias,
                    stride,
                } = projection;
                // The projection has a bias if the last block has one.
                last.bias |= bias.is_some();
                group.projection = Some((Parameters::new(weight, bias)?, stride));
            }
        }
        Ok(())
    }

    fn convolution(
        &mut self,
        Parameters { weight, bias }: Parameters,
        stride: usize,
        padding: Padding,
        dilation: usize,
    ) -> Result<(), String> {
        let [channels, height, width] = self.maps()?;
        let &[outputs, inputs, kernel_height, kernel_width] = weight.shape.as_slice() else {
            return Err(format!(
                "a convolution with a weight of shape {:?}",
                weight.shape
            ));
        };
        if inputs != channels {
            return Err(format!(
                "{inputs} input channels where the images have {channels}"
            ));
        }
        let extent = [kernel_height, kernel_width].map(|size| windows::dilated(size, dilation));
        let padded = windows::sides(padding, [height, width], extent, stride);
        let pad = std::mem::take(&mut self.pad);
        let sides = [0, 1, 2, 3].map(|side| pad[side].saturating_add(padded[side]));
        if sides.iter().any(|&side| side > height.max(width)) {
            return Err("padding larger than the image".into());
        }
        if sides != [0; 4] {
            // The zeros around the image are not normalized.
            self.insert_pending()?;
        }
        let kernel = SquareKernel::new([height, width], extent, stride, sides)?.ok_or_else(|| {
            format!("a kernel of {kernel_height}x{kernel_width} without a square one that computes the same")
        })?;
        if [kernel_height, kernel_width] != [kernel.size; 2] {
            let area = kernel.size.saturating_mul(kernel.size);
            self.count_added(outputs.saturating_mul(inputs).saturating_mul(area))?;
        }
        let mut weight = kernel
            .weight(&weight, dilation)
            .ok_or("a weight that does not fit its kernel")?;
        let mut bias = bias;
        if let Some(normalization) = self.pending.take() {
            (weight, bias) = applied_before(&normalization, &weight, bias.as_ref())?;
        }
        let SquareKernel { size, padding, .. } = kernel;
        if [kernel_height, kernel_width] != [size, size] {
            self.notes.push(format!(
                "a kernel of {kernel_height}x{kernel_width} with unequal padding or dilation is one of {size}x{size} \
                 with zeros"
            ));
        }
        let outputs_of = |length| windows::count(length, size, stride, [padding; 2]);
        self.values = Values::Maps([outputs, outputs_of(height)?, outputs_of(width)?]);
        self.blocks.push(BlockConfig {
            channels: outputs,
            kernel: size,
            stride,
            padding,
            bias: bias.is_some(),
            activation: Activation::None,
            pool: Pool::None,
            ..BlockConfig::default()
        });
        self.push_parameters(Parameters { weight, bias })?;
        Ok(())
    }

    fn normalize(&mut self, normalization: Normalization) -> Result<(), String> {
        const MISFIT: &str = "another number of channels than the layer before";
        if normalization.factor.len() != self.channels() {
            return Err(MISFIT.into());
        }
        if let Some(pending) = &self.pending {
            self.pending = Some(pending.then(&normalization).ok_or(MISFIT)?);
            return Ok(());
        }
        let is_map = matches!(self.values, Values::Maps(_));
        let dense = self.dense.last().map(|dense| dense.activation);
        let is_direct = match (dense, self.last_block()) {
            (Some(activation), _) => activation == Activation::None,
            (None, Some(block)) => {
                let commutes = match block.pool {
                    Pool::None => true,
                    Pool::Windows { kind, padding, .. } => {
                        commutes(&normalization, kind, padding == 0)
                    }
                    Pool::Global(kind) => commutes(&normalization, kind, true),
                };
                block.activation == Activation::None && commutes && is_map
            }
            (None, None) => false,
        };
        match self.parameters.last_mut() {
            Some(Parameters { weight, bias }) if is_direct => {
                let [scaled, shifted] = normalization.apply(weight, bias.as_ref()).ok_or(MISFIT)?;
                (*weight, *bias) = (scaled, Some(shifted));
                if self.dense.is_empty()
                    && let Some(block) = self.blocks.last_mut()
                {
                    block.bias = true;
                }
            }
            _ => self.pending = Some(normalization),
        }
        Ok(())
    }

    /// Adds weight and bias of a layer. Layers that are inserted, or kernels with added zeros, can be much larger than
    /// the file.
    fn push_parameters(&mut self, parameters: Parameters) -> Result<(), String> {
        let total = self.bytes.saturating_add(parameters.weight.bytes.len());
        if total as u64 > MAX_BYTES {
            return Err(format!("weights of more than {MAX_BYTES} bytes"));
        }
        self.bytes = total;
        self.parameters.push(parameters);
        Ok(())
    }

    /// Makes a pending normalization a layer of its own.
    fn insert_pending(&mut self) -> Result<(), String> {
        match self.pending.take() {
            Some(normalization) => {
                self.notes.push(
                    "batch normalization that no other layer can contain is a 1x1 convolution"
                        .into(),
                );
                self.insert(&normalization)
            }
            None => Ok(()),
        }
    }

    /// Adds a layer that keeps its input.
    fn insert_identity(&mut self) -> Result<(), String> {
        let channels = self.channels();
        self.insert(&Normalization {
            factor: vec![1.0; channels],
            shift: vec![0.0; channels],
        })
    }

    /// Adds a layer that normalizes its input: a 1x1 convolution of feature maps, a dense layer otherwise.
    fn insert(&mut self, normalization: &Normalization) -> Result<(), String> {
        let Normalization { factor, shift } = normalization;
        let channels = factor.len();
        if channels > MAX_INSERTED {
            return Err(format!(
                "an operation between layers of {channels} channels"
            ));
        }
        self.count_added(channels * channels)?;
        let mut diagonal = vec![0.0; channels * channels];
        for (channel, factor) in factor.iter().enumerate() {
            diagonal[channel * (channels + 1)] = *factor as f32;
        }
        let bias = shift.iter().any(|shift| *shift != 0.0).then(|| {
            let shift: Vec<f32> = shift.iter().map(|shift| *shift as f32).collect();
            Tensor::from_values(vec![channels], &shift)
        });
        let weight = |shape| Tensor::from_values(shape, &diagonal);
        match self.values {
            Values::Maps(_) => {
                let weight = weight(vec![channels, channels, 1, 1]);
                self.convolution(Parameters { weight, bias }, 1, Padding::Each(0), 1)
            }
            Values::Features(_) => {
                let weight = weight(vec![channels, channels]);
                self.dense(Parameters { weight, bias })
            }
            Values::Flattened(..) => Err("an operation on flattened images".into()),
        }
    }

    /// Counts weights that the file does not have.
    fn count_added(&mut self, weights: usize) -> Result<(), String> {
        self.added = self.added.saturating_add(weights);
        match self.added <= MAX_ADDED {
            true => Ok(()),
            false => Err("too many operations between layers, or too large kernels".into()),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), String> {
        if activation == Activation::None {
            return Ok(());
        }
        self.insert_pending()?;
        // A maximum commutes with an increasing function, an average does not.
        let commutes = |pool| match pool {
            Pool::None => true,
            Pool::Windows { kind, .. } | Pool::Global(kind) => {
                kind == PoolKind::Max && is_increasing(activation)
            }
        };
        let current = match self.dense.last().map(|dense| dense.activation) {
            Some(activation) => Some(activation),
            // The pool of a residual group follows its activation.
            None if self
                .ended_group()
                .is_some_and(|group| !commutes(group.pool)) =>
            {
                None
            }
            None => self.last_maps().map(|(activation, _)| activation),
        };
        match (current, activation) {
            (Some(Activation::Relu), Activation::Relu) => return Ok(()),
            (Some(Activation::None), _) => {}
            _ => self.insert_identity()?,
        }
        if let Some(dense) = self.dense.last_mut() {
            dense.activation = activation;
        } else if let Some(group) = self.ended_group() {
            group.activation = activation;
        } else if let Some(block) = self.last_block() {
            block.pool_first = !commutes(block.pool);
            block.activation = activation;
        }
        Ok(())
    }

    /// Returns the pool of the last block or residual group, to set it. `is_unpadded` tells whether all values of a window
    /// are values of the image.
    fn free_pool(&mut self, kind: PoolKind, is_unpadded: bool) -> Result<&mut Pool, String> {
        let pending = self.pending.as_ref();
        if pending.is_some_and(|pending| !commutes(pending, kind, is_unpadded)) {
            self.insert_pending()?;
        }
        if self.last_maps().is_none_or(|(_, pool)| pool != Pool::None) {
            let pending = self.pending.take();
            self.insert_identity()?;
            self.pending = pending;
        }
        let group = match self.ended_group() {
            Some(_) => self.groups.last_mut().map(|group| &mut group.pool),
            None => None,
        };
        let block = self.blocks.last_mut().map(|block| &mut block.pool);
        group
            .or(block)
            .ok_or_else(|| "a pool without a layer before".into())
    }

    fn pool(
        &mut self,
        kind: PoolKind,
        size: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<(), String> {
        let [_, height, width] = self.maps()?;
        let sides = windows::sides(padding, [height, width], [size; 2], stride);
        let is_same = padding == Padding::Same;
        if is_same && sides != [0; 4] && kind == PoolKind::Average {
            return Err("an average over windows at the border that leaves the padding out".into());
        }
        let padding = match sides {
            [top, left, bottom, right] if [left, bottom, right] == [top; 3] => top,
            _ => {
                // A maximum ignores padding, as it ignores zeros among values that are not negative.
                let last = self.last_maps();
                let is_relu = last.is_some_and(|(activation, _)| activation == Activation::Relu);
                if kind == PoolKind::Average || !is_relu || self.pending.is_some() {
                    return Err(format!(
                        "pooling of {size}x{size} windows with more padding on one side of the image than on the other, \
                         which is only supported for a maximum after ReLU"
                    ));
                }
                self.pad = sides;
                self.insert_identity()?;
                0
            }
        };
        let [channels, height, width] = self.maps()?;
        let pooled = |length| windows::count(length, size, stride, [padding; 2]);
        let values = Values::Maps([channels, pooled(height)?, pooled(width)?]);
        *self.free_pool(kind, padding == 0)? = Pool::Windows {
            kind,
            size,
            stride,
            padding,
        };
        self.values = values;
        Ok(())
    }

    fn dropout(&mut self, probability: f64) -> Result<(), String> {
        let is_dense = !self.dense.is_empty();
        let dropout = match is_dense {
            true => self.dense.last_mut().map(|dense| &mut dense.dropout),
            false => self.last_block().map(|block| &mut block.dropout),
        };
        let Some(dropout) = dropout else {
            let place = match self.blocks.is_empty() {
                true => "of the pixels",
                false => "between residual layers",
            };
            self.notes.push(format!("dropout {place} is left out"));
            return Ok(());
        };
        *dropout = 1.0 - (1.0 - *dropout) * (1.0 - probability);
        Ok(())
    }

    fn flatten(&mut self, order: ChannelOrder) -> Result<(), String> {
        let Values::Maps(maps) = self.values else {
            return Ok(());
        };
        self.values = Values::Flattened(maps, order);
        if let Some(pending) = &mut self.pending {
            let [channels, height, width] = maps;
            let pixels = height.saturating_mul(width);
            let flattened = |numbers: &[f64]| -> Vec<f64> {
                match order {
                    ChannelOrder::First => {
                        let repeated = numbers.iter().map(|number| vec![*number; pixels]);
                        repeated.flatten().collect()
                    }
                    ChannelOrder::Last => numbers.repeat(pixels),
                }
            };
            if pending.factor.len() != channels || channels.saturating_mul(pixels) > MAX_FLATTENED {
                return Err("too many values to normalize".into());
            }
            pending.factor = flattened(&pending.factor);
            pending.shift = flattened(&pending.shift);
        }
        Ok(())
    }

    fn dense(
        &mut self,
        Parameters {
            mut weight,
            mut bias,
        }: Parameters,
    ) -> Result<(), String> {
        let &[outputs, inputs] = weight.shape.as_slice() else {
            return Err(format!(
                "a dense layer with a weight of shape {:?}",
                weight.shape
            ));
        };
        let features = match self.values {
            // Maps of one pixel have one order.
            Values::Maps([channels, 1, 1]) => channels,
            Values::Maps(_) => return Err("a dense layer on images that are not flattened".into()),
            Values::Features(_) | Values::Flattened(..) => self.channels(),
        };
        if inputs != features {
            return Err(format!(
                "{inputs} inputs where the layers before have {features} outputs"
            ));
        }
        if let Some(normalization) = self.pending.take() {
            (weight, bias) = applied_before(&normalization, &weight, bias.as_ref())?;
        }
        match self.values {
            Values::Maps(maps) => self.flattened = maps,
            Values::Flattened(maps, order) => {
                let [channels, height, width] = maps;
                self.flattened = maps;
                if order == ChannelOrder::Last {
                    let maps = [outputs, height, width, channels];
                    let values = weight.values().ok_or("weights that are not numbers")?;
                    let values = permute(&values, maps, [0, 3, 1, 2]);
                    weight = Tensor::from_values(weight.shape, &values);
                }
            }
            Values::Features(_) => {}
        }
        self.values = Values::Features(outputs);
        self.push_parameters(Parameters { weight, bias })?;
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
        if self.pad != [0; 4] {
            return Err("padding that no convolution follows".into());
        }
        self.insert_output()?;
        let Values::Features(classes) = self.values else {
            return Err("the network has no dense layer at its end".into());
        };
        self.dense.pop();
        self.convert_dense()?;
        let dense_activation = match self.dense.first() {
            Some(first) => first.activation,
            None => Activation::Relu,
        };
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
            blocks: self.stages(),
        };
        Ok(Architecture {
            tensors: self.tensors(&network)?,
            scaling: self.scaling()?,
            network,
            notes: self.notes,
        })
    }

    /// Returns the blocks and residual groups, in order.
    fn stages(&self) -> Vec<Stage> {
        let mut groups = self.groups.iter().peekable();
        let mut stages = Vec::new();
        let mut index = 0;
        while let Some(block) = self.blocks.get(index) {
            let group = groups.next_if(|group| group.start == index);
            let blocks = group.and_then(|group| self.blocks.get(index..group.end?));
            match (group, blocks) {
                (Some(group), Some(blocks)) => {
                    stages.push(Stage::Residual(ResidualConfig {
                        blocks: blocks.to_vec(),
                        activation: group.activation,
                        pool: group.pool,
                    }));
                    index += blocks.len();
                }
                _ => {
                    stages.push(Stage::Block(*block));
                    index += 1;
                }
            }
        }
        stages
    }

    /// Adds a dense layer where the network ends with another layer or with an activation.
    fn insert_output(&mut self) -> Result<(), String> {
        let is_pixel = match self.values {
            Values::Maps([_, height, width]) | Values::Flattened([_, height, width], _) => {
                height * width == 1
            }
            Values::Features(_) => false,
        };
        let has_activation = self
            .dense
            .last()
            .is_some_and(|output| output.activation != Activation::None);
        let is_output =
            (is_pixel && !self.blocks.is_empty()) || has_activation || self.pending.is_some();
        if !is_output {
            return Ok(());
        }
        if let Values::Maps([channels, ..]) | Values::Flattened([channels, ..], _) = self.values
            && is_pixel
        {
            self.flattened = [channels, 1, 1];
            self.values = Values::Features(channels);
        }
        self.notes.push(
            "the outputs of the last layer pass through a dense layer that keeps them".into(),
        );
        match self.pending.take() {
            Some(normalization) => self.insert(&normalization),
            None => self.insert_identity(),
        }
    }

    /// Makes dense layers convolutions until all others have the same activation.
    fn convert_dense(&mut self) -> Result<(), String> {
        let Some(last) = self.dense.last() else {
            return Ok(());
        };
        let activation = last.activation;
        let differs = |dense: &Dense| dense.activation != activation;
        let Some(last_other) = self.dense.iter().rposition(differs) else {
            return Ok(());
        };
        for dense in self.dense.drain(..=last_other) {
            let [channels, height, width] = self.flattened;
            let index = self.blocks.len();
            if height != width {
                return Err(format!(
                    "{} and {activation} after dense layers; only one activation is supported",
                    dense.activation
                ));
            }
            let parameters = self
                .parameters
                .get_mut(index)
                .ok_or("a dense layer without weights")?;
            let outputs = parameters.weight.shape[0];
            parameters.weight.shape = vec![outputs, channels, height, width];
            self.blocks.push(BlockConfig {
                channels: outputs,
                kernel: height,
                stride: 1,
                padding: 0,
                bias: parameters.bias.is_some(),
                activation: dense.activation,
                pool: Pool::None,
                dropout: dense.dropout,
                ..BlockConfig::default()
            });
            self.flattened = [outputs, 1, 1];
        }
        self.notes.push(
            "dense layers with another activation than the last one are convolutions of the size of their images".into(),
        );
        Ok(())
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
        let mut parameters = self.parameters.iter();
        let mut projections = self
            .groups
            .iter()
            .filter_map(|group| group.projection.as_ref());
        for layer in layers {
            let parameters = match layer.operation {
                Operation::Projection { stride, .. } => {
                    let projection = projections.next().filter(|(_, stated)| *stated == stride);
                    projection.map(|(parameters, _)| parameters)
                }
                _ => parameters.next(),
            };
            let Some(Parameters { weight, bias }) = parameters else {
                return Err(format!(
                    "{}: another stride or another number of layers",
                    layer.name
                ));
            };
            if layer.weights != weight.shape {
                return Err(format!(
                    "{}: a weight of shape {:?} instead of {:?}",
                    layer.name, weight.shape, layer.weights
                ));
            }
            tensors.insert(format!("{}.weight", layer.name), single(weight)?);
            // Hidden dense layers always have a bias.
            let outputs = weight.shape[0];
            let zeros = || Tensor::from_values(vec![outputs], &vec![0.0; outputs]);
            let bias = bias.as_ref().map(single).transpose()?;
            if let Some(bias) = bias.or_else(|| layer.bias.then(zeros)) {
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
        let std = scale.zip(scale, |scale, _| 1.0 / (255.0 * scale));
        let mean = offset.zip(std, |offset, std| -offset * std);
        match mean.all(f64::is_finite) && std.all(|std| std.is_finite() && std > 0.0) {
            true => Ok(Some(Scaling { mean, std })),
            false => Err(format!("a rescaling of the pixels by {scale}")),
        }
    }
}

/// Returns a tensor in single precision.
fn single(tensor: &Tensor) -> Result<Tensor, String> {
    if tensor.dtype == Dtype::F32 {
        return Ok(tensor.clone());
    }
    let values = tensor.values().ok_or("weights that are not numbers")?;
    Ok(Tensor::from_values(tensor.shape.clone(), &values))
}

/// Whether the function increases everywhere.
fn is_increasing(activation: Activation) -> bool {
    match activation {
        Activation::Relu | Activation::Tanh | Activation::None => true,
        Activation::Gelu | Activation::Silu => false,
    }
}

/// Whether a normalization before a pool equals the same normalization after it.
fn commutes(normalization: &Normalization, kind: PoolKind, is_unpadded: bool) -> bool {
    match kind {
        PoolKind::Max => normalization.is_increasing(),
        PoolKind::Average => is_unpadded,
    }
}

/// Returns weight and bias of a layer after a normalization.
fn applied_before(
    normalization: &Normalization,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Option<Tensor>), String> {
    let [weight, bias] = normalization
        .apply_before(weight, bias)
        .ok_or("another number of channels than the batch normalization before")?;
    Ok((weight, Some(bias)))
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
            dilation: 1,
            groups: 1,
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
                scale: PerChannel::Same(1.0 / 127.5),
                offset: PerChannel::Same(-1.0),
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

    /// Returns the values of a tensor of small whole numbers, different at each index.
    fn numbers(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|index| (index % 7) as f32 - 3.0).collect();
        Tensor::from_values(shape.to_vec(), &values)
    }

    fn normalize(factor: &[f64], shift: &[f64]) -> ChainOperation {
        ChainOperation::Normalize(Normalization {
            factor: factor.to_vec(),
            shift: shift.to_vec(),
        })
    }

    #[test]
    fn normalization_after_an_activation_is_part_of_the_next_layer_if_that_is_exact() {
        let convolution = |outputs, inputs, padding| ChainOperation::Convolution {
            weight: numbers(&[outputs, inputs, 3, 3]),
            bias: None,
            stride: 1,
            padding,
            dilation: 1,
            groups: 1,
        };
        let kernels = |layers: Vec<ChainOperation>| {
            let network = translated(layers).unwrap().network;
            network
                .conv_blocks()
                .map(|block| block.kernel)
                .collect::<Vec<_>>()
        };
        let negative = || normalize(&[1.0, -1.0], &[0.5, 0.0]);
        let positive = || normalize(&[1.0, 2.0], &[0.5, 0.0]);
        let head = || [FLATTEN, dense([3, 8])];
        let first = || [convolution(2, 1, Padding::Same), RELU];
        // Directly before a dense layer, and before an unpadded convolution.
        let layers = first()
            .into_iter()
            .chain([negative(), FLATTEN, dense([3, 32])]);
        assert_eq!(kernels(layers.collect()), [3]);
        let second = convolution(2, 2, Padding::Each(0));
        let layers = first()
            .into_iter()
            .chain([negative(), second])
            .chain(head());
        assert_eq!(kernels(layers.collect()), [3, 3]);
        // Zeros around the image are not normalized.
        let second = convolution(2, 2, Padding::Same);
        let layers = first()
            .into_iter()
            .chain([negative(), second, FLATTEN, dense([3, 32])]);
        assert_eq!(kernels(layers.collect()), [3, 1, 3]);
        // A negative factor makes a maximum a minimum.
        let pooled = |normalization| {
            let layers = first()
                .into_iter()
                .chain([normalization, pool(PoolKind::Max)])
                .chain(head());
            kernels(layers.collect())
        };
        assert_eq!(pooled(positive()), [3]);
        assert_eq!(pooled(negative()), [3, 1]);
    }

    #[test]
    fn flattened_normalization_is_in_the_order_of_the_file() {
        let order = |order| {
            let architecture = translated(vec![
                convolution([2, 1, 3, 3], Padding::Same),
                RELU,
                pool(PoolKind::Max),
                normalize(&[1.0, 10.0], &[0.0, 1.0]),
                ChainOperation::Flatten { order },
                ChainOperation::Dense {
                    weight: Tensor::from_values(
                        vec![1, 8],
                        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
                    ),
                    bias: None,
                },
            ]);
            let tensors = architecture.unwrap().tensors;
            [&tensors["fc1.weight"], &tensors["fc1.bias"]].map(|tensor| tensor.values().unwrap())
        };
        let [weight, bias] = order(ChannelOrder::First);
        assert_eq!(weight, [1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]);
        assert_eq!(bias, [26.0]);
        let [weight, bias] = order(ChannelOrder::Last);
        assert_eq!(weight, [1.0, 3.0, 5.0, 7.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(bias, [20.0]);
    }

    #[test]
    fn layers_in_unusual_places_become_layers_of_a_network() {
        let network = |layers| translated(layers).unwrap().network;
        // A pool of the pixels, two activations, two pools.
        let layers = vec![
            pool(PoolKind::Average),
            convolution([2, 1, 1, 1], Padding::Each(0)),
            RELU,
            TANH,
            pool(PoolKind::Max),
            ChainOperation::GlobalPool(PoolKind::Max),
            FLATTEN,
            dense([3, 2]),
        ];
        let blocks = network(layers)
            .conv_blocks()
            .map(|block| (block.kernel, block.activation))
            .collect::<Vec<_>>();
        let none = Activation::None;
        assert_eq!(
            blocks,
            [
                (1, none),
                (1, Activation::Relu),
                (1, Activation::Tanh),
                (1, none)
            ]
        );
        // Different activations of dense layers.
        let layers = vec![
            FLATTEN,
            dense([4, 16]),
            RELU,
            dense([5, 4]),
            TANH,
            dense([2, 5]),
        ];
        let mixed = network(layers);
        let blocks: Vec<_> = mixed
            .conv_blocks()
            .map(|block| (block.kernel, block.channels))
            .collect();
        assert_eq!(
            (blocks, mixed.dense, mixed.dense_activation),
            (vec![(4, 4)], vec![5], Activation::Tanh)
        );
        // Outputs without a dense layer, or with an activation.
        let layers = vec![
            convolution([3, 1, 3, 3], Padding::Same),
            ChainOperation::GlobalPool(PoolKind::Average),
            ChainOperation::Softmax,
        ];
        assert_eq!(network(layers).classes, 3);
        let last = network(vec![FLATTEN, dense([2, 16]), RELU]);
        assert_eq!((last.dense, last.classes), (vec![2], 2));
    }

    #[test]
    fn what_a_network_cannot_express_is_refused_by_the_name_of_the_layer() {
        let convolution = || convolution([1, 1, 3, 3], Padding::Same);
        let grouped = ChainOperation::Convolution {
            weight: zeros(&[2, 1, 3, 3]),
            bias: None,
            stride: 1,
            padding: Padding::Same,
            dilation: 1,
            groups: 2,
        };
        let wide = ChainOperation::Convolution {
            weight: zeros(&[2, 1, 1, 3]),
            bias: None,
            stride: 1,
            padding: Padding::Each(0),
            dilation: 1,
            groups: 1,
        };
        for (layers, message) in [
            (
                vec![convolution(), RELU, normalize(&[1.0; 2], &[0.0; 2])],
                "layer 2: another number of channels than the layer before",
            ),
            (
                vec![wide],
                "layer 0: a kernel of 1x3 without a square one that computes the same",
            ),
            (
                vec![grouped],
                "layer 0: a convolution of 2 groups of channels is not supported",
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
                vec![ChainOperation::Pad([1; 4]), FLATTEN],
                "layer 1: padding that no convolution follows",
            ),
            (
                vec![convolution()],
                "the network has no dense layer at its end",
            ),
        ] {
            let error = translated(layers).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn added_weights_are_limited() {
        let mut layers = vec![convolution([2048, 1, 1, 1], Padding::Each(0))];
        // Each activation after another one needs a layer of 2048x2048 weights.
        for _ in 0..20 {
            layers.extend([RELU, TANH]);
        }
        assert_eq!(
            translated(layers).unwrap_err(),
            "layer 34: too many operations between layers, or too large kernels"
        );
    }
}
