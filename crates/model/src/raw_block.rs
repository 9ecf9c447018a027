//! The keys of a block in a configuration file.
//!
//! A block is an inline table of TOML: `{ channels = 64, norm = true, pool = "average" }`. A residual group has
//! the key `residual` with its blocks: `{ residual = [{ channels = 64 }, { channels = 64 }] }`.

use kernels::Activation;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::block::{BlockConfig, Initialization, Pool, PoolKind, ResidualConfig, Stage};

/// A block or residual group with the keys that a file has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawBlock {
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stride: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm_scale: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    activation: Option<Activation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<RawPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_stride: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_padding: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_first: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initialization: Option<Initialization>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whitening: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    residual: Option<Vec<RawBlock>>,
}

/// The value of `pool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum RawPool {
    /// 2x2 max-pooling with stride 2, or none.
    Enabled(bool),
    Named(PoolName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PoolName {
    Max,
    Average,
    GlobalMax,
    GlobalAverage,
}

/// Deserializes the list of blocks. Errors name the block.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Stage>, D::Error> {
    let blocks = Vec::<RawBlock>::deserialize(deserializer)?.into_iter();
    let stages = blocks.enumerate().map(|(index, raw)| {
        let stage = match raw.residual {
            None => raw.into_block(Pool::MAX).map(Stage::Block),
            Some(_) => raw.into_residual().map(Stage::Residual),
        };
        stage.map_err(|error| D::Error::custom(format!("model.blocks[{index}].{error}")))
    });
    stages.collect()
}

/// Serializes the list of blocks.
pub(crate) fn serialize<S: Serializer>(blocks: &[Stage], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(blocks.iter().cloned().map(RawBlock::from))
}

impl RawBlock {
    /// Converts the keys of a convolution block; `pool` is the pooling of a block that names none.
    fn into_block(self, pool: Pool) -> Result<BlockConfig, String> {
        if self.residual.is_some() {
            return Err("residual: a residual group cannot contain another one".into());
        }
        let pool = self.pool(pool)?;
        let default = BlockConfig::default();
        let norm = self.norm.unwrap_or(default.norm);
        Ok(BlockConfig {
            channels: self.channels.unwrap_or(default.channels),
            kernel: self.kernel.unwrap_or(default.kernel),
            stride: self.stride.unwrap_or(default.stride),
            padding: self.padding.unwrap_or(default.padding),
            bias: self.bias.unwrap_or(default.bias),
            norm,
            norm_scale: self.norm_scale.unwrap_or(default.norm_scale),
            activation: self.activation.unwrap_or(default.activation),
            pool,
            pool_first: self.pool_first.unwrap_or(norm),
            dropout: self.dropout.unwrap_or(default.dropout),
            initialization: self.initialization,
            whitening: self.whitening.unwrap_or(default.whitening),
        })
    }

    /// Converts the keys of the pooling.
    fn pool(&self, default: Pool) -> Result<Pool, String> {
        let sizes = [
            ("pool_size", self.pool_size),
            ("pool_stride", self.pool_stride),
            ("pool_padding", self.pool_padding),
        ];
        let size = sizes.into_iter().find(|(_, value)| value.is_some());
        let windows = |kind| {
            let size = self.pool_size.unwrap_or(2);
            Pool::Windows {
                kind,
                size,
                stride: self.pool_stride.unwrap_or(size),
                padding: self.pool_padding.unwrap_or(0),
            }
        };
        let pool = match self.pool {
            Some(RawPool::Enabled(true) | RawPool::Named(PoolName::Max)) => windows(PoolKind::Max),
            Some(RawPool::Named(PoolName::Average)) => windows(PoolKind::Average),
            Some(RawPool::Named(PoolName::GlobalMax)) => Pool::Global(PoolKind::Max),
            Some(RawPool::Named(PoolName::GlobalAverage)) => Pool::Global(PoolKind::Average),
            Some(RawPool::Enabled(false)) => Pool::None,
            None if default == Pool::None => Pool::None,
            None => windows(PoolKind::Max),
        };
        match (pool, size) {
            (Pool::None, Some((key, value))) => Err(format!(
                "{key} = {}: the block has no pooling",
                value.unwrap_or_default()
            )),
            (Pool::Global(_), Some((key, value))) => Err(format!(
                "{key} = {}: global pooling has no windows",
                value.unwrap_or_default()
            )),
            _ => Ok(pool),
        }
    }

