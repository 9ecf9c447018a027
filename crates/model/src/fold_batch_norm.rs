//! Folding of batch normalization into the weights and biases of the convolutions.

use burn::module::Param;
use burn::tensor::Tensor;
use kernels::{Moments, batch_norm_relu, moments};

use crate::conv_net::{ConvBlock, ConvNet};

impl ConvNet {
    /// Returns whether any block has batch normalization.
    pub fn has_batch_norm(&self) -> bool {
        self.blocks.iter().any(|block| block.norm)
    }

    /// Folds batch normalization into weights and biases, for evaluation and inference.
    ///
    /// The statistics of each channel are its mean and variance averaged over `batches` of normalized training
    /// images, `[N, C, H, W]`, weighted by their numbers of images.
    ///
    /// # Panics
    /// Panics if a block has batch normalization and there is no batch.
    pub fn fold_batch_norm(mut self, batches: impl IntoIterator<Item = Tensor<4>>) -> Self {
        let mut statistics = vec![Statistics::default(); self.blocks.len()];
        for images in batches {
            let blocks = self.blocks.iter().zip(&mut statistics);
            blocks.fold(images, |images, (block, statistics)| {
                if !block.norm {
                    return block.forward(images);
                }
                let maps = block.convolve(images);
                let [images, ..] = maps.dims();
                statistics.add(images, moments(maps.clone()));
                batch_norm_relu(maps, block.bias())
            });
        }
        for (block, statistics) in self.blocks.iter_mut().zip(statistics) {
            if block.norm {
                block.fold_batch_norm(&statistics.mean());
            }
        }
        self
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
        let factor = per_channel(Moments::inverse_deviation).reshape([channels, 1, 1, 1]);
        let shift = per_channel(|moments| moments.mean * moments.inverse_deviation());
        self.conv.weight = Param::from_tensor(self.weights() * factor);
        self.conv.bias = Some(Param::from_tensor(bias - shift));
        self.norm = false;
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
        assert!(self.images > 0, "no batch for batch-norm statistics");
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
