//! Tests of `conv_block` on Burn's default device, against the composition of Burn's operations and PyTorch.

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::{ConvBlockOptions, conv_block};
use proptest::prelude::*;
use serde_json::Value;

const RELU_AND_POOL: ConvBlockOptions = ConvBlockOptions {
    padding: 1,
    relu: true,
    pool: true,
};

fn device() -> Device {
    Device::default().autodiff()
}

/// Returns pseudo-random multiples of 1/8 from -1 to 1: sums of their products have no rounding errors, so all
/// implementations give equal bits.
fn eighths<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut state = seed.wrapping_mul(2) | 1;
    let values = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 40) % 17) as f32 / 8.0 - 1.0
    });
    let values: Vec<f32> = values.take(shape.iter().product()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// The block as a composition of Burn's operations.
fn composed(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvBlockOptions,
) -> Tensor<4> {
    let convolution = ConvOptions::new([1, 1], [options.padding; 2], [1, 1], 1);
    let mut output = conv2d(images, weight, bias, convolution);
    if options.relu {
        output = relu(output);
    }
    if options.pool {
        output = max_pool2d(output, MaxPoolOptions::new([2, 2]));
    }
    output
}

type Block = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvBlockOptions) -> Tensor<4>;

/// Returns the output, and the gradients with respect to images, weight and bias for `gradient`, the gradient with
/// respect to the output. Uses a pseudo-random gradient if there is none.
fn run(
    block: Block,
    [images, weight]: [&Tensor<4>; 2],
    bias: &Tensor<1>,
    gradient: Option<Tensor<4>>,
    options: ConvBlockOptions,
) -> (Tensor<4>, [Tensor<4>; 2], Tensor<1>) {
    let [images, weight] = [images, weight].map(|tensor| tensor.clone().require_grad());
    let bias = bias.clone().require_grad();
    let output = block(images.clone(), weight.clone(), Some(bias.clone()), options);
    let gradient = gradient.unwrap_or_else(|| eighths(output.dims(), 9));
    let gradients = (output.clone() * gradient).sum().backward();
    let grad = |tensor: &Tensor<4>| tensor.grad(&gradients).unwrap();
    let images_and_weight = [grad(&images), grad(&weight)];
    (
        output.inner(),
        images_and_weight,
        bias.grad(&gradients).unwrap(),
    )
}

/// Asserts that output and gradients of the fused block equal those of the composed block, bit for bit.
fn assert_matches_burn(
    images: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    options: ConvBlockOptions,
) {
    let expected = run(composed, [images, weight], bias, None, options);
    let actual = run(conv_block, [images, weight], bias, None, options);
    let assert_equal = |actual: TensorData, expected: TensorData| actual.assert_eq(&expected, true);
    assert_equal(actual.0.clone().into_data(), expected.0.into_data());
    for (actual, expected) in actual.1.into_iter().zip(expected.1) {
        assert_equal(actual.into_data(), expected.into_data());
    }
    assert_equal(actual.2.into_data(), expected.2.into_data());
    // Without autodiff the forward pass does not save the argmax.
    let inner = [images, weight].map(|tensor| tensor.clone().inner());
    let [images, weight] = inner;
    let output = conv_block(images, weight, Some(bias.clone().inner()), options);
    assert_equal(output.into_data(), actual.0.into_data());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: proptest::test_runner::RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_blocks_match_burn_to_the_bit(
        batch in 1..=9usize,
        channels in (1..=70usize, 1..=70usize),
        size in (1..=33usize, 1..=33usize),
        kernel in 1..=7usize,
        padding in 0..=3usize,
        relu in any::<bool>(),
        pool in any::<bool>(),
        seed in 0..1000u64,
    ) {
        let (height, width) = (size.0 + 2 * padding, size.1 + 2 * padding);
        let least = kernel + usize::from(pool);
        prop_assume!(height >= least && width >= least);
        // Transforms round: `transformed_blocks_match_burn_to_1e_5`.
        prop_assume!(kernel != 3 || channels.0.min(channels.1) < 32);
        prop_assume!(batch * channels.0 * channels.1 * size.0 * size.1 * kernel * kernel < 20_000_000);
        let images = eighths([batch, channels.0, size.0, size.1], seed);
        let weight = eighths([channels.1, channels.0, kernel, kernel], seed + 1);
        let bias = eighths([channels.1], seed + 2);
        assert_matches_burn(&images, &weight, &bias, ConvBlockOptions { padding, relu, pool });
    }
}

#[test]
fn transformed_blocks_match_burn_to_1e_5() {
    // Rounding may order equal pixels of a pooling window, or move a zero to the other side of the ReLU: the gradients
    // are without both.
    for (pool, relu, padding) in [(false, false, 1), (false, true, 0), (true, true, 1)] {
        let images = eighths([4, 40, 14, 9], 5);
        let weight = eighths([33, 40, 3, 3], 6);
        let bias = eighths([33], 7);
        let options = ConvBlockOptions {
            padding,
            relu,
            pool,
        };
        let [actual, expected] = [conv_block, composed].map(|block: Block| {
            let (output, [images, weight], bias) =
                run(block, [&images, &weight], &bias, None, options);
            match relu || pool {
                true => vec![output.into_data()],
                false => vec![
                    output.into_data(),
                    images.into_data(),
                    weight.into_data(),
                    bias.into_data(),
                ],
            }
        });
        for (actual, expected) in actual.iter().zip(&expected) {
            let [actual, expected] =
                [actual, expected].map(|data| data.try_to_vec::<f32>().unwrap());
            let largest = expected
                .iter()
                .fold(0.0f32, |largest, x| largest.max(x.abs()));
            for (actual, expected) in actual.iter().zip(expected) {
                assert!(
                    (actual - expected).abs() <= 1e-5 * largest,
                    "{actual} {expected}"
                );
            }
        }
    }
}

