//! Tests of `FusedAdam` on Burn's default device, against Burn's optimizers.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData, Tolerance};
use kernels::FusedAdam;

const BETAS: [f32; 2] = [0.9, 0.999];

/// Returns a parameter after five steps at decreasing learning rates.
fn train<O: Optimizer>(optimizer: &O, dtype: DType) -> Tensor<2> {
    // More elements than a chunk, and not a multiple of a vector.
    let wave = |frequency: f32| {
        let values = (0..131 * 257)
            .map(|i| (i as f32 * frequency).sin())
            .collect();
        Tensor::<2>::from_data(
            TensorData::new::<f32, _>(values, [131, 257]),
            &Device::default(),
        )
        .cast(dtype)
    };
    let mut parameter = wave(0.37);
    let mut state = None;
    for step in 1..=5 {
        let gradient = wave(0.1 * step as f32) * 0.01;
        (parameter, state) = optimizer.step(0.1 / f64::from(step), parameter, gradient, state);
    }
    parameter
}

fn assert_matches(fused: &FusedAdam, burn: &impl Optimizer) {
    for dtype in [DType::F32, DType::F64] {
        let [actual, expected] = [train(fused, dtype), train(burn, dtype)].map(Tensor::into_data);
        actual.assert_approx_eq::<f64>(&expected, Tolerance::absolute(2e-6));
    }
}

#[test]
fn adam_matches_burn_to_2e_6() {
    let config = AdamConfig::new().with_epsilon(1e-8);
    assert_matches(&FusedAdam::adam(BETAS, 1e-8, 0.0), &config.build());
    let with_decay = config.with_weight_decay(Some(WeightDecayConfig::new(0.05)));
    assert_matches(&FusedAdam::adam(BETAS, 1e-8, 0.05), &with_decay.build());
}

#[test]
fn adam_w_matches_burn_to_2e_6() {
    let burn = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.05)
        .build();
    assert_matches(&FusedAdam::adam_w(BETAS, 1e-8, 0.05), &burn);
}

#[test]
fn tensors_that_share_memory_with_the_parameter_are_not_changed() {
    let device = Device::default();
    let parameter = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
    let copy = parameter.clone();
    let gradient = Tensor::from_floats([1.0, -1.0, 0.0], &device);
    let (stepped, _) = FusedAdam::adam(BETAS, 1e-8, 0.0).step(0.1, parameter, gradient, None);
    copy.into_data().assert_eq(&[1.0f32, 2.0, 3.0].into(), true);
    // The first step subtracts the learning rate times the sign of the gradient.
    let expected = [0.9f32, 2.1, 3.0].into();
    stepped
        .into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
}

#[test]
fn accepts_tensors_that_are_not_contiguous() {
    let device = Device::default();
    let parameter = || Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
    let gradient = || Tensor::<2>::from_floats([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], &device);
    let adam = FusedAdam::adam(BETAS, 1e-8, 0.0);
    let (contiguous, _) = adam.step(0.1, parameter(), gradient(), None);
    let (transposed, _) = adam.step(0.1, parameter().transpose(), gradient().transpose(), None);
    transposed
        .transpose()
        .into_data()
        .assert_eq(&contiguous.into_data(), true);
}

#[test]
fn unsupported_tensors_and_states_use_burns_optimizer() {
    let device = Device::default();
    let parameter = || Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
    let gradient = || Tensor::<2>::from_floats([[1.0, -1.0], [0.5, 0.0]], &device);
    let (fused, burn) = (
        FusedAdam::adam(BETAS, 1e-8, 0.0),
        AdamConfig::new().with_epsilon(1e-8).build(),
    );
    // A tensor with autodiff.
    let tracked =
        |tensor: Tensor<2>| Tensor::<2>::from_data(tensor.into_data(), &device.clone().autodiff());
    let (actual, _) = fused.step(0.1, tracked(parameter()), tracked(gradient()), None);
    let (expected, _) = burn.step(0.1, parameter(), gradient(), None);
    actual
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    // The state keeps AMSGrad's third moment.
    let amsgrad = AdamConfig::new()
        .with_epsilon(1e-8)
        .with_amsgrad(true)
        .build();
    let (_, state) = amsgrad.step(0.1, parameter(), gradient(), None);
    let (_, state) = fused.step(0.1, parameter(), gradient(), state);
    assert!(state.unwrap().momentum.max_moment_2.is_some());
}

#[test]
fn converts_to_a_module_optimizer() {
    let _: ModuleOptimizer = FusedAdam::adam(BETAS, 1e-8, 0.0).into();
}
