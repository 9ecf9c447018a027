//! The operation through Burn, on the default device, against Burn's own operations and PyTorch.

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::{ConvBlockOptions, conv_block};
use proptest::prelude::*;
use serde_json::Value;

const PLAIN: ConvBlockOptions = ConvBlockOptions {
    padding: 1,
    relu: true,
    pool: true,
};

fn device() -> Device {
    Device::default().autodiff()
}

/// Multiples of 1/8 between -1 and 1: all sums of their products are exact, and equal pixels equal.
fn eighths<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut state = seed.wrapping_mul(2) | 1;
    let numbers = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 40) % 17) as f32 / 8.0 - 1.0
    });
    let numbers: Vec<f32> = numbers.take(shape.iter().product()).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &device())
}

/// The same of Burn's operations.
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

/// Output, and the gradients of images, weight and bias of its sum weighted by `gradient`.
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
    let of = |tensor: &Tensor<4>| tensor.grad(&gradients).unwrap();
    let both = [of(&images), of(&weight)];
    (output.inner(), both, bias.grad(&gradients).unwrap())
}

/// Holds the fused block against the composed one. All numbers are exact: so is the comparison.
fn check(images: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>, options: ConvBlockOptions) {
    let expected = run(composed, [images, weight], bias, None, options);
    let found = run(conv_block, [images, weight], bias, None, options);
    let same = |found: TensorData, expected: TensorData| found.assert_eq(&expected, true);
    same(found.0.clone().into_data(), expected.0.into_data());
    for (found, expected) in found.1.into_iter().zip(expected.1) {
        same(found.into_data(), expected.into_data());
    }
    same(found.2.into_data(), expected.2.into_data());
    // Without gradients it is another kernel.
    let inner = [images, weight].map(|tensor| tensor.clone().inner());
    let [images, weight] = inner;
    let output = conv_block(images, weight, Some(bias.clone().inner()), options);
    same(output.into_data(), found.0.into_data());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: proptest::test_runner::RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_blocks_are_burns_to_the_bit(
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
        prop_assume!(batch * channels.0 * channels.1 * size.0 * size.1 * kernel * kernel < 20_000_000);
        let images = eighths([batch, channels.0, size.0, size.1], seed);
        let weight = eighths([channels.1, channels.0, kernel, kernel], seed + 1);
        let bias = eighths([channels.1], seed + 2);
        check(&images, &weight, &bias, ConvBlockOptions { padding, relu, pool });
    }
}

#[test]
fn operands_may_lie_in_memory_in_any_order() {
    let images = eighths([6, 5, 3, 2], 1).permute([3, 2, 1, 0]);
    let weight = eighths([3, 3, 3, 4], 2).permute([3, 2, 0, 1]);
    let bias = eighths([8], 3).narrow(0, 2, 4);
    assert_eq!((images.dims(), weight.dims()), ([2, 3, 5, 6], [4, 3, 3, 3]));
    check(&images, &weight, &bias, PLAIN);
    // A gradient that arrives transposed.
    let gradient = || Some(eighths([3, 2, 4, 2], 4).permute([3, 2, 1, 0]));
    let run = |block: Block| run(block, [&images, &weight], &bias, gradient(), PLAIN).1;
    for (found, expected) in run(conv_block).into_iter().zip(run(composed)) {
        found.into_data().assert_eq(&expected.into_data(), true);
    }
}

#[test]
fn a_block_may_lack_a_bias() {
    let images = eighths([2, 3, 8, 8], 1);
    let weight = eighths([4, 3, 3, 3], 2);
    let [found, expected] = [conv_block, composed]
        .map(|block: Block| block(images.clone(), weight.clone(), None, PLAIN));
    found.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn what_the_kernels_do_not_take_is_composed() {
    let images = eighths([1, 2, 12, 12], 1);
    let bias = eighths([3], 3);
    // A large filter, one that is no square, and more zeros around.
    check(&images, &eighths([3, 2, 9, 9], 2), &bias, PLAIN);
    check(&images, &eighths([3, 2, 2, 3], 2), &bias, PLAIN);
    let padding = 4;
    check(
        &images,
        &eighths([3, 2, 3, 3], 2),
        &bias,
        ConvBlockOptions { padding, ..PLAIN },
    );
    // Other numbers than f32.
    let [images, weight] = [images, eighths([3, 2, 3, 3], 2)].map(|tensor| tensor.cast(DType::F64));
    let output = conv_block(images, weight, Some(bias.cast(DType::F64)), PLAIN);
    assert_eq!((output.dims(), output.dtype()), ([1, 3, 6, 6], DType::F64));
}

#[test]
fn images_of_nothing_but_padding_are_composed() {
    let images = Tensor::<4>::zeros([1, 1, 0, 5], &device());
    let weight = eighths([1, 1, 3, 3], 2);
    let options = ConvBlockOptions {
        padding: 3,
        ..PLAIN
    };
    let run = |block: Block| {
        let call = || block(images.clone(), weight.clone(), None, options).into_data();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
    };
    assert_eq!(run(conv_block), run(composed));
}

#[test]
fn gradients_go_where_they_are_asked_for() {
    let images = eighths([2, 3, 8, 8], 1);
    let weight = eighths([4, 3, 3, 3], 2).require_grad();
    let bias = eighths([4], 3);
    let output = conv_block(images.clone(), weight.clone(), Some(bias.clone()), PLAIN);
    let gradients = output.sum().backward();
    assert!(images.grad(&gradients).is_none());
    assert!(bias.grad(&gradients).is_none());
    let frozen_images = weight.grad(&gradients).unwrap();

    let images = images.require_grad();
    let output = conv_block(images.clone(), weight.clone(), Some(bias), PLAIN);
    let gradients = output.sum().backward();
    assert!(images.grad(&gradients).is_some());
    let weight = weight.grad(&gradients).unwrap();
    weight
        .into_data()
        .assert_eq(&frozen_images.into_data(), true);
}

#[test]
fn the_values_are_pytorchs() {
    let cases: Value = serde_json::from_str(include_str!("pytorch.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let options = ConvBlockOptions {
            padding: case["padding"].as_u64().unwrap() as usize,
            relu: case["relu"].as_bool().unwrap(),
            pool: case["pool"].as_bool().unwrap(),
        };
        let operands = [tensor(&case["images"]), tensor(&case["weight"])];
        let bias = tensor(&case["bias"]);
        let gradient = Some(tensor(&case["gradient"]));
        let [images, weight] = &operands;
        let (output, gradients, bias) = run(conv_block, [images, weight], &bias, gradient, options);
        let expect = |found: TensorData, name: &str| {
            let expected: Tensor<1> = tensor::<1>(&flat(&case[name]));
            let found = Tensor::<1>::from_data(
                TensorData::new(found.try_to_vec::<f32>().unwrap(), expected.dims()),
                &device(),
            );
            found.into_data().assert_eq(&expected.into_data(), true);
        };
        expect(output.into_data(), "output");
        let [images, weight] = gradients;
        expect(images.into_data(), "images_gradient");
        expect(weight.into_data(), "weight_gradient");
        expect(bias.into_data(), "bias_gradient");
    }
}

fn tensor<const D: usize>(recorded: &Value) -> Tensor<D> {
    let shape: Vec<usize> = serde_json::from_value(recorded["shape"].clone()).unwrap();
    let values: Vec<f32> = serde_json::from_value(recorded["values"].clone()).unwrap();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// A recorded tensor as one row.
fn flat(recorded: &Value) -> Value {
    let values = recorded["values"].as_array().unwrap();
    serde_json::json!({ "shape": [values.len()], "values": values })
}
