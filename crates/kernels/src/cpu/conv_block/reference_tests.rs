//! Tests of the kernels, on every instruction set of this processor, against a reference implementation in `f64`.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::shape::{BlockShape, RELU_CLIPPED};
use super::{FilterCache, Gradients, backward, dense, direct, forward, sparse, winograd};
use crate::cpu::simd::InstructionSet;

/// Returns pseudo-random numbers from -1 to 1.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(count)
    .collect()
}

/// The inputs of a block, and the gradient with respect to its output.
struct Case {
    shape: BlockShape,
    images: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

/// The output and the gradients that the reference implementation computes.
struct Expected {
    output: Vec<f64>,
    pool_argmax: Vec<u8>,
    images: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Case {
    fn new(shape: BlockShape, seed: u64) -> Self {
        Self {
            images: random(shape.batch * shape.image_len(), seed),
            weight: random(shape.out_channels * shape.filter_len(), seed + 1),
            bias: random(shape.out_channels, seed + 2),
            gradient: random(shape.batch * shape.out_image_len(), seed + 3),
            shape,
        }
    }

    /// Calls `visit(image_index, weight_index)` for each product of the convolution pixel `[n, o, y, x]`.
    fn for_each_product(&self, [n, o, y, x]: [usize; 4], mut visit: impl FnMut(usize, usize)) {
        let s = &self.shape;
        for c in 0..s.in_channels {
            for ky in 0..s.kernel {
                for kx in 0..s.kernel {
                    let row = (y + ky)
                        .checked_sub(s.padding)
                        .filter(|&row| row < s.height);
                    let column = (x + kx).checked_sub(s.padding).filter(|&x| x < s.width);
                    if let (Some(row), Some(column)) = (row, column) {
                        visit(
                            ((n * s.in_channels + c) * s.height + row) * s.width + column,
                            ((o * s.in_channels + c) * s.kernel + ky) * s.kernel + kx,
                        );
                    }
                }
            }
        }
    }

    fn convolve(&self, pixel: [usize; 4]) -> f64 {
        let mut sum = f64::from(self.bias[pixel[1]]);
        self.for_each_product(pixel, |image, weight| {
            sum += f64::from(self.images[image]) * f64::from(self.weight[weight]);
        });
        sum
    }

    fn reference(&self) -> Expected {
        let s = &self.shape;
        let mut expected = Expected {
            output: Vec::new(),
            pool_argmax: Vec::new(),
            images: vec![0.0; self.images.len()],
            weight: vec![0.0; self.weight.len()],
            bias: vec![0.0; self.bias.len()],
        };
        let window = s.window();
        for (at, &gradient) in self.gradient.iter().enumerate() {
            let x = at % s.out_width();
            let y = at / s.out_width() % s.out_height();
            let o = at / s.out_plane_len() % s.out_channels;
            let n = at / s.out_image_len();
            let mut max = f64::NEG_INFINITY;
            let mut argmax = 0;
            for pixel in 0..window * window {
                let (dy, dx) = (pixel / window, pixel % window);
                let value = self.convolve([n, o, y * window + dy, x * window + dx]);
                if pixel == 0 || value > max || value.is_nan() {
                    (max, argmax) = (value, pixel);
                }
            }
            let is_clipped = s.relu && max <= 0.0;
            expected.output.push(if is_clipped { 0.0 } else { max });
            expected.pool_argmax.push(if is_clipped {
                RELU_CLIPPED
            } else {
                argmax as u8
            });
            if !is_clipped {
                let gradient = f64::from(gradient);
                expected.bias[o] += gradient;
                let (dy, dx) = (argmax / window, argmax % window);
                let pixel = [n, o, y * window + dy, x * window + dx];
                self.for_each_product(pixel, |image, weight| {
                    expected.images[image] += gradient * f64::from(self.weight[weight]);
                    expected.weight[weight] += gradient * f64::from(self.images[image]);
                });
            }
        }
        expected
    }

    /// Returns the output and the pool argmax.
    fn forward(&self, set: InstructionSet) -> (Vec<f32>, Vec<u8>) {
        let mut pool_argmax = vec![u8::MAX; self.shape.argmax_len()];
        let Self {
            shape,
            images,
            weight,
            bias,
            ..
        } = self;
        let output = forward(
            set,
            *shape,
            images,
            weight,
            bias,
            Some(&mut pool_argmax),
            None,
        );
        let without_argmax = forward(set, *shape, images, weight, bias, None, None);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&output),
            bits(&without_argmax),
            "the output must not depend on whether the argmax is saved"
        );
        (output, pool_argmax)
    }

    fn backward(&self, set: InstructionSet, pool_argmax: &[u8]) -> Gradients {
        let Self {
            shape,
            images,
            weight,
            gradient,
            ..
        } = self;
        let pool_argmax = &pool_argmax[..shape.argmax_len()];
        backward(set, *shape, images, weight, gradient, pool_argmax, true)
    }

