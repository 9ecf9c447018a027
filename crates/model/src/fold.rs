//! Folding of batch normalization, and of the factor of the logits, into the weights.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use kernels::{Moments, moments};

use crate::conv_block::ConvBlock;
use crate::conv_net::{ConvNet, Place};

impl ConvNet {
    /// Returns whether any block has batch normalization.
    pub fn has_batch_norm(&self) -> bool {
        self.blocks.iter().any(|block| block.options.norm)
    }

    /// Folds batch normalization and the factor of the logits into weights and biases, for evaluation and
    /// inference.
    ///
    /// The statistics of each channel are its mean and variance averaged over `batches` of normalized training
    /// images, `[N, C, H, W]`, weighted by their numbers of images. Without batch normalization, no batch is read.
    ///
    /// # Panics
    /// Panics if a block has batch normalization and there is no batch.
    pub fn fold(mut self, batches: impl IntoIterator<Item = Tensor<4>>) -> Self {
        if self.has_batch_norm() {
            let statistics = self.statistics(batches);
            for (place, statistics) in statistics {
                let block = match place {
                    Place::Block(index) => self.blocks.get_mut(index),
                    Place::Projection(index) => self
                        .shortcuts
                        .get_mut(index)
                        .and_then(|shortcut| shortcut.projection.as_mut()),
                };
                if let Some(block) = block {
                    block.fold_batch_norm(&statistics.mean());
                }
            }
            assert!(!self.has_batch_norm(), "no batch for batch-norm statistics");
        }
        self.fold_logit_scale();
        self
    }

    /// Returns the statistics of each convolution with batch normalization.
    fn statistics(
        &self,
        batches: impl IntoIterator<Item = Tensor<4>>,
    ) -> BTreeMap<Place, Statistics> {
        let mut statistics = BTreeMap::<Place, Statistics>::new();
        for images in batches {
            self.run_blocks(images, |place, block, images| {
                if !block.options.norm {
                    return block.forward(images);
                }
                let maps = block.convolve(images);
                let [images, ..] = maps.dims();
                let moments = moments(maps.clone());
                statistics.entry(place).or_default().add(images, moments);
                block.normalize(maps)
            });
        }
        statistics
    }

    fn fold_logit_scale(&mut self) {
        let factor = std::mem::replace(&mut self.head.logit_scale, 1.0);
        if factor == 1.0 {
            return;
        }
        let output = &mut self.output;
        output.weight = Param::from_tensor(output.weight.val().mul_scalar(factor));
        let bias = output.bias.take();
        output.bias = bias.map(|bias| Param::from_tensor(bias.val().mul_scalar(factor)));
    }
}

impl ConvBlock {
    /// Folds batch normalization with these moments of each channel into weight and bias.
    fn fold_batch_norm(&mut self, moments: &[Moments]) {
        let bias = self.bias();
        let channels = moments.len();
        let per_channel = |value: fn(&Moments) -> f64| {
            let values: Vec<f32> = moments
                .iter()
                .map(|moments| value(moments) as f32)
                .collect();
            Tensor::<1>::from_floats(values.as_slice(), &bias.device())
        };
        let mut factor = per_channel(Moments::inverse_deviation);
        let mut shift = per_channel(|moments| moments.mean * moments.inverse_deviation());
        if let Some(scale) = self.scale.take() {
            let scale = scale.val().cast(DType::F32);
            factor = factor * scale.clone();
            shift = shift * scale;
        }
        let factor = factor.reshape([channels, 1, 1, 1]);
        self.conv.weight = Param::from_tensor(self.weights() * factor);
        self.conv.bias = Some(Param::from_tensor(bias - shift));
        self.options.norm = false;
    }
}

/// Moments of each channel, accumulated over batches.
#[derive(Clone, Default)]
struct Statistics {
    /// Number of images.
    images: usize,
    /// For each channel, the sums of the batches' means and mean squares, each times the number of images.
    sums: Vec<[f64; 2]>,
}

impl Statistics {
    fn add(&mut self, images: usize, batch: Vec<Moments>) {
        self.images += images;
        self.sums.resize(batch.len(), [0.0; 2]);
        for ([mean, squares], channel) in self.sums.iter_mut().zip(batch) {
            *mean += images as f64 * channel.mean;
            *squares += images as f64 * (channel.variance + channel.mean * channel.mean);
        }
    }

    fn mean(&self) -> Vec<Moments> {
        let sums = self.sums.iter();
        sums.map(|sums| {
            let [mean, squares] = sums.map(|sum| sum / self.images as f64);
            Moments {
                mean,
                variance: (squares - mean * mean).max(0.0),
            }
        })
        .collect()
    }
}
