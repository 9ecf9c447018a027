//! Muon for convolution filters.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{LearningRate, Muon, MuonConfig, MuonState, Optimizer};
use burn::tensor::{Device, Tensor};

/// Burn's Muon on filters `[O, C, K, K]` as matrices `[O, C * K * K]`, with Nesterov momentum and decoupled weight
/// decay; Jordan et al., "Muon: An Optimizer for Hidden Layers in Neural Networks" (2024).
#[derive(Clone)]
pub(crate) struct FilterMuon(Muon);

impl FilterMuon {
    pub(crate) fn new(momentum: f64, weight_decay: f64) -> Self {
        let momentum = MomentumConfig::new()
            .with_momentum(momentum)
            .with_dampening(0.0)
            .with_nesterov(true);
        let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
        let config = MuonConfig::new()
            .with_momentum(momentum)
            .with_weight_decay(decay);
        Self(config.build())
    }
}

/// Flattens all dimensions but the first.
fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let rows = tensor.dims()[0];
    let columns = tensor.dims().iter().skip(1).product::<usize>();
    tensor.reshape([rows, columns])
}

impl Optimizer for FilterMuon {
    type State<const D: usize> = MuonState<2>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let shape = tensor.dims();
        let (tensor, state) = self.0.step(lr, flatten(tensor), flatten(grad), state);
        (tensor.reshape(shape), state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Muon::to_device(state, device)
    }
}
