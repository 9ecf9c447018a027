//! The layer table: operation, output shape and number of parameters of each layer.

use std::fmt;

use crate::config::{BlockConfig, ConvNetConfig};

/// Largest accepted number of channels, outputs, classes, rows or columns.
pub const MAX_SIZE: usize = 65_536;
/// Largest accepted number of parameters: 1 GiB in 32 bits.
const MAX_PARAMETERS: usize = 1 << 28;
/// Largest accepted height and width of a kernel.
pub const MAX_KERNEL: usize = 31;

/// One row of the layer table.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name: `conv1`, `pool1`, `flatten`, `fc1`, `dropout`, ...
    pub name: String,
    /// Operation with its settings.
    pub operation: Operation,
    /// Output shape for one image: `[channels, height, width]` or `[features]`.
    pub output: Vec<usize>,
    /// Number of weights and biases.
    pub parameters: usize,
    /// Shape of the weight tensor in PyTorch's layout, `[out, in, ky, kx]` or `[out, in]`; empty if the layer
    /// has no parameters.
    pub weights: Vec<usize>,
}

/// The operation of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// 2-D convolution with stride 1, optional batch normalization, and ReLU.
    Convolution {
        /// Height and width of the kernel.
        kernel: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Whether batch normalization is used during training.
        norm: bool,
    },
    /// 2x2 max-pooling with stride 2.
    MaxPooling,
    /// Feature maps to a vector, channels first.
    Flatten,
    /// Dense layer with ReLU.
    Dense,
    /// Last dense layer, without ReLU.
    Logits,
    /// Dropout with this probability, during training only.
    Dropout(f64),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Convolution { kernel, norm, .. } => {
                let norm = if norm { " + batch norm" } else { "" };
                write!(f, "{kernel}x{kernel} convolution{norm} + ReLU")
            }
            Self::MaxPooling => f.write_str("2x2 max-pooling"),
            Self::Flatten => f.write_str("reshape"),
            Self::Dense => f.write_str("dense + ReLU"),
            Self::Logits => f.write_str("dense, logits"),
            Self::Dropout(probability) => write!(f, "dropout {probability}"),
        }
    }
}

impl Layer {
    /// Returns the number of multiplications for one image: the number of weights, biases excluded, times the
    /// number of output pixels per channel (1 for dense layers).
    pub fn multiplications(&self) -> usize {
        match *self.output.as_slice() {
            [outputs, ref pixels @ ..] => {
                self.parameters.saturating_sub(outputs) * pixels.iter().product::<usize>()
            }
            [] => 0,
        }
    }
}

/// The reason why a description gives no valid network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A setting is out of range.
    #[error("{key} = {value}: expected {expected}")]
    OutOfRange {
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// Accepted values.
        expected: String,
    },
    /// The network has too many parameters.
    #[error(
        "the network has more than {MAX_PARAMETERS} parameters: use fewer channels or outputs, or more pools"
    )]
    TooManyParameters,
    /// A kernel is larger than its padded input.
    #[error(
        "{layer}: the {kernel}x{kernel} kernel is larger than its {height}x{width} input with padding {padding}: \
         use fewer pools, a smaller kernel or more padding"
    )]
    KernelTooLarge {
        /// Name of the layer.
        layer: String,
        /// Height and width of the kernel.
        kernel: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Height of the input.
        height: usize,
        /// Width of the input.
        width: usize,
    },
    /// The input of a pool is smaller than its window.
    #[error("{layer}: the 2x2 pool is larger than its {height}x{width} input: use fewer pools")]
    PoolTooLarge {
        /// Name of the layer.
        layer: String,
        /// Height of the input.
        height: usize,
        /// Width of the input.
        width: usize,
    },
}

/// The layers of a network.
pub(crate) struct LayerTable {
    pub(crate) layers: Vec<Layer>,
    /// Number of features after `flatten`, the inputs of the first dense layer.
    pub(crate) features: usize,
}

impl ConvNetConfig {
    /// Checks the description and returns its layers, in order.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, a kernel or pool is larger than its input, or the network
    /// has too many parameters.
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
        let [height, width] = config.input;
        check_range("model.channels", config.channels, MAX_SIZE)?;
        check_range("model.input height", height, MAX_SIZE)?;
        check_range("model.input width", width, MAX_SIZE)?;
        check_range("model.classes", config.classes, MAX_SIZE)?;
        if !(0.0..1.0).contains(&config.dropout) {
            return Err(ShapeError::OutOfRange {
                key: "model.dropout".into(),
                value: config.dropout.to_string(),
                expected: "a probability from 0 up to but not including 1".into(),
            });
        }

        let mut layers = Vec::new();
        let mut maps = FeatureMaps {
            channels: config.channels,
            height,
            width,
        };
        for (index, block) in config.blocks.iter().enumerate() {
            check_block(index, block)?;
            let operation = Operation::Convolution {
                kernel: block.kernel,
                padding: block.padding,
                norm: block.norm,
            };
            let weights = vec![block.channels, maps.channels, block.kernel, block.kernel];
            maps = maps.convolve(index + 1, block)?;
            layers.push(maps.layer(format!("conv{}", index + 1), operation, weights));
            if block.pool {
                maps = maps.pool(index + 1)?;
                let name = format!("pool{}", index + 1);
                layers.push(maps.layer(name, Operation::MaxPooling, Vec::new()));
            }
        }
        let features = maps.features();
        layers.push(vector("flatten", Operation::Flatten, features, Vec::new()));
        push_dense(config, features, &mut layers)?;

