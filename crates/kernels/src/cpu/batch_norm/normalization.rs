//! The normalization of a plane.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::moments::Moments;
use crate::cpu::simd::{mul_add, store};

/// Normalization and bias of a channel, before the ReLU: `factor * x + offset`.
#[derive(Clone, Copy)]
pub(super) struct Normalization {
    factor: f32,
    offset: f32,
}

/// Returns the normalization of each channel.
pub(super) fn normalizations(moments: &[Moments], bias: &[f32]) -> Vec<Normalization> {
    let normalization = |(moments, bias): (&Moments, &f32)| {
        let inverse = moments.inverse_deviation();
        Normalization {
            factor: inverse as f32,
            offset: (f64::from(*bias) - moments.mean * inverse) as f32,
        }
    };
    moments.iter().zip(bias).map(normalization).collect()
}

/// [`Normalization`] with each coefficient in all lanes of a vector.
#[derive(Clone, Copy)]
pub(super) struct NormalizationVectors<S: Simd> {
    factor: S::f32s,
    offset: S::f32s,
}

impl<S: Simd> NormalizationVectors<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, normalization: Normalization) -> Self {
        Self {
            factor: simd.splat_f32s(normalization.factor),
            offset: simd.splat_f32s(normalization.offset),
        }
    }

    /// Returns the normalized pixels before the ReLU.
    #[inline(always)]
    fn apply(self, simd: S, x: S::f32s) -> S::f32s {
        mul_add(simd, self.factor, x, self.offset)
    }

    /// Returns the normalized pixels after the ReLU, which preserves NaN.
    #[inline(always)]
    pub(super) fn apply_relu(self, simd: S, x: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let y = self.apply(simd, x);
        simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, y)
    }

    /// Returns the gradient before the ReLU: `gradient` where the ReLU is active at `x`, zero elsewhere.
    #[inline(always)]
    pub(super) fn relu_gradient(self, simd: S, x: S::f32s, gradient: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let is_clipped = simd.less_than_or_equal_f32s(self.apply(simd, x), zero);
        simd.select_f32s(is_clipped, zero, gradient)
    }
}

/// Writes `function` of the inputs to the output, vector by vector.
#[inline(always)]
pub(super) fn map_vectors<S: Simd, const N: usize>(
    simd: S,
    output: &mut [MaybeUninit<f32>],
    inputs: [&[f32]; N],
    function: impl Fn([S::f32s; N]) -> S::f32s,
) {
    let whole = output.len() / S::F32_LANES;
    let inputs = inputs.map(S::as_simd_f32s);
    let (vectors, rest) = output.split_at_mut(whole * S::F32_LANES);
    for (at, vector) in vectors.chunks_exact_mut(S::F32_LANES).enumerate() {
        let result = function(inputs.map(|(vectors, _)| vectors[at]));
        // SAFETY: the chunk has the length of a vector.
        unsafe { store(simd, vector.as_mut_ptr().cast(), result) };
    }
    let result = function(inputs.map(|(_, rest)| simd.partial_load_f32s(rest)));
    // SAFETY: both element types have the same layout, and the partial store writes all of `rest` without reading it.
    let rest = unsafe { &mut *(std::ptr::from_mut(rest) as *mut [f32]) };
    simd.partial_store_f32s(rest, result);
}