    /// Compares every algorithm with the reference implementation, on every instruction set.
    fn check(&self) {
        let Self {
            shape,
            images,
            weight,
            bias,
            gradient,
        } = self;
        let expected = self.reference();
        // The backward pass gets the reference argmax: rounding may order nearly equal pixels differently.
        let argmax = &expected.pool_argmax;
        for set in InstructionSet::available() {
            let mut saved = vec![u8::MAX; gradient.len()];
            let output = direct::forward(
                set,
                *shape,
                images,
                weight,
                bias,
                Some(&mut saved),
                &OnceLock::new(),
            );
            expected.compare_output(set, &output, &saved);
            let gradients = sparse::backward(set, shape, images, weight, gradient, argmax, true);
            expected.compare_gradients(set, &gradients);
            if dense::is_suited(shape) {
                let gradients = dense::backward(set, shape, images, weight, gradient, argmax, true);
                expected.compare_gradients(set, &gradients);
            }
            if !winograd::is_supported(shape) {
                continue;
            }
            saved.fill(u8::MAX);
            let output = winograd::forward(
                set,
                shape,
                images,
                weight,
                bias,
                Some(&mut saved),
                &OnceLock::new(),
            );
            expected.compare_output(set, &output.expect("finite"), &saved);
            let gradients = winograd::backward(set, shape, images, weight, gradient, argmax, true);
            expected.compare_gradients(set, &gradients.expect("finite"));
        }
    }
}

impl Expected {
    fn compare_output(&self, set: InstructionSet, output: &[f32], pool_argmax: &[u8]) {
        assert_close("output", set, output, &self.output);
        let pairs = pool_argmax.iter().zip(&self.pool_argmax);
        let equal = pairs.filter(|(a, b)| a == b).count();
        let all = pool_argmax.len();
        assert!(equal * 100 >= all * 99, "{set:?}: {equal} of {all}");
    }

    fn compare_gradients(&self, set: InstructionSet, gradients: &Gradients) {
        let images = gradients.images.as_ref().expect("requested");
        assert_close("images", set, images, &self.images);
        assert_close("weight", set, &gradients.weight, &self.weight);
        assert_close("bias", set, &gradients.bias, &self.bias);
    }
}

/// Asserts that the values differ by at most 1e-4 of the largest expected value.
fn assert_close(name: &str, set: InstructionSet, actual: &[f32], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    let scale = expected
        .iter()
        .fold(1.0f64, |largest, x| largest.max(x.abs()));
    for (at, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(actual) - expected).abs();
        assert!(
            difference <= 1e-4 * scale,
            "{name}[{at}] on {set:?}: {actual}, expected {expected}"
        );
    }
}

