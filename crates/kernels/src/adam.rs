//! Adam in one pass over the parameters instead of ten.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::simd::{InstructionSet, mul_add};

/// Numbers that are worth a thread.
const CHUNK: usize = 1 << 14;

/// One step for one parameter, its bias corrections worked out: Kingma and Ba, "Adam: a method for
/// stochastic optimization" (2015), in the order of operations of its section 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AdamStep {
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    /// Added to the root of the uncorrected second moment: `epsilon * sqrt(1 - beta_2^t)`.
    pub(crate) epsilon: f32,
    /// `learning rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)`
    pub(crate) rate: f32,
    /// What the parameter is multiplied with first: 1, or less where weights decay.
    pub(crate) keep: f32,
}

/// Updates a parameter and its first and second moment in place.
pub(crate) fn step(
    set: InstructionSet,
    by: AdamStep,
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
                by,
                parameter,
                gradient,
                first,
                second,
            });
        });
}

struct StepChunk<'a> {
    by: AdamStep,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for StepChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let by = self.by;
        let update = Update {
            beta_1: simd.splat_f32s(by.beta_1),
            beta_2: simd.splat_f32s(by.beta_2),
            fresh_1: simd.splat_f32s(1.0 - by.beta_1),
            fresh_2: simd.splat_f32s(1.0 - by.beta_2),
            epsilon: simd.splat_f32s(by.epsilon),
            rate: simd.splat_f32s(by.rate),
            keep: simd.splat_f32s(by.keep),
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

/// A step's numbers, each in all lanes.
struct Update<S: Simd> {
    beta_1: S::f32s,
    beta_2: S::f32s,
    fresh_1: S::f32s,
    fresh_2: S::f32s,
    epsilon: S::f32s,
    rate: S::f32s,
    keep: S::f32s,
}

impl<S: Simd> Update<S> {
    /// Parameters and both moments after the step, of those before and the gradients.
    #[inline(always)]
    fn apply(
        &self,
        simd: S,
        x: S::f32s,
        g: S::f32s,
        m: S::f32s,
        v: S::f32s,
    ) -> (S::f32s, S::f32s, S::f32s) {
        let m = mul_add(simd, self.beta_1, m, simd.mul_f32s(self.fresh_1, g));
        let squared = simd.mul_f32s(g, g);
        let v = mul_add(simd, self.beta_2, v, simd.mul_f32s(self.fresh_2, squared));
        let root = simd.add_f32s(simd.sqrt_f32s(v), self.epsilon);
        let delta = simd.div_f32s(simd.mul_f32s(self.rate, m), root);
        (simd.sub_f32s(simd.mul_f32s(self.keep, x), delta), m, v)
    }
}
