//! The layer table: operation, output shape, parameters, multiply-adds and receptive field of each layer.

use std::fmt;

use crate::block::{BlockConfig, Pool, ResidualConfig, Stage};
use crate::block_checks::{check_block, check_pool, check_whitening};
use crate::config::ConvNetConfig;
use crate::feature_maps::FeatureMaps;
use crate::operation::{Epilogue, Operation};
use crate::shape_error::{MAX_PARAMETERS, MAX_SIZE, ShapeError, check_fraction, check_range};

/// One row of the layer table.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name: `conv1`, `pool1`, `flatten`, `fc1`, `dropout`, ...
    pub name: String,
    /// Operation with its settings.
    pub operation: Operation,
    /// Output shape for one image: `[channels, height, width]` or `[features]`.
    pub output: Vec<usize>,
    /// Number of weights, biases and scales.
    pub parameters: usize,
    /// Shape of the weight tensor in PyTorch's layout, `[out, in, ky, kx]` or `[out, in]`; empty if the layer
    /// has no weights.
    pub weights: Vec<usize>,
    /// Whether the layer has a bias per output.
    pub bias: bool,
    /// Height and width of the part of the image, in pixels, that one output depends on.
    pub receptive_field: [usize; 2],
}

impl Layer {
    /// Returns the number of multiply-adds for one image: the number of weights times the number of output pixels
    /// per channel (1 for dense layers).
    pub fn multiply_adds(&self) -> usize {
        let pixels = match self.output.as_slice() {
            [_, pixels @ ..] => pixels.iter().product::<usize>(),
            [] => 0,
        };
        let weights = match self.weights.is_empty() {
            true => 0,
            false => self.weights.iter().product::<usize>(),
        };
        weights.saturating_mul(pixels)
    }
}

/// The layers of a network.
pub(crate) struct LayerTable {
    pub(crate) layers: Vec<Layer>,
    /// Number of features after `flatten`, the inputs of the first dense layer.
    pub(crate) features: usize,
    /// Stride of the projection of each residual group, in order; `None` for an identity.
    pub(crate) projections: Vec<Option<usize>>,
}

impl ConvNetConfig {
    /// Checks the description and returns its layers, in order.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, a kernel or pool is larger than its input, the shapes of a
    /// residual group cannot be added, or the network has too many parameters.
    pub fn layers(&self) -> Result<Vec<Layer>, ShapeError> {
        Ok(LayerTable::new(self)?.layers)
    }

    /// Returns the number of weights and biases of all layers.
    ///
    /// # Errors
    /// Returns the same errors as [`layers`](Self::layers).
    pub fn parameters(&self) -> Result<usize, ShapeError> {
        Ok(self.layers()?.iter().map(|layer| layer.parameters).sum())
    }
}

impl LayerTable {
    pub(crate) fn new(config: &ConvNetConfig) -> Result<Self, ShapeError> {
        check_range("model.channels", config.channels, MAX_SIZE)?;
        check_range("model.input height", config.input[0], MAX_SIZE)?;
        check_range("model.input width", config.input[1], MAX_SIZE)?;
        check_range("model.classes", config.classes, MAX_SIZE)?;
        check_fraction("model.dropout", config.dropout)?;
        if !(config.logit_scale.is_finite() && config.logit_scale > 0.0) {
            return Err(ShapeError::OutOfRange {
                key: "model.logit_scale".into(),
                value: config.logit_scale.to_string(),
                expected: "a number above 0".into(),
            });
        }

        let mut builder = Builder {
            layers: Vec::new(),
            maps: FeatureMaps::of_image(config.channels, config.input),
            blocks: 0,
            projections: Vec::new(),
        };
        for (index, stage) in config.blocks.iter().enumerate() {
            let key = format!("model.blocks[{index}]");
            match stage {
                Stage::Block(block) => builder.block(&key, block)?,
                Stage::Residual(group) => builder.residual(&key, group)?,
            }
        }
        let Builder {
            mut layers,
            maps,
            projections,
            ..
        } = builder;
        let features = maps.features();
        layers.push(vector("flatten", Operation::Flatten, maps, features));
        push_dense(config, maps, &mut layers)?;

        let parameters = layers
            .iter()
            .try_fold(0usize, |sum, layer| sum.checked_add(layer.parameters));
        match parameters {
            Some(0..=MAX_PARAMETERS) => Ok(Self {
                layers,
                features,
                projections,
            }),
            _ => Err(ShapeError::TooManyParameters),
        }
    }
}

