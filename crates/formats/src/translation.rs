//! The translation of a chain of layers, layer by layer, to the blocks and dense layers of this project.
//!
//! An operation that blocks have in another order only becomes an equivalent layer: batch normalization becomes part of the
//! weights before or after it, or a 1x1 convolution. Other layers are refused by name.

use data::PerChannel;
use model::{Activation, BlockConfig, Pool, PoolKind};

use crate::batch_norm::Normalization;
use crate::chain::{ChainOperation, ChannelOrder, Padding, Projection, Sides};
use crate::layout::permute;
use crate::limits::MAX_BYTES;
use crate::tensor::Tensor;
use crate::windows::{self, SquareKernel};

/// Largest number of channels of a layer that is inserted between two layers of the file.
const MAX_INSERTED: usize = 2048;
/// Largest number of weights that all inserted layers and enlarged kernels add.
const MAX_ADDED: usize = 1 << 27;
/// Largest number of flattened values that are normalized separately.
const MAX_FLATTENED: usize = 1 << 24;

/// The values between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Feature maps `[channels, height, width]`.
    Maps([usize; 3]),
    /// Flattened feature maps, and their order.
    Flattened([usize; 3], ChannelOrder),
    /// The outputs of a dense layer.
    Features(usize),
}

/// A dense layer.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(crate) activation: Activation,
    /// Dropout after the layer.
    pub(crate) dropout: f64,
}

/// The layers so far.
#[derive(Debug)]
pub(crate) struct Translation {
    pub(crate) values: Values,
    pub(crate) blocks: Vec<BlockConfig>,
    pub(crate) dense: Vec<Dense>,
    /// Weight and bias of each layer, in order, without those of projections.
    pub(crate) parameters: Vec<Parameters>,
    /// Number of bytes of all weights.
    pub(crate) bytes: usize,
    pub(crate) groups: Vec<Group>,
    /// The feature maps before the first dense layer.
    pub(crate) flattened: [usize; 3],
    /// Scale and offset of the pixels.
    pub(crate) rescale: Option<[PerChannel; 2]>,
    /// Padding before the next convolution.
    pub(crate) pad: Sides,
    /// Normalization of the values, not yet part of a layer: of each channel, or of each of flattened values.
    pub(crate) pending: Option<Normalization>,
    /// The function of the logits, once the network has ended.
    pub(crate) probabilities: Option<&'static str>,
    /// Number of weights that the file does not have.
    pub(crate) added: usize,
    pub(crate) notes: Vec<String>,
}

/// A residual group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Number of blocks before it.
    pub(crate) start: usize,
    /// Number of blocks before its end; `None` within it.
    pub(crate) end: Option<usize>,
    /// Shape of its input.
    pub(crate) input: [usize; 3],
    /// Projection of its input, and its stride.
    pub(crate) projection: Option<(Parameters, usize)>,
    pub(crate) activation: Activation,
    pub(crate) pool: Pool,
}

/// Weight and bias of a layer.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
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
    pub(crate) fn new(input: [usize; 3]) -> Self {
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

    pub(crate) fn add(&mut self, operation: ChainOperation) -> Result<(), String> {
        if let Some(probabilities) = self.probabilities {
            return Err(format!(
                "a layer after a {probabilities}, which is only supported at the end"
            ));
        }
        let takes_padding = matches!(
            operation,
            ChainOperation::Convolution { .. }
                | ChainOperation::Pool { .. }
                | ChainOperation::Pad(_)
        );
        if self.pad != [0; 4] && !takes_padding {
            return Err("padding that no convolution or pool follows".into());
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
    pub(crate) fn insert_identity(&mut self) -> Result<(), String> {
        let channels = self.channels();
        self.insert(&Normalization {
            factor: vec![1.0; channels],
            shift: vec![0.0; channels],
        })
    }

    /// Adds a layer that normalizes its input: a 1x1 convolution of feature maps, a dense layer otherwise.
    pub(crate) fn insert(&mut self, normalization: &Normalization) -> Result<(), String> {
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
        // A maximum ignores padding, as it ignores zeros among values that are not negative.
        let last = self.last_maps();
        let ignores_zeros = kind == PoolKind::Max
            && last.is_some_and(|(activation, _)| activation == Activation::Relu)
            && self.pending.is_none();
        if self.pad != [0; 4] && kind == PoolKind::Max && !ignores_zeros {
            self.insert_identity()?;
        }
        let [_, height, width] = self.maps()?;
        let before = std::mem::take(&mut self.pad);
        let padded = windows::padded([height, width], before);
        let sides = windows::sides(padding, padded, [size; 2], stride);
        if padding == Padding::Same && sides != [0; 4] && kind == PoolKind::Average {
            return Err("an average over windows at the border that leaves the padding out".into());
        }
        let sides = std::array::from_fn(|side| before[side].saturating_add(sides[side]));
        let padding = match sides {
            [top, left, bottom, right] if [left, bottom, right] == [top; 3] => top,
            _ if ignores_zeros || kind == PoolKind::Average => {
                self.pad = sides;
                self.insert_identity()?;
                0
            }
            _ => {
                return Err(format!(
                    "pooling of {size}x{size} windows with more padding on one side of the image than on the other, \
                     which is only supported for an average, or for a maximum after ReLU"
                ));
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
