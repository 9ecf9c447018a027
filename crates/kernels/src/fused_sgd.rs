//! Stochastic gradient descent with momentum as an optimizer of burn-optim.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource, join_path};
use burn::tensor::{Device, Tensor};

use crate::backend;
use crate::cpu::sgd::SgdStep;
use crate::fused_step::is_supported;

/// Stochastic gradient descent with momentum, without dampening, as in PyTorch. Updates each parameter in one pass,
/// in place, on CPUs of this process; composes Burn's operations on other devices. Saved states have the names of
/// Burn's `Sgd`.
#[derive(Clone, Debug)]
pub struct FusedSgd {
    momentum: f32,
    is_nesterov: bool,
    weight_decay: f32,
}

/// State of [`FusedSgd`] for one parameter: a moving sum of its gradients.
#[derive(Clone, Debug)]
pub struct FusedSgdState<const D: usize> {
    velocity: Tensor<D>,
}

impl FusedSgd {
    /// Creates the optimizer. `weight_decay * weight` is added to each gradient; a `momentum` of 0 is plain
    /// gradient descent.
    pub fn new(momentum: f32, is_nesterov: bool, weight_decay: f32) -> Self {
        Self {
            momentum,
            is_nesterov,
            weight_decay,
        }
    }

    /// Does the step in separate operations.
    fn composed_step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        let grad = match self.weight_decay > 0.0 {
            true => tensor.clone().mul_scalar(self.weight_decay) + grad,
            false => grad,
        };
        let velocity = match velocity {
            Some(velocity) => grad.clone() + velocity.mul_scalar(self.momentum),
            None => grad.clone(),
        };
        let direction = match self.is_nesterov {
            true => velocity.clone().mul_scalar(self.momentum) + grad,
            false => velocity.clone(),
        };
        (tensor - direction.mul_scalar(lr), velocity)
    }
}

impl Optimizer for FusedSgd {
    type State<const D: usize> = FusedSgdState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let velocity = state.map(|state| state.velocity);
        let is_fused = backend::is_cpu(&tensor.device())
            && is_supported(&tensor, std::iter::once(&grad).chain(&velocity));
        let (tensor, velocity) = if is_fused {
            let velocity = velocity.unwrap_or_else(|| tensor.zeros_like());
            let step = SgdStep {
                learning_rate: lr as f32,
                momentum: self.momentum,
                is_nesterov: self.is_nesterov,
                weight_decay: self.weight_decay,
            };
            backend::sgd_step(tensor, grad, velocity, step)
        } else {
            self.composed_step(lr, tensor, grad, velocity)
        };
        (tensor, Some(FusedSgdState { velocity }))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        FusedSgdState {
            velocity: state.velocity.to_device(device),
        }
    }
}

impl<const D: usize> RecordState for FusedSgdState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let data = self.velocity.to_data();
        out.push_tensor(&join_path(prefix, "momentum"), "velocity", data);
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let data = src.take_tensor(&join_path(prefix, "momentum"), "velocity")?;
        let dtype = data.dtype();
        Some(Self {
            velocity: Tensor::from_data(data, (device, dtype)),
        })
    }
}