/// Collects the layers before `flatten`.
struct Builder {
    layers: Vec<Layer>,
    /// Shape of the output of the last layer.
    maps: FeatureMaps,
    /// Number of convolution blocks.
    blocks: usize,
    projections: Vec<Option<usize>>,
}

impl Builder {
    /// Appends the layers of a convolution block, whose settings start with `key`.
    fn block(&mut self, key: &str, block: &BlockConfig) -> Result<(), ShapeError> {
        check_block(key, block)?;
        if block.whitening {
            check_whitening(key, block, self.maps.channels, self.layers.is_empty())?;
        }
        self.blocks += 1;
        let number = self.blocks;
        let name = format!("conv{number}");
        let inputs = self.maps.channels;
        let maps = self.maps.convolve(&name, key, block)?;
        let then = Epilogue {
            norm: block.norm,
            activation: block.activation,
        };
        let pool_first = block.pool_first && block.pool != Pool::None;
        let after = |is_here: bool| if is_here { then } else { Epilogue::NONE };
        let operation = Operation::Convolution {
            kernel: block.kernel,
            stride: block.stride,
            padding: block.padding,
            then: after(!pool_first),
        };
        let weights = vec![block.channels, inputs, block.kernel, block.kernel];
        let mut layer = image_layer(maps, name, operation, weights, block.bias);
        if block.norm_scale {
            layer.parameters += block.channels;
        }
        self.push(layer, maps);
        if block.pool != Pool::None {
            let name = format!("pool{number}");
            let maps = maps.pool(&name, key, block.pool)?;
            let operation = Operation::Pooling {
                pool: block.pool,
                then: after(pool_first),
            };
            self.push(image_layer(maps, name, operation, Vec::new(), false), maps);
        }
        if block.dropout > 0.0 {
            let operation = Operation::Dropout(block.dropout);
            let name = format!("dropout{number}");
            self.push(
                image_layer(self.maps, name, operation, Vec::new(), false),
                self.maps,
            );
        }
        Ok(())
    }

    /// Appends the layers of a residual group, whose settings start with `key`.
    fn residual(&mut self, key: &str, group: &ResidualConfig) -> Result<(), ShapeError> {
        let ResidualConfig {
            blocks, activation, ..
        } = group;
        let start = self.layers.len();
        let input = self.maps;
        let Some(last) = blocks.last() else {
            return Err(ShapeError::EmptyGroup(key.into()));
        };
        for (index, block) in blocks.iter().enumerate() {
            self.block(&format!("{key}.residual[{index}]"), block)?;
        }
        let output = self.maps;
        let number = self.projections.len() + 1;
        let projection = match output.has_shape_of(input) {
            true => None,
            false => {
                Some(
                    input
                        .projection_stride(output)
                        .ok_or_else(|| ShapeError::NotAddable {
                            key: key.into(),
                            input: input.shape(),
                            output: output.shape(),
                        })?,
                )
            }
        };
        if let Some(stride) = projection {
            let operation = Operation::Projection {
                start,
                stride,
                norm: last.norm,
            };
            let weights = vec![output.channels, input.channels, 1, 1];
            let name = format!("shortcut{number}");
            let mut layer = image_layer(output, name, operation, weights, last.bias);
            if last.norm_scale {
                layer.parameters += output.channels;
            }
            self.push(layer, output);
        }
        let operation = Operation::Addition {
            start,
            projection: projection.is_some(),
            activation: *activation,
        };
        let layer = image_layer(output, format!("add{number}"), operation, Vec::new(), false);
        self.push(layer, output);
        self.projections.push(projection);
        if group.pool != Pool::None {
            check_pool(key, group.pool)?;
            let name = format!("pool-add{number}");
            let maps = output.pool(&name, key, group.pool)?;
            let operation = Operation::Pooling {
                pool: group.pool,
                then: Epilogue::NONE,
            };
            self.push(image_layer(maps, name, operation, Vec::new(), false), maps);
        }
        Ok(())
    }

    fn push(&mut self, layer: Layer, maps: FeatureMaps) {
        self.layers.push(layer);
        self.maps = maps;
    }
}

