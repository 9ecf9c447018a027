//! Slow weights: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (2019).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Moves the parameters by `fraction`, from 0 to 1, of the way to those of `other`, a network of the same
    /// description. Parameters that are equal keep their bits.
    pub fn moved_towards(self, other: &Self, fraction: f64) -> Self {
        self.combine_parameters(other, |start, end| {
            // As torch.lerp, which is exact at both ends.
            let difference = end.clone() - start.clone();
            match fraction < 0.5 {
                true => start + difference.mul_scalar(fraction),
                false => end - difference.mul_scalar(1.0 - fraction),
            }
        })
    }

    /// Replaces the values of the parameters by those of `other`, a network of the same description without
    /// autodiff on the same device. Parameters track gradients as before.
    pub fn with_values_of(self, other: &Self) -> Self {
        let others = other.parameters().into_iter();
        self.map(&mut Replace { others })
    }
}

struct Replace<I> {
    others: I,
}

impl<I: Iterator<Item = Tensor<1>>> ModuleMapper for Replace<I> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(other) = self.others.next() else {
            return param;
        };
        param.map(|value| {
            let other = other.reshape(value.dims());
            match value.device().is_autodiff() {
                true => Tensor::from_inner(other).set_require_grad(value.is_require_grad()),
                false => other,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::ConvNetConfig;

    fn network(seed: u64, device: &Device) -> ConvNet {
        ConvNetConfig::default().init_seeded(seed, device).unwrap()
    }

    fn values(network: &ConvNet) -> Vec<f32> {
        network
            .flatten_parameters()
            .into_data()
            .try_to_vec()
            .unwrap()
    }

    #[test]
    fn moves_by_a_fraction_of_the_way() {
        let device = Device::default();
        let [slow, fast] = [1, 2].map(|seed| network(seed, &device));
        for fraction in [0.0, 0.25, 0.75, 1.0] {
            let moved = values(&slow.clone().moved_towards(&fast, fraction));
            for ((moved, slow), fast) in moved.iter().zip(values(&slow)).zip(values(&fast)) {
                let expected = slow + fraction as f32 * (fast - slow);
                assert!((moved - expected).abs() < 1e-7, "{fraction}");
            }
        }
        assert_eq!(
            values(&slow.clone().moved_towards(&fast, 0.0)),
            values(&slow)
        );
        assert_eq!(
            values(&slow.clone().moved_towards(&fast, 1.0)),
            values(&fast)
        );
        let same = slow.clone().moved_towards(&slow, 0.3);
        assert_eq!(values(&same), values(&slow));
    }

    #[test]
    fn replaced_values_track_gradients_as_before() {
        let device = Device::default();
        let slow = network(1, &device);
        let model = network(2, &device.clone().autodiff()).with_values_of(&slow);
        assert_eq!(values(&model), values(&slow));
        assert!(model.output.weight.is_require_grad());
        let frozen = network(2, &device.autodiff()).no_grad();
        let frozen = frozen.with_values_of(&slow);
        assert!(!frozen.output.weight.is_require_grad());
    }
}
