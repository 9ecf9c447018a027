//! Instruction sets, chosen at run time.
//!
//! Functions that handle vectors are `#[inline(always)]`: what the compiler leaves out of line, as it
//! may closures and array methods, it compiles for the baseline instruction set, many times slower.

use std::any::TypeId;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar128b, Simd, WithSimd};

/// Vector instructions that this processor has. The kernels are written once, over [`Simd`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum InstructionSet {
    /// 16 lanes in 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
    /// 8 lanes in 16 registers, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    /// 4 lanes in 32 registers.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// Whatever the compiler makes of arrays of 4.
    Portable,
}

impl InstructionSet {
    /// All that this processor has, the fastest first.
    pub(crate) fn available() -> Vec<Self> {
        [
            #[cfg(target_arch = "x86_64")]
            V4::try_new().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            V3::try_new().map(Self::Avx2),
            #[cfg(target_arch = "aarch64")]
            Neon::try_new().map(Self::Neon),
            Some(Self::Portable),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The fastest that this processor has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Floats in one of its vectors.
    pub(crate) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => V4::F32_LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => V3::F32_LANES,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Neon::F32_LANES,
            Self::Portable => Scalar128b::F32_LANES,
        }
    }

    /// Runs `op`, compiled for this instruction set.
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => Simd::vectorize(simd, op),
            Self::Portable => Simd::vectorize(Scalar128b, op),
        }
    }
}

/// Loads one vector from any address.
///
/// # Safety
/// `from` is valid for reads of `S::F32_LANES` floats.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(_: S, from: *const f32) -> S::f32s {
    // SAFETY: as the caller promises; the read needs no alignment.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// Stores one vector to any address.
///
/// # Safety
/// `to` is valid for writes of `S::F32_LANES` floats.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(_: S, to: *mut f32, vector: S::f32s) {
    // SAFETY: as the caller promises; the write needs no alignment.
    unsafe { to.cast::<S::f32s>().write_unaligned(vector) }
}

/// `a * b + c`, fused where the processor does that; elsewhere it would be a call per lane.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<Scalar128b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_e_f32s(a, b, c)
    }
}