        let parameters = layers
            .iter()
            .try_fold(0usize, |sum, layer| sum.checked_add(layer.parameters));
        match parameters {
            Some(0..=MAX_PARAMETERS) => Ok(Self { layers, features }),
            _ => Err(ShapeError::TooManyParameters),
        }
    }
}

/// Shape of the feature maps of one image.
#[derive(Clone, Copy)]
struct FeatureMaps {
    channels: usize,
    height: usize,
    width: usize,
}

impl FeatureMaps {
    /// Returns the shape after the convolution of block `number`.
    fn convolve(self, number: usize, block: &BlockConfig) -> Result<Self, ShapeError> {
        let output_size = |size: usize| {
            let positions = (size + 2 * block.padding + 1).checked_sub(block.kernel);
            positions.filter(|&positions| positions > 0)
        };
        let (Some(height), Some(width)) = (output_size(self.height), output_size(self.width))
        else {
            return Err(ShapeError::KernelTooLarge {
                layer: format!("conv{number}"),
                kernel: block.kernel,
                padding: block.padding,
                height: self.height,
                width: self.width,
            });
        };
        Ok(Self {
            channels: block.channels,
            height,
            width,
        })
    }

    /// Returns the shape after pool `number`.
    fn pool(self, number: usize) -> Result<Self, ShapeError> {
        let Self { height, width, .. } = self;
        if height < 2 || width < 2 {
            return Err(ShapeError::PoolTooLarge {
                layer: format!("pool{number}"),
                height,
                width,
            });
        }
        Ok(Self {
            height: height / 2,
            width: width / 2,
            ..self
        })
    }

    /// Returns the number of values.
    fn features(self) -> usize {
        self.channels
            .saturating_mul(self.height)
            .saturating_mul(self.width)
    }

    fn layer(self, name: String, operation: Operation, weights: Vec<usize>) -> Layer {
        Layer {
            name,
            operation,
            output: vec![self.channels, self.height, self.width],
            parameters: parameters(&weights),
            weights,
        }
    }
}

/// Appends the layers from `features` inputs to the logits.
fn push_dense(
    config: &ConvNetConfig,
    mut features: usize,
    layers: &mut Vec<Layer>,
) -> Result<(), ShapeError> {
    let mut number = 1;
    for &outputs in &config.dense {
        check_range(&format!("model.dense[{}]", number - 1), outputs, MAX_SIZE)?;
        let name = format!("fc{number}");
        let weights = vec![outputs, features];
        layers.push(vector(&name, Operation::Dense, outputs, weights));
        features = outputs;
        number += 1;
    }
    if config.dropout > 0.0 {
        let operation = Operation::Dropout(config.dropout);
        layers.push(vector("dropout", operation, features, Vec::new()));
    }
    let name = format!("fc{number}");
    let outputs = config.classes;
    let weights = vec![outputs, features];
    layers.push(vector(&name, Operation::Logits, outputs, weights));
    Ok(())
}

fn vector(name: &str, operation: Operation, size: usize, weights: Vec<usize>) -> Layer {
    Layer {
        name: name.into(),
        operation,
        output: vec![size],
        parameters: parameters(&weights),
        weights,
    }
}

/// Returns the number of weights of this shape and of the biases, one per output.
fn parameters(weights: &[usize]) -> usize {
    let [outputs, inputs @ ..] = weights else {
        return 0;
    };
    let inputs = inputs
        .iter()
        .fold(1usize, |inputs, &size| inputs.saturating_mul(size));
    inputs.saturating_add(1).saturating_mul(*outputs)
}

fn check_block(index: usize, block: &BlockConfig) -> Result<(), ShapeError> {
    let key = |field: &str| format!("model.blocks[{index}].{field}");
    check_range(&key("channels"), block.channels, MAX_SIZE)?;
    check_range(&key("kernel"), block.kernel, MAX_KERNEL)?;
    if block.padding >= block.kernel {
        return Err(ShapeError::OutOfRange {
            key: key("padding"),
            value: block.padding.to_string(),
            expected: format!("0 to {}, less than the kernel", block.kernel - 1),
        });
    }
    Ok(())
}

fn check_range(key: &str, value: usize, max: usize) -> Result<(), ShapeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(ShapeError::OutOfRange {
        key: key.into(),
        value: value.to_string(),
        expected: format!("1 to {max}"),
    })
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

    fn block(kernel: usize, padding: usize, pool: bool) -> BlockConfig {
        BlockConfig {
            channels: 8,
            kernel,
            padding,
            pool,
            norm: false,
        }
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
        let error = |blocks: Vec<BlockConfig>| {
            let config = ConvNetConfig {
                blocks,
                ..ConvNetConfig::default()
            };
            config.layers().unwrap_err().to_string()
        };
        assert_eq!(
            error(vec![block(3, 1, true); 5]),
            "pool5: the 2x2 pool is larger than its 1x1 input: use fewer pools"
        );
        assert_eq!(
            error(vec![block(5, 0, true); 4]),
            "conv3: the 5x5 kernel is larger than its 4x4 input with padding 0: \
             use fewer pools, a smaller kernel or more padding"
        );
        let wide = BlockConfig {
            channels: MAX_SIZE,
            ..block(3, 1, false)
        };
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
}
