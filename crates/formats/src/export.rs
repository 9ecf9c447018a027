//! A network that is written as a file of another program.

use std::ops::RangeInclusive;

use data::Scaling;
use model::{Activation, ConvNetConfig, Layer, ShapeError};

use crate::error::FormatError;
use crate::tensor::{Tensor, Tensors};

/// The supported versions of ONNX's operator set.
pub const ONNX_OPSETS: RangeInclusive<u32> = 7..=21;
/// A version of ONNX's operator set that programs of 2022 and later support.
pub const DEFAULT_ONNX_OPSET: u32 = 17;

/// A network to write as a file of another program.
#[derive(Debug)]
pub struct Export<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// The network. The weights are those of its folded form.
    pub network: &'a ConvNetConfig,
    /// Weights with PyTorch's names and layout, in single precision, or for ONNX in half precision. The network computes
    /// in single precision.
    pub weights: &'a Tensors,
    /// Normalization to include in the network, whose input is then pixels from 0 to 255; `None` if the input is
    /// normalized images.
    pub normalization: Option<Scaling>,
    /// Metadata: keys and values.
    pub metadata: &'a [(&'a str, String)],
}

/// The reason why a network cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The description is invalid.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A weight is missing.
    #[error("missing tensor {0}")]
    Missing(String),
    /// The version of the ONNX operator set is unknown.
    #[error("opset {0}: expected {first} to {last}", first = ONNX_OPSETS.start(), last = ONNX_OPSETS.end())]
    UnknownOpset(u32),
    /// The version of the ONNX operator set lacks an operator.
    #[error(
        "{function} needs the operator {operator}, which opset {opset} lacks: choose opset {least} or later"
    )]
    MissingOperator {
        /// The function that needs it.
        function: Activation,
        /// The operator.
        operator: &'static str,
        /// The version.
        opset: u32,
        /// The first version with the operator.
        least: u32,
    },
    /// Keras lacks a layer.
    #[error(
        "{0}: Keras cannot pad the input of a max-pool if values are negative: choose another format"
    )]
    MaxPoolPadding(String),
    /// A file cannot be built of the weights.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl Export<'_> {
    /// Returns the name and the value of the weight of a layer, and of its bias if it has one.
    pub(crate) fn tensors(&self, layer: &Layer) -> Result<Vec<(String, &Tensor)>, ExportError> {
        let bias = layer.bias.then_some("bias");
        let parts = ["weight"].into_iter().chain(bias);
        let tensors = parts.map(|part| {
            let name = format!("{}.{part}", layer.name);
            match self.weights.get(&name) {
                Some(tensor) => Ok((name, tensor)),
                None => Err(ExportError::Missing(name)),
            }
        });
        tensors.collect()
    }
}

/// Networks to write and read again.
#[cfg(test)]
pub(crate) mod samples {
    use model::{BlockConfig, Pool, PoolKind, ResidualConfig, Stage};

    use super::*;

    pub(crate) fn block(channels: usize, activation: Activation, pool: Pool) -> BlockConfig {
        BlockConfig {
            channels,
            activation,
            pool,
            ..BlockConfig::default()
        }
    }

    /// Returns a network with residual groups, all activations and several pools.
    pub(crate) fn residual() -> ConvNetConfig {
        let average = Pool::Windows {
            kind: PoolKind::Average,
            size: 2,
            stride: 2,
            padding: 1,
        };
        let group = |channels, pool| {
            Stage::Residual(ResidualConfig {
                blocks: vec![
                    block(channels, Activation::Gelu, Pool::None),
                    block(channels, Activation::None, pool),
                ],
                activation: Activation::Silu,
                pool: Pool::MAX,
            })
        };
        let pool_first = BlockConfig {
            pool_first: true,
            ..block(4, Activation::Tanh, average)
        };
        ConvNetConfig {
            channels: 3,
            input: [16, 16],
            classes: 3,
            dense: vec![5, 4],
            dense_activation: Activation::Gelu,
            output_bias: false,
            blocks: vec![
                block(4, Activation::Silu, Pool::None).into(),
                group(4, Pool::None),
                group(6, Pool::MAX),
                pool_first.into(),
                block(4, Activation::Relu, Pool::Global(PoolKind::Max)).into(),
            ],
            ..ConvNetConfig::default()
        }
    }

    /// A network with weights, all different, and metadata.
    pub(crate) struct Sample {
        pub(crate) network: ConvNetConfig,
        pub(crate) weights: Tensors,
        metadata: Vec<(&'static str, String)>,
    }

    impl Sample {
        pub(crate) fn new(network: ConvNetConfig) -> Self {
            let mut weights = Tensors::new();
            for layer in network.layers().unwrap() {
                let mut add = |part: &str, shape: &[usize]| {
                    let start = weights.len() as f32;
                    let values =
                        (0..shape.iter().product()).map(|index: usize| start + index as f32 / 64.0);
                    let tensor = Tensor::from_values(shape.to_vec(), &Vec::from_iter(values));
                    weights.insert(format!("{}.{part}", layer.name), tensor);
                };
                if !layer.weights.is_empty() {
                    add("weight", &layer.weights);
                }
                if layer.bias {
                    add("bias", &layer.weights[..1]);
                }
            }
            let numbers =
                r#"{"numbers": {"type": "float32", "mean": 0.25, "std": [0.5, 0.5, 1.0]}}"#;
            Self {
                network,
                weights,
                metadata: vec![("preprocessing", numbers.into())],
            }
        }

        pub(crate) fn export(&self, normalization: Option<Scaling>) -> Export<'_> {
            Export {
                name: "test",
                network: &self.network,
                weights: &self.weights,
                normalization,
                metadata: &self.metadata,
            }
        }
    }
}
