//! Tests of batch normalization on Burn's default device, against the composition of Burn's operations.

use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use kernels::{Activation, batch_norm, moments};

fn device() -> Device {
    Device::default().autodiff()
}

/// Batch normalization with GELU.
fn fused(images: Tensor<4>, scale: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    batch_norm(images, Some(scale), bias, Activation::Gelu)
}

/// The same as a composition of Burn's operations.
fn composed(images: Tensor<4>, scale: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let flat: Tensor<2> = images.swap_dims(0, 1).flatten(1, 3);
    let centered = flat.clone() - flat.mean_dim(1);
    let variance = centered.clone().powi_scalar(2).mean_dim(1);
    let normalized = centered / (variance + 1e-5).sqrt();
    let x = normalized * scale.unsqueeze_dim(1) + bias.unsqueeze_dim(1);
    let erf = x.clone().div_scalar(std::f64::consts::SQRT_2).erf();
    let gelu = x * erf.add_scalar(1.0).mul_scalar(0.5);
    gelu.reshape([channels, batch, height, width])
        .swap_dims(0, 1)
}

/// Returns the output and the gradient with respect to the images, and those with respect to scale and bias, for
/// `gradient`, the gradient with respect to the output.
fn run(
    norm: fn(Tensor<4>, Tensor<1>, Tensor<1>) -> Tensor<4>,
    images: &Tensor<4>,
    [scale, bias]: &[Tensor<1>; 2],
    gradient: &Tensor<4>,
) -> ([Tensor<4>; 2], [Tensor<1>; 2]) {
    let images = images.clone().require_grad();
    let [scale, bias] = [scale, bias].map(|values| values.clone().require_grad());
    let output = norm(images.clone(), scale.clone(), bias.clone());
    let gradients = (output.clone() * gradient.clone()).sum().backward();
    let images = images.grad(&gradients).unwrap();
    let sums = [scale, bias].map(|values| values.grad(&gradients).unwrap());
    ([output.inner(), images], sums)
}

#[test]
fn output_and_gradients_match_burn_to_2e_4() {
    device().seed(1);
    for shape in [[64, 32, 14, 14], [3, 5, 7, 7], [2, 1, 1, 1], [1, 3, 2, 9]] {
        let random =
            |deviation| Tensor::<4>::random(shape, Distribution::Normal(0.7, deviation), &device());
        let (images, gradient) = (random(2.0), random(1.0));
        let values = || Tensor::<1>::random([shape[1]], Distribution::Normal(0.0, 1.0), &device());
        let affine = [values(), values()];
        let (expected, expected_sums) = run(composed, &images, &affine, &gradient);
        let (actual, actual_sums) = run(fused, &images, &affine, &gradient);
        let tolerance = Tolerance::<f32>::absolute(2e-4);
        for (actual, expected) in actual.into_iter().zip(expected) {
            actual
                .into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
        // The gradients with respect to scale and bias are sums over the batch.
        let sum_tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-2);
        for (actual, expected) in actual_sums.into_iter().zip(expected_sums) {
            actual
                .into_data()
                .assert_approx_eq(&expected.into_data(), sum_tolerance);
        }
    }
}

#[test]
fn moments_are_accurate_for_a_mean_far_from_zero() {
    let device = Device::default();
    device.seed(2);
    let images = Tensor::<4>::random([50, 4, 14, 14], Distribution::Normal(100.0, 0.5), &device);
    for moments in moments(images) {
        assert!((moments.mean - 100.0).abs() < 0.05, "{moments:?}");
        assert!((moments.variance - 0.25).abs() < 0.02, "{moments:?}");
    }
}
