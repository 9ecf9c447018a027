//! The optimizer that the settings name.

use burn::module::ParamGroup;
use burn::optim::{LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use kernels::{FusedAdam, FusedSgd};
use model::ConvNet;

use crate::config::run_config::{Config, OptimizerKind};
use crate::training::filter_muon::FilterMuon;
use crate::training::parameter_groups::{ParameterGroup, parameter_groups};

/// Adam's epsilon.
const EPSILON: f32 = 1e-8;

/// Builds the optimizer with PyTorch's defaults where Burn's differ: epsilon 1e-8, and weight decay 0.01 for
/// AdamW.
pub(crate) fn optimizer(config: &Config, model: &ConvNet) -> ModuleOptimizer {
    let settings = &config.training;
    let groups = parameter_groups(config, model);
    let decay = settings.weight_decay();
    let betas = [settings.beta1, settings.beta2].map(|beta| beta as f32);
    match settings.optimizer {
        OptimizerKind::Adam => grouped(decay, &groups, |decay| {
            FusedAdam::adam(betas, EPSILON, decay as f32)
        }),
        OptimizerKind::AdamW => grouped(decay, &groups, |decay| {
            FusedAdam::adam_w(betas, EPSILON, decay as f32)
        }),
        OptimizerKind::Sgd => grouped(decay, &groups, |decay| {
            FusedSgd::new(settings.momentum as f32, settings.nesterov, decay as f32)
        }),
        OptimizerKind::Muon => {
            let (filters, others): (Vec<_>, Vec<_>) = groups
                .into_iter()
                .partition(|group| group.treatment.is_orthogonalized);
            let others = grouped(decay, &others, |decay| {
                FusedSgd::new(settings.momentum as f32, true, decay as f32)
            });
            with_groups(others, decay, &filters, |decay| {
                FilterMuon::new(settings.momentum, decay)
            })
        }
    }
}

/// Returns an optimizer for all parameters, with groups of other learning rate and weight decay. `build` returns
/// the algorithm with a weight decay.
fn grouped<O: Optimizer>(
    decay: f64,
    groups: &[ParameterGroup],
    build: impl Fn(f64) -> O,
) -> ModuleOptimizer {
    with_groups(build(decay).into(), decay, groups, build)
}

/// Adds groups of parameters to an optimizer. The weight decay of a group is divided by its factor, so that the
/// learning rate times the decay is that of other parameters.
fn with_groups<O: Optimizer>(
    optimizer: ModuleOptimizer,
    decay: f64,
    groups: &[ParameterGroup],
    build: impl Fn(f64) -> O,
) -> ModuleOptimizer {
    groups.iter().fold(optimizer, |optimizer, group| {
        let factor = group.treatment.factor;
        let decay = match group.treatment.decays {
            true => decay / factor,
            false => 0.0,
        };
        let scaled = Scaled {
            optimizer: build(decay),
            factor,
        };
        optimizer.with_group(ParamGroup::from_paths(group.paths.clone()), scaled, None)
    })
}

/// An optimizer whose learning rate is multiplied by a factor.
#[derive(Clone)]
struct Scaled<O> {
    optimizer: O,
    factor: f64,
}

impl<O: Optimizer> Optimizer for Scaled<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        self.optimizer.step(self.factor * lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}
