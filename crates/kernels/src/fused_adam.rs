//! Adam and AdamW as optimizers of burn-optim.

use burn::optim::{
    Adam, AdamConfig, AdamState, AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState,
    LearningRate, Optimizer, decay::WeightDecayConfig,
};
use burn::tensor::{Device, Tensor};

use crate::backend;
use crate::cpu::adam::AdamStep;
use crate::fused_step::is_supported;

/// Adam or AdamW. Updates each parameter in one pass, in place, on devices with fused operations; uses Burn's
/// optimizer on others. State and formula are Burn's, so a saved state works with both.
#[derive(Clone)]
pub struct FusedAdam {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    burn: BurnOptimizer,
}

/// Burn's optimizer for the same algorithm, and its weight decay.
#[derive(Clone)]
enum BurnOptimizer {
    Adam(Adam, f32),
    AdamW(AdamW, f32),
}

impl FusedAdam {
    /// Creates Adam with L2 regularization: `weight_decay * weight` is added to each gradient.
    pub fn adam([beta_1, beta_2]: [f32; 2], epsilon: f32, weight_decay: f32) -> Self {
        let config = AdamConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(epsilon)
            .with_weight_decay((weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay)));
        Self {
            beta_1,
            beta_2,
            epsilon,
            burn: BurnOptimizer::Adam(config.build(), weight_decay),
        }
    }

    /// Creates AdamW: each step multiplies the weights by `1 - learning rate * weight_decay`.
    pub fn adam_w([beta_1, beta_2]: [f32; 2], epsilon: f32, weight_decay: f32) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(epsilon)
            .with_weight_decay(weight_decay);
        Self {
            beta_1,
            beta_2,
            epsilon,
            burn: BurnOptimizer::AdamW(config.build(), weight_decay),
        }
    }

    /// Returns the coefficients of step number `time`, counted from 1, at learning rate `lr`.
    fn coefficients(&self, time: usize, lr: LearningRate) -> AdamStep {
        let time = i32::try_from(time).unwrap_or(i32::MAX);
        let correction_2 = (1.0 - self.beta_2.powi(time)).sqrt();
        let correction_1 = 1.0 - self.beta_1.powi(time);
        let decay = match self.burn {
            BurnOptimizer::Adam(..) => 0.0,
            BurnOptimizer::AdamW(_, decay) => f64::from(decay),
        };
        AdamStep {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon * correction_2,
            step_size: lr as f32 * correction_2 / correction_1,
            decay_factor: (1.0 - lr * decay) as f32,
        }
    }
}

/// Returns whether the fused step supports these tensors on their device. It has no third moment (AMSGrad).
fn is_fused<const D: usize>(
    tensor: &Tensor<D>,
    grad: &Tensor<D>,
    state: Option<&AdamState<D>>,
) -> bool {
    let momentum = state.map(|state| &state.momentum);
    let moments = momentum
        .map(|momentum| [&momentum.moment_1, &momentum.moment_2])
        .into_iter()
        .flatten();
    momentum.is_none_or(|momentum| momentum.max_moment_2.is_none())
        && backend::is_fused(&tensor.device())
        && is_supported(tensor, std::iter::once(grad).chain(moments))
}

impl Optimizer for FusedAdam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if is_fused(&tensor, &grad, state.as_ref()) {
            let mut momentum = state.map_or_else(
                || AdaptiveMomentumState::new(0, tensor.zeros_like(), tensor.zeros_like()),
                |state| state.momentum,
            );
            momentum.time += 1;
            let grad = match self.burn {
                BurnOptimizer::Adam(_, decay) if decay > 0.0 => {
                    grad + tensor.clone().mul_scalar(decay)
                }
                _ => grad,
            };
            let moments = [momentum.moment_1, momentum.moment_2];
            let coefficients = self.coefficients(momentum.time, lr);
            let (tensor, [moment_1, moment_2]) =
                backend::adam_step(tensor, grad, moments, coefficients);
            let momentum = AdaptiveMomentumState::new(momentum.time, moment_1, moment_2);
            return (tensor, Some(AdamState::new(momentum)));
        }
        match &self.burn {
            BurnOptimizer::Adam(adam, _) => adam.step(lr, tensor, grad, state),
            BurnOptimizer::AdamW(adam_w, _) => {
                let state = state.map(|state| AdamWState::new(state.momentum));
                let (tensor, state) = adam_w.step(lr, tensor, grad, state);
                (tensor, state.map(|state| AdamState::new(state.momentum)))
            }
        }
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Adam::to_device(state, device)
    }
}
