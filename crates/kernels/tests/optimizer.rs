//! The optimizer, on the default device, against Burn's own.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, Optimizer};
use burn::tensor::{DType, Device, Tensor, TensorData, Tolerance};
use kernels::FusedAdam;

const BETAS: [f32; 2] = [0.9, 0.999];

/// Five steps at falling learning rates, and what they came to.
fn train<O: Optimizer>(optimizer: &O, dtype: DType) -> Tensor<2> {
    // More numbers than one thread takes at once, and no whole number of vectors.
    let wave = |frequency: f32| {
        let numbers = (0..131 * 257)
            .map(|i| (i as f32 * frequency).sin())
            .collect();
        Tensor::<2>::from_data(
            TensorData::new::<f32, _>(numbers, [131, 257]),
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

fn assert_same(fused: &FusedAdam, own: &impl Optimizer) {
    for dtype in [DType::F32, DType::F64] {
        let [found, expected] = [train(fused, dtype), train(own, dtype)].map(Tensor::into_data);
        found.assert_approx_eq::<f64>(&expected, Tolerance::absolute(2e-6));
    }
}

#[test]
fn adam_is_burns() {
    let own = AdamConfig::new().with_epsilon(1e-8);
    assert_same(&FusedAdam::adam(BETAS, 1e-8, 0.0), &own.build());
    let decaying = own.with_weight_decay(Some(WeightDecayConfig::new(0.05)));
    assert_same(&FusedAdam::adam(BETAS, 1e-8, 0.05), &decaying.build());
}

#[test]
fn adam_w_is_burns() {
    let own = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.05)
        .build();
    assert_same(&FusedAdam::adam_w(BETAS, 1e-8, 0.05), &own);
}

#[test]
fn what_shares_the_parameters_memory_keeps_its_numbers() {
    let device = Device::default();
    let parameter = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
    let copy = parameter.clone();
    let gradient = Tensor::from_floats([1.0, -1.0, 0.0], &device);
    let (stepped, _) = FusedAdam::adam(BETAS, 1e-8, 0.0).step(0.1, parameter, gradient, None);
    copy.into_data().assert_eq(&[1.0f32, 2.0, 3.0].into(), true);
    // The first step moves each parameter by the learning rate, against its gradient's sign.
    let expected = [0.9f32, 2.1, 3.0].into();
    stepped
        .into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
}

#[test]
fn parameters_may_lie_in_memory_in_any_order() {
    let device = Device::default();
    let parameter = || Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
    let gradient = || Tensor::<2>::from_floats([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], &device);
    let adam = FusedAdam::adam(BETAS, 1e-8, 0.0);
    let (plain, _) = adam.step(0.1, parameter(), gradient(), None);
    let (turned, _) = adam.step(0.1, parameter().transpose(), gradient().transpose(), None);
    turned
        .transpose()
        .into_data()
        .assert_eq(&plain.into_data(), true);
}

#[test]
fn what_the_fused_step_does_not_take_is_burns() {
    let device = Device::default();
    let parameter = || Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
    let gradient = || Tensor::<2>::from_floats([[1.0, -1.0], [0.5, 0.0]], &device);
    let (fused, own) = (
        FusedAdam::adam(BETAS, 1e-8, 0.0),
        AdamConfig::new().with_epsilon(1e-8).build(),
    );
    // A tensor that records gradients.
    let tracked =
        |tensor: Tensor<2>| Tensor::<2>::from_data(tensor.into_data(), &device.clone().autodiff());
    let (found, _) = fused.step(0.1, tracked(parameter()), tracked(gradient()), None);
    let (expected, _) = own.step(0.1, parameter(), gradient(), None);
    found
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    // AMSGrad's third moment is kept.
    let amsgrad = AdamConfig::new()
        .with_epsilon(1e-8)
        .with_amsgrad(true)
        .build();
    let (_, state) = amsgrad.step(0.1, parameter(), gradient(), None);
    let (_, state) = fused.step(0.1, parameter(), gradient(), state);
    assert!(state.unwrap().momentum.max_moment_2.is_some());
}

#[test]
fn it_optimizes_modules() {
    let _: ModuleOptimizer = FusedAdam::adam(BETAS, 1e-8, 0.0).into();
}
