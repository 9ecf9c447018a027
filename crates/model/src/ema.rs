//! Exponential moving average of parameters.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Updates this moving average with the parameters of `other`, a network of the same description:
    /// `decay * self + (1 - decay) * other`.
    pub fn ema_update(self, other: &Self, decay: f64) -> Self {
        let others = other.parameters().into_iter();
        self.map(&mut EmaUpdate { others, decay })
    }
}

struct EmaUpdate<I> {
    others: I,
    decay: f64,
}

impl<I: Iterator<Item = Tensor<1>>> ModuleMapper for EmaUpdate<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(other) = self.others.next() else {
            return param;
        };
        param.map(|average| {
            let other = other.reshape(average.dims());
            average.mul_scalar(self.decay) + other.mul_scalar(1.0 - self.decay)
        })
    }
}
