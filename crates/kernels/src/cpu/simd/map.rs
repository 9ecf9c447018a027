//! Element-wise functions of slices.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::vector::store;

/// Writes `function` of the inputs to the output, vector by vector.
#[inline(always)]
pub(crate) fn map_vectors<S: Simd, const N: usize>(
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
