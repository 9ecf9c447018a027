//! Element-wise functions of slices.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::vector::store;

/// A function of two vectors. It is a trait and no closure, because a closure cannot be `#[inline(always)]`.
pub(crate) trait VectorFunction<S: Simd> {
    /// Returns the value of each lane. Implementations are `#[inline(always)]`.
    fn call(&self, simd: S, x: S::f32s, y: S::f32s) -> S::f32s;
}

/// Writes `function` of the inputs to the output, vector by vector. A function of one input gets it twice.
#[inline(always)]
pub(crate) fn map_vectors<S: Simd>(
    simd: S,
    output: &mut [MaybeUninit<f32>],
    [x, y]: [&[f32]; 2],
    function: &impl VectorFunction<S>,
) {
    let whole = output.len() / S::F32_LANES;
    let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    assert!(x.len() == whole && y.len() == whole);
    let (vectors, rest) = output.split_at_mut(whole * S::F32_LANES);
    for (at, vector) in vectors.chunks_exact_mut(S::F32_LANES).enumerate() {
        let result = function.call(simd, x[at], y[at]);
        // SAFETY: the chunk has the length of a vector.
        unsafe { store(simd, vector.as_mut_ptr().cast(), result) };
    }
    let (x, y) = (
        simd.partial_load_f32s(x_rest),
        simd.partial_load_f32s(y_rest),
    );
    let result = function.call(simd, x, y);
    // SAFETY: both element types have the same layout, and the partial store writes all of `rest` without reading it.
    let rest = unsafe { &mut *(std::ptr::from_mut(rest) as *mut [f32]) };
    simd.partial_store_f32s(rest, result);
}
