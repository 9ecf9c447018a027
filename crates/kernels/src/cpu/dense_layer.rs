//! A dense layer of one image, with bias and activation: the product of a vector and a matrix, which reads each weight
//! once and is bound by the bandwidth of the cache or memory that holds them.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::activation::{Activation, ActivationFunction, with_function};
use crate::cpu::parallelism::is_small;
use crate::cpu::simd::{InstructionSet, mul_add};

/// Vectors of outputs that one job computes.
const VECTORS: usize = 4;
/// Sums of each output in registers: of the even and of the odd inputs. One sum would wait for its last addition.
const SUMS: usize = 2;
/// Cost of a multiply-add relative to one in a convolution: each weight is loaded for one use.
const COST: usize = 4;

/// Returns `activation(input * weight + bias)` of the input `[inputs]` and the weight `[inputs, outputs]`, for
/// a bias `[outputs]`.
///
/// # Panics
/// Panics if the lengths do not fit.
pub(crate) fn forward(
    set: InstructionSet,
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
) -> Vec<f32> {
    let outputs = bias.len();
    assert_eq!(weight.len(), input.len() * outputs);
    let mut output = bias.to_vec();
    let width = VECTORS * set.lanes();
    let run = |(block, sums): (usize, &mut [f32])| {
        with_function!(activation, |function| set.run(Block {
            function,
            input,
            weight,
            outputs,
            first: block * width,
            sums,
        }));
    };
    match is_small(COST * weight.len()) {
        true => output.chunks_mut(width).enumerate().for_each(run),
        false => output.par_chunks_mut(width).enumerate().for_each(run),
    }
    output
}

/// Some consecutive outputs of the layer.
struct Block<'a, F> {
    function: F,
    input: &'a [f32],
    weight: &'a [f32],
    /// Outputs of the whole layer.
    outputs: usize,
    /// The first output of the block.
    first: usize,
    /// The bias, which the outputs replace.
    sums: &'a mut [f32],
}

impl<F: ActivationFunction> WithSimd for Block<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            function,
            input,
            weight,
            outputs,
            first,
            sums,
        } = self;
        let width = sums.len();
        if width < VECTORS * S::F32_LANES {
            for (at, sums) in sums.chunks_mut(S::F32_LANES).enumerate() {
                let mut sum = simd.partial_load_f32s(sums);
                let columns = weight[first + at * S::F32_LANES..].chunks(outputs);
                for (&x, row) in input.iter().zip(columns) {
                    let row = simd.partial_load_f32s(&row[..sums.len()]);
                    sum = mul_add(simd, simd.splat_f32s(x), row, sum);
                }
                simd.partial_store_f32s(sums, function.apply(simd, sum));
            }
            return;
        }
        let (bias, _) = S::as_mut_simd_f32s(sums);
        let mut acc = [[simd.splat_f32s(0.0); VECTORS]; SUMS];
        let pairs = weight.chunks(SUMS * outputs);
        for (inputs, rows) in input.chunks(SUMS).zip(pairs) {
            let rows = rows.chunks_exact(outputs);
            for ((acc, &x), row) in acc.iter_mut().zip(inputs).zip(rows) {
                let (row, _) = S::as_simd_f32s(&row[first..][..width]);
                let x = simd.splat_f32s(x);
                for (acc, &row) in acc.iter_mut().zip(row) {
                    *acc = mul_add(simd, x, row, *acc);
                }
            }
        }
        for (v, bias) in bias.iter_mut().enumerate() {
            let sum = simd.add_f32s(acc[0][v], acc[1][v]);
            *bias = function.apply(simd, simd.add_f32s(sum, *bias));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns pseudo-random numbers from -1 to 1.
    fn random(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_instruction_set_matches_sums_in_f64() {
        // Below and above the threshold, with and without a part of a vector or a block, odd and even inputs.
        for (inputs, outputs) in [(1, 1), (7, 10), (8, 64), (33, 128), (100, 131), (129, 70)] {
            let [input, weight, bias] =
                [inputs, inputs * outputs, outputs].map(|count| random(count, 7));
            for activation in [Activation::None, Activation::Relu] {
                let expected = |output: usize| {
                    let products = (0..inputs)
                        .map(|at| f64::from(input[at]) * f64::from(weight[at * outputs + output]));
                    let sum = f64::from(bias[output]) + products.sum::<f64>();
                    match activation {
                        Activation::Relu => sum.max(0.0),
                        _ => sum,
                    }
                };
                for set in InstructionSet::available() {
                    let actual = forward(set, &input, &weight, &bias, activation);
                    for (output, &actual) in actual.iter().enumerate() {
                        let error = (f64::from(actual) - expected(output)).abs();
                        assert!(error < 1e-5, "{set:?} {inputs} {outputs} {output}: {error}");
                    }
                }
            }
        }
    }
}
