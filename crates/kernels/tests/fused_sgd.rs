//! Tests of `FusedSgd` on Burn's default device, against Burn's optimizer.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{Optimizer, RecordState, Sgd, SgdConfig, StateSink};
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::FusedSgd;

/// Returns Burn's optimizer for the same algorithm.
fn burn_sgd(momentum: f64, nesterov: bool, decay: f32) -> Sgd {
    let momentum = MomentumConfig::new()
        .with_momentum(momentum)
        .with_dampening(0.0)
        .with_nesterov(nesterov);
    SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_weight_decay(Some(WeightDecayConfig::new(decay)))
        .build()
}

/// Returns a parameter after five steps at decreasing learning rates, and the names of its saved state.
fn train<O: Optimizer>(optimizer: &O, dtype: DType) -> (TensorData, Vec<String>) {
    // More elements than a chunk, and not a multiple of a vector.
    let wave = |frequency: f32| {
        let values = (0..131 * 257)
            .map(|i| (i as f32 * frequency).sin())
            .collect();
        let data = TensorData::new::<f32, _>(values, [131, 257]);
        Tensor::<2>::from_data(data, &Device::default()).cast(dtype)
    };
    let mut parameter = wave(0.37);
    let mut state = None;
    for step in 1..=5 {
        let gradient = wave(0.1 * step as f32) * 0.01;
        (parameter, state) = optimizer.step(0.1 / f64::from(step), parameter, gradient, state);
    }
    let mut sink = StateSink::default();
    state.unwrap().state_flatten("parameter", &mut sink);
    let names = sink.tensors.into_iter().map(|(name, _)| name).collect();
    (parameter.into_data(), names)
}

#[test]
fn steps_and_saved_states_equal_those_of_burn() {
    for dtype in [DType::F32, DType::F64] {
        for (momentum, nesterov, decay) in [
            (0.0, false, 0.0),
            (0.9, false, 0.0),
            (0.85, true, 0.0),
            (0.85, true, 0.05),
        ] {
            let fused = FusedSgd::new(momentum as f32, nesterov, decay);
            let burn = burn_sgd(momentum, nesterov, decay);
            assert_eq!(train(&fused, dtype), train(&burn, dtype), "{fused:?}");
        }
    }
}

#[test]
fn tensors_that_share_memory_with_the_parameter_are_not_changed() {
    let device = Device::default();
    let parameter = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
    let copy = parameter.clone();
    let gradient = Tensor::from_floats([1.0, -1.0, 0.0], &device);
    let (stepped, _) = FusedSgd::new(0.0, false, 0.0).step(0.5, parameter, gradient, None);
    copy.into_data().assert_eq(&[1.0f32, 2.0, 3.0].into(), true);
    let expected = [0.5f32, 2.5, 3.0].into();
    stepped.into_data().assert_eq(&expected, true);
}
