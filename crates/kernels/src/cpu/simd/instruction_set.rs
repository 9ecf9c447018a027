//! Instruction sets, chosen at run time.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::{env, fmt};

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar128b, Simd, WithSimd};

/// The environment variable that chooses the instruction set, for tests.
const VARIABLE: &str = "KERNELS_INSTRUCTION_SET";

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

    /// Returns the instruction set that the environment variable `KERNELS_INSTRUCTION_SET` names, or the fastest one
    /// that this processor supports.
    pub(crate) fn best() -> Self {
        Self::of_this_process()
            .as_ref()
            .map_or_else(|_| Self::available()[0], |set| *set)
    }

    /// Reads the environment variable at the first call.
    fn of_this_process() -> &'static Result<Self, UnknownInstructionSet> {
        static SET: OnceLock<Result<InstructionSet, UnknownInstructionSet>> = OnceLock::new();
        SET.get_or_init(|| Self::named(env::var_os(VARIABLE).as_deref()))
    }

    /// Returns the instruction set with this name, or the fastest one without a name.
    fn named(name: Option<&OsStr>) -> Result<Self, UnknownInstructionSet> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(Self::available()[0]);
        };
        let mut sets = Self::available().into_iter();
        sets.find(|set| name.to_str() == Some(set.name()))
            .ok_or_else(|| UnknownInstructionSet(name.into()))
    }

    /// Returns the name: `avx512`, `avx2`, `neon` or `portable`.
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            Self::Portable => "portable",
        }
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

/// The environment variable `KERNELS_INSTRUCTION_SET` names no instruction set of this processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownInstructionSet(OsString);

impl fmt::Display for UnknownInstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = InstructionSet::available().into_iter();
        let names: Vec<&str> = names.map(InstructionSet::name).collect();
        let names = names.join(", ");
        let found = self.0.display();
        write!(
            f,
            "{VARIABLE} is \"{found}\", expected an instruction set of this processor: {names}"
        )
    }
}

impl Error for UnknownInstructionSet {}

/// Returns the name of the instruction set that the CPU kernels use: `avx512`, `avx2`, `neon` or `portable`. It is the
/// fastest one that this processor supports, or the one that the environment variable `KERNELS_INSTRUCTION_SET` names.
///
/// # Errors
/// Returns an error if the variable names no instruction set of this processor. The kernels then use the fastest one.
pub fn instruction_set() -> Result<&'static str, UnknownInstructionSet> {
    let set = InstructionSet::of_this_process().clone()?;
    Ok(set.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_an_instruction_set_of_this_processor() {
        let named =
            |name: &str| InstructionSet::named(Some(name.as_ref())).map(InstructionSet::name);
        for set in InstructionSet::available() {
            assert_eq!(named(set.name()), Ok(set.name()));
        }
        assert_eq!(named("portable"), Ok("portable"));
        let error = named("sse\n9").unwrap_err().to_string();
        assert!(
            error.starts_with("KERNELS_INSTRUCTION_SET is \"sse\n9\", expected "),
            "{error}"
        );
        assert!(error.ends_with("portable"), "{error}");
    }

    #[test]
    fn the_fastest_instruction_set_is_the_default() {
        let fastest = InstructionSet::available()[0].name();
        for name in [None, Some(OsStr::new(""))] {
            let set = InstructionSet::named(name).map(InstructionSet::name);
            assert_eq!(set, Ok(fastest));
        }
    }
}
