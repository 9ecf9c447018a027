//! The update of stochastic gradient descent in one pass over the parameters.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::cpu::simd::InstructionSet;

/// Parameters that one task updates.
const CHUNK: usize = 1 << 14;

/// Coefficients of one step of stochastic gradient descent with momentum, as in PyTorch: with gradient `g`, weight
/// decay `d` and momentum `m`, the velocity becomes `v = g + d w + m v` and the parameter `w - learning rate * v`.
/// Nesterov momentum subtracts `learning rate * (g + d w + m v)` with the new velocity (Sutskever et al. 2013).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SgdStep {
    pub(crate) learning_rate: f32,
    pub(crate) momentum: f32,
    pub(crate) is_nesterov: bool,
    pub(crate) weight_decay: f32,
}

/// Updates a parameter and its velocity in place. Products are rounded before they are added, so that the results
/// are the bits of a step in separate operations.
///
/// # Panics
/// Panics if the lengths differ.
pub(crate) fn sgd_step(
    set: InstructionSet,
    step: SgdStep,
    parameter: &mut [f32],
    gradient: &[f32],
    velocity: &mut [f32],
) {
    assert!([gradient.len(), velocity.len()] == [parameter.len(); 2]);
    let chunks = (
        parameter.par_chunks_mut(CHUNK),
        gradient.par_chunks(CHUNK),
        velocity.par_chunks_mut(CHUNK),
    );
    chunks
        .into_par_iter()
        .for_each(|(parameter, gradient, velocity)| {
            set.run(StepChunk {
                step,
                parameter,
                gradient,
                velocity,
            });
        });
}

struct StepChunk<'a> {
    step: SgdStep,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    velocity: &'a mut [f32],
}

impl WithSimd for StepChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let update = Update {
            learning_rate: simd.splat_f32s(self.step.learning_rate),
            momentum: simd.splat_f32s(self.step.momentum),
            is_nesterov: self.step.is_nesterov,
            weight_decay: simd.splat_f32s(self.step.weight_decay),
        };
        let (x, x_rest) = S::as_mut_simd_f32s(self.parameter);
        let (g, g_rest) = S::as_simd_f32s(self.gradient);
        let (v, v_rest) = S::as_mut_simd_f32s(self.velocity);
        for ((x, &g), v) in x.iter_mut().zip(g).zip(v) {
            (*x, *v) = update.apply(simd, *x, g, *v);
        }
        let (x, v) = update.apply(
            simd,
            simd.partial_load_f32s(x_rest),
            simd.partial_load_f32s(g_rest),
            simd.partial_load_f32s(v_rest),
        );
        simd.partial_store_f32s(x_rest, x);
        simd.partial_store_f32s(v_rest, v);
    }
}

/// The coefficients of [`SgdStep`], each in all lanes of a vector.
struct Update<S: Simd> {
    learning_rate: S::f32s,
    momentum: S::f32s,
    is_nesterov: bool,
    weight_decay: S::f32s,
}

impl<S: Simd> Update<S> {
    /// Returns the updated parameters `x` and velocities `v` for gradients `g`.
    #[inline(always)]
    fn apply(&self, simd: S, x: S::f32s, g: S::f32s, v: S::f32s) -> (S::f32s, S::f32s) {
        let g = simd.add_f32s(simd.mul_f32s(x, self.weight_decay), g);
        let v = simd.add_f32s(g, simd.mul_f32s(v, self.momentum));
        let direction = if self.is_nesterov {
            simd.add_f32s(simd.mul_f32s(v, self.momentum), g)
        } else {
            v
        };
        let delta = simd.mul_f32s(direction, self.learning_rate);
        (simd.sub_f32s(x, delta), v)
    }
}