    /// Converts the keys of a residual group.
    fn into_residual(self) -> Result<ResidualConfig, String> {
        let pool = self.pool(Pool::None)?;
        let Self {
            residual,
            activation,
            ..
        } = self.clone();
        let others = Self {
            residual: None,
            activation: None,
            pool: None,
            pool_size: None,
            pool_stride: None,
            pool_padding: None,
            ..self
        };
        if others != Self::default() {
            return Err(
                "residual: the group has the keys activation and those of pooling besides; other keys belong to \
                 its blocks"
                    .into(),
            );
        }
        let blocks = residual.unwrap_or_default().into_iter();
        let blocks = blocks.enumerate().map(|(index, block)| {
            let block = block.into_block(Pool::None);
            block.map_err(|error| format!("residual[{index}].{error}"))
        });
        Ok(ResidualConfig {
            blocks: blocks.collect::<Result<_, _>>()?,
            activation: activation.unwrap_or(Activation::None),
            pool,
        })
    }
}

impl From<Stage> for RawBlock {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Block(block) => block.into(),
            Stage::Residual(group) => Self {
                activation: unless(group.activation, Activation::None),
                residual: Some(group.blocks.into_iter().map(Self::from).collect()),
                ..match group.pool {
                    Pool::None => Self::default(),
                    pool => Self::of_pool(pool),
                }
            },
        }
    }
}

impl From<BlockConfig> for RawBlock {
    /// Writes the four main keys and `norm` always, the others if they differ from their defaults.
    fn from(block: BlockConfig) -> Self {
        let default = BlockConfig::default();
        Self {
            channels: Some(block.channels),
            kernel: Some(block.kernel),
            stride: unless(block.stride, default.stride),
            padding: Some(block.padding),
            bias: unless(block.bias, default.bias),
            norm: Some(block.norm),
            norm_scale: unless(block.norm_scale, default.norm_scale),
            activation: unless(block.activation, default.activation),
            pool_first: unless(block.pool_first, block.norm),
            dropout: unless(block.dropout, default.dropout),
            initialization: block.initialization,
            whitening: unless(block.whitening, default.whitening),
            ..Self::of_pool(block.pool)
        }
    }
}

impl RawBlock {
    /// Returns the keys of a pooling.
    fn of_pool(pool: Pool) -> Self {
        let (pool, windows) = match pool {
            Pool::None => (RawPool::Enabled(false), None),
            Pool::Global(PoolKind::Max) => (RawPool::Named(PoolName::GlobalMax), None),
            Pool::Global(PoolKind::Average) => (RawPool::Named(PoolName::GlobalAverage), None),
            Pool::Windows {
                kind,
                size,
                stride,
                padding,
            } => {
                let pool = match kind {
                    PoolKind::Max => RawPool::Enabled(true),
                    PoolKind::Average => RawPool::Named(PoolName::Average),
                };
                (pool, Some([size, stride, padding]))
            }
        };
        Self {
            pool: Some(pool),
            pool_size: windows.and_then(|[size, ..]| unless(size, 2)),
            pool_stride: windows.and_then(|[size, stride, _]| unless(stride, size)),
            pool_padding: windows.and_then(|[.., padding]| unless(padding, 0)),
            ..Self::default()
        }
    }
}

