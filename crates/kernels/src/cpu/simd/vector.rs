//! Operations on one vector.

use std::any::TypeId;

use pulp::{Scalar128b, Simd};

/// Loads one vector from an address of any alignment.
///
/// # Safety
/// `from` must be valid for reads of `S::F32_LANES` floats.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(_: S, from: *const f32) -> S::f32s {
    // SAFETY: the caller guarantees that the read is valid; it needs no alignment.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// Stores one vector to an address of any alignment.
///
/// # Safety
/// `to` must be valid for writes of `S::F32_LANES` floats.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(_: S, to: *mut f32, vector: S::f32s) {
    // SAFETY: the caller guarantees that the write is valid; it needs no alignment.
    unsafe { to.cast::<S::f32s>().write_unaligned(vector) }
}

/// Returns `a * b + c`. It is fused except in the portable fallback, where a fused operation would be a function call
/// per lane.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<Scalar128b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_e_f32s(a, b, c)
    }
}
