//! Tests of the kernels, on every instruction set of this processor, against functions in `f64`.

use super::{Activation, backward, forward};
use crate::cpu::simd::InstructionSet;

const ALL: [Activation; 5] = [
    Activation::Relu,
    Activation::Gelu,
    Activation::Silu,
    Activation::Tanh,
    Activation::None,
];

/// Returns the standard normal distribution function, by integration of the density.
fn distribution(x: f64) -> f64 {
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    // Simpson's rule.
    let steps = 200;
    let width = x / f64::from(steps);
    let sum: f64 = (0..steps)
        .map(|step| {
            let start = f64::from(step) * width;
            let middle = density(start + width / 2.0);
            (density(start) + 4.0 * middle + density(start + width)) / 6.0
        })
        .sum();
    0.5 + sum * width
}

fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * distribution(x),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::None => x,
    }
}

/// Returns the derivative as a central difference.
fn derivative(activation: Activation, x: f64) -> f64 {
    let h = 1e-5;
    (value(activation, x + h) - value(activation, x - h)) / (2.0 * h)
}

#[test]
fn every_instruction_set_matches_f64_to_1e_6() {
    // The derivative of ReLU at 0 does not exist.
    let inputs: Vec<f32> = (-4000..4000).map(|at| 0.0025 * at as f32 + 0.001).collect();
    let gradient: Vec<f32> = inputs.iter().map(|x| 0.5 + x.abs()).collect();
    for set in InstructionSet::available() {
        for activation in ALL {
            let outputs = forward(set, activation, &inputs);
            let gradients = backward(set, activation, &inputs, &gradient);
            for (at, &x) in inputs.iter().enumerate() {
                let expected = value(activation, x.into());
                let error = (f64::from(outputs[at]) - expected).abs();
                assert!(
                    error < 1e-6 * (1.0 + expected.abs()),
                    "{activation} {x} {error}"
                );
                let expected = f64::from(gradient[at]) * derivative(activation, x.into());
                let error = (f64::from(gradients[at]) - expected).abs();
                assert!(
                    error < 4e-6 * (1.0 + expected.abs()),
                    "{activation}' {x} {error}"
                );
            }
        }
    }
}

#[test]
fn extreme_values_have_their_limits() {
    let inputs = [
        f32::NAN,
        f32::NEG_INFINITY,
        -1e30,
        -1e-30,
        1e-30,
        1e30,
        f32::INFINITY,
    ];
    for set in InstructionSet::available() {
        for activation in ALL {
            let outputs = forward(set, activation, &inputs);
            assert!(outputs[0].is_nan(), "{activation}");
            let largest = match activation {
                Activation::Tanh => 1.0,
                _ => 1e30,
            };
            assert_eq!(outputs[5], largest, "{activation}");
            assert_eq!(
                outputs[4] == 1e-30,
                matches!(
                    activation,
                    Activation::Relu | Activation::Tanh | Activation::None
                )
            );
            let smallest = match activation {
                Activation::Tanh => -1.0,
                Activation::None => -1e30,
                _ => 0.0,
            };
            assert!(
                (outputs[2] - smallest).abs() < 1e-3,
                "{activation} {}",
                outputs[2]
            );
        }
    }
}