/// Returns `value` unless it is the default.
fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        #[serde(serialize_with = "serialize", deserialize_with = "deserialize")]
        blocks: Vec<Stage>,
    }

    fn parse(text: &str) -> Result<Stage, String> {
        let file = toml::from_str::<File>(&format!("blocks = [{text}]"));
        file.map(|mut file| file.blocks.remove(0))
            .map_err(|error| error.message().to_string())
    }

    fn block(text: &str) -> BlockConfig {
        match parse(text).unwrap() {
            Stage::Block(block) => block,
            stage => panic!("{stage:?}"),
        }
    }

    #[test]
    fn older_keys_keep_their_meaning() {
        assert_eq!(block("{}"), BlockConfig::default());
        let pooled = block("{ channels = 8, kernel = 5, padding = 2, pool = true, norm = true }");
        assert_eq!(pooled.pool, Pool::MAX);
        assert!(pooled.norm && pooled.pool_first && pooled.bias && !pooled.norm_scale);
        assert_eq!(block("{ pool = false }").pool, Pool::None);
    }

    #[test]
    fn pooling_has_kinds_and_sizes() {
        let windows = |kind, size, stride, padding| Pool::Windows {
            kind,
            size,
            stride,
            padding,
        };
        for (text, pool) in [
            ("{ pool = 'max' }", Pool::MAX),
            ("{ pool_size = 3 }", windows(PoolKind::Max, 3, 3, 0)),
            ("{ pool = 'average' }", windows(PoolKind::Average, 2, 2, 0)),
            (
                "{ pool = 'average', pool_size = 3, pool_stride = 2, pool_padding = 1 }",
                windows(PoolKind::Average, 3, 2, 1),
            ),
            ("{ pool = 'global-max' }", Pool::Global(PoolKind::Max)),
            (
                "{ pool = 'global-average' }",
                Pool::Global(PoolKind::Average),
            ),
        ] {
            assert_eq!(block(text).pool, pool, "{text}");
        }
    }

    #[test]
    fn blocks_of_a_residual_group_have_no_pooling_by_default() {
        let Stage::Residual(group) =
            parse("{ residual = [{ channels = 8 }, { pool = 'max' }], activation = 'relu' }")
                .unwrap()
        else {
            panic!("not a residual group");
        };
        assert_eq!(group.activation, Activation::Relu);
        assert_eq!(group.blocks[0].pool, Pool::None);
        assert_eq!(group.blocks[1].pool, Pool::MAX);
    }

    #[test]
    fn contradictory_keys_are_named() {
        for (text, message) in [
            (
                "{ pool = false, pool_size = 3 }",
                "model.blocks[0].pool_size = 3: the block has no pooling",
            ),
            (
                "{ pool = 'global-max', pool_stride = 2 }",
                "model.blocks[0].pool_stride = 2: global pooling has no windows",
            ),
            (
                "{ residual = [{}], kernel = 3 }",
                "model.blocks[0].residual: the group has the keys activation and those of pooling besides; other \
                 keys belong to its blocks",
            ),
            (
                "{ residual = [{ residual = [] }] }",
                "model.blocks[0].residual[0].residual: a residual group cannot contain another one",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }

    #[test]
    fn every_description_is_read_back() {
        for text in [
            "{}",
            "{ channels = 3, kernel = 1, stride = 2, padding = 0, bias = false, norm = true, norm_scale = true, \
             activation = 'gelu', pool = 'average', pool_size = 3, pool_stride = 2, pool_padding = 1, \
             pool_first = false, dropout = 0.1, initialization = 'dirac' }",
            "{ whitening = true, pool = 'global-average', pool_first = true }",
            "{ residual = [{ activation = 'silu' }, { pool = true }], activation = 'tanh' }",
            "{ residual = [{}], pool = 'average', pool_size = 3 }",
        ] {
            let file = File {
                blocks: vec![parse(text).unwrap()],
            };
            let written = toml::to_string(&file).unwrap();
            assert_eq!(toml::from_str::<File>(&written).unwrap(), file, "{text}");
        }
    }
}
