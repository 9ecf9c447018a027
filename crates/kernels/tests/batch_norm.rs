//! Batch normalization through Burn, on the default device, against its definition in Burn's operations.

use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use kernels::{batch_norm_relu, moments};

fn device() -> Device {
    Device::default().autodiff()
}

/// The definition.
fn composed(images: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let flat: Tensor<2> = images.swap_dims(0, 1).flatten(1, 3);
    let centred = flat.clone() - flat.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let normal = centred / (variance + 1e-5).sqrt() + bias.unsqueeze_dim(1);
    relu(
        normal
            .reshape([channels, batch, height, width])
            .swap_dims(0, 1),
    )
}

/// Output and gradients of its sum, weighted.
fn run(
    norm: fn(Tensor<4>, Tensor<1>) -> Tensor<4>,
    images: &Tensor<4>,
    bias: &Tensor<1>,
    weights: &Tensor<4>,
) -> (Tensor<4>, Tensor<4>, Tensor<1>) {
    let images = images.clone().require_grad();
    let bias = bias.clone().require_grad();
    let output = norm(images.clone(), bias.clone());
    let gradients = (output.clone() * weights.clone()).sum().backward();
    (
        output.inner(),
        images.grad(&gradients).unwrap(),
        bias.grad(&gradients).unwrap(),
    )
}

#[test]
fn output_and_gradients_are_those_of_the_definition() {
    device().seed(1);
    for shape in [[64, 32, 14, 14], [3, 5, 7, 7], [2, 1, 1, 1], [1, 3, 2, 9]] {
        let random =
            |spread| Tensor::<4>::random(shape, Distribution::Normal(0.7, spread), &device());
        let (images, weights) = (random(2.0), random(1.0));
        let bias = Tensor::<1>::random([shape[1]], Distribution::Normal(0.0, 1.0), &device());
        let expected = run(composed, &images, &bias, &weights);
        let found = run(batch_norm_relu, &images, &bias, &weights);
        let tolerance = Tolerance::<f32>::absolute(2e-4);
        let pairs = [(found.0, expected.0), (found.1, expected.1)];
        for (found, expected) in pairs {
            found
                .into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
        let sums = Tolerance::<f32>::rel_abs(1e-4, 1e-2);
        found
            .2
            .into_data()
            .assert_approx_eq(&expected.2.into_data(), sums);
    }
}

#[test]
fn moments_hold_far_from_zero() {
    let device = Device::default();
    device.seed(2);
    let images = Tensor::<4>::random([50, 4, 14, 14], Distribution::Normal(100.0, 0.5), &device);
    for of in moments(images) {
        assert!((of.mean - 100.0).abs() < 0.05, "{of:?}");
        assert!((of.variance - 0.25).abs() < 0.02, "{of:?}");
    }
}
