//! The optimizer that the settings name.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{ModuleOptimizer, SgdConfig};
use kernels::FusedAdam;

use crate::config::run_config::{OptimizerKind, TrainingConfig};

/// Adam's epsilon.
const EPSILON: f32 = 1e-8;
/// AdamW's default weight decay.
const ADAM_W_DECAY: f64 = 0.01;

/// Builds the optimizer with PyTorch's defaults where Burn's differ: epsilon 1e-8, weight decay 0.01 for
/// AdamW, momentum without dampening.
pub(crate) fn optimizer(settings: &TrainingConfig) -> ModuleOptimizer {
    let decay = |default: f64| settings.weight_decay.unwrap_or(default) as f32;
    let betas = [settings.beta1, settings.beta2].map(|beta| beta as f32);
    match settings.optimizer {
        OptimizerKind::Adam => FusedAdam::adam(betas, EPSILON, decay(0.0)).into(),
        OptimizerKind::AdamW => FusedAdam::adam_w(betas, EPSILON, decay(ADAM_W_DECAY)).into(),
        OptimizerKind::Sgd => SgdConfig::new()
            .with_momentum(Some(MomentumConfig::new().with_dampening(0.0)))
            .with_weight_decay(Some(WeightDecayConfig::new(decay(0.0))))
            .init(),
    }
}
