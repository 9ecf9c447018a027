//! Tests of the kernels, on every instruction set of this processor, against a reference implementation in `f64`.

use super::backward::backward;
use super::forward::forward;
use super::moments::EPSILON;
use super::shape::NormShape;
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

#[test]
fn every_instruction_set_matches_f64_to_1e_4() {
    for (batch, channels, plane_len) in [(3, 4, 49), (2, 1, 9), (1, 2, 1), (4, 3, 33)] {
        let shape = NormShape {
            batch,
            channels,
            plane_len,
        };
        let count = batch * channels * plane_len;
        let (images, gradient) = (random(count, 1), random(count, 2));
        let bias = random(channels, 3);
        let channel = |at: usize| at / plane_len % channels;
        let channel_mean = |value: &dyn Fn(usize) -> f64, c: usize| {
            let pixels = (0..count).filter(|&at| channel(at) == c);
            pixels.map(value).sum::<f64>() / (batch * plane_len) as f64
        };
        let x = |at: usize| f64::from(images[at]);
        let means: Vec<f64> = (0..channels).map(|c| channel_mean(&x, c)).collect();
        let squares = |at: usize| (x(at) - means[channel(at)]).powi(2);
        let inverse: Vec<f64> = (0..channels)
            .map(|c| 1.0 / (channel_mean(&squares, c) + EPSILON).sqrt())
            .collect();
        let normalized = |at: usize| (x(at) - means[channel(at)]) * inverse[channel(at)];
        let y = |at: usize| (normalized(at) + f64::from(bias[channel(at)])).max(0.0);
        let relu_gradient = |at: usize| {
            if y(at) > 0.0 {
                f64::from(gradient[at])
            } else {
                0.0
            }
        };
        let product = |at: usize| relu_gradient(at) * normalized(at);
        let input_gradient = |at: usize| {
            let c = channel(at);
            inverse[c]
                * (relu_gradient(at)
                    - channel_mean(&relu_gradient, c)
                    - normalized(at) * channel_mean(&product, c))
        };
        let bias_gradient: Vec<f64> = (0..channels)
            .map(|c| channel_mean(&relu_gradient, c) * (batch * plane_len) as f64)
            .collect();
        for set in InstructionSet::available() {
            let (output, moments) = forward(set, shape, &images, &bias);
            assert_close(&output, &(0..count).map(y).collect::<Vec<_>>());
            let (images, bias) = backward(set, shape, &images, &bias, &moments, &gradient);
            assert_close(&images, &(0..count).map(input_gradient).collect::<Vec<_>>());
            assert_close(&bias, &bias_gradient);
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
        let (output, _) = forward(set, shape, &images, &[0.0]);
        assert!(output.iter().all(|y| y.is_nan()));
    }
}