fn shapes() -> impl Strategy<Value = BlockShape> {
    let sizes = (
        1..=9usize,
        1..=70usize,
        1..=33usize,
        1..=33usize,
        1..=70usize,
    );
    (sizes, 1..=7usize, 0..=3usize, any::<bool>(), any::<bool>())
        .prop_map(
            |((batch, in_channels, height, width, out_channels), kernel, padding, relu, pool)| {
                BlockShape {
                    batch,
                    in_channels,
                    height,
                    width,
                    out_channels,
                    kernel,
                    padding,
                    relu,
                    pool,
                }
            },
        )
        .prop_filter("the kernel fits and the output is not empty", |s| {
            s.kernel <= s.padded_height().min(s.padded_width()) && s.out_plane_len() > 0
        })
        // The reference implementation is slow.
        .prop_filter("few products", |s| {
            s.batch * s.out_channels * s.filter_len() * s.conv_height() * s.conv_width() < 3_000_000
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_shapes_match_f64_to_1e_4(shape in shapes(), seed in 0..1000u64) {
        Case::new(shape, seed).check();
    }
}

fn shape(batch: usize, in_channels: usize, size: usize, out_channels: usize) -> BlockShape {
    BlockShape {
        batch,
        in_channels,
        height: size,
        width: size,
        out_channels,
        kernel: 3,
        padding: 1,
        relu: true,
        pool: true,
    }
}

#[test]
fn preset_shapes_match_f64_to_1e_4() {
    Case::new(shape(2, 1, 28, 32), 1).check();
    Case::new(shape(2, 32, 14, 64), 2).check();
    Case::new(shape(1, 64, 7, 128), 3).check();
    Case::new(
        BlockShape {
            pool: false,
            ..shape(1, 1, 28, 32)
        },
        4,
    )
    .check();
    Case::new(
        BlockShape {
            kernel: 5,
            padding: 2,
            ..shape(1, 32, 14, 64)
        },
        5,
    )
    .check();
    Case::new(
        BlockShape {
            padding: 0,
            ..shape(3, 1, 28, 8)
        },
        6,
    )
    .check();
}

#[test]
fn winograd_shapes_match_f64_to_1e_4() {
    for (batch, in_channels, [height, width], out_channels, padding) in [
        (3, 32, [8, 8], 32, 1),
        (2, 40, [9, 13], 70, 1),
        (5, 33, [6, 4], 17, 2),
        (2, 16, [12, 30], 33, 0),
        (70, 3, [1, 2], 5, 2),
        (1, 130, [7, 7], 65, 1),
    ] {
        for (relu, pool) in [(false, false), (true, false), (false, true), (true, true)] {
            let shape = BlockShape {
                height,
                width,
                padding,
                relu,
                pool,
                ..shape(batch, in_channels, 0, out_channels)
            };
            assert!(winograd::is_supported(&shape));
            Case::new(shape, 12).check();
        }
    }
}

#[test]
fn cached_filters_give_the_same_bits() {
    for shape in [shape(4, 32, 9, 40), shape(2, 3, 8, 20), shape(1, 33, 8, 33)] {
        let case = Case::new(shape, 14);
        let Case {
            images,
            weight,
            bias,
            ..
        } = &case;
        for set in InstructionSet::available() {
            let cache = FilterCache::default();
            let run = |cache: Option<&FilterCache>| {
                forward(set, shape, images, weight, bias, None, cache)
            };
            let first = run(Some(&cache));
            assert!(first == run(Some(&cache)), "{shape:?}");
            if winograd::is_suited(&shape, false) == winograd::is_suited(&shape, true) {
                assert!(first == run(None), "{shape:?}");
            }
        }
    }
}

#[test]
fn suited_shapes_with_a_value_that_is_not_finite_equal_the_direct_convolution() {
    let shape = BlockShape {
        relu: false,
        pool: false,
        ..shape(4, 32, 9, 32)
    };
    assert!(winograd::is_suited(&shape, false));
    let set = InstructionSet::best();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    // Huge values overflow in the transforms only.
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        for changed in ["images", "weight", "bias", "gradient"] {
            if changed == "bias" && value.is_finite() {
                continue; // It is added after the transforms.
            }
            let mut case = Case::new(shape, 13);
            match changed {
                "images" => case.images[100] = value,
                "weight" => case.weight[100] = value,
                "bias" => case.bias[3] = value,
                _ => case.gradient[100] = value,
            }
            let Case {
                images,
                weight,
                bias,
                gradient,
                ..
            } = &case;
            let mut argmax = vec![0; gradient.len()];
            let direct = direct::forward(
                set,
                shape,
                images,
                weight,
                bias,
                Some(&mut argmax),
                &OnceLock::new(),
            );
            let (output, _) = case.forward(set);
            if changed != "gradient" {
                assert!(bits(&output) == bits(&direct), "{value} in {changed}");
            }
            if changed != "bias" {
                let expected =
                    dense::backward(set, &shape, images, weight, gradient, &argmax, true);
                let gradients = case.backward(set, &argmax);
                let images =
                    |gradients: &Gradients| bits(gradients.images.as_ref().expect("requested"));
                assert!(
                    images(&gradients) == images(&expected),
                    "{value} in {changed}"
                );
                assert!(
                    bits(&gradients.weight) == bits(&expected.weight),
                    "{value} in {changed}"
                );
            }
        }
    }
}

#[test]
fn sizes_1_to_20_with_every_kernel_match_f64_to_1e_4() {
    for kernel in 1..=7 {
        for size in 1..=20 {
            for (padding, pool) in [(0, false), (kernel / 2, true), (3, false)] {
                let shape = BlockShape {
                    kernel,
                    padding,
                    pool,
                    ..shape(1, 2, size, 3)
                };
                if kernel <= shape.padded_height() && shape.out_plane_len() > 0 {
                    Case::new(shape, size as u64).check();
                }
            }
        }
    }
}

#[test]
fn first_of_equal_pixels_is_the_argmax() {
    let mut case = Case::new(
        BlockShape {
            relu: false,
            ..shape(1, 1, 4, 1)
        },
        1,
    );
    case.images.fill(0.0);
    case.bias[0] = 0.5;
    for set in InstructionSet::available() {
        let (output, pool_argmax) = case.forward(set);
        assert_eq!(output, [0.5; 4], "{set:?}");
        assert_eq!(pool_argmax, [0; 4], "{set:?}");
    }
    // In the last window the second and the last pixel are equal and the largest.
    case.shape.kernel = 1;
    case.shape.padding = 0;
    case.weight = vec![1.0];
    case.images[11] = 1.0;
    case.images[15] = 1.0;
    for set in InstructionSet::available() {
        assert_eq!(case.forward(set).1, [0, 0, 0, 1], "{set:?}");
    }
}

#[test]
fn nan_and_infinity_propagate_to_the_output() {
    for relu in [false, true] {
        let mut case = Case::new(
            BlockShape {
                relu,
                ..shape(1, 3, 12, 20)
            },
            7,
        );
        case.images[5 * 12 + 5] = f32::NAN;
        case.images[0] = f32::INFINITY;
        case.images[143] = f32::NEG_INFINITY;
        let expected = case.reference();
        for set in InstructionSet::available() {
            let (output, pool_argmax) = case.forward(set);
            for (at, (actual, expected)) in output.iter().zip(&expected.output).enumerate() {
                let matches = f64::from(*actual) == *expected
                    || (f64::from(*actual) - expected).abs() < 1e-4
                    || (actual.is_nan() && expected.is_nan());
                assert!(matches, "[{at}] on {set:?}: {actual}, expected {expected}");
            }
            assert_eq!(pool_argmax, expected.pool_argmax, "{set:?}");
        }
    }
}

#[test]
fn nan_gradient_propagates_to_exactly_the_affected_gradients() {
    let mut case = Case::new(
        BlockShape {
            relu: false,
            ..shape(1, 3, 6, 5)
        },
        8,
    );
    case.gradient[4] = f32::NAN;
    let expected = case.reference();
    for set in InstructionSet::available() {
        let gradients = case.backward(set, &expected.pool_argmax);
        let nans = |actual: &[f32]| actual.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        let expected_nans =
            |expected: &[f64]| expected.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        let images = gradients.images.expect("requested");
        assert_eq!(nans(&images), expected_nans(&expected.images), "{set:?}");
        assert_eq!(
            nans(&gradients.weight),
            expected_nans(&expected.weight),
            "{set:?}"
        );
        assert_eq!(
            nans(&gradients.bias),
            expected_nans(&expected.bias),
            "{set:?}"
        );
    }
}

#[test]
fn gradients_match_finite_differences_to_1e_4() {
    // The gradients are those of the sum of outputs times `gradient`. Without ReLU and pooling the sum is linear in
    // each input, so a large step is exact.
    let mut case = Case::new(
        BlockShape {
            relu: false,
            pool: false,
            ..shape(2, 2, 5, 3)
        },
        9,
    );
    let weighted_sum = |case: &Case| -> f64 {
        let outputs = case.reference().output;
        outputs
            .iter()
            .zip(&case.gradient)
            .map(|(y, &g)| y * f64::from(g))
            .sum()
    };
    let pool_argmax = vec![0; case.gradient.len()];
    let start = weighted_sum(&case);
    for set in InstructionSet::available() {
        let gradients = case.backward(set, &pool_argmax);
        let images = gradients.images.expect("requested");
        for at in [0, 7, 24, 49, 99] {
            case.images[at] += 0.5;
            let slope = (weighted_sum(&case) - start) / 0.5;
            case.images[at] -= 0.5;
            assert!(
                (slope - f64::from(images[at])).abs() < 1e-4,
                "{set:?}: images[{at}]"
            );
        }
        for at in [0, 8, 17, 30, 53] {
            case.weight[at] += 0.5;
            let slope = (weighted_sum(&case) - start) / 0.5;
            case.weight[at] -= 0.5;
            assert!(
                (slope - f64::from(gradients.weight[at])).abs() < 1e-4,
                "{set:?}: weight[{at}]"
            );
        }
        for at in 0..3 {
            case.bias[at] += 0.5;
            let slope = (weighted_sum(&case) - start) / 0.5;
            case.bias[at] -= 0.5;
            assert!(
                (slope - f64::from(gradients.bias[at])).abs() < 1e-4,
                "{set:?}: bias[{at}]"
            );
        }
    }
}

#[test]
fn result_bits_do_not_depend_on_the_number_of_threads() {
    let winograd = BlockShape {
        pool: false,
        ..shape(37, 70, 10, 40)
    };
    assert!(winograd::is_suited(&winograd, false));
    for shape in [shape(37, 8, 10, 20), winograd] {
        compare_threads(&Case::new(shape, 10));
    }
}

fn compare_threads(case: &Case) {
    let set = InstructionSet::best();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads start").install(|| {
            let (output, pool_argmax) = case.forward(set);
            let Gradients {
                images,
                weight,
                bias,
            } = case.backward(set, &pool_argmax);
            (output, pool_argmax, images, weight, bias)
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn fewer_images_than_threads_match_f64_to_1e_4() {
    // The last group of channels is incomplete for every instruction set.
    for channels in [70, 75] {
        let case = Case::new(shape(2, 3, 14, channels), 11);
        for threads in [1, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads start").install(|| case.check());
        }
    }
}