#[test]
fn accepts_tensors_that_are_not_contiguous() {
    let images = eighths([6, 5, 3, 2], 1).permute([3, 2, 1, 0]);
    let weight = eighths([3, 3, 3, 4], 2).permute([3, 2, 0, 1]);
    let bias = eighths([8], 3).narrow(0, 2, 4);
    assert_eq!((images.dims(), weight.dims()), ([2, 3, 5, 6], [4, 3, 3, 3]));
    assert_matches_burn(&images, &weight, &bias, RELU_AND_POOL);
    // The gradient with respect to the output is not contiguous either.
    let gradient = || Some(eighths([3, 2, 4, 2], 4).permute([3, 2, 1, 0]));
    let run = |block: Block| run(block, [&images, &weight], &bias, gradient(), RELU_AND_POOL).1;
    for (actual, expected) in run(conv_block).into_iter().zip(run(composed)) {
        actual.into_data().assert_eq(&expected.into_data(), true);
    }
}

#[test]
fn accepts_a_missing_bias() {
    let images = eighths([2, 3, 8, 8], 1);
    let weight = eighths([4, 3, 3, 3], 2);
    let [actual, expected] = [conv_block, composed]
        .map(|block: Block| block(images.clone(), weight.clone(), None, RELU_AND_POOL));
    actual.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn unsupported_shapes_and_types_are_composed() {
    let images = eighths([1, 2, 12, 12], 1);
    let bias = eighths([3], 3);
    // A large kernel, a rectangular one, and a large padding.
    assert_matches_burn(&images, &eighths([3, 2, 9, 9], 2), &bias, RELU_AND_POOL);
    assert_matches_burn(&images, &eighths([3, 2, 2, 3], 2), &bias, RELU_AND_POOL);
    let padding = 4;
    assert_matches_burn(
        &images,
        &eighths([3, 2, 3, 3], 2),
        &bias,
        ConvBlockOptions {
            padding,
            ..RELU_AND_POOL
        },
    );
    // Another element type than f32.
    let [images, weight] = [images, eighths([3, 2, 3, 3], 2)].map(|tensor| tensor.cast(DType::F64));
    let output = conv_block(images, weight, Some(bias.cast(DType::F64)), RELU_AND_POOL);
    assert_eq!((output.dims(), output.dtype()), ([1, 3, 6, 6], DType::F64));
}

#[test]
fn images_without_pixels_are_composed() {
    let images = Tensor::<4>::zeros([1, 1, 0, 5], &device());
    let weight = eighths([1, 1, 3, 3], 2);
    let options = ConvBlockOptions {
        padding: 3,
        ..RELU_AND_POOL
    };
    let run = |block: Block| {
        let call = || block(images.clone(), weight.clone(), None, options).into_data();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
    };
    assert_eq!(run(conv_block), run(composed));
}

#[test]
fn only_tensors_that_require_gradients_get_them() {
    let images = eighths([2, 3, 8, 8], 1);
    let weight = eighths([4, 3, 3, 3], 2).require_grad();
    let bias = eighths([4], 3);
    let output = conv_block(
        images.clone(),
        weight.clone(),
        Some(bias.clone()),
        RELU_AND_POOL,
    );
    let gradients = output.sum().backward();
    assert!(images.grad(&gradients).is_none());
    assert!(bias.grad(&gradients).is_none());
    let without_image_gradient = weight.grad(&gradients).unwrap();

    let images = images.require_grad();
    let output = conv_block(images.clone(), weight.clone(), Some(bias), RELU_AND_POOL);
    let gradients = output.sum().backward();
    assert!(images.grad(&gradients).is_some());
    let weight = weight.grad(&gradients).unwrap();
    weight
        .into_data()
        .assert_eq(&without_image_gradient.into_data(), true);
}

#[test]
fn output_and_gradients_equal_those_of_pytorch() {
    let cases: Value = serde_json::from_str(include_str!("pytorch.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let options = ConvBlockOptions {
            padding: case["padding"].as_u64().unwrap() as usize,
            relu: case["relu"].as_bool().unwrap(),
            pool: case["pool"].as_bool().unwrap(),
        };
        let inputs = [tensor(&case["images"]), tensor(&case["weight"])];
        let bias = tensor(&case["bias"]);
        let gradient = Some(tensor(&case["gradient"]));
        let [images, weight] = &inputs;
        let (output, gradients, bias) = run(conv_block, [images, weight], &bias, gradient, options);
        let assert_recorded = |actual: TensorData, name: &str| {
            let expected: Tensor<1> = tensor::<1>(&flat(&case[name]));
            let actual = Tensor::<1>::from_data(
                TensorData::new(actual.try_to_vec::<f32>().unwrap(), expected.dims()),
                &device(),
            );
            actual.into_data().assert_eq(&expected.into_data(), true);
        };
        assert_recorded(output.into_data(), "output");
        let [images, weight] = gradients;
        assert_recorded(images.into_data(), "images_gradient");
        assert_recorded(weight.into_data(), "weight_gradient");
        assert_recorded(bias.into_data(), "bias_gradient");
    }
}

/// Returns a tensor recorded by `pytorch.py`.
fn tensor<const D: usize>(recorded: &Value) -> Tensor<D> {
    let shape: Vec<usize> = serde_json::from_value(recorded["shape"].clone()).unwrap();
    let values: Vec<f32> = serde_json::from_value(recorded["values"].clone()).unwrap();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// Flattens a recorded tensor to one dimension.
fn flat(recorded: &Value) -> Value {
    let values = recorded["values"].as_array().unwrap();
    serde_json::json!({ "shape": [values.len()], "values": values })
}
