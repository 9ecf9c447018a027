//! Adam and AdamW as burn-optim's optimizers.

use burn::optim::{
    Adam, AdamConfig, AdamState, AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState,
    LearningRate, Optimizer, decay::WeightDecayConfig,
};
use burn::tensor::{DType, Device, Tensor};

use crate::adam::AdamStep;
use crate::backend;

/// Adam, or AdamW where weights decay: on the CPU backends, and those of workers, in one pass over each parameter,
/// in place; elsewhere Burn's own. State and formula are Burn's, so that a saved state fits both.
#[derive(Clone)]
pub struct FusedAdam {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    composed: Composed,
}

/// Burn's own, with its weight decay.
#[derive(Clone)]
enum Composed {
    Adam(Adam, f32),
    AdamW(AdamW, f32),
}

impl FusedAdam {
    /// Adam: `weight_decay` times the weights is added to their gradients.
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
            composed: Composed::Adam(config.build(), weight_decay),
        }
    }

    /// AdamW: weights shrink by `learning rate * weight_decay` in each step.
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
            composed: Composed::AdamW(config.build(), weight_decay),
        }
    }

    /// What the `time`th step at learning rate `lr` does.
    fn at(&self, time: usize, lr: LearningRate) -> AdamStep {
        let time = i32::try_from(time).unwrap_or(i32::MAX);
        let correction_2 = (1.0 - self.beta_2.powi(time)).sqrt();
        let correction_1 = 1.0 - self.beta_1.powi(time);
        let decay = match self.composed {
            Composed::Adam(..) => 0.0,
            Composed::AdamW(_, decay) => f64::from(decay),
        };
        AdamStep {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon * correction_2,
            rate: lr as f32 * correction_2 / correction_1,
            keep: (1.0 - lr * decay) as f32,
        }
    }
}

/// Whether the fused step takes these: all `f32`, of one shape, on a device that has it, without autodiff, and
/// without the third moment of AMSGrad.
fn takes<const D: usize>(
    tensor: &Tensor<D>,
    grad: &Tensor<D>,
    state: Option<&AdamState<D>>,
) -> bool {
    let fits = |other: &Tensor<D>| other.dims() == tensor.dims() && other.dtype() == DType::F32;
    let device = tensor.device();
    fits(tensor)
        && fits(grad)
        && state.is_none_or(|AdamState { momentum, .. }| {
            let moments = [&momentum.moment_1, &momentum.moment_2];
            moments.into_iter().all(fits) && momentum.max_moment_2.is_none()
        })
        && !device.is_autodiff()
        && backend::is_fused(&device)
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
        if takes(&tensor, &grad, state.as_ref()) {
            let mut momentum = state.map_or_else(
                || AdaptiveMomentumState::new(0, tensor.zeros_like(), tensor.zeros_like()),
                |state| state.momentum,
            );
            momentum.time += 1;
            let grad = match self.composed {
                Composed::Adam(_, decay) if decay > 0.0 => grad + tensor.clone().mul_scalar(decay),
                _ => grad,
            };
            let moments = [momentum.moment_1, momentum.moment_2];
            let by = self.at(momentum.time, lr);
            let (tensor, [moment_1, moment_2]) = backend::adam_step(tensor, grad, moments, by);
            let momentum = AdaptiveMomentumState::new(momentum.time, moment_1, moment_2);
            return (tensor, Some(AdamState::new(momentum)));
        }
        match &self.composed {
            Composed::Adam(adam, _) => adam.step(lr, tensor, grad, state),
            Composed::AdamW(adam_w, _) => {
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
