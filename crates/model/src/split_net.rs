//! A network in two parts, for explanations of its predictions.

use std::mem;

use burn::module::Module;
use burn::tensor::Tensor;
use kernels::{Activation, activate};

use crate::block::{Pool, PoolKind};
use crate::conv_block::pooled;
use crate::conv_net::ConvNet;

/// A network for inference, divided at the activations of its last convolution, before they are pooled. Grad-CAM needs the
/// gradients of the logits with respect to them.
#[derive(Clone, Debug)]
pub struct SplitNet {
    /// The network without its last pooling.
    network: ConvNet,
    pool: Pool,
    /// Activation after the pooling.
    activation: Activation,
}

impl ConvNet {
    /// Divides a network without batch normalization, as [`fold`](Self::fold) returns it; `None` without blocks. Dropout is
    /// off in both parts.
    pub fn split(&self) -> Option<SplitNet> {
        let mut network = self.valid();
        let last = network.blocks.last_mut()?;
        let (mut pool, mut activation) = (Pool::None, Activation::None);
        match network.shortcuts.last_mut() {
            Some(shortcut) if shortcut.last + 1 == self.blocks.len() => {
                mem::swap(&mut shortcut.pool, &mut pool);
            }
            // Batch normalization would see other values.
            _ if last.options.norm => {}
            _ => {
                mem::swap(&mut last.options.pool, &mut pool);
                if last.options.pool_first && !commutes(last.options.activation, pool) {
                    mem::swap(&mut last.options.activation, &mut activation);
                }
            }
        }
        Some(SplitNet {
            network,
            pool,
            activation,
        })
    }
}

impl SplitNet {
    /// Computes the activations of the last convolution, or the output of the residual group that it belongs to, of
    /// normalized images: `[N, C, H, W]` to `[N, channels, H', W']`. A block that pools before an activation that does not
    /// commute with its pooling gives the values before both.
    pub fn maps(&self, images: Tensor<4>) -> Tensor<4> {
        self.network
            .run_blocks(images, |_, block, images| block.forward(images))
    }

    /// Computes the logits `[N, classes]` from the maps, `[N, channels, H', W']`.
    pub fn logits(&self, maps: Tensor<4>) -> Tensor<2> {
        let maps = activate(pooled(maps, self.pool), self.activation);
        self.network.classify(maps)
    }
}

/// Whether an activation can be applied before or after a pooling. Monotone functions commute with a maximum.
fn commutes(activation: Activation, pool: Pool) -> bool {
    let is_max = matches!(
        pool,
        Pool::Windows {
            kind: PoolKind::Max,
            ..
        } | Pool::Global(PoolKind::Max)
    );
    match activation {
        Activation::None => true,
        Activation::Relu | Activation::Tanh => is_max || pool == Pool::None,
        Activation::Gelu | Activation::Silu => pool == Pool::None,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;
    use crate::block::{BlockConfig, ResidualConfig, Stage};
    use crate::config::ConvNetConfig;

    const AVERAGE: Pool = Pool::Windows {
        kind: PoolKind::Average,
        size: 2,
        stride: 2,
        padding: 0,
    };

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn block(pool: Pool, pool_first: bool, activation: Activation) -> Stage {
        Stage::Block(BlockConfig {
            channels: 4,
            pool,
            pool_first,
            activation,
            dropout: 0.5,
            ..BlockConfig::default()
        })
    }

    #[test]
    fn both_parts_together_are_the_network() {
        let device = Device::default();
        device.seed(1);
        let images = Tensor::random([2, 1, 6, 8], Distribution::Default, &device);
        let (relu, gelu) = (Activation::Relu, Activation::Gelu);
        let group = Stage::Residual(ResidualConfig {
            blocks: vec![BlockConfig {
                channels: 4,
                pool: Pool::None,
                ..BlockConfig::default()
            }],
            activation: relu,
            pool: Pool::Global(PoolKind::Max),
        });
        for (last, size) in [
            (block(Pool::MAX, false, relu), [3, 4]),
            (block(Pool::MAX, true, relu), [3, 4]),
            (block(Pool::MAX, true, gelu), [3, 4]),
            (block(AVERAGE, true, relu), [3, 4]),
            (block(AVERAGE, false, gelu), [3, 4]),
            (block(Pool::Global(PoolKind::Average), false, relu), [3, 4]),
            (block(Pool::None, false, relu), [3, 4]),
            (group, [3, 4]),
        ] {
            let config = ConvNetConfig {
                input: [6, 8],
                classes: 3,
                dense: vec![],
                dropout: 0.5,
                blocks: vec![block(Pool::MAX, false, relu), last.clone()],
                ..ConvNetConfig::default()
            };
            let network = config.init(&device).unwrap();
            let split = network.split().unwrap();
            let maps = split.maps(images.clone());
            assert_eq!(maps.dims()[2..], size, "{last:?}");
            // With autodiff, dropout would change the logits.
            let logits = values(split.logits(maps.autodiff()));
            for (found, expected) in logits.iter().zip(values(network.forward(images.clone()))) {
                assert!((found - expected).abs() < 1e-5, "{last:?}: {logits:?}");
            }
        }
        let dense = ConvNetConfig {
            blocks: vec![],
            ..ConvNetConfig::default()
        };
        assert!(dense.init(&device).unwrap().split().is_none());
    }

    #[test]
    fn gradients_reach_the_images_and_the_maps() {
        let device = Device::default();
        device.seed(1);
        let network = ConvNetConfig::default().init(&device).unwrap();
        let images = Tensor::random([2, 1, 28, 28], Distribution::Default, &device);
        let split = network.split().unwrap();
        let maps = split.maps(images.clone()).autodiff().require_grad();
        let gradients = split.logits(maps.clone()).sum().backward();
        assert_eq!(maps.grad(&gradients).unwrap().dims(), [2, 64, 14, 14]);

        let images = images.autodiff().require_grad();
        let gradients = network.valid().forward(images.clone()).sum().backward();
        let gradient = values(images.grad(&gradients).unwrap());
        assert!(gradient.iter().any(|value| *value != 0.0));
    }
}
