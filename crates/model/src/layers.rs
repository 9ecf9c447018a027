//! The layer table: what each layer makes of its input, and what it costs.

use std::fmt;

use crate::config::{BlockConfig, ConvNetConfig};

/// Largest size a setting of a network may have: beyond it are typing errors.
pub const MAX_SIZE: usize = 65_536;
/// A network of more parameters than this, a gigabyte of them, is a typing error too.
const MAX_PARAMETERS: usize = 1 << 28;
/// Largest rows and columns of a filter.
pub const MAX_KERNEL: usize = 31;

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `conv1`, `pool1`, `flatten`, `fc1`, `dropout`, ...
    pub name: String,
    /// What it does.
    pub operation: Operation,
    /// Output of one image: `[channels, height, width]` or `[features]`.
    pub output: Vec<usize>,
    /// Weights and biases.
    pub parameters: usize,
    /// Shape of the weights, `[out, in, ky, kx]` or `[out, in]`; empty where there are none.
    pub weights: Vec<usize>,
}

/// What a layer does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Filters of `kernel` rows and columns, moved over the image and `padding` zeros around it, batch
    /// normalization where there is `norm`, and ReLU.
    Convolution {
        /// Rows and columns of a filter.
        kernel: usize,
        /// Zeros on each side.
        padding: usize,
        /// Whether channels are normalized over the batch while learning.
        norm: bool,
    },
    /// 2x2 max-pooling with stride 2.
    MaxPooling,
    /// Feature maps become a row of values, channels first.
    Flatten,
    /// All inputs to all outputs, and ReLU.
    Dense,
    /// The same without ReLU: the last layer.
    Logits,
    /// Zeroes values with this probability while learning.
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
    /// Multiplications for one image: each pixel of an output channel takes one per weight of its
    /// filter, and each filter has one bias.
    pub fn products(&self) -> usize {
        match *self.output.as_slice() {
            [outputs, ref pixels @ ..] => {
                self.parameters.saturating_sub(outputs) * pixels.iter().product::<usize>()
            }
            [] => 0,
        }
    }
}

/// A network that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A size outside its range.
    #[error("{key} = {value}: expected {expected}")]
    Range {
        /// The setting.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// More weights than memory.
    #[error(
        "the network has more than {MAX_PARAMETERS} parameters: use fewer channels or outputs, or more pools"
    )]
    TooLarge,
    /// A filter larger than what it is moved over.
    #[error(
        "{layer}: a {kernel}x{kernel} filter does not fit the {height}x{width} image before it \
         (padding {padding}): use fewer pools, a smaller kernel or more padding"
    )]
    KernelTooLarge {
        /// Name of the layer.
        layer: String,
        /// Rows and columns of the filter.
        kernel: usize,
        /// Zeros around the image.
        padding: usize,
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
    },
    /// A pool that leaves no pixel.
    #[error(
        "{layer}: pooling the {height}x{width} image before it leaves nothing: use fewer pools"
    )]
    NothingLeft {
        /// Name of the layer.
        layer: String,
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
    },
}

/// The layers of a network, and what the dense part gets to see.
pub(crate) struct Table {
    pub(crate) layers: Vec<Layer>,
    /// Values of an image after the last block.
    pub(crate) features: usize,
}

impl Table {
    pub(crate) fn of(config: &ConvNetConfig) -> Result<Self, ShapeError> {
        let [height, width] = config.input;
        in_range("model.channels", config.channels, MAX_SIZE)?;
        in_range("model.input height", height, MAX_SIZE)?;
        in_range("model.input width", width, MAX_SIZE)?;
        in_range("model.classes", config.classes, MAX_SIZE)?;
        if !(0.0..1.0).contains(&config.dropout) {
            return Err(ShapeError::Range {
                key: "model.dropout".into(),
                value: config.dropout.to_string(),
                expected: "a probability from 0 up to but not including 1".into(),
            });
        }

        let mut layers = Vec::new();
        let mut maps = Maps {
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
            _ => Err(ShapeError::TooLarge),
        }
    }
}

/// The shape of an image on its way through the blocks.
#[derive(Clone, Copy)]
struct Maps {
    channels: usize,
    height: usize,
    width: usize,
}

impl Maps {
    /// What block `number` makes of it before its pool.
    fn convolve(self, number: usize, block: &BlockConfig) -> Result<Self, ShapeError> {
        let moved = |size: usize| {
            let positions = (size + 2 * block.padding + 1).checked_sub(block.kernel);
            positions.filter(|&positions| positions > 0)
        };
        let (Some(height), Some(width)) = (moved(self.height), moved(self.width)) else {
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

    /// What pool `number` makes of it.
    fn pool(self, number: usize) -> Result<Self, ShapeError> {
        let Self { height, width, .. } = self;
        if height < 2 || width < 2 {
            return Err(ShapeError::NothingLeft {
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

    /// Values of an image.
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

/// The layers from `features` values to the logits.
fn push_dense(
    config: &ConvNetConfig,
    mut features: usize,
    layers: &mut Vec<Layer>,
) -> Result<(), ShapeError> {
    let mut number = 1;
    for &outputs in &config.dense {
        in_range(&format!("model.dense[{}]", number - 1), outputs, MAX_SIZE)?;
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

/// Weights of this shape, and a bias for each output.
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
    in_range(&key("channels"), block.channels, MAX_SIZE)?;
    in_range(&key("kernel"), block.kernel, MAX_KERNEL)?;
    if block.padding >= block.kernel {
        return Err(ShapeError::Range {
            key: key("padding"),
            value: block.padding.to_string(),
            expected: format!("0 to {}, less than the kernel", block.kernel - 1),
        });
    }
    Ok(())
}

fn in_range(key: &str, value: usize, most: usize) -> Result<(), ShapeError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(ShapeError::Range {
        key: key.into(),
        value: value.to_string(),
        expected: format!("1 to {most}"),
    })
}

impl fmt::Display for Layer {
    /// `conv1 [32, 28, 28] 320`
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
    fn the_default_network() {
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
    fn without_padding_and_without_hidden_layer() {
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
    fn impossible_networks() {
        let error = |blocks: Vec<BlockConfig>| {
            let config = ConvNetConfig {
                blocks,
                ..ConvNetConfig::default()
            };
            config.layers().unwrap_err().to_string()
        };
        assert_eq!(
            error(vec![block(3, 1, true); 5]),
            "pool5: pooling the 1x1 image before it leaves nothing: use fewer pools"
        );
        assert_eq!(
            error(vec![block(5, 0, true); 4]),
            "conv3: a 5x5 filter does not fit the 4x4 image before it (padding 0): \
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
