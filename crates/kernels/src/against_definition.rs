//! The kernels of every instruction set at hand, against the definition in `f64`.

use proptest::prelude::*;

use crate::backward::{Gradients, backward};
use crate::epilogue::NO_WINNER;
use crate::forward::forward;
use crate::shape::BlockShape;
use crate::simd::InstructionSet;

/// Numbers between -1 and 1, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
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

/// A block with its operands and what comes out of it.
struct Case {
    shape: BlockShape,
    images: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
}

/// The definition of the block and its gradients, in `f64`.
struct Expected {
    output: Vec<f64>,
    winners: Vec<u8>,
    images: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Case {
    fn new(shape: BlockShape, seed: u64) -> Self {
        Self {
            images: numbers(shape.batch * shape.image(), seed),
            weight: numbers(shape.out_channels * shape.filter(), seed + 1),
            bias: numbers(shape.out_channels, seed + 2),
            gradient: numbers(shape.batch * shape.out_image(), seed + 3),
            shape,
        }
    }

    /// Calls `visit(image index, weight index)` for each product of one convolution pixel.
    fn products(&self, [n, o, y, x]: [usize; 4], mut visit: impl FnMut(usize, usize)) {
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

    fn convolve(&self, place: [usize; 4]) -> f64 {
        let mut sum = f64::from(self.bias[place[1]]);
        self.products(place, |image, weight| {
            sum += f64::from(self.images[image]) * f64::from(self.weight[weight]);
        });
        sum
    }

    fn expected(&self) -> Expected {
        let s = &self.shape;
        let mut expected = Expected {
            output: Vec::new(),
            winners: Vec::new(),
            images: vec![0.0; self.images.len()],
            weight: vec![0.0; self.weight.len()],
            bias: vec![0.0; self.bias.len()],
        };
        let window = s.window();
        for (at, &gradient) in self.gradient.iter().enumerate() {
            let x = at % s.out_width();
            let y = at / s.out_width() % s.out_height();
            let o = at / s.out_plane() % s.out_channels;
            let n = at / s.out_image();
            let mut best = f64::NEG_INFINITY;
            let mut winner = 0;
            for pixel in 0..window * window {
                let (dy, dx) = (pixel / window, pixel % window);
                let value = self.convolve([n, o, y * window + dy, x * window + dx]);
                if pixel == 0 || value > best || value.is_nan() {
                    (best, winner) = (value, pixel);
                }
            }
            let cut = s.relu && best <= 0.0;
            expected.output.push(if cut { 0.0 } else { best });
            expected
                .winners
                .push(if cut { NO_WINNER } else { winner as u8 });
            if !cut {
                let gradient = f64::from(gradient);
                expected.bias[o] += gradient;
                let (dy, dx) = (winner / window, winner % window);
                let place = [n, o, y * window + dy, x * window + dx];
                self.products(place, |image, weight| {
                    expected.images[image] += gradient * f64::from(self.weight[weight]);
                    expected.weight[weight] += gradient * f64::from(self.images[image]);
                });
            }
        }
        expected
    }

    fn forward(&self, set: InstructionSet) -> (Vec<f32>, Vec<u8>) {
        let mut winners = vec![u8::MAX; self.gradient.len()];
        let Self {
            shape,
            images,
            weight,
            bias,
            ..
        } = self;
        let output = forward(set, *shape, images, weight, bias, Some(&mut winners));
        let again = forward(set, *shape, images, weight, bias, None);
        let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&output),
            bits(&again),
            "the same with and without winners"
        );
        (output, winners)
    }

    fn backward(&self, set: InstructionSet, winners: &[u8]) -> Gradients {
        let Self {
            shape,
            images,
            weight,
            gradient,
            ..
        } = self;
        backward(set, *shape, images, weight, gradient, winners, true)
    }

    /// Holds every instruction set against the definition.
    fn check(&self) {
        let expected = self.expected();
        for set in InstructionSet::available() {
            let (output, winners) = self.forward(set);
            close("output", set, &output, &expected.output);
            // The winners of the definition, so that a tie broken by rounding is no failure here.
            let gradients = self.backward(set, &expected.winners);
            let agree = winners
                .iter()
                .zip(&expected.winners)
                .filter(|(a, b)| a == b)
                .count();
            assert!(
                agree * 100 >= winners.len() * 99,
                "{set:?}: {agree} of {}",
                winners.len()
            );
            close(
                "images",
                set,
                &gradients.images.expect("asked for"),
                &expected.images,
            );
            close("weight", set, &gradients.weight, &expected.weight);
            close("bias", set, &gradients.bias, &expected.bias);
        }
    }
}

