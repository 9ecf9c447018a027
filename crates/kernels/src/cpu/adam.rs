//! The Adam update in one pass over the parameters.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::simd::{InstructionSet, mul_add};

/// Parameters that one task updates.
const CHUNK: usize = 1 << 14;

/// Coefficients of one step, bias correction included: Kingma and Ba, "Adam: a method for stochastic optimization"
/// (2015), in the more efficient order of computation that section 2 gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamStep {
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    /// `epsilon * sqrt(1 - beta_2^t)`: added to the root of the second moment without bias correction.
    pub(crate) epsilon: f32,
    /// `learning rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)`
    pub(crate) step_size: f32,
    /// Factor of the parameter for decoupled weight decay: 1 without.
    pub(crate) decay_factor: f32,
}

/// Updates a parameter and its first and second moment in place.
///
/// # Panics
/// Panics if the lengths differ.
pub(crate) fn adam_step(
    set: InstructionSet,
    step: AdamStep,
    parameter: &mut [f32],
    gradient: &[f32],
    [first, second]: [&mut [f32]; 2],
) {
    assert!([gradient.len(), first.len(), second.len()] == [parameter.len(); 3]);
    let chunks = (
        parameter.par_chunks_mut(CHUNK),
        gradient.par_chunks(CHUNK),
        first.par_chunks_mut(CHUNK),
        second.par_chunks_mut(CHUNK),
    );
    chunks
        .into_par_iter()
        .for_each(|(parameter, gradient, first, second)| {
            set.run(StepChunk {
                step,
                parameter,
                gradient,
                first,
                second,
            });
        });
}

struct StepChunk<'a> {
    step: AdamStep,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for StepChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let step = self.step;
        let update = Update {
            beta_1: simd.splat_f32s(step.beta_1),
            beta_2: simd.splat_f32s(step.beta_2),
            one_minus_beta_1: simd.splat_f32s(1.0 - step.beta_1),
            one_minus_beta_2: simd.splat_f32s(1.0 - step.beta_2),
            epsilon: simd.splat_f32s(step.epsilon),
            step_size: simd.splat_f32s(step.step_size),
            decay_factor: simd.splat_f32s(step.decay_factor),
        };
        let (x, x_rest) = S::as_mut_simd_f32s(self.parameter);
        let (g, g_rest) = S::as_simd_f32s(self.gradient);
        let (m, m_rest) = S::as_mut_simd_f32s(self.first);
        let (v, v_rest) = S::as_mut_simd_f32s(self.second);
        for (((x, &g), m), v) in x.iter_mut().zip(g).zip(m).zip(v) {
            (*x, *m, *v) = update.apply(simd, *x, g, *m, *v);
        }
        let (x, m, v) = update.apply(
            simd,
            simd.partial_load_f32s(x_rest),
            simd.partial_load_f32s(g_rest),
            simd.partial_load_f32s(m_rest),
            simd.partial_load_f32s(v_rest),
        );
        simd.partial_store_f32s(x_rest, x);
        simd.partial_store_f32s(m_rest, m);
        simd.partial_store_f32s(v_rest, v);
    }
}

/// The coefficients of [`AdamStep`], each in all lanes of a vector.
struct Update<S: Simd> {
    beta_1: S::f32s,
    beta_2: S::f32s,
    one_minus_beta_1: S::f32s,
    one_minus_beta_2: S::f32s,
    epsilon: S::f32s,
    step_size: S::f32s,
    decay_factor: S::f32s,
}

impl<S: Simd> Update<S> {
    /// Returns the updated parameters `x`, first moments `m` and second moments `v` for gradients `g`.
    #[inline(always)]
    fn apply(
        &self,
        simd: S,
        x: S::f32s,
        g: S::f32s,
        m: S::f32s,
        v: S::f32s,
    ) -> (S::f32s, S::f32s, S::f32s) {
        let m = mul_add(
            simd,
            self.beta_1,
            m,
            simd.mul_f32s(self.one_minus_beta_1, g),
        );
        let squared = simd.mul_f32s(g, g);
        let v = mul_add(
            simd,
            self.beta_2,
            v,
            simd.mul_f32s(self.one_minus_beta_2, squared),
        );
        let root = simd.add_f32s(simd.sqrt_f32s(v), self.epsilon);
        let delta = simd.div_f32s(simd.mul_f32s(self.step_size, m), root);
        (
            simd.sub_f32s(simd.mul_f32s(self.decay_factor, x), delta),
            m,
            v,
        )
    }
}
