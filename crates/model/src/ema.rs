//! Exponential moving average of parameters.

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Updates this moving average with the parameters of `other`, a network of the same description:
    /// `decay * self + (1 - decay) * other`.
    pub fn ema_update(self, other: &Self, decay: f64) -> Self {
        self.combine_parameters(other, |average, other| {
            average.mul_scalar(decay) + other.mul_scalar(1.0 - decay)
        })
    }
}
