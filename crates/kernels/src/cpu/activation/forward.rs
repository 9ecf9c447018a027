//! The forward pass, in parallel over parts of the tensor.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Activation, ActivationFunction, with_function};
use crate::cpu::simd::{InstructionSet, VectorFunction, init_vec, map_vectors};

/// Values of one parallel job.
pub(super) const PART: usize = 1 << 14;

/// Returns the activation of each value.
pub(crate) fn forward(set: InstructionSet, activation: Activation, values: &[f32]) -> Vec<f32> {
    let activate = |output: &mut [MaybeUninit<f32>]| {
        let parts = output.par_chunks_mut(PART).zip(values.par_chunks(PART));
        parts.for_each(|(output, values)| {
            with_function!(activation, |function| set.run(Activate {
                function,
                values,
                output,
            }));
        });
    };
    // SAFETY: the parts cover the output, and each is written completely.
    unsafe { init_vec(values.len(), activate) }
}

struct Activate<'a, F> {
    function: F,
    values: &'a [f32],
    output: &'a mut [MaybeUninit<f32>],
}

impl<F: ActivationFunction> WithSimd for Activate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        map_vectors(simd, self.output, [self.values; 2], &Apply(self.function));
    }
}

struct Apply<F>(F);

impl<S: Simd, F: ActivationFunction> VectorFunction<S> for Apply<F> {
    #[inline(always)]
    fn call(&self, simd: S, x: S::f32s, _: S::f32s) -> S::f32s {
        self.0.apply(simd, x)
    }
}
