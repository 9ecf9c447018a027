//! Instruction sets, chosen at run time.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar128b, Simd, WithSimd};

/// An instruction set that this processor supports. The kernels are generic over [`Simd`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum InstructionSet {
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
    /// 8 lanes, 16 registers, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    /// 4 lanes, 32 registers.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// Arrays of 4 floats, vectorized by the compiler if it can.
    Portable,
}

impl InstructionSet {
    /// Returns all instruction sets that this processor supports, fastest first.
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

    /// Returns the fastest instruction set that this processor supports.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Returns the number of floats in a vector.
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
