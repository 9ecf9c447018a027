//! Exponential moving average of parameters.

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Updates this moving average with the parameters of `other`, a network of the same description:
    /// `decay * self + (1 - decay) * other`. Frozen filters keep the bits of `other`, which the sum may round.
    pub fn ema_update(self, other: &Self, decay: f64) -> Self {
        let mut average = self.combine_parameters(other, |average, other| {
            average.mul_scalar(decay) + other.mul_scalar(1.0 - decay)
        });
        for (block, other) in average.blocks.iter_mut().zip(&other.blocks) {
            if block.options.is_frozen {
                let frozen = other.conv.weight.val();
                block.conv.weight = block.conv.weight.clone().map(|_| frozen);
            }
        }
        average
    }
}