/// Appends the layers from the last feature maps to the logits.
fn push_dense(
    config: &ConvNetConfig,
    maps: FeatureMaps,
    layers: &mut Vec<Layer>,
) -> Result<(), ShapeError> {
    let mut features = maps.features();
    let mut push = |name: String, operation: Operation, outputs: usize, bias: bool| {
        let weights = vec![outputs, features];
        features = outputs;
        layers.push(Layer {
            parameters: parameters(&weights, bias),
            weights,
            bias,
            ..vector(&name, operation, maps, outputs)
        });
    };
    for (index, &outputs) in config.dense.iter().enumerate() {
        check_range(&format!("model.dense[{index}]"), outputs, MAX_SIZE)?;
        let operation = Operation::Dense {
            activation: config.dense_activation,
        };
        push(format!("fc{}", index + 1), operation, outputs, true);
    }
    let operation = Operation::Logits {
        scale: config.logit_scale,
    };
    let name = format!("fc{}", config.dense.len() + 1);
    push(name, operation, config.classes, config.output_bias);
    if config.dropout > 0.0 {
        let last = layers.len() - 1;
        let inputs = layers[last].weights[1];
        let operation = Operation::Dropout(config.dropout);
        layers.insert(last, vector("dropout", operation, maps, inputs));
    }
    Ok(())
}

/// Returns a layer that has feature maps as output.
fn image_layer(
    maps: FeatureMaps,
    name: String,
    operation: Operation,
    weights: Vec<usize>,
    bias: bool,
) -> Layer {
    Layer {
        name,
        operation,
        output: maps.shape().to_vec(),
        parameters: parameters(&weights, bias),
        weights,
        bias,
        receptive_field: maps.receptive_field(),
    }
}

/// Returns a layer without weights that has a vector as output.
fn vector(name: &str, operation: Operation, maps: FeatureMaps, size: usize) -> Layer {
    Layer {
        name: name.into(),
        operation,
        output: vec![size],
        parameters: 0,
        weights: Vec::new(),
        bias: false,
        receptive_field: maps.image,
    }
}

/// Returns the number of weights of this shape, and of the biases, one per output.
fn parameters(weights: &[usize], bias: bool) -> usize {
    let [outputs, inputs @ ..] = weights else {
        return 0;
    };
    let inputs = inputs
        .iter()
        .fold(1usize, |inputs, &size| inputs.saturating_mul(size));
    inputs
        .saturating_add(usize::from(bias))
        .saturating_mul(*outputs)
}

