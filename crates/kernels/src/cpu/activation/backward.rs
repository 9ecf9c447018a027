//! The backward pass, in parallel over parts of the tensor.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::forward::PART;
use super::{Activation, ActivationFunction, with_function};
use crate::cpu::simd::{InstructionSet, VectorFunction, init_vec, map_vectors};

/// Returns the gradients with respect to `values`, from those with respect to the output.
pub(crate) fn backward(
    set: InstructionSet,
    activation: Activation,
    values: &[f32],
    gradient: &[f32],
) -> Vec<f32> {
    assert_eq!(values.len(), gradient.len());
    let differentiate = |output: &mut [MaybeUninit<f32>]| {
        let inputs = values.par_chunks(PART).zip(gradient.par_chunks(PART));
        let parts = output.par_chunks_mut(PART).zip(inputs);
        parts.for_each(|(output, (values, gradient))| {
            with_function!(activation, |function| set.run(Differentiate {
                function,
                values,
                gradient,
                output,
            }));
        });
    };
    // SAFETY: the parts cover the output, and each is written completely.
    unsafe { init_vec(values.len(), differentiate) }
}

struct Differentiate<'a, F> {
    function: F,
    values: &'a [f32],
    gradient: &'a [f32],
    output: &'a mut [MaybeUninit<f32>],
}

impl<F: ActivationFunction> WithSimd for Differentiate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let inputs = [self.values, self.gradient];
        map_vectors(simd, self.output, inputs, &Gradient(self.function));
    }
}

struct Gradient<F>(F);

impl<S: Simd, F: ActivationFunction> VectorFunction<S> for Gradient<F> {
    #[inline(always)]
    fn call(&self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        self.0.gradient(simd, x, gradient)
    }
}
