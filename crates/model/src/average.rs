//! Averages: of weights over steps, and of what batch normalization sees over batches.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use kernels::{Moments, batch_norm_relu, moments};

use crate::conv_net::{ConvBlock, ConvNet};

impl ConvNet {
    /// These weights, of which `keep` is kept, brought nearer to those of a network of the same description:
    /// step by step, their exponential moving average.
    pub fn averaged(self, other: &Self, keep: f64) -> Self {
        let others = other.parameters().into_iter();
        self.map(&mut Average { others, keep })
    }

    /// Whether a block normalizes its batch.
    pub fn is_batch_normalized(&self) -> bool {
        self.blocks.iter().any(|block| block.norm)
    }

    /// The network to judge and use. What normalized a batch has become part of the weights and biases before
    /// it, with the moments that batches of training images `[N, C, H, W]` have there on average.
    ///
    /// # Panics
    /// When there is no batch.
    pub fn folded(mut self, batches: impl IntoIterator<Item = Tensor<4>>) -> Self {
        let mut seen = vec![Seen::default(); self.blocks.len()];
        for images in batches {
            let blocks = self.blocks.iter().zip(&mut seen);
            blocks.fold(images, |images, (block, seen)| {
                if !block.norm {
                    return block.forward(images);
                }
                let maps = block.convolve(images);
                seen.add(moments(maps.clone()));
                batch_norm_relu(maps, block.bias())
            });
        }
        for (block, seen) in self.blocks.iter_mut().zip(seen) {
            if block.norm {
                block.fold(&seen.mean());
            }
        }
        self
    }
}

impl ConvBlock {
    /// Makes normalization with these moments part of weights and bias.
    fn fold(&mut self, moments: &[Moments]) {
        let bias = self.bias();
        let channels = moments.len();
        let numbers = |of: fn(&Moments) -> f64| {
            let numbers: Vec<f32> = moments.iter().map(|moments| of(moments) as f32).collect();
            Tensor::<1>::from_floats(numbers.as_slice(), &bias.device())
        };
        let factor = numbers(Moments::inverse_deviation).reshape([channels, 1, 1, 1]);
        let shift = numbers(|moments| moments.mean * moments.inverse_deviation());
        self.conv.weight = Param::from_tensor(self.weights() * factor);
        self.conv.bias = Some(Param::from_tensor(bias - shift));
        self.norm = false;
    }
}

/// The moments of several batches, summed up.
#[derive(Clone, Default)]
struct Seen {
    batches: usize,
    /// Of each channel: the mean, and the mean of the squares.
    sums: Vec<[f64; 2]>,
}

impl Seen {
    fn add(&mut self, moments: Vec<Moments>) {
        self.batches += 1;
        self.sums.resize(moments.len(), [0.0; 2]);
        for ([mean, squares], found) in self.sums.iter_mut().zip(moments) {
            *mean += found.mean;
            *squares += found.variance + found.mean * found.mean;
        }
    }

    fn mean(&self) -> Vec<Moments> {
        assert!(self.batches > 0, "no batch to normalize by");
        let sums = self.sums.iter();
        sums.map(|sums| {
            let [mean, squares] = sums.map(|sum| sum / self.batches as f64);
            Moments {
                mean,
                variance: (squares - mean * mean).max(0.0),
            }
        })
        .collect()
    }
}

/// Brings weights nearer to others.
struct Average<I> {
    others: I,
    keep: f64,
}

impl<I: Iterator<Item = Tensor<1>>> ModuleMapper for Average<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(other) = self.others.next() else {
            return param;
        };
        param.map(|weights| {
            let other = other.reshape(weights.dims());
            weights.mul_scalar(self.keep) + other.mul_scalar(1.0 - self.keep)
        })
    }
}
