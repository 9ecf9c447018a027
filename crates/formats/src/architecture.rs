//! The network that a file describes: the translation of a chain of layers, once all of them are added.

use data::Scaling;
use model::{
    Activation, BlockConfig, ConvNetConfig, Initialization, Operation, Pool, ResidualConfig, Stage,
};

use crate::chain::{Chain, ChainLayer};
use crate::tensor::{Dtype, Tensor, Tensors};
use crate::translation::{Dense, Parameters, Translation, Values};

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

impl Translation {
    fn finish(
        mut self,
        [channels, height, width]: [usize; 3],
        initialization: Initialization,
    ) -> Result<Architecture, String> {
        if self.pad != [0; 4] {
            return Err("padding that no convolution or pool follows".into());
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

#[cfg(test)]
mod tests {
    use data::PerChannel;
    use model::PoolKind;

    use super::*;
    use crate::batch_norm::Normalization;
    use crate::chain::{ChainOperation, ChannelOrder, Padding};

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
                "layer 1: padding that no convolution or pool follows",
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