impl fmt::Display for Layer {
    /// Writes name, output shape and number of parameters: `conv1 [32, 28, 28] 320`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.name, self.output, self.parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(config: &ConvNetConfig) -> Vec<String> {
        let layers = config.layers().unwrap();
        layers.iter().map(Layer::to_string).collect()
    }

    fn block(kernel: usize, padding: usize, pool: bool) -> Stage {
        Stage::Block(BlockConfig {
            channels: 8,
            kernel,
            padding,
            pool: if pool { Pool::MAX } else { Pool::None },
            ..BlockConfig::default()
        })
    }

    fn network(blocks: &str) -> ConvNetConfig {
        toml::from_str(&format!(
            "channels = 3\ninput = [32, 32]\ndense = []\nblocks = {blocks}"
        ))
        .unwrap()
    }

    #[test]
    fn default_network() {
        assert_eq!(
            table(&ConvNetConfig::default()),
            [
                "conv1 [32, 28, 28] 320",
                "pool1 [32, 14, 14] 0",
                "conv2 [64, 14, 14] 18496",
                "pool2 [64, 7, 7] 0",
                "flatten [3136] 0",
                "fc1 [128] 401536",
                "fc2 [10] 1290",
            ]
        );
    }

    #[test]
    fn network_without_padding_and_hidden_layers() {
        let config = ConvNetConfig {
            blocks: vec![block(3, 0, true)],
            dense: vec![],
            ..ConvNetConfig::default()
        };
        assert_eq!(
            table(&config),
            [
                "conv1 [8, 26, 26] 80",
                "pool1 [8, 13, 13] 0",
                "flatten [1352] 0",
                "fc1 [10] 13530",
            ]
        );
    }

    #[test]
    fn rejects_impossible_networks() {
        let error = |blocks: Vec<Stage>| {
            let config = ConvNetConfig {
                blocks,
                ..ConvNetConfig::default()
            };
            config.layers().unwrap_err().to_string()
        };
        assert_eq!(
            error(vec![block(3, 1, true); 5]),
            "model.blocks[4] (pool5): the 2x2 pool is larger than its 1x1 input: use fewer pools"
        );
        assert_eq!(
            error(vec![block(5, 0, true); 4]),
            "model.blocks[2] (conv3): the 5x5 kernel is larger than its 4x4 input with padding 0: \
             use fewer pools, a smaller kernel or more padding"
        );
        let wide = Stage::Block(BlockConfig {
            channels: MAX_SIZE,
            pool: Pool::None,
            ..BlockConfig::default()
        });
        assert!(error(vec![wide; 2]).starts_with("the network has more than 268435456 parameters"));
        assert_eq!(
            error(vec![block(0, 0, true)]),
            "model.blocks[0].kernel = 0: expected 1 to 31"
        );
        assert_eq!(
            error(vec![block(3, 3, true)]),
            "model.blocks[0].padding = 3: expected 0 to 2, less than the kernel"
        );
    }

    #[test]
    fn residual_network() {
        let config = network(
            "[{ channels = 16, norm = true, pool = false },
              { residual = [{ channels = 32, stride = 2, norm = true }, { channels = 32, norm = true }] },
              { residual = [{ channels = 32 }], activation = 'gelu' },
              { channels = 64, kernel = 3, stride = 2, pool = 'global-average' }]",
        );
        let layers = config.layers().unwrap();
        let rows = layers.iter().map(|layer| {
            let field = layer.receptive_field[0];
            format!(
                "{layer} {} {field} {}",
                layer.multiply_adds(),
                layer.operation
            )
        });
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [
                "conv1 [16, 32, 32] 448 442368 3 3x3 convolution + batch norm + ReLU",
                "conv2 [32, 16, 16] 4640 1179648 5 3x3 convolution, stride 2 + batch norm + ReLU",
                "conv3 [32, 16, 16] 9248 2359296 9 3x3 convolution + batch norm + ReLU",
                "shortcut1 [32, 16, 16] 544 131072 9 1x1 convolution of the group's input, stride 2 + batch norm",
                "add1 [32, 16, 16] 0 0 9 addition of the projection",
                "conv4 [32, 16, 16] 9248 2359296 13 3x3 convolution + ReLU",
                "add2 [32, 16, 16] 0 0 13 addition of the group's input + GELU",
                "conv5 [64, 8, 8] 18496 1179648 17 3x3 convolution, stride 2 + ReLU",
                "pool5 [64, 1, 1] 0 0 32 global average-pooling",
                "flatten [64] 0 0 32 reshape",
                "fc1 [10] 650 640 32 dense, logits",
            ]
        );
    }

    #[test]
    fn impossible_blocks_are_named() {
        let error = |blocks: &str| network(blocks).layers().unwrap_err().to_string();
        for (blocks, message) in [
            (
                "[{}, { residual = [{ channels = 32 }, { channels = 32, padding = 0 }] }]",
                "model.blocks[1]: the residual group turns [32, 16, 16] into [32, 14, 14], and no 1x1 convolution \
                 with a stride does the same: the shapes cannot be added",
            ),
            (
                "[{ residual = [] }]",
                "model.blocks[0].residual = []: expected at least one block",
            ),
            (
                "[{ residual = [{ kernel = 5 }, { channels = 0 }] }]",
                "model.blocks[0].residual[1].channels = 0: expected 1 to 65536",
            ),
            (
                "[{ pool_size = 8 }, { pool_size = 8 }]",
                "model.blocks[1] (pool2): the 8x8 pool is larger than its 4x4 input: use fewer pools",
            ),
            (
                "[{ stride = 16 }, { kernel = 5 }]",
                "model.blocks[1] (conv2): the 5x5 kernel is larger than its 1x1 input with padding 1: use fewer \
                 pools, a smaller kernel or more padding",
            ),
            (
                "[{ pool_size = 3, pool_padding = 2 }]",
                "model.blocks[0].pool_padding = 2: expected 0 to 1, at most half of the window",
            ),
            (
                "[{ stride = 0 }]",
                "model.blocks[0].stride = 0: expected 1 to 31",
            ),
            (
                "[{ dropout = 1.0 }]",
                "model.blocks[0].dropout = 1: expected a probability from 0 up to but not including 1",
            ),
            (
                "[{ norm_scale = true }]",
                "model.blocks[0]: norm_scale = true needs norm = true",
            ),
            (
                "[{ norm = true, norm_scale = true }]",
                "model.blocks[0]: norm_scale = true needs pool_first = false: after max-pooling, a negative scale \
                 cannot be folded into the filters",
            ),
            (
                "[{ kernel = 2, initialization = 'dirac' }]",
                "model.blocks[0]: initialization = \"dirac\" needs an odd kernel, which has a center",
            ),
            (
                "[{ kernel = 2, channels = 12, whitening = true }]",
                "model.blocks[0]: channels = 12: whitening of 2x2 patches of 3 channels has 24 filters",
            ),
            (
                "[{}, { whitening = true }]",
                "model.blocks[1]: whitening = true: only the first block sees the images",
            ),
            (
                "[{ whitening = true, norm = true }]",
                "model.blocks[0]: whitening = true excludes norm = true",
            ),
        ] {
            assert_eq!(error(blocks), message);
        }
    }
}