/// Within 1e-4 of the largest number.
fn close(what: &str, set: InstructionSet, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(1.0f64, |largest, x| largest.max(x.abs()));
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= 1e-4 * scale,
            "{what}[{at}] on {set:?}: {found}, expected {expected}"
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
        .prop_filter("the kernel fits and something comes out", |s| {
            s.kernel <= s.padded_height().min(s.padded_width()) && s.out_plane() > 0
        })
        // The definition is slow: keep the products few.
        .prop_filter("not too large", |s| {
            s.batch * s.out_channels * s.filter() * s.conv_height() * s.conv_width() < 3_000_000
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
    fn every_shape_on_every_instruction_set(shape in shapes(), seed in 0..1000u64) {
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
fn the_blocks_of_the_presets() {
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
fn every_size_from_1_to_20_with_every_kernel() {
    for kernel in 1..=7 {
        for size in 1..=20 {
            for (padding, pool) in [(0, false), (kernel / 2, true), (3, false)] {
                let shape = BlockShape {
                    kernel,
                    padding,
                    pool,
                    ..shape(1, 2, size, 3)
                };
                if kernel <= shape.padded_height() && shape.out_plane() > 0 {
                    Case::new(shape, size as u64).check();
                }
            }
        }
    }
}

#[test]
fn of_equal_pixels_the_first_wins() {
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
        let (output, winners) = case.forward(set);
        assert_eq!(output, [0.5; 4], "{set:?}");
        assert_eq!(winners, [0; 4], "{set:?}");
    }
    // Of the last window the second pixel and the last are equal, and larger.
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
fn nan_and_infinity_reach_the_output() {
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
        let expected = case.expected();
        for set in InstructionSet::available() {
            let (output, winners) = case.forward(set);
            for (at, (found, expected)) in output.iter().zip(&expected.output).enumerate() {
                let same = f64::from(*found) == *expected
                    || (f64::from(*found) - expected).abs() < 1e-4
                    || (found.is_nan() && expected.is_nan());
                assert!(same, "[{at}] on {set:?}: {found}, expected {expected}");
            }
            assert_eq!(winners, expected.winners, "{set:?}");
        }
    }
}

#[test]
fn a_nan_gradient_reaches_what_it_touches() {
    let mut case = Case::new(
        BlockShape {
            relu: false,
            ..shape(1, 3, 6, 5)
        },
        8,
    );
    case.gradient[4] = f32::NAN;
    let expected = case.expected();
    for set in InstructionSet::available() {
        let gradients = case.backward(set, &expected.winners);
        let places = |found: &[f32]| found.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        let wanted = |expected: &[f64]| expected.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        let images = gradients.images.expect("asked for");
        assert_eq!(places(&images), wanted(&expected.images), "{set:?}");
        assert_eq!(
            places(&gradients.weight),
            wanted(&expected.weight),
            "{set:?}"
        );
        assert_eq!(places(&gradients.bias), wanted(&expected.bias), "{set:?}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    // The sum of the outputs, weighted by the gradient, is what the gradients are of. Without the
    // ReLU and the pool it is linear in each operand, so that a large step is exact.
    let mut case = Case::new(
        BlockShape {
            relu: false,
            pool: false,
            ..shape(2, 2, 5, 3)
        },
        9,
    );
    let value = |case: &Case| -> f64 {
        let outputs = case.expected().output;
        outputs
            .iter()
            .zip(&case.gradient)
            .map(|(y, &g)| y * f64::from(g))
            .sum()
    };
    let winners = vec![0; case.gradient.len()];
    let start = value(&case);
    for set in InstructionSet::available() {
        let gradients = case.backward(set, &winners);
        let images = gradients.images.expect("asked for");
        for at in [0, 7, 24, 49, 99] {
            case.images[at] += 0.5;
            let slope = (value(&case) - start) / 0.5;
            case.images[at] -= 0.5;
            assert!(
                (slope - f64::from(images[at])).abs() < 1e-4,
                "{set:?}: images[{at}]"
            );
        }
        for at in [0, 8, 17, 30, 53] {
            case.weight[at] += 0.5;
            let slope = (value(&case) - start) / 0.5;
            case.weight[at] -= 0.5;
            assert!(
                (slope - f64::from(gradients.weight[at])).abs() < 1e-4,
                "{set:?}: {at}"
            );
        }
        for at in 0..3 {
            case.bias[at] += 0.5;
            let slope = (value(&case) - start) / 0.5;
            case.bias[at] -= 0.5;
            assert!(
                (slope - f64::from(gradients.bias[at])).abs() < 1e-4,
                "{set:?}: {at}"
            );
        }
    }
}

#[test]
fn the_threads_do_not_change_the_bits() {
    let case = Case::new(shape(37, 8, 10, 20), 10);
    let set = InstructionSet::best();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads start").install(|| {
            let (output, winners) = case.forward(set);
            let Gradients {
                images,
                weight,
                bias,
            } = case.backward(set, &winners);
            (output, winners, images, weight, bias)
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn few_images_on_many_threads() {
    // The last group of channels is a part of one, whatever the instruction set.
    for channels in [70, 75] {
        let case = Case::new(shape(2, 3, 14, channels), 11);
        for threads in [1, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads start").install(|| case.check());
        }
    }
}

#[test]
fn the_operations_are_registered_for_the_cpu_backends() {
    use burn::tensor::Device;

    use crate::backend::is_cpu;

    #[cfg(feature = "flex")]
    assert!(is_cpu(&Device::flex()) && is_cpu(&Device::flex().autodiff()));
    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "deprecated upstream, supported here")]
    let ndarray = Device::ndarray();
    #[cfg(feature = "ndarray")]
    assert!(is_cpu(&ndarray) && is_cpu(&ndarray.autodiff()));
}
