//! Tests of the kernels, on every instruction set of this processor, against a reference implementation in `f64`.

use super::backward::backward;
use super::forward::forward;
use super::moments::EPSILON;
use super::normalization::ScaleAndBias;
use super::shape::NormShape;
use crate::cpu::activation::Activation;
use crate::cpu::simd::InstructionSet;

/// Returns pseudo-random numbers from -1 to 3.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) | 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 22) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn assert_close(actual: &[f32], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        let difference = (f64::from(*actual) - expected).abs();
        assert!(
            difference < 1e-4 * (1.0 + expected.abs()),
            "{actual} {expected}"
        );
    }
}

/// The activations whose derivatives are simple in `f64`.
fn value(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Relu => y.max(0.0),
        Activation::Tanh => y.tanh(),
        _ => y,
    }
}

fn derivative(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(u8::from(y > 0.0)),
        Activation::Tanh => 1.0 - y.tanh().powi(2),
        _ => 1.0,
    }
}

#[test]
fn every_instruction_set_matches_f64_to_1e_4() {
    for (batch, channels, plane_len, activation) in [
        (3, 4, 49, Activation::Relu),
        (2, 1, 9, Activation::Tanh),
        (1, 2, 1, Activation::None),
        (4, 3, 33, Activation::Tanh),
    ] {
        let shape = NormShape {
            batch,
            channels,
            plane_len,
        };
        let count = batch * channels * plane_len;
        let (images, gradient) = (random(count, 1), random(count, 2));
        let (scale, bias) = (random(channels, 4), random(channels, 3));
        let channel = |at: usize| at / plane_len % channels;
        let channel_sum = |value: &dyn Fn(usize) -> f64, c: usize| {
            let pixels = (0..count).filter(|&at| channel(at) == c);
            pixels.map(value).sum::<f64>()
        };
        let channel_mean = |value: &dyn Fn(usize) -> f64, c: usize| {
            channel_sum(value, c) / (batch * plane_len) as f64
        };
        let x = |at: usize| f64::from(images[at]);
        let means: Vec<f64> = (0..channels).map(|c| channel_mean(&x, c)).collect();
        let squares = |at: usize| (x(at) - means[channel(at)]).powi(2);
        let inverse: Vec<f64> = (0..channels)
            .map(|c| 1.0 / (channel_mean(&squares, c) + EPSILON).sqrt())
            .collect();
        let normalized = |at: usize| (x(at) - means[channel(at)]) * inverse[channel(at)];
        let y = |at: usize| {
            let c = channel(at);
            f64::from(scale[c]) * normalized(at) + f64::from(bias[c])
        };
        let y_gradient = |at: usize| f64::from(gradient[at]) * derivative(activation, y(at));
        let product = |at: usize| y_gradient(at) * normalized(at);
        let input_gradient = |at: usize| {
            let c = channel(at);
            f64::from(scale[c])
                * inverse[c]
                * (y_gradient(at)
                    - channel_mean(&y_gradient, c)
                    - normalized(at) * channel_mean(&product, c))
        };
        let per_pixel = |value: &dyn Fn(usize) -> f64| (0..count).map(value).collect::<Vec<_>>();
        let per_channel = |value: &dyn Fn(usize) -> f64| {
            let sums = (0..channels).map(|c| channel_sum(value, c));
            sums.collect::<Vec<_>>()
        };
        let affine = ScaleAndBias {
            scale: &scale,
            bias: &bias,
        };
        for set in InstructionSet::available() {
            let (output, moments) = forward(set, shape, &images, affine, activation);
            assert_close(&output, &per_pixel(&|at| value(activation, y(at))));
            let gradients = backward(set, shape, &images, affine, activation, &moments, &gradient);
            assert_close(&gradients.images, &per_pixel(&input_gradient));
            assert_close(&gradients.scale, &per_channel(&product));
            assert_close(&gradients.bias, &per_channel(&y_gradient));
        }
    }
}

#[test]
fn nan_pixel_makes_its_channel_nan() {
    let shape = NormShape {
        batch: 1,
        channels: 1,
        plane_len: 20,
    };
    for set in InstructionSet::available() {
        let mut images = random(20, 1);
        images[3] = f32::NAN;
        let affine = ScaleAndBias {
            scale: &[1.0],
            bias: &[0.0],
        };
        let (output, _) = forward(set, shape, &images, affine, Activation::Relu);
        assert!(output.iter().all(|y| y.is_nan()));
    }
}
